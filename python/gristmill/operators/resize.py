"""Resize: nearest, linear and cubic, one axis at a time.

Every axis is resized by itself: coordinates of the result are mapped to the input (``coordinate_transformation_mode``),
and each takes one element, or a weighted sum of those within the filter's reach. Coordinates are computed in float32,
as ONNX Runtime does, because ``nearest`` depends on their last bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gristmill.graph import Array, Node
from gristmill.operators.registry import Known, TensorType, fixed, fixed_integers, normal_axes, operator, unsupported

_TRANSFORMS = {
    "align_corners",
    "asymmetric",
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "tf_crop_and_resize",
    "tf_half_pixel_for_nn",
}
_ROUNDINGS = {"round_prefer_floor", "round_prefer_ceil", "floor", "ceil"}


@dataclass(frozen=True)
class ResizedAxis:
    """How one axis is resized: its extents, the scale between them and the region of interest."""

    axis: int
    before: int
    after: int
    scale: np.float32
    roi: tuple[np.float32, np.float32]

    @property
    def crops(self) -> bool:
        """Tell whether the region of interest is less (or more) than the whole axis."""
        return bool(self.roi[0] != 0 or self.roi[1] != 1)


def resized_axes(
    node: Node, x: Known, roi: Known | None = None, scales: Known | None = None, sizes: Known | None = None
) -> list[ResizedAxis]:
    """The axes that a Resize changes."""
    named = node.integers("axes")
    places = tuple(range(x.ndim)) if named is None else normal_axes(node, named, x.ndim)
    before = [x.shape[axis] for axis in places]
    if sizes is not None and sizes.size:
        factors, after = _from_sizes(node, before, fixed_integers(node, sizes, "sizes"))
    elif scales is not None and scales.size:
        factors = fixed(node, scales, "scales").astype(np.float32).ravel()
        if len(factors) != len(before) or not (factors > 0).all() or not np.isfinite(factors).all():
            raise node.error(f"scales {factors.tolist()} do not fit shape {list(x.shape)}")
        after = [int(np.float32(extent) * factor) for extent, factor in zip(before, factors, strict=True)]
    else:
        raise node.error("needs scales or sizes")
    crops = node.text("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
    region = np.array([0] * len(before) + [1] * len(before), np.float32)
    if crops and roi is not None:
        region = fixed(node, roi, "roi").astype(np.float32).ravel()
    if len(region) != 2 * len(before):
        raise node.error(f"roi {region.tolist()} does not fit {len(before)} axes")
    ends = region[len(before) :]
    found = map(ResizedAxis, places, before, after, factors, zip(region, ends, strict=False))
    return [item for item in found if item.before != item.after or item.scale != 1 or item.crops]


def _from_sizes(node: Node, before: list[int], wanted: list[int]) -> tuple[Array, list[int]]:
    if len(wanted) != len(before) or min(wanted, default=0) < 0 or 0 in before:
        raise node.error(f"sizes {wanted} do not fit extents {before}")
    factors = np.array(wanted, np.float32) / np.array(before, np.float32)
    policy = node.text("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch" or not before:
        return factors, wanted
    if policy not in {"not_larger", "not_smaller"}:
        raise node.error(f"keep_aspect_ratio_policy must be stretch, not_larger or not_smaller, got {policy!r}")
    factor = factors.min() if policy == "not_larger" else factors.max()
    return np.full(len(before), factor), [int(np.floor(factor * np.float32(extent) + 0.5)) for extent in before]


def _resize(
    node: Node, x: Known, roi: Known | None = None, scales: Known | None = None, sizes: Known | None = None
) -> TensorType:
    for name, default, allowed in (
        ("mode", "nearest", {"nearest", "linear", "cubic"}),
        ("coordinate_transformation_mode", "half_pixel", _TRANSFORMS),
        ("nearest_mode", "round_prefer_floor", _ROUNDINGS),
    ):
        if node.text(name, default) not in allowed:
            raise unsupported(node, f"{name} {node.text(name, default)!r}")
    shape = list(x.shape)
    for item in resized_axes(node, x, roi, scales, sizes):
        if item.after and not item.before:
            raise node.error(f"nothing to enlarge in shape {list(x.shape)}")
        shape[item.axis] = item.after
    return TensorType(x.dtype, tuple(shape))


@operator("Resize", rule=_resize)
def resize(
    node: Node, x: Array, roi: Array | None = None, scales: Array | None = None, sizes: Array | None = None
) -> Array:
    """Images larger or smaller."""
    nearest = node.text("mode", "nearest") == "nearest"
    result = x if nearest else x.astype(np.float64)
    for item in resized_axes(node, x, roi, scales, sizes):
        at = coordinates(node, item)
        if nearest:
            result = np.take(result, nearest_indices(node, item), axis=item.axis)
        else:
            weighted = np.tensordot(interpolation(node, item), result, axes=(1, item.axis))
            result = np.moveaxis(weighted, 0, item.axis)
        if node.text("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
            outside = (at < 0) | (at > item.before - 1)
            shape = [-1 if axis == item.axis else 1 for axis in range(x.ndim)]
            fill = x.dtype.type(node.real("extrapolation_value", 0.0))
            result = np.where(outside.reshape(shape), fill, result)
    return result


def coordinates(node: Node, item: ResizedAxis) -> Array:
    """Where in the input each index of the result lies, in float32."""
    mode = node.text("coordinate_transformation_mode", "half_pixel")
    at = np.arange(item.after, dtype=np.float32)
    before, half = np.float32(item.before), np.float32(0.5)
    start, end = item.roi if mode == "tf_crop_and_resize" else (np.float32(0), np.float32(1))
    last = before - np.float32(1)
    if mode in {"align_corners", "tf_crop_and_resize"} and item.after > 1:
        return np.asarray(start * last + at * (end - start) * last / np.float32(item.after - 1))
    if mode == "tf_crop_and_resize":
        return np.full_like(at, half * (start + end) * last)
    if mode == "align_corners" or (mode == "pytorch_half_pixel" and item.after <= 1):
        return np.zeros_like(at)
    if mode in {"asymmetric", "tf_half_pixel_for_nn"}:
        return np.asarray((at if mode == "asymmetric" else at + half) / item.scale)
    centred = (at + half) / item.scale - half
    if mode == "half_pixel_symmetric":
        centred += before / 2 * (1 - np.float32(item.after) / (item.scale * before))
    return np.asarray(centred)


def nearest_indices(node: Node, item: ResizedAxis) -> Array:
    """The input index that each index of the result takes."""
    at, half = coordinates(node, item), np.float32(0.5)
    mode = node.text("nearest_mode", "round_prefer_floor")
    if mode in {"floor", "round_prefer_ceil"}:
        rounded = np.floor(at if mode == "floor" else at + half)
    else:
        rounded = np.ceil(at if mode == "ceil" else at - half)
    return np.asarray(np.clip(rounded, 0, item.before - 1)).astype(np.int64)


def interpolation(node: Node, item: ResizedAxis) -> Array:
    """The matrix (after, before) of weights by which a linear or cubic Resize sums its input."""
    cubic = node.text("mode", "nearest") == "cubic"
    at = coordinates(node, item).astype(np.float64)
    shrink = min(float(item.scale), 1.0) if node.integer("antialias", 0) else 1.0
    reach = int(np.ceil((2 if cubic else 1) / shrink))
    near = np.floor(at)[:, None].astype(np.int64) + np.arange(-reach, reach + 2)
    distance = np.abs(near - at[:, None]) * shrink
    weights = _cubic(distance, node.real("cubic_coeff_a", -0.75)) if cubic else np.maximum(1 - distance, 0)
    if node.integer("exclude_outside", 0):
        weights = np.where((near >= 0) & (near < item.before), weights, 0)
    weights /= weights.sum(axis=1, keepdims=True)
    matrix = np.zeros((item.after, item.before))
    rows = np.broadcast_to(np.arange(item.after)[:, None], near.shape)
    np.add.at(matrix, (rows, np.clip(near, 0, item.before - 1)), weights)
    return matrix


def _cubic(distance: Array, a: float) -> Array:
    inner = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    outer = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return np.where(distance <= 1, inner, np.where(distance < 2, outer, 0))
