"""TFLite's operations without weights: elementwise, reductions, and those that move elements."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gristmill.graph import Attribute
from gristmill.loaders.channels_last import Value
from gristmill.loaders.tflite.operation import Step

__all__ = ["ELEMENTWISE"]


def _unary(op: str, **attributes: float) -> Callable[[Step], None]:
    return lambda step: step.finish(step.build.unary(op, step.real(0), step.name, **attributes))


def _binary(op: str, *, fused: bool) -> Callable[[Step], None]:
    def convert(step: Step) -> None:
        a, b = step.real(0), step.real(1)
        planar = a.planar and (b.planar or b.rank == 0) and a.rank == max(a.rank, b.rank)
        names = [a.name, b.name] if planar else [step.build.plain(a), step.build.plain(b)]
        output = Value(step.build.add(op, names, step.name), step.output_shape(a if a.rank >= b.rank else b), planar)
        step.finish(output, step.option(0, "<b") if fused else 0)

    return convert


def _select(step: Step) -> None:
    names = [step.build.plain(step.real(position)) for position in range(3)]
    widest = max((step.real(position) for position in range(3)), key=lambda value: value.rank)
    step.finish(Value(step.build.add("Where", names, step.name), step.output_shape(widest)))


def _tile(step: Step) -> None:
    value, counts = step.real(0), step.numbers(1)
    if len(counts) != value.rank or min(counts, default=1) < 1:
        raise step.error(f"counts {counts} for shape {value.shape}")
    repeats = step.build.constant(f"{step.name}/repeats", np.array(counts, np.int64))
    output = step.build.add("Tile", [step.build.plain(value), repeats], step.name)
    step.finish(Value(output, step.output_shape(value)))


def _softmax(op: str) -> Callable[[Step], None]:
    def convert(step: Step) -> None:
        value, options = step.real(0), step.operation.options
        beta = options.real(0, 1.0) if options is not None and op == "Softmax" else 1.0
        if beta != 1.0:
            value = step.build.binary("Mul", value, beta, step.name)
        step.finish(Value(step.build.add(op, [step.build.plain(value)], step.name, axis=-1), value.shape))

    return convert


def _clipped(low: float, high: float) -> Callable[[Step], None]:
    return lambda step: step.finish(step.clip(step.real(0), low, high))


def _prelu(step: Step) -> None:
    value, slope = step.real(0), step.real(1)
    output = step.build.add("PRelu", [step.build.plain(value), step.build.plain(slope)], step.name)
    step.finish(Value(output, value.shape))


def _leaky_relu(step: Step) -> None:
    step.finish(step.build.unary("LeakyRelu", step.real(0), step.name, alpha=step.options.real(0)))


def _gelu(step: Step) -> None:
    approximate = "tanh" if step.option(0, "<b") else "none"
    step.finish(step.build.unary("Gelu", step.real(0), step.name, approximate=approximate))


def _convert(step: Step) -> None:
    """QUANTIZE and DEQUANTIZE: reals in between are all that happens."""
    step.finish(step.real(0))


def _reshape(step: Step) -> None:
    value = step.real(0)
    shape = step.output_shape(value)
    rest = [int(n) for n in step.output.shape]
    known = int(np.prod([n for n in value.shape[1:] if n is not None], dtype=np.int64))
    keeps_batch = bool(shape) and shape[0] is None and known == int(np.prod(rest[1:], dtype=np.int64))
    if value.shape and value.shape[0] is None and not keeps_batch:
        shape, rest = (None, *rest[1:]), [-1, *rest[1:]]
    target = step.build.constant(f"{step.name}/shape", np.array([0, *rest[1:]] if keeps_batch else rest, np.int64))
    step.finish(Value(step.build.add("Reshape", [step.build.plain(value), target], step.name), shape))


def _transpose(step: Step) -> None:
    value, order = step.real(0), step.numbers(1)
    if sorted(order) != list(range(value.rank)):
        raise step.error(f"{order} is no order of {value.rank} axes")
    output = step.build.add("Transpose", [step.build.plain(value)], step.name, perm=tuple(order))
    step.finish(Value(output, tuple(value.shape[axis] for axis in order)))


def _pad(step: Step) -> None:
    value, amounts = step.real(0), step.numbers(1)
    if len(amounts) != 2 * value.rank or min(amounts, default=0) < 0:
        raise step.error(f"amounts {amounts} for shape {value.shape}")
    pads = step.build.constant(f"{step.name}/pads", np.array([*amounts[::2], *amounts[1::2]], np.int64))
    fill = [step.build.plain(step.real(2))] if step.index(2) >= 0 else []
    output = step.build.add("Pad", [step.build.plain(value), pads, *fill], step.name)
    step.finish(Value(output, step.output_shape(value)))


def _concatenation(step: Step) -> None:
    values = [step.real(position) for position in range(len(step.operation.inputs))]
    if not values:
        raise step.error("has no inputs")
    rank, axis = values[0].rank, step.option(0)
    if not -rank <= axis < rank or any(value.rank != rank for value in values):
        raise step.error(f"axis {axis} of inputs {', '.join(str(value.shape) for value in values)}")
    planar = all(value.planar for value in values)
    names = [value.name if planar else step.build.plain(value) for value in values]
    axis %= rank
    held = axis if not planar or axis == 0 else 1 if axis == rank - 1 else axis + 1
    output = Value(step.build.add("Concat", names, step.name, axis=held), step.output_shape(values[0]), planar)
    step.finish(output, step.option(1, "<b"))


def _reduction(op: str) -> Callable[[Step], None]:
    def convert(step: Step) -> None:
        value, axes = step.real(0), step.numbers(1)
        if any(not -value.rank <= axis < value.rank for axis in axes):
            raise step.error(f"axes {axes} of shape {value.shape}")
        along = step.build.constant(f"{step.name}/axes", np.array(axes, np.int64))
        keeps = step.option(0, "<b")
        output = step.build.add(op, [step.build.plain(value), along], step.name, keepdims=int(bool(keeps)))
        step.finish(Value(output, step.output_shape(value)))

    return convert


def _strided_slice(step: Step) -> None:
    value = step.real(0)
    starts, ends, strides = (step.numbers(position) for position in (1, 2, 3))
    if step.option(2) or step.option(3) or not len(starts) == len(ends) == len(strides) <= value.rank:
        raise step.unsupported("ellipsis, new axes, or bounds of different length")
    if any(stride < 1 for stride in strides):
        raise step.unsupported(f"strides {strides}")
    begin_mask, end_mask, shrink_mask = step.option(0), step.option(1), step.option(4)
    most = np.iinfo(np.int64).max
    for axis in range(len(starts)):
        starts[axis] = 0 if begin_mask >> axis & 1 else starts[axis]
        ends[axis] = most if end_mask >> axis & 1 else ends[axis]
        if shrink_mask >> axis & 1:
            ends[axis] = starts[axis] + 1 if starts[axis] != -1 else most
    if value.shape[0] is None and starts[0] == 0 and ends[0] == 1 and not shrink_mask & 1:
        ends[0] = most
    lists = {"starts": starts, "ends": ends, "axes": list(range(len(starts))), "steps": strides}
    inputs = [step.build.constant(f"{step.name}/{key}", np.array(items, np.int64)) for key, items in lists.items()]
    output = step.build.add("Slice", [step.build.plain(value), *inputs], f"{step.name}/slice")
    gone = [axis for axis in range(len(starts)) if shrink_mask >> axis & 1]
    if gone:
        axes = step.build.constant(f"{step.name}/gone", np.array(gone, np.int64))
        output = step.build.add("Squeeze", [output, axes], step.name)
    step.finish(Value(output, step.output.shape if 0 in gone else step.output_shape(value)))


def _resize(mode: str, first: int) -> Callable[[Step], None]:
    def convert(step: Step) -> None:
        value, target = step.real(0), step.numbers(1)
        if value.rank != 4 or len(target) != 2 or None in value.shape[1:] or min(target) < 1:
            raise step.error(f"size {target} for shape {value.shape}")
        aligned, centred = bool(step.option(first, "<b")), bool(step.option(first + 1, "<b"))
        how = "align_corners" if aligned else "half_pixel" if centred else "asymmetric"
        scales = [new / (old or 1) for new, old in zip(target, value.shape[1:3], strict=True)]
        name = step.build.constant(f"{step.name}/scales", np.array((1, 1, *scales), np.float32))
        attributes: dict[str, Attribute] = {"mode": mode, "coordinate_transformation_mode": how}
        if mode == "nearest":
            attributes["nearest_mode"] = "round_prefer_ceil" if centred else "floor"
        output = step.build.add("Resize", [step.build.planar(value), "", name], step.name, **attributes)
        step.finish(Value(output, step.output_shape(value), planar=True))

    return convert


ELEMENTWISE: dict[str, Callable[[Step], None]] = {
    "RELU": _unary("Relu"),
    "RELU6": _clipped(0.0, 6.0),
    "RELU_N1_TO_1": _clipped(-1.0, 1.0),
    "LOGISTIC": _unary("Sigmoid"),
    "TANH": _unary("Tanh"),
    "HARD_SWISH": _unary("HardSwish"),
    "ELU": _unary("Elu", alpha=1.0),
    "EXP": _unary("Exp"),
    "LOG": _unary("Log"),
    "SQRT": _unary("Sqrt"),
    "ABS": _unary("Abs"),
    "NEG": _unary("Neg"),
    "GELU": _gelu,
    "LEAKY_RELU": _leaky_relu,
    "PRELU": _prelu,
    "SOFTMAX": _softmax("Softmax"),
    "LOG_SOFTMAX": _softmax("LogSoftmax"),
    "ADD": _binary("Add", fused=True),
    "SUB": _binary("Sub", fused=True),
    "MUL": _binary("Mul", fused=True),
    "DIV": _binary("Div", fused=True),
    "MAXIMUM": _binary("Max", fused=False),
    "MINIMUM": _binary("Min", fused=False),
    "GREATER": _binary("Greater", fused=False),
    "GREATER_EQUAL": _binary("GreaterOrEqual", fused=False),
    "LESS": _binary("Less", fused=False),
    "SELECT": _select,
    "SELECT_V2": _select,
    "TILE": _tile,
    "QUANTIZE": _convert,
    "DEQUANTIZE": _convert,
    "RESHAPE": _reshape,
    "SQUEEZE": _reshape,
    "EXPAND_DIMS": _reshape,
    "TRANSPOSE": _transpose,
    "PAD": _pad,
    "PADV2": _pad,
    "CONCATENATION": _concatenation,
    "MEAN": _reduction("ReduceMean"),
    "SUM": _reduction("ReduceSum"),
    "REDUCE_MAX": _reduction("ReduceMax"),
    "STRIDED_SLICE": _strided_slice,
    "RESIZE_BILINEAR": _resize("linear", 2),
    "RESIZE_NEAREST_NEIGHBOR": _resize("nearest", 0),
}
