"""BatchNormalization, InstanceNormalization, LayerNormalization and LRN."""

from __future__ import annotations

import numpy as np

from gristmill.graph import Array, Node
from gristmill.operators.convolution import check_bias, per_channel
from gristmill.operators.elementwise import wide
from gristmill.operators.registry import (
    Known,
    TensorType,
    broadcast_shapes,
    common_dtype,
    normal_axis,
    operator,
    require_float,
    same,
    unsupported,
)


def _channels(node: Node, x: Known) -> int:
    require_float(node, x)
    if x.ndim < 2:
        raise node.error(f"needs a channel axis, got shape {list(x.shape)}")
    return x.shape[1]


def _batch(node: Node, x: Known, scale: Known, bias: Known, mean: Known, variance: Known) -> TensorType:
    if node.integer("training_mode", 0):
        raise unsupported(node, "training_mode is for training; export the model for inference")
    channels = _channels(node, x)
    for values in (scale, bias, mean, variance):
        check_bias(node, values, channels)
    return same(node, x)


@operator("BatchNormalization", rule=_batch)
def batch_normalization(node: Node, x: Array, scale: Array, bias: Array, mean: Array, variance: Array) -> Array:
    """Each channel scaled and moved by fixed statistics."""
    factor = wide(scale) / np.sqrt(wide(variance) + node.real("epsilon", 1e-5))
    offset = wide(bias) - wide(mean) * factor
    return np.asarray(x * per_channel(factor, x.ndim) + per_channel(offset, x.ndim))


def _instance(node: Node, x: Known, scale: Known, bias: Known) -> TensorType:
    for values in (scale, bias):
        check_bias(node, values, _channels(node, x))
    if x.ndim < 3:
        raise node.error(f"needs spatial axes, got shape {list(x.shape)}")
    common_dtype(node, (x, scale, bias))
    return same(node, x)


def _standardized(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    centred = wide(x) - wide(x).mean(axis=axes, keepdims=True)
    return np.asarray(centred / np.sqrt((centred**2).mean(axis=axes, keepdims=True) + epsilon))


@operator("InstanceNormalization", rule=_instance)
def instance_normalization(node: Node, x: Array, scale: Array, bias: Array) -> Array:
    """Each channel of each image standardized by its own mean and variance, then scaled and moved."""
    if not x.size:
        return x
    standard = _standardized(x, tuple(range(2, x.ndim)), node.real("epsilon", 1e-5))
    return np.asarray(standard * per_channel(scale, x.ndim) + per_channel(bias, x.ndim))


def _layer(node: Node, x: Known, scale: Known, bias: Known | None = None) -> TensorType:
    require_float(node, x)
    axis = normal_axis(node, node.integer("axis", -1), x.ndim)
    for values in (scale, bias):
        if values is not None and broadcast_shapes(node, values.shape, x.shape[axis:]) != x.shape[axis:]:
            raise node.error(f"shape {list(values.shape)} does not fit {list(x.shape[axis:])}")
    return same(node, x)


@operator("LayerNormalization", rule=_layer)
def layer_normalization(node: Node, x: Array, scale: Array, bias: Array | None = None) -> Array:
    """Standardized over the axes from ``axis`` on, then scaled and moved."""
    axis = normal_axis(node, node.integer("axis", -1), x.ndim)
    standard = _standardized(x, tuple(range(axis, x.ndim)), node.real("epsilon", 1e-5)) if x.size else x
    return np.asarray(standard * scale + (0 if bias is None else bias))


def _response(node: Node, x: Known) -> TensorType:
    _channels(node, x)
    if node.integer("size", 0) < 1:
        raise node.error("needs a size of at least 1")
    return same(node, x)


@operator("LRN", rule=_response)
def local_response_normalization(node: Node, x: Array) -> Array:
    """Each element divided by a power of the squares of its neighbours in the channel axis."""
    size, channels = node.integer("size", 0), x.shape[1]
    before, after = (size - 1) // 2, size // 2
    sums = np.zeros((x.shape[0], channels + 1, *x.shape[2:]), np.float64)
    np.cumsum(wide(x) ** 2, axis=1, out=sums[:, 1:])
    at = np.arange(channels)
    near = sums[:, np.minimum(at + after + 1, channels)] - sums[:, np.maximum(at - before, 0)]
    base = node.real("bias", 1.0) + node.real("alpha", 1e-4) / size * near
    return np.asarray(x / base ** node.real("beta", 0.75))
