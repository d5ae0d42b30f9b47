"""TFLite's schema: which field of which table is what, as plain records."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gristmill.errors import ModelFormatError, UnsupportedOpError
from gristmill.loaders.tflite.flatbuffer import Table, root_table

__all__ = ["OPERATOR_NAMES", "Operation", "Program", "Tensor", "read_program"]

Array: TypeAlias = npt.NDArray[Any]

_ELEMENT_TYPES = {0: "<f4", 1: "<f2", 2: "<i4", 3: "<u1", 4: "<i8", 6: "?", 9: "<i1", 10: "<f8"}
_MOST_TENSORS = 1 << 20

OPERATOR_NAMES = {
    0: "ADD",
    1: "AVERAGE_POOL_2D",
    2: "CONCATENATION",
    3: "CONV_2D",
    4: "DEPTHWISE_CONV_2D",
    6: "DEQUANTIZE",
    9: "FULLY_CONNECTED",
    14: "LOGISTIC",
    17: "MAX_POOL_2D",
    18: "MUL",
    19: "RELU",
    20: "RELU_N1_TO_1",
    21: "RELU6",
    22: "RESHAPE",
    23: "RESIZE_BILINEAR",
    25: "SOFTMAX",
    28: "TANH",
    34: "PAD",
    39: "TRANSPOSE",
    40: "MEAN",
    41: "SUB",
    42: "DIV",
    43: "SQUEEZE",
    45: "STRIDED_SLICE",
    47: "EXP",
    50: "LOG_SOFTMAX",
    54: "PRELU",
    55: "MAXIMUM",
    57: "MINIMUM",
    59: "NEG",
    58: "LESS",
    60: "PADV2",
    61: "GREATER",
    62: "GREATER_EQUAL",
    64: "SELECT",
    67: "TRANSPOSE_CONV",
    69: "TILE",
    70: "EXPAND_DIMS",
    73: "LOG",
    74: "SUM",
    75: "SQRT",
    82: "REDUCE_MAX",
    97: "RESIZE_NEAREST_NEIGHBOR",
    98: "LEAKY_RELU",
    101: "ABS",
    111: "ELU",
    114: "QUANTIZE",
    117: "HARD_SWISH",
    123: "SELECT_V2",
    150: "GELU",
}


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor: its type, and its value if it is constant.

    Attributes:
        name: As in the file.
        dtype: Element type.
        shape: As in the file; a batch that inputs decide is 1 there.
        value: Constant elements.
        scale: Scales of quantized elements, one or one for each index along ``axis``; empty if it is not quantized.
        zero_point: Zero points, as many.
        axis: That of the scales.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    value: Array | None
    scale: Array
    zero_point: Array
    axis: int

    @property
    def quantized(self) -> bool:
        """Whether elements are integers that stand for reals."""
        return self.scale.size > 0 and self.dtype.kind in "iu"


@dataclass(frozen=True, eq=False)
class Operation:
    """An operation: tensors by index, -1 for one left out."""

    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Table | None
    custom: str


@dataclass(frozen=True, eq=False)
class Program:
    """The main graph of a model."""

    tensors: list[Tensor]
    operations: list[Operation]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


def read_program(data: bytes) -> Program:
    """Read a model.

    Raises:
        ModelFormatError: If the file is damaged.
        UnsupportedOpError: If the model has more than one graph, or sparse or external tensors.
    """
    if data[4:8] != b"TFL3":
        raise ModelFormatError("not a TFLite file: the mark TFL3 is missing")
    model = root_table(data)
    graphs = model.tables(2)
    if len(graphs) != 1:
        raise UnsupportedOpError(f"the model has {len(graphs)} graphs; only models of one graph are supported")
    buffers = model.tables(4)
    tables = graphs[0].tables(0)
    if len(tables) > _MOST_TENSORS:
        raise ModelFormatError(f"damaged: {len(tables)} tensors")
    tensors = [_tensor(table, index, buffers) for index, table in enumerate(tables)]
    codes = [_code(table) for table in model.tables(1)]
    operations = [_operation(table, codes, len(tensors)) for table in graphs[0].tables(3)]
    inputs, outputs = (_indices(graphs[0], field, len(tensors)) for field in (1, 2))
    return Program(tensors, operations, inputs, outputs)


def _indices(table: Table, field: int, count: int) -> tuple[int, ...]:
    found = tuple(table.array(field, "<i4").tolist())
    if any(not -1 <= index < count for index in found):
        raise ModelFormatError(f"damaged: refers to tensors {found} of {count}")
    return found


def _code(table: Table) -> tuple[int, str]:
    """Newer files keep codes beyond 126 in a wider field."""
    return max(table.integer(0, "<b"), table.integer(3)), table.text(1)


def _operation(table: Table, codes: list[tuple[int, str]], count: int) -> Operation:
    index = table.integer(0, "<I")
    if index >= len(codes):
        raise ModelFormatError(f"damaged: operator {index} of {len(codes)}")
    code, custom = codes[index]
    name = OPERATOR_NAMES.get(code, f"number {code}")
    return Operation(name, _indices(table, 1, count), _indices(table, 2, count), table.table(4), custom)


def _tensor(table: Table, index: int, buffers: list[Table]) -> Tensor:
    name = table.text(3) or f"tensor{index}"
    code = table.integer(1, "<b")
    if code not in _ELEMENT_TYPES:
        raise UnsupportedOpError(f"elements of type number {code} are not supported", node=name)
    if table.table(6) is not None:
        raise UnsupportedOpError("weights in TFLite's sparse form are not supported", node=name)
    dtype = np.dtype(_ELEMENT_TYPES[code])
    shape = tuple(table.array(0, "<i4").tolist())
    if any(extent < 0 for extent in shape):
        raise ModelFormatError(f"has shape {shape}", node=name)
    where = table.integer(2, "<I")
    if where >= max(len(buffers), 1):
        raise ModelFormatError(f"refers to buffer {where} of {len(buffers)}", node=name)
    value = _value(buffers[where], dtype, shape, name) if buffers else None
    scale, zero_point, axis = _quantization(table.table(4), dtype, shape, name)
    return Tensor(name, dtype, shape, value, scale, zero_point, axis)


def _value(buffer: Table, dtype: np.dtype[Any], shape: tuple[int, ...], name: str) -> Array | None:
    if buffer.integer(1, "<Q") > 1:
        raise UnsupportedOpError("weights outside of the file's tables are not supported", node=name)
    data = buffer.array(0, "<u1")
    if not data.size:
        return None
    if data.size != math.prod(shape) * dtype.itemsize:
        raise ModelFormatError(f"holds {data.size} bytes for shape {shape} of {dtype}", node=name)
    return np.frombuffer(data.tobytes(), dtype).reshape(shape).astype(dtype.newbyteorder("="))


def _quantization(
    table: Table | None, dtype: np.dtype[Any], shape: tuple[int, ...], name: str
) -> tuple[Array, Array, int]:
    if table is None or not (scale := table.array(2, "<f4")).size or dtype.kind == "f":
        return np.empty(0, np.float32), np.empty(0, np.int64), 0
    zero_point, axis = table.array(3, "<i8"), table.integer(6)
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise ModelFormatError("has scales that are not greater than 0", node=name)
    if scale.size > 1 and not (0 <= axis < len(shape) and shape[axis] == scale.size):
        raise ModelFormatError(f"has {scale.size} scales along axis {axis} of shape {shape}", node=name)
    if zero_point.size not in (0, 1, scale.size):
        raise ModelFormatError(f"has {zero_point.size} zero points for {scale.size} scales", node=name)
    whole = np.broadcast_to(zero_point if zero_point.size else np.zeros(1, np.int64), scale.shape)
    limits = np.iinfo(dtype)
    if (whole < limits.min).any() or (whole > limits.max).any():
        raise ModelFormatError(f"has zero points beyond {dtype}", node=name)
    return scale.astype(np.float32), whole.astype(np.int64), axis
