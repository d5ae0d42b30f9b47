"""The container of artefacts: a safetensors file whose every byte is covered by one digest.

    8 bytes   length of the header, little endian
    header    JSON: {"__metadata__": {"sha256": "<64 hex digits>", ...}, "<tensor>": {"dtype", "shape", "data_offsets"}}
    data      the tensors, back to back

Every reader of safetensors opens it. Here the digest is always the first thing in the header; it is that of the whole
file with its own 64 digits taken as zeros, and is compared before anything else is read. A file that passes is still
checked like any other input: a digest tells accidents, not attacks.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.errors import ModelFormatError
from gristmill.operators.registry import require_size

Array = npt.NDArray[Any]

_START = b'{"__metadata__":{"sha256":"'
_DIGITS = 64
_DIGEST = slice(8 + len(_START), 8 + len(_START) + _DIGITS)
_MAX_HEADER = 100_000_000

_DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "I64": "int64",
    "U64": "uint64",
    "F64": "float64",
}
_NAMES = {np.dtype(name): code for code, name in _DTYPES.items()}


@dataclass(frozen=True)
class Container:
    """What a container holds.

    Attributes:
        metadata: Texts by name.
        tensors: Arrays by name; read-only views of the file's bytes.
    """

    metadata: Mapping[str, str]
    tensors: Mapping[str, Array]


def starts_like_container(head: bytes | memoryview) -> bool:
    """Tell by the first 64 bytes whether a file means to be a container."""
    return head[8 : 8 + len(_START)] == _START


def pack(metadata: Mapping[str, str], tensors: Mapping[str, Array]) -> list[bytes | memoryview]:
    """Return the parts of the file, which are to be written one after the other."""
    header: dict[str, object] = {"__metadata__": {"sha256": "0" * _DIGITS, **metadata}}
    parts: list[bytes | memoryview] = []
    offset = 0
    # Widest elements first: then all are aligned, since the data itself is.
    for name, array in sorted(tensors.items(), key=lambda item: -item[1].itemsize):
        code = _NAMES.get(array.dtype)
        if code is None:
            raise ModelFormatError(f"element type {array.dtype} cannot be stored", node=name)
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        header[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": [offset, offset + data.size]}
        parts.append(data.data)
        offset += data.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = bytearray(len(text).to_bytes(8, "little") + text)
    head[_DIGEST] = _digest([bytes(head), *parts])
    return [bytes(head), *parts]


def unpack(data: bytes | memoryview) -> Container:
    """Read a file's bytes.

    Raises:
        ModelFormatError: If a byte is missing or changed, or the header makes no sense.
        LimitError: If a tensor is too large.
    """
    if not starts_like_container(data[:64]):
        raise ModelFormatError("is not a gristmill artefact")
    digest = data[_DIGEST]
    view = memoryview(data)
    if digest != _digest([view[: _DIGEST.start], b"0" * _DIGITS, view[_DIGEST.stop :]]):
        raise ModelFormatError("is damaged: its checksum does not match its content")
    header, length = _header(data)
    metadata = header.pop("__metadata__")
    if not all(isinstance(text, str) for text in metadata.values()):
        raise ModelFormatError("has metadata that is no text")
    return Container(metadata, _tensors(header, view[8 + length :]))


def read_metadata(data: bytes | memoryview) -> Mapping[str, str]:
    """The metadata of bytes that :func:`unpack` has read."""
    metadata: dict[str, str] = _header(data)[0]["__metadata__"]
    return metadata


def _header(data: bytes | memoryview) -> tuple[dict[str, Any], int]:
    length = int.from_bytes(data[:8], "little")
    if length > min(_MAX_HEADER, len(data) - 8):
        raise ModelFormatError(f"has a header of {length} bytes, more than fits")
    return parse_json(bytes(data[8 : 8 + length])), length


def parse_json(text: bytes | str) -> dict[str, Any]:
    """Parse a JSON object in which no name comes twice.

    Raises:
        ModelFormatError: If the text is anything else.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):
            raise ModelFormatError("has a JSON object that names something twice")
        return result

    try:
        document = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"has JSON that cannot be read: {error}") from None
    if not isinstance(document, dict):
        raise ModelFormatError("has JSON that is no object")
    return document


def _digest(parts: list[bytes | memoryview]) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest().encode()


def _tensors(header: Mapping[str, Any], data: memoryview) -> dict[str, Array]:
    """Views of all tensors, which must cover the data without gap or overlap."""
    tensors: dict[str, Array] = {}
    end = 0
    for name, entry in header.items():
        dtype, shape, offsets = _entry(name, entry)
        require_size(shape, dtype.itemsize, name)
        if offsets != (end, end + math.prod(shape) * dtype.itemsize) or offsets[1] > len(data):
            raise ModelFormatError(f"lies at bytes {offsets} instead of behind its predecessor", node=name)
        end = offsets[1]
        tensors[name] = np.frombuffer(data[offsets[0] : end], dtype).reshape(shape)
    if end != len(data):
        raise ModelFormatError(f"has {len(data) - end} bytes that belong to no tensor")
    return tensors


def _entry(name: str, entry: object) -> tuple[np.dtype[Any], tuple[int, ...], tuple[int, ...]]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ModelFormatError("is described in an unknown way", node=name)
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in _DTYPES:
        raise ModelFormatError(f"has the unknown element type {code!r}", node=name)
    if not _is_counts(shape) or not _is_counts(offsets) or len(shape) > 32:
        raise ModelFormatError(f"has the shape {shape!r} and offsets {offsets!r}", node=name)
    return np.dtype(_DTYPES[code]), tuple(shape), tuple(offsets)


def _is_counts(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)
