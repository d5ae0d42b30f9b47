"""Operators that change shapes, read them, or make tensors of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gristmill.graph import Array, Node
from gristmill.operators.registry import (
    Known,
    TensorType,
    broadcast_shapes,
    common_dtype,
    fixed,
    fixed_integers,
    normal_axes,
    operator,
)


def _reshape(node: Node, x: Known, shape: Known) -> TensorType:
    wanted = fixed_integers(node, shape, "the shape")
    if not node.integer("allowzero", 0):
        if any(extent == 0 and axis >= x.ndim for axis, extent in enumerate(wanted)):
            raise node.error(f"shape {wanted} copies an axis that {list(x.shape)} lacks")
        wanted = [extent or x.shape[axis] for axis, extent in enumerate(wanted)]
    if wanted.count(-1) > 1 or min(wanted, default=0) < -1:
        raise node.error(f"shape {wanted} is not a shape")
    if -1 in wanted:
        rest = math.prod(extent for extent in wanted if extent != -1)
        if not rest:
            raise node.error(f"shape {wanted} leaves an axis open beside an empty one")
        wanted[wanted.index(-1)] = x.size // rest
    if math.prod(wanted) != x.size:
        raise node.error(f"shape {list(x.shape)} cannot become {wanted}")
    return TensorType(x.dtype, tuple(wanted))


@operator("Reshape", rule=_reshape)
def reshape(node: Node, x: Array, shape: Array) -> Array:
    """The same elements in another shape."""
    return x.reshape(_reshape(node, x, shape).shape)


def _flatten(node: Node, x: Known) -> TensorType:
    axis = node.integer("axis", 1)
    if not -x.ndim <= axis <= x.ndim:
        raise node.error(f"axis {axis} is out of range for {x.ndim} axes")
    axis = axis + x.ndim if axis < 0 else axis
    return TensorType(x.dtype, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


@operator("Flatten", rule=_flatten)
def flatten(node: Node, x: Array) -> Array:
    """A matrix of the axes before ``axis`` by the others."""
    return x.reshape(_flatten(node, x).shape)


def _squeeze(node: Node, x: Known, axes: Known | None = None) -> TensorType:
    if axes is None:
        return TensorType(x.dtype, tuple(extent for extent in x.shape if extent != 1))
    dropped = normal_axes(node, fixed_integers(node, axes, "axes"), x.ndim)
    if any(x.shape[axis] != 1 for axis in dropped):
        raise node.error(f"axes {list(dropped)} of shape {list(x.shape)} are not all 1")
    return TensorType(x.dtype, tuple(extent for axis, extent in enumerate(x.shape) if axis not in dropped))


@operator("Squeeze", rule=_squeeze)
def squeeze(node: Node, x: Array, axes: Array | None = None) -> Array:
    """Without some axes of extent 1."""
    return x.reshape(_squeeze(node, x, axes).shape)


def _unsqueeze(node: Node, x: Known, axes: Known) -> TensorType:
    named = fixed_integers(node, axes, "axes")
    added = normal_axes(node, named, x.ndim + len(named))
    shape = list(x.shape)
    for axis in sorted(added):
        shape.insert(axis, 1)
    return TensorType(x.dtype, tuple(shape))


@operator("Unsqueeze", rule=_unsqueeze)
def unsqueeze(node: Node, x: Array, axes: Array) -> Array:
    """With some axes of extent 1 more."""
    return x.reshape(_unsqueeze(node, x, axes).shape)


def _expand(node: Node, x: Known, shape: Known) -> TensorType:
    return TensorType(x.dtype, broadcast_shapes(node, x.shape, tuple(fixed_integers(node, shape, "the shape"))))


@operator("Expand", rule=_expand)
def expand(node: Node, x: Array, shape: Array) -> Array:
    """Broadcast; a view."""
    return np.broadcast_to(x, _expand(node, x, shape).shape)


def _shape(node: Node, x: Known) -> TensorType:
    return TensorType(np.dtype(np.int64), (len(_extents(node, x.shape)),))


def _extents(node: Node, shape: Sequence[int]) -> Sequence[int]:
    return shape[slice(node.integer("start", 0), node.integer("end", len(shape)))]


@operator("Shape", rule=_shape)
def shape(node: Node, x: Array) -> Array:
    """The extents, or those from ``start`` to ``end``."""
    return np.array(_extents(node, x.shape), np.int64)


@operator("Size", rule=lambda _node, _x: TensorType(np.dtype(np.int64), ()))
def size(_node: Node, x: Array) -> Array:
    """The number of elements."""
    return np.array(x.size, np.int64)


def _filled(node: Node, value: Known) -> TensorType:
    fill = node.attributes.get("value", np.zeros(1, np.float32))
    if not isinstance(fill, np.ndarray) or fill.size != 1:
        raise node.error("the attribute value must be a tensor of one element")
    return TensorType(fill.dtype, tuple(fixed_integers(node, value, "the shape")))


@operator("ConstantOfShape", rule=_filled)
def constant_of_shape(node: Node, value: Array) -> Array:
    """One value everywhere; a view."""
    kind = _filled(node, value)
    fill = np.asarray(node.attributes.get("value", 0), kind.dtype).reshape(())
    return np.broadcast_to(fill, kind.shape)


def _range(node: Node, start: Known, limit: Known, delta: Known) -> TensorType:
    dtype = common_dtype(node, (start, limit, delta))
    values = [fixed(node, item, "a bound") for item in (start, limit, delta)]
    if any(item.size != 1 for item in values) or not values[2].item():
        raise node.error("needs three numbers, and a step that is not 0")
    first, last, step = (item.item() for item in values)
    return TensorType(dtype, (max(math.ceil((last - first) / step), 0),))


@operator("Range", rule=_range)
def range_(node: Node, start: Array, limit: Array, delta: Array) -> Array:
    """Numbers from a start in steps up to a limit."""
    count = _range(node, start, limit, delta).shape[0]
    return np.asarray(start.reshape(()) + np.arange(count).astype(start.dtype) * delta.reshape(()))
