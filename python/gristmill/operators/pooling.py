"""MaxPool, AveragePool, LpPool and their global forms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gristmill.graph import Array, Node
from gristmill.operators.elementwise import wide
from gristmill.operators.registry import Known, TensorType, operator, require_float, unsupported
from gristmill.operators.spatial import Window, taps, window


def pool_window(node: Node, x: Known) -> Window:
    """How the window of a pooling operator walks over its image."""
    kernel = node.integers("kernel_shape")
    if kernel is None:
        raise node.error("needs the attribute kernel_shape")
    if x.ndim < 3:
        raise node.error(f"needs spatial axes, got shape {list(x.shape)}")
    if x.ndim > 5:
        raise unsupported(node, f"more than three spatial axes, got shape {list(x.shape)}")
    found = window(node, x.shape[2:], kernel, ceil=bool(node.integer("ceil_mode", 0)))
    for span, begin, end in zip(found.spans, found.begins, found.ends, strict=True):
        if max(begin, end) >= span:
            raise node.error(f"padding of {max(begin, end)} is not less than the window, which spans {span}")
    return found


def least(dtype: np.dtype[Any]) -> float:
    """The least value of a type."""
    return -np.inf if dtype.kind == "f" else int(np.iinfo(dtype).min)


def _pool(node: Node, x: Known) -> TensorType:
    return TensorType(x.dtype, (*x.shape[:2], *pool_window(node, x).output))


def _max_pool(node: Node, x: Known) -> list[TensorType]:
    if x.dtype == np.bool_:
        raise node.error("needs numbers, got bool")
    values = _pool(node, x)
    return [values, TensorType(np.dtype(np.int64), values.shape)]


@operator("MaxPool", rule=_max_pool)
def max_pool(node: Node, x: Array) -> tuple[Array, Array]:
    """The greatest of each window, and where it is in the whole tensor."""
    found = pool_window(node, x)
    flat = _flat(taps(x, found, least(x.dtype)), found)
    values = flat.max(axis=-1)
    if len(node.outputs) < 2:
        return values, np.zeros(values.shape, np.int64)
    images = np.arange(math.prod(x.shape[:2])).reshape(*x.shape[:2], *(1,) * (x.ndim - 2))
    spatial = x.shape[2:]
    column_major = node.integer("storage_order", 0)
    within: Array = np.arange(math.prod(spatial)).reshape(spatial[::-1] if column_major else spatial)
    within = within.T if column_major else within
    places = np.asarray(images * math.prod(x.shape[2:]) + within)
    best = np.where(flat == values[..., None], _flat(taps(places, found, -1), found), -1)
    first = np.argmax(best >= 0, axis=-1)
    return values, np.take_along_axis(best, first[..., None], -1)[..., 0]


def _average_pool(node: Node, x: Known) -> TensorType:
    require_float(node, x)
    return _pool(node, x)


@operator("AveragePool", rule=_average_pool)
def average_pool(node: Node, x: Array) -> Array:
    """The mean of each window; padding counts if ``count_include_pad`` says so, what is beyond it never."""
    found = pool_window(node, x)
    return np.asarray(_flat(taps(wide(x), found, 0), found).sum(axis=-1) / average_counts(node, x))


def average_counts(node: Node, x: Known) -> Array:
    """How many elements each window of an AveragePool averages."""
    found = pool_window(node, x)
    ones = np.ones((1, 1, *x.shape[2:]))
    if node.integer("count_include_pad", 0):
        ones = np.pad(ones, [(0, 0), (0, 0), *zip(found.begins, found.ends, strict=True)], constant_values=1)
        found = Window(found.kernel, found.strides, found.dilations, (0,) * len(found.kernel), found.ends, found.output)
    return np.asarray(_flat(taps(ones, found, 0), found).sum(axis=-1))


def _lp_pool(node: Node, x: Known) -> TensorType:
    if node.integer("p", 2) < 1:
        raise node.error("p must be at least 1")
    return _average_pool(node, x)


@operator("LpPool", rule=_lp_pool)
def lp_pool(node: Node, x: Array) -> Array:
    """The p-norm of each window."""
    found, p = pool_window(node, x), node.integer("p", 2)
    return np.asarray(_flat(taps(np.abs(wide(x)) ** p, found, 0), found).sum(axis=-1) ** (1 / p))


def _global(node: Node, x: Known) -> TensorType:
    require_float(node, x)
    if x.ndim < 2:
        raise node.error(f"needs a channel axis, got shape {list(x.shape)}")
    if 0 in x.shape[2:]:
        raise node.error(f"nothing to pool in shape {list(x.shape)}")
    return TensorType(x.dtype, (*x.shape[:2], *(1,) * (x.ndim - 2)))


@operator("GlobalAveragePool", rule=_global)
def global_average_pool(_node: Node, x: Array) -> Array:
    """The mean of each channel of each image."""
    return np.asarray(wide(x).mean(axis=tuple(range(2, x.ndim)), keepdims=True))


@operator("GlobalMaxPool", rule=_global)
def global_max_pool(_node: Node, x: Array) -> Array:
    """The greatest of each channel of each image."""
    return np.asarray(x.max(axis=tuple(range(2, x.ndim)), keepdims=True))


def _flat(view: Array, window: Window) -> Array:
    kernel = len(window.kernel)
    return view.reshape(*view.shape[: view.ndim - kernel], math.prod(window.kernel))
