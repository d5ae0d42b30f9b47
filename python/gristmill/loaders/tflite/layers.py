"""TFLite's layers with weights and windows: convolutions, linear layers, pools."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gristmill.graph import Attribute
from gristmill.loaders.channels_last import Shape, Value
from gristmill.loaders.tflite.operation import Array, Step

__all__ = ["LAYERS"]

_PADDINGS = {0: "SAME_UPPER", 1: "VALID"}


def _padding(step: Step) -> str:
    code = step.option(0, "<b")
    if code not in _PADDINGS:
        raise step.error(f"padding number {code}")
    return _PADDINGS[code]


def _positive(step: Step, *values: int) -> tuple[int, ...]:
    if any(not 0 < value < 1 << 31 for value in values):
        raise step.error(f"strides, dilations and windows must be positive, got {values}")
    return values


def _pads(
    step: Step, extents: Shape, window: tuple[int, ...], strides: tuple[int, ...], dilations: tuple[int, ...]
) -> dict[str, Attribute]:
    """TensorFlow's padding: as many outputs as stride steps fit, the odd element at the end."""
    if _padding(step) == "VALID":
        return {}
    if None in extents:
        return {"auto_pad": "SAME_UPPER"}
    before, after = [], []
    for n, k, s, d in zip(extents, window, strides, dilations, strict=True):
        total = max((-(-(n or 0) // s) - 1) * s + (k - 1) * d + 1 - (n or 0), 0)
        before.append(total // 2)
        after.append(total - total // 2)
    return {"pads": (*before, *after)}


def _image(step: Step) -> Value:
    value = step.real(0)
    if value.rank != 4:
        raise step.error(f"takes inputs of rank 4, got shape {value.shape}")
    return value


def _bias(step: Step, position: int, channels: int) -> list[str]:
    """One value for each channel; the file may have one for all."""
    if step.index(position) < 0:
        return []
    bias = step.real(position)
    if bias.shape == (channels,):
        return [bias.name]
    if bias.shape not in ((), (1,)):
        raise step.error(f"a bias of shape {bias.shape} for {channels} channels")
    count = step.build.constant(f"{step.name}/channels", np.array([channels], np.int64))
    return [step.build.add("Expand", [bias.name, count], f"{step.name}/bias")]


def _out_first(kernel: Array) -> Array:
    """[out, rows, columns, in] as [out, in, rows, columns]."""
    return np.moveaxis(kernel, 3, 1)


def _last_first(kernel: Array) -> Array:
    """[any, rows, columns, channels] as [channels, any, rows, columns]."""
    return np.moveaxis(kernel, 3, 0)


def _convolve(
    step: Step, arrange: Callable[[Array], Array], *, depthwise: bool, dilation: tuple[int, int], activation: int
) -> None:
    x, kernel = _image(step), step.tensor(1)
    if len(kernel.shape) != 4 or (depthwise and kernel.shape[0] != 1):
        raise step.error(f"weights of shape {kernel.shape} make no sense")
    window = kernel.shape[1:3]
    strides = _positive(step, step.option(2), step.option(1))
    dilations = _positive(step, step.option(dilation[1], default=1), step.option(dilation[0], default=1))
    channels = x.extent(3, step.name)
    groups = channels if depthwise else channels // max(kernel.shape[3], 1)
    output = step.build.add(
        "Conv",
        [step.build.planar(x), step.weights(1, arrange), *_bias(step, 2, kernel.shape[3 if depthwise else 0])],
        step.name,
        kernel_shape=window,
        strides=strides,
        dilations=dilations,
        group=groups,
        **_pads(step, x.shape[1:3], window, strides, dilations),
    )
    step.finish(Value(output, step.output_shape(x), planar=True), step.option(activation, "<b"))


def _conv(step: Step) -> None:
    _convolve(step, _out_first, depthwise=False, dilation=(4, 5), activation=3)


def _depthwise(step: Step) -> None:
    _convolve(step, _last_first, depthwise=True, dilation=(5, 6), activation=4)


def _transposed(step: Step) -> None:
    """Inputs are the output's shape, the weights [out, rows, columns, in], the image and perhaps a bias."""
    x, kernel = step.real(2), step.tensor(1)
    if x.rank != 4 or len(kernel.shape) != 4:
        raise step.error(f"takes images and weights of rank 4, got {x.shape} and {kernel.shape}")
    window, strides = kernel.shape[1:3], _positive(step, step.option(2), step.option(1))
    target = step.output.shape[1:3]
    before, after, added = [], [], []
    for n, k, s, wanted in zip(x.shape[1:3], window, strides, target, strict=True):
        surplus = ((n or 0) - 1) * s + k - wanted
        before.append(max(surplus, 0) // 2)
        after.append(max(surplus, 0) - max(surplus, 0) // 2)
        added.append(max(-surplus, 0))
    output = step.build.add(
        "ConvTranspose",
        [step.build.planar(x), step.weights(1, _last_first, axis=1), *_bias(step, 3, kernel.shape[0])],
        step.name,
        kernel_shape=window,
        strides=strides,
        pads=(*before, *after),
        output_padding=tuple(added),
    )
    step.finish(Value(output, step.output_shape(x), planar=True), step.option(3, "<b"))


def _fully_connected(step: Step) -> None:
    x, kernel = step.real(0), step.tensor(1)
    if len(kernel.shape) != 2 or step.option(1, "<b") != 0:
        raise step.unsupported(f"weights of shape {kernel.shape} in format {step.option(1, '<b')}")
    rows = step.build.plain(x)
    if x.rank != 2:
        target = step.build.constant(f"{step.name}/rows", np.array((-1, kernel.shape[1]), np.int64))
        rows = step.build.add("Reshape", [rows, target], f"{step.name}/flat")
    inputs = [rows, step.weights(1, lambda weights: weights), *_bias(step, 2, kernel.shape[0])]
    output = step.build.add("Gemm", inputs, step.name, transB=1)
    shape = step.output_shape(x)
    if len(shape) != 2:
        target = step.build.constant(f"{step.name}/shape", np.array((-1, *step.output.shape[1:]), np.int64))
        output = step.build.add("Reshape", [output, target], f"{step.name}/shaped")
    step.finish(Value(output, shape), step.option(0, "<b"))


def _pool(op: str) -> Callable[[Step], None]:
    def convert(step: Step) -> None:
        x = _image(step)
        window = _positive(step, step.option(4), step.option(3))
        strides = _positive(step, step.option(2), step.option(1))
        pads = _pads(step, x.shape[1:3], window, strides, (1, 1))
        output = step.build.add(op, [step.build.planar(x)], step.name, kernel_shape=window, strides=strides, **pads)
        step.finish(Value(output, step.output_shape(x), planar=True), step.option(5, "<b"))

    return convert


LAYERS: dict[str, Callable[[Step], None]] = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _depthwise,
    "TRANSPOSE_CONV": _transposed,
    "FULLY_CONNECTED": _fully_connected,
    "AVERAGE_POOL_2D": _pool("AveragePool"),
    "MAX_POOL_2D": _pool("MaxPool"),
}
