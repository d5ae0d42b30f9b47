"""Operators that move elements without changing them."""

from __future__ import annotations

import numpy as np

from gristmill.graph import Array, Node
from gristmill.operators.registry import (
    Known,
    TensorType,
    common_dtype,
    fixed_integers,
    normal_axes,
    normal_axis,
    operator,
    same,
    unsupported,
)


@operator("Identity", rule=same)
def identity(_node: Node, x: Array) -> Array:
    """The input."""
    return x


def permutation(node: Node, x: Known) -> tuple[int, ...]:
    """The order of axes that a Transpose makes; reversed if it names none."""
    order = node.integers("perm") or tuple(reversed(range(x.ndim)))
    if sorted(order) != list(range(x.ndim)):
        raise node.error(f"perm {list(order)} does not order {x.ndim} axes")
    return order


def _transpose(node: Node, x: Known) -> TensorType:
    return TensorType(x.dtype, tuple(x.shape[axis] for axis in permutation(node, x)))


@operator("Transpose", rule=_transpose)
def transpose(node: Node, x: Array) -> Array:
    """Axes in another order; a view."""
    return np.asarray(x.transpose(permutation(node, x)))


def concatenated(node: Node, *inputs: Known) -> tuple[int, ...]:
    """The shape of inputs joined along ``axis``."""
    first = inputs[0]
    axis = normal_axis(node, node.integer("axis", 0), first.ndim)
    around = {(*item.shape[:axis], *item.shape[axis + 1 :]) for item in inputs}
    if len(around) != 1 or any(item.ndim != first.ndim for item in inputs):
        raise node.error(f"shapes {', '.join(str(list(item.shape)) for item in inputs)} differ beside axis {axis}")
    total = sum(item.shape[axis] for item in inputs)
    return (*first.shape[:axis], total, *first.shape[axis + 1 :])


def _concat(node: Node, *inputs: Known) -> TensorType:
    return TensorType(common_dtype(node, inputs), concatenated(node, *inputs))


@operator("Concat", rule=_concat)
def concat(node: Node, first: Array, *rest: Array) -> Array:
    """Joined along an axis."""
    return np.concatenate((first, *rest), axis=node.integer("axis", 0))


def split_extents(node: Node, x: Known, split: Known | None) -> tuple[int, list[int]]:
    """The axis of a Split and the extents of its results."""
    axis = normal_axis(node, node.integer("axis", 0), x.ndim)
    if split is not None:
        extents = fixed_integers(node, split, "split")
    else:
        count = node.integer("num_outputs", len(node.outputs))
        if count < 1 or count != len(node.outputs):
            raise node.error(f"num_outputs is {count}, but there are {len(node.outputs)} results")
        each = -(-x.shape[axis] // count)
        extents = [each] * (count - 1) + [x.shape[axis] - each * (count - 1)]
    if min(extents, default=-1) < 0 or sum(extents) != x.shape[axis]:
        raise node.error(f"parts of {extents} do not make up {x.shape[axis]}")
    return axis, extents


def _split(node: Node, x: Known, split: Known | None = None) -> list[TensorType]:
    axis, extents = split_extents(node, x, split)
    return [TensorType(x.dtype, (*x.shape[:axis], extent, *x.shape[axis + 1 :])) for extent in extents]


@operator("Split", rule=_split)
def split(node: Node, x: Array, split: Array | None = None) -> list[Array]:
    """Cut along an axis, into equal parts (the last may be less) or given ones; views."""
    axis, extents = split_extents(node, x, split)
    return np.split(x, np.cumsum(extents)[:-1].tolist(), axis=axis)


def slices(node: Node, x: Known, *bounds: Known | None) -> tuple[slice, ...]:
    """What a Slice takes of each axis, within its extent; ``bounds`` are starts, ends, axes and steps."""
    lists = [None if item is None else fixed_integers(node, item, "a bound") for item in bounds]
    starts, ends, axes, steps = (*lists, None, None)[:4]
    assert starts is not None
    assert ends is not None
    places = normal_axes(node, axes if axes is not None else range(len(starts)), x.ndim)
    steps = steps if steps is not None else [1] * len(starts)
    if not len(starts) == len(ends) == len(places) == len(steps) or 0 in steps:
        raise node.error(f"starts {starts}, ends {ends}, axes {list(places)} and steps {steps} do not go together")
    result = [slice(0, extent, 1) for extent in x.shape]
    for axis, start, end, step in zip(places, starts, ends, steps, strict=True):
        result[axis] = _bounded(start, end, step, x.shape[axis])
    return tuple(result)


def _bounded(start: int, end: int, step: int, extent: int) -> slice:
    """What ONNX takes of an axis; unlike Python, going down from before the first element takes the first."""
    low, high = (0, extent) if step > 0 else (-1, extent - 1)
    first = min(max(start + extent if start < 0 else start, 0), max(high, 0))
    last = min(max(end + extent if end < 0 else end, low), high)
    return slice(first, None if last < 0 else last, step)


def _slice(node: Node, x: Known, starts: Known, ends: Known, *rest: Known | None) -> TensorType:
    taken = slices(node, x, starts, ends, *rest)
    extents = (len(range(*part.indices(extent))) for part, extent in zip(taken, x.shape, strict=True))
    return TensorType(x.dtype, tuple(extents))


@operator("Slice", rule=_slice)
def slice_(
    node: Node, x: Array, starts: Array, ends: Array, axes: Array | None = None, steps: Array | None = None
) -> Array:
    """A part of some axes; a view."""
    return x[slices(node, x, starts, ends, axes, steps)]


def _gather(node: Node, x: Known, indices: Known) -> TensorType:
    if indices.dtype.kind != "i":
        raise node.error(f"indices must be int32 or int64, got {indices.dtype.name}")
    axis = normal_axis(node, node.integer("axis", 0), x.ndim)
    return TensorType(x.dtype, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))


