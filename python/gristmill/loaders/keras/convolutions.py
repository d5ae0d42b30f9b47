"""Keras's convolution and linear layers.

Padding ``same`` is TensorFlow's: as many outputs as stride steps fit, with the odd element of padding at the end. Where
inputs decide the extents, ONNX's SAME_UPPER says the same.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gristmill.graph import Array, Attribute
from gristmill.loaders.channels_last import Shape, Value
from gristmill.loaders.keras.activations import activate_output
from gristmill.loaders.keras.layer import Layer

__all__ = ["CONVOLUTION_LAYERS", "padding"]


def _enter(layer: Layer, spatial: int) -> tuple[str, Shape, int]:
    """The input in NCHW, its spatial extents and its channels."""
    value = layer.input
    if value.rank != spatial + 2:
        raise layer.error(f"takes inputs of rank {spatial + 2}, got shape {value.shape}")
    if layer.channels_first:
        return layer.build.plain(value), value.shape[2:], value.extent(1, layer.name)
    return layer.build.planar(value), value.shape[1:-1], value.extent(-1, layer.name)


def _leave(layer: Layer, output: str, spatial: Shape, channels: int) -> list[Value]:
    batch = layer.input.shape[0]
    if layer.channels_first:
        return activate_output(layer, output, (batch, channels, *spatial), planar=False)
    return activate_output(layer, output, (batch, *spatial, channels), planar=True)


def padding(
    layer: Layer, spatial: Shape, kernel: tuple[int, ...], strides: tuple[int, ...], dilation: tuple[int, ...]
) -> dict[str, Attribute]:
    """The attributes of a window that is padded as the layer says."""
    reaches = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    match layer.text("padding", "valid"):
        case "valid":
            return {}
        case "causal":
            return {"pads": tuple(reach - 1 for reach in reaches) + (0,) * len(kernel)}
        case "same" if None in spatial:
            return {"auto_pad": "SAME_UPPER"}
        case "same":
            extents = [extent for extent in spatial if extent is not None]
            totals = [
                max((-(-n // s) - 1) * s + reach - n, 0) for n, s, reach in zip(extents, strides, reaches, strict=True)
            ]
            return {"pads": (*(total // 2 for total in totals), *(total - total // 2 for total in totals))}
        case other:
            raise layer.error(f"padding {other!r} is not known")


def _output_extents(
    layer: Layer, spatial: Shape, kernel: tuple[int, ...], strides: tuple[int, ...], dilation: tuple[int, ...]
) -> Shape:
    padded = layer.text("padding", "valid") != "valid"
    extents: list[int | None] = []
    for extent, k, stride, step in zip(spatial, kernel, strides, dilation, strict=True):
        if extent is None:
            extents.append(None)
            continue
        count = extent if padded else extent - (k - 1) * step
        if count < 1:
            raise layer.error(f"its kernel of {kernel} does not fit the input {spatial}")
        extents.append(-(-count // stride))
    return tuple(extents)


def _bias(layer: Layer, position: int, channels: int) -> list[str]:
    if not layer.flag("use_bias", default=True):
        return []
    return [layer.constant("bias", layer.weight("bias", position, (channels,)))]


def _convolve(layer: Layer, x: str, spatial: Shape, weights: list[str], name: str, groups: int) -> tuple[str, Shape]:
    rank = len(spatial)
    kernel = layer.sizes("kernel_size", rank)
    strides, dilation = layer.sizes("strides", rank, 1), layer.sizes("dilation_rate", rank, 1)
    attributes = padding(layer, spatial, kernel, strides, dilation)
    output = layer.build.add(
        "Conv",
        [x, *weights],
        name,
        kernel_shape=kernel,
        strides=strides,
        dilations=dilation,
        group=groups,
        **attributes,
    )
    return output, _output_extents(layer, spatial, kernel, strides, dilation)


def _channels_out_first(kernel: Array) -> Array:
    """[*taps, in, out] as [out, in, *taps]."""
    return np.moveaxis(kernel, (-1, -2), (0, 1))


def _conv(rank: int) -> Callable[[Layer], list[Value]]:
    def convert(layer: Layer) -> list[Value]:
        x, spatial, channels = _enter(layer, rank)
        groups, filters = layer.integer("groups", 1), layer.integer("filters")
        if groups < 1 or channels % groups or filters % groups:
            raise layer.error(f"{channels} channels and {filters} filters do not divide into {groups} groups")
        shape = (*layer.sizes("kernel_size", rank), channels // groups, filters)
        kernel = layer.constant("kernel", _channels_out_first(layer.weight("kernel", 0, shape)))
        output, extents = _convolve(layer, x, spatial, [kernel, *_bias(layer, 1, filters)], layer.name, groups)
        return _leave(layer, output, extents, filters)

    return convert


def _depthwise_kernel(layer: Layer, rank: int, channels: int) -> tuple[str, int]:
    """Kernels [*taps, channels, multiplier] as [channels * multiplier, 1, *taps]; also their number."""
    multiplier = layer.integer("depth_multiplier", 1)
    taps = layer.sizes("kernel_size", rank)
    kernel = layer.weight("depthwise_kernel kernel", 0, (*taps, channels, multiplier))
    flat = np.moveaxis(kernel, (-2, -1), (0, 1)).reshape(channels * multiplier, 1, *taps)
    return layer.constant("depthwise_kernel", flat), channels * multiplier


def _depthwise(rank: int) -> Callable[[Layer], list[Value]]:
    def convert(layer: Layer) -> list[Value]:
        x, spatial, channels = _enter(layer, rank)
        kernel, count = _depthwise_kernel(layer, rank, channels)
        output, extents = _convolve(layer, x, spatial, [kernel, *_bias(layer, 1, count)], layer.name, channels)
        return _leave(layer, output, extents, count)

    return convert


def _separable(rank: int) -> Callable[[Layer], list[Value]]:
    def convert(layer: Layer) -> list[Value]:
        x, spatial, channels = _enter(layer, rank)
        depthwise, count = _depthwise_kernel(layer, rank, channels)
        middle, extents = _convolve(layer, x, spatial, [depthwise], f"{layer.name}/depthwise", channels)
        filters = layer.integer("filters")
        ones = (1,) * rank
        pointwise = layer.weight("pointwise_kernel", 1, (*ones, count, filters))
        weights = [layer.constant("pointwise_kernel", _channels_out_first(pointwise)), *_bias(layer, 2, filters)]
        output = layer.build.add("Conv", [middle, *weights], layer.name, kernel_shape=ones)
        return _leave(layer, output, extents, filters)

    return convert


def _transposed(rank: int) -> Callable[[Layer], list[Value]]:
    def convert(layer: Layer) -> list[Value]:
        x, spatial, channels = _enter(layer, rank)
        filters, kernel_size = layer.integer("filters"), layer.sizes("kernel_size", rank)
        strides, dilation = layer.sizes("strides", rank, 1), layer.sizes("dilation_rate", rank, 1)
        kernel = layer.weight("kernel", 0, (*kernel_size, filters, channels))
        weights = [layer.constant("kernel", _channels_out_first(kernel)), *_bias(layer, 1, filters)]
        before, after, extra = _transposed_margins(layer, kernel_size, strides, dilation)
        output = layer.build.add(
            "ConvTranspose",
            [x, *weights],
            layer.name,
            kernel_shape=kernel_size,
            strides=strides,
            dilations=dilation,
            pads=(*before, *after),
            output_padding=extra,
        )
        extents = tuple(
            None if n is None else (n - 1) * s + (k - 1) * d + 1 - b - a + e
            for n, s, k, d, b, a, e in zip(spatial, strides, kernel_size, dilation, before, after, extra, strict=True)
        )
        return _leave(layer, output, extents, filters)

    return convert


def _transposed_margins(
    layer: Layer, kernel: tuple[int, ...], strides: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """What is cut off before and after, and what is added.

    Left to itself, ``same`` makes stride times the input and ``valid`` at least the kernel's reach for each step.
    """
    same = layer.text("padding", "valid") == "same"
    added = layer.config.get("output_padding")
    extras = (None,) * len(kernel) if added is None else tuple(layer.margins("output_padding", len(kernel)))
    margins = []
    for size, stride, step, extra in zip(kernel, strides, dilation, extras, strict=True):
        reach = (size - 1) * step + 1
        if extra is None:
            cut = (reach - stride) if same else min(reach - stride, 0)
        else:
            cut = (2 * (reach // 2) if same else 0) - extra[0]
        before = max(cut, 0) // 2
        margins.append((before, max(cut, 0) - before, max(-cut, 0)))
    before_all, after_all, extra_all = zip(*margins, strict=True)
    return before_all, after_all, extra_all


def _dense(layer: Layer) -> list[Value]:
    value, units = layer.input, layer.integer("units")
    if value.rank < 2:
        raise layer.error(f"takes inputs of rank 2 or more, got shape {value.shape}")
    kernel = layer.weight("kernel", 0, (value.extent(-1, layer.name), units))
    x, bias = layer.build.plain(value), _bias(layer, 1, units)
    if value.rank == 2:
        weights = layer.constant("kernel", kernel.T)
        output = layer.build.add("Gemm", [x, weights, *bias], layer.name, transB=1)
    else:
        output = layer.build.add(
            "MatMul", [x, layer.constant("kernel", kernel)], f"{layer.name}/product" if bias else layer.name
        )
        if bias:
            output = layer.build.add("Add", [output, *bias], layer.name)
    return activate_output(layer, output, (*value.shape[:-1], units), planar=False)


CONVOLUTION_LAYERS: dict[str, Callable[[Layer], list[Value]]] = {
    "Conv1D": _conv(1),
    "Conv2D": _conv(2),
    "DepthwiseConv1D": _depthwise(1),
    "DepthwiseConv2D": _depthwise(2),
    "SeparableConv1D": _separable(1),
    "SeparableConv2D": _separable(2),
    "Conv1DTranspose": _transposed(1),
    "Conv2DTranspose": _transposed(2),
    "Dense": _dense,
}
