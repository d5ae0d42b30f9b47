"""ONNX tensors to arrays: every size is checked against what is there before anything is allocated."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from gristmill.errors import ModelFormatError, UnsupportedOpError
from gristmill.graph import Array
from gristmill.loaders.external_data import DataFolder
from gristmill.loaders.onnx_wire import StoredBytes
from gristmill.operators import ELEMENT_TYPES
from gristmill.operators.registry import require_size

if TYPE_CHECKING:
    from onnx import TensorProto

_FLOAT16, _BFLOAT16 = 10, 16
_EXTERNAL = 1
_MOST_AXES = 32
#: The field that holds the elements of each type, unless they are raw.
_FIELDS = {
    1: "float_data",
    2: "int32_data",
    3: "int32_data",
    4: "int32_data",
    5: "int32_data",
    6: "int32_data",
    7: "int64_data",
    9: "int32_data",
    10: "int32_data",
    11: "double_data",
    12: "uint64_data",
    13: "uint64_data",
    16: "int32_data",
}
#: Up to this many elements are taken one by one.
_FEW = 16
#: Fields whose elements take as many bytes in a file as in memory.
_FIXED = frozenset({"float_data", "double_data"})
#: The type that holds all that a field may, where it is not that of the tensor.
_WIDE: dict[str, np.dtype[Any]] = {"int32_data": np.dtype(np.int32), "uint64_data": np.dtype(np.uint64)}
#: Types by number that graphs cannot hold, for messages.
_OTHERS = {
    8: "string",
    14: "complex64",
    15: "complex128",
    17: "float8e4m3fn",
    18: "float8e4m3fnuz",
    19: "float8e5m2",
    20: "float8e5m2fnuz",
    21: "uint4",
    22: "int4",
    23: "float4e2m1",
}


def element_type(number: int, name: str) -> np.dtype[Any]:
    """The type in which a graph holds elements of ONNX's type of this number.

    Raises:
        UnsupportedOpError: Graphs do not hold it.
    """
    if number not in ELEMENT_TYPES:
        called = _OTHERS.get(number, f"number {number}")
        raise UnsupportedOpError(f"element type {called} is not supported", node=name or None)
    return ELEMENT_TYPES[number]


def to_array(tensor: TensorProto, folder: DataFolder, stored_data: StoredBytes | None = None) -> Array:
    """The values of a tensor, read-only; 16-bit floats in float32. ``stored_data`` takes the place of its raw data.

    Raises:
        ModelFormatError: Shape, type and data contradict each other, or external data may not be read.
        UnsupportedOpError: The element type is not supported.
        LimitError: The tensor is too large.
    """
    name, number = tensor.name, tensor.data_type
    kind = element_type(number, name)
    if tensor.HasField("segment"):
        raise UnsupportedOpError("tensors in segments are not supported", node=name or None)
    shape = tuple(tensor.dims[:])
    if (shape and min(shape) < 0) or len(shape) > _MOST_AXES:
        raise ModelFormatError(f"shape {_short(shape)} is not a shape", node=name or None)
    stored, count = _stored_type(number), math.prod(shape)
    require_size(shape, max(kind.itemsize, stored.itemsize), name)
    if tensor.data_location == _EXTERNAL:
        values = np.frombuffer(_external(tensor, folder, count * stored.itemsize), stored)
    elif tensor.HasField("raw_data"):
        raw = tensor.raw_data
        _require_size(name, shape, stored, count * stored.itemsize, stored_data.size if stored_data else len(raw))
        values = stored_data.read(name).view(stored) if stored_data else np.frombuffer(raw, stored)
    else:
        values = _from_field(tensor, shape, stored)
    array = _widened(values, number, kind).reshape(shape)
    array.flags.writeable = False
    return array


def _short(shape: tuple[int, ...]) -> str:
    return str(list(shape)) if len(shape) <= _MOST_AXES else f"of {len(shape)} axes"


@functools.cache
def _stored_type(number: int) -> np.dtype[Any]:
    return np.dtype("<u2") if number in {_FLOAT16, _BFLOAT16} else ELEMENT_TYPES[number].newbyteorder("<")


def _require_size(name: str, shape: tuple[int, ...], stored: np.dtype[Any], expected: int, size: int) -> None:
    if size != expected:
        reason = f"shape {list(shape)} of {stored.itemsize}-byte elements needs {expected} bytes of data, got {size}"
        raise ModelFormatError(reason, node=name or None)


def _widened(values: Array, number: int, kind: np.dtype[Any]) -> Array:
    if number == _BFLOAT16:
        return (values.astype(np.uint32) << 16).view(np.float32)
    if number == _FLOAT16:
        values = values.view(np.float16)
    if kind == np.bool_:
        values = values.view(np.uint8) != 0
    return values.astype(kind, copy=False)


def _from_field(tensor: TensorProto, shape: tuple[int, ...], stored: np.dtype[Any]) -> Array:
    field = _FIELDS[tensor.data_type]
    items, wanted = getattr(tensor, field), math.prod(shape)
    count = len(items)
    if count != wanted:
        reason = f"shape {list(shape)} needs {wanted} elements of data, got {count}"
        raise ModelFormatError(reason, node=tensor.name or None)
    if count > _FEW:
        packed = _packed(tensor, field)
        if field in _FIXED:
            return np.frombuffer(packed, stored)
        if len(packed) == count:  # each is a varint of one byte, which is the number itself
            return np.frombuffer(packed, np.uint8).astype(stored)
    wide: Array = np.array(items[:], _WIDE.get(field, stored))
    narrow: Array = wide.astype(stored, copy=False)
    if stored.kind in "iu" and stored.itemsize < wide.itemsize and narrow.tolist() != wide.tolist():
        raise ModelFormatError(f"data is out of range for {stored.name}", node=tensor.name or None)
    return narrow


def _packed(tensor: TensorProto, field: str) -> bytes:
    """The elements of a field as files have them, all that a message holds behind its tag and length.

    Thousands of numbers become an array at once, where each by itself would first become an object.
    """
    alone = type(tensor)()
    getattr(alone, field).MergeFrom(getattr(tensor, field))
    content: bytes = alone.SerializeToString()
    first = next(index for index in range(1, len(content)) if content[index] < 0x80)
    return content[first + 1 :]


def _external(tensor: TensorProto, folder: DataFolder, size: int) -> bytes:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if len(entries) != len(tensor.external_data) or "location" not in entries:
        raise ModelFormatError("external data needs one location", node=tensor.name or None)
    offset = _count(entries.get("offset", "0"), tensor.name)
    length = _count(entries["length"], tensor.name) if "length" in entries else size
    if length != size:
        reason = f"shape {list(tensor.dims)} needs {size} bytes of external data, but its length is {length}"
        raise ModelFormatError(reason, node=tensor.name or None)
    return folder.read(entries["location"], offset, size, tensor.name)


def _count(text: str, name: str) -> int:
    if not text.isdecimal() or len(text) > 19:
        raise ModelFormatError(f"external data has {text!r} for an offset or a length", node=name or None)
    return int(text)