@operator("Gather", rule=_gather)
def gather(node: Node, x: Array, indices: Array) -> Array:
    """Elements of an axis chosen by index; negative ones count from the end."""
    return np.take(x, indices, axis=node.integer("axis", 0))


def pad_widths(node: Node, x: Known, pads: Known, axes: Known | None) -> list[tuple[int, int]]:
    """What a Pad adds before and after each axis; negative widths cut."""
    widths = fixed_integers(node, pads, "pads")
    places = range(x.ndim) if axes is None else normal_axes(node, fixed_integers(node, axes, "axes"), x.ndim)
    if len(widths) != 2 * len(places):
        raise node.error(f"pads {widths} are not two for each of {len(places)} axes")
    result = [(0, 0)] * x.ndim
    for index, axis in enumerate(places):
        result[axis] = (widths[index], widths[len(places) + index])
    return result


def _pad(node: Node, x: Known, pads: Known, value: Known | None = None, axes: Known | None = None) -> TensorType:
    mode = node.text("mode", "constant")
    if mode not in {"constant", "reflect", "edge", "wrap"}:
        raise node.error(f"mode must be constant, reflect, edge or wrap, got {mode!r}")
    if value is not None and (value.size != 1 or value.dtype != x.dtype):
        raise node.error(f"the value must be one {x.dtype.name}")
    widths = pad_widths(node, x, pads, axes)
    for extent, (before, after) in zip(x.shape, widths, strict=True):
        cut = extent + min(before, 0) + min(after, 0)
        if cut < 0 or (mode != "constant" and max(before, after) > 0 and cut < 1):
            raise node.error(f"pads {before} and {after} do not fit an extent of {extent}")
        if mode == "reflect" and max(before, after) >= max(cut, 1) and max(before, after) > 0:
            raise node.error(f"reflected pads {before} and {after} are not less than the extent, {extent}")
    extents = (extent + before + after for extent, (before, after) in zip(x.shape, widths, strict=True))
    return TensorType(x.dtype, tuple(extents))


@operator("Pad", rule=_pad)
def pad(node: Node, x: Array, pads: Array, value: Array | None = None, axes: Array | None = None) -> Array:
    """Wider by a constant, by reflection, by the edge or around; negative widths cut."""
    widths, mode = pad_widths(node, x, pads, axes), node.text("mode", "constant")
    cut = tuple(slice(max(-b, 0), extent - max(-a, 0)) for extent, (b, a) in zip(x.shape, widths, strict=True))
    grow = [(max(before, 0), max(after, 0)) for before, after in widths]
    if mode == "constant":
        return np.pad(x[cut], grow, constant_values=0 if value is None else value.item())
    return np.pad(x[cut], grow, mode=mode)  # type: ignore[call-overload, no-any-return]


def _tile(node: Node, x: Known, repeats: Known) -> TensorType:
    times = fixed_integers(node, repeats, "repeats")
    if len(times) != x.ndim or min(times, default=0) < 0:
        raise node.error(f"repeats {times} do not fit shape {list(x.shape)}")
    return TensorType(x.dtype, tuple(extent * count for extent, count in zip(x.shape, times, strict=True)))


@operator("Tile", rule=_tile)
def tile(_node: Node, x: Array, repeats: Array) -> Array:
    """Repeated along each axis."""
    return np.tile(x, repeats.tolist())


def block(node: Node, x: Known) -> int:
    """The block size of DepthToSpace and SpaceToDepth, which must divide what it divides."""
    size = node.integer("blocksize", 0)
    if size < 1 or x.ndim != 4:
        raise node.error(f"needs four axes and a blocksize of at least 1, got {list(x.shape)} and {size}")
    divided = [x.shape[1] / size**2] if node.op == "DepthToSpace" else [x.shape[2] / size, x.shape[3] / size]
    if any(part != int(part) for part in divided):
        raise node.error(f"a blocksize of {size} does not divide shape {list(x.shape)}")
    if node.text("mode", "DCR") not in {"DCR", "CRD"}:
        raise unsupported(node, f"mode {node.text('mode', 'DCR')!r}")
    return size


def _to_space(node: Node, x: Known) -> TensorType:
    size = block(node, x)
    n, c, h, w = x.shape
    return TensorType(x.dtype, (n, c // size**2, h * size, w * size))


@operator("DepthToSpace", rule=_to_space)
def depth_to_space(node: Node, x: Array) -> Array:
    """Channels to blocks of pixels; the block is the outer part of the channel (DCR) or the inner (CRD)."""
    size = block(node, x)
    n, c, h, w = x.shape
    if node.text("mode", "DCR") == "DCR":
        parts = x.reshape(n, size, size, c // size**2, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        parts = x.reshape(n, c // size**2, size, size, h, w).transpose(0, 1, 4, 2, 5, 3)
    return np.asarray(parts).reshape(_to_space(node, x).shape)


def _to_depth(node: Node, x: Known) -> TensorType:
    size = block(node, x)
    n, c, h, w = x.shape
    return TensorType(x.dtype, (n, c * size**2, h // size, w // size))


@operator("SpaceToDepth", rule=_to_depth)
def space_to_depth(node: Node, x: Array) -> Array:
    """Blocks of pixels to channels; the block is the outer part of the channel (DCR) or the inner (CRD)."""
    size = block(node, x)
    n, c, h, w = x.shape
    parts = x.reshape(n, c, h // size, size, w // size, size)
    order = (0, 3, 5, 1, 2, 4) if node.text("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    return np.asarray(parts.transpose(order)).reshape(_to_depth(node, x).shape)
