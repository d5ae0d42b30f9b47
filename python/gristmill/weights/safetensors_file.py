"""The safetensors format: a JSON header of names, types, shapes and places, and the bytes of the tensors behind it.

The format's own rules are held to: the header is at most 100 MB and a JSON object without repeated names, every tensor
is as large as its shape says, and the tensors cover the data without gap or overlap.
"""

from __future__ import annotations

import json
import math
import struct
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

from gristmill.errors import ModelFormatError

__all__ = ["read_safetensors"]

Array: TypeAlias = npt.NDArray[Any]

_MOST_HEADER = 100_000_000
_BFLOAT16 = "BF16"
_DTYPES = {
    _BFLOAT16: np.dtype("<u2"),
    "BOOL": np.dtype("?"),
    **{
        f"{code}{8 * size}": np.dtype(f"<{kind}{size}")
        for code, kind in (("I", "i"), ("U", "u"))
        for size in (1, 2, 4, 8)
    },
    **{f"F{8 * size}": np.dtype(f"<f{size}") for size in (2, 4, 8)},
}


def read_safetensors(stream: BinaryIO) -> dict[str, Array]:
    """Read all tensors.

    Raises:
        ModelFormatError: If the file breaks the format's rules, or a tensor has a type that numpy has not.
    """
    content = stream.read()
    header = _read_header(content)
    data = memoryview(content)[8 + struct.unpack_from("<Q", content)[0] :]
    tensors: dict[str, Array] = {}
    covered = 0
    entries = [(name, entry) for name, entry in header.items() if name != "__metadata__"]
    for name, entry in sorted(entries, key=lambda item: _begin(*item)):
        tensors[name], end = _read_tensor(name, entry, data, covered)
        covered = end
    if covered != len(data):
        raise ModelFormatError(f"{len(data) - covered} bytes at the end belong to no tensor")
    return {name: tensors[name] for name, _ in entries}


def _read_header(content: bytes) -> dict[str, Any]:
    if len(content) < 8:
        raise ModelFormatError("too short for a safetensors file")
    (size,) = struct.unpack_from("<Q", content)
    if size > min(_MOST_HEADER, len(content) - 8):
        raise ModelFormatError(f"a header of {size} bytes in a file of {len(content)}")
    try:
        header = json.loads(content[8 : 8 + size].decode(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"the header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise ModelFormatError("the header is not a JSON object")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a name is repeated")
    return result


def _begin(name: str, entry: object) -> int:
    match entry:
        case {"data_offsets": [int(begin), int(_)]}:
            return begin
        case _:
            raise ModelFormatError("has no place in the data", node=name)


def _read_tensor(name: str, entry: dict[str, Any], data: memoryview, covered: int) -> tuple[Array, int]:
    begin, end = entry["data_offsets"]
    shape, dtype = entry.get("shape"), _DTYPES.get(str(entry.get("dtype")))
    if dtype is None:
        raise ModelFormatError(f"elements of type {entry.get('dtype')!r} are not supported", node=name)
    if not isinstance(shape, list) or not all(isinstance(n, int) and not isinstance(n, bool) and n >= 0 for n in shape):
        raise ModelFormatError(f"shape {shape!r} makes no sense", node=name)
    if begin != covered or not begin <= end <= len(data):
        raise ModelFormatError(f"bytes {begin} to {end} leave a gap, overlap, or leave the file", node=name)
    if math.prod(shape) * dtype.itemsize != end - begin:
        raise ModelFormatError(f"{end - begin} bytes for shape {shape} of {entry['dtype']}", node=name)
    array = np.frombuffer(data[begin:end], dtype).reshape(shape)
    if entry["dtype"] == _BFLOAT16:
        return (array.astype(np.uint32) << 16).view(np.float32), end
    return array.astype(dtype.newbyteorder("=")), end
