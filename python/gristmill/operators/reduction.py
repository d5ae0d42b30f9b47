"""Reductions along axes, ArgMax, ArgMin and TopK."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gristmill.graph import Array, Node
from gristmill.operators.elementwise import wide
from gristmill.operators.registry import (
    Known,
    TensorType,
    enter,
    fixed_integers,
    normal_axes,
    normal_axis,
    operator,
)


def reduced_axes(node: Node, x: Known, axes: Known | None) -> tuple[int, ...]:
    """The axes that a reduction runs over; all if none are named, unless ``noop_with_empty_axes``."""
    named = fixed_integers(node, axes, "axes") if axes is not None else []
    if not named:
        return () if node.integer("noop_with_empty_axes", 0) else tuple(range(x.ndim))
    return normal_axes(node, named, x.ndim)


def _reduced(node: Node, x: Known, axes: Known | None = None) -> TensorType:
    if x.dtype == np.bool_ and node.op not in {"ReduceMax", "ReduceMin"}:
        raise node.error("needs numbers, got bool")
    over = reduced_axes(node, x, axes)
    return TensorType(x.dtype, _kept(node, x, over))


def _kept(node: Node, x: Known, over: tuple[int, ...]) -> tuple[int, ...]:
    if node.integer("keepdims", 1):
        return tuple(1 if axis in over else extent for axis, extent in enumerate(x.shape))
    return tuple(extent for axis, extent in enumerate(x.shape) if axis not in over)


def _wider(x: Array) -> Array:
    return wide(x) if x.dtype.kind == "f" else x.astype(np.int64)


def _mean(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    sums = np.sum(_wider(x), axis=axis, keepdims=keepdims)
    count = x.size // max(sums.size, 1)
    return np.asarray(sums / count if x.dtype.kind == "f" else np.trunc(sums / max(count, 1)))


def _log_sum_exp(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    top = np.max(wide(x), axis=axis, keepdims=True, initial=-np.inf)
    top = np.where(np.isfinite(top), top, 0)
    sums = np.log(np.sum(np.exp(wide(x) - top), axis=axis, keepdims=True)) + top
    return np.asarray(sums if keepdims else sums.squeeze(axis))


def _greatest(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    return np.asarray(np.max(x, axis=axis, keepdims=keepdims, initial=_bounds(x)[0]))


def _least(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    return np.asarray(np.min(x, axis=axis, keepdims=keepdims, initial=_bounds(x)[1]))


def _bounds(x: Array) -> tuple[float, float]:
    """The least and the greatest value of the type."""
    if x.dtype.kind == "f":
        return -np.inf, np.inf
    if x.dtype == np.bool_:
        return False, True
    return int(np.iinfo(x.dtype).min), int(np.iinfo(x.dtype).max)


_REDUCTIONS: dict[str, Callable[[Array, tuple[int, ...], bool], Array]] = {
    "ReduceL1": lambda x, axis, keep: np.sum(np.abs(_wider(x)), axis=axis, keepdims=keep),
    "ReduceL2": lambda x, axis, keep: np.sqrt(np.sum(_wider(x) ** 2, axis=axis, keepdims=keep)),
    "ReduceLogSum": lambda x, axis, keep: np.log(np.sum(_wider(x), axis=axis, keepdims=keep)),
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceMax": _greatest,
    "ReduceMean": _mean,
    "ReduceMin": _least,
    "ReduceProd": lambda x, axis, keep: np.prod(_wider(x), axis=axis, keepdims=keep),
    "ReduceSum": lambda x, axis, keep: np.sum(_wider(x), axis=axis, keepdims=keep),
    "ReduceSumSquare": lambda x, axis, keep: np.sum(_wider(x) ** 2, axis=axis, keepdims=keep),
}


def _over_axes(function: Callable[[Array, tuple[int, ...], bool], Array]) -> Callable[..., Array]:
    def run(node: Node, x: Array, axes: Array | None = None) -> Array:
        over = reduced_axes(node, x, axes)
        return np.asarray(function(x, over, bool(node.integer("keepdims", 1))))

    return run


for _name, _function in _REDUCTIONS.items():
    enter(_name, _over_axes(_function), _reduced)


def _arg(node: Node, x: Known) -> TensorType:
    axis = normal_axis(node, node.integer("axis", 0), x.ndim)
    if not x.shape[axis]:
        raise node.error(f"nothing to choose from in shape {list(x.shape)}")
    return TensorType(np.dtype(np.int64), _kept(node, x, (axis,)))


@operator("ArgMax", "ArgMin", rule=_arg)
def arg_extreme(node: Node, x: Array) -> Array:
    """Where along an axis the greatest (least) is: the first of equals, or with ``select_last_index`` the last."""
    axis, keep = node.integer("axis", 0), bool(node.integer("keepdims", 1))
    choose = np.argmax if node.op == "ArgMax" else np.argmin
    if not node.integer("select_last_index", 0):
        return np.asarray(choose(x, axis=axis, keepdims=keep))
    return np.asarray(x.shape[axis] - 1 - choose(np.flip(x, axis), axis=axis, keepdims=keep))


def _top(node: Node, x: Known, k: Known) -> list[TensorType]:
    axis, count = normal_axis(node, node.integer("axis", -1), x.ndim), fixed_integers(node, k, "k")
    if len(count) != 1 or not 0 <= count[0] <= x.shape[axis]:
        raise node.error(f"k is {count}, but there are {x.shape[axis]} elements")
    shape = (*x.shape[:axis], count[0], *x.shape[axis + 1 :])
    return [TensorType(x.dtype, shape), TensorType(np.dtype(np.int64), shape)]


@operator("TopK", rule=_top)
def top_k(node: Node, x: Array, k: Array) -> tuple[Array, Array]:
    """The k greatest (least) along an axis in order, and where they are; of equals the first comes first."""
    axis = node.integer("axis", -1)
    if node.integer("largest", 1):
        order = np.flip(x.shape[axis] - 1 - np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)
    else:
        order = np.argsort(x, axis=axis, kind="stable")
    order = np.take(order, np.arange(k.item()), axis=axis)
    return np.take_along_axis(x, order, axis), order
