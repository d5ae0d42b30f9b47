"""FlatBuffers written from nested Python values, to make TFLite models, sound and unsound, without TensorFlow.

A table is a dict of fields by number; each field is a :class:`Scalar`, a table, a text, or a list of tables; arrays of
numbers are numpy arrays.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Table: TypeAlias = "dict[int, Any]"


@dataclass(frozen=True)
class Scalar:
    """A number of the struct format ``kind``."""

    kind: str
    value: float


def write(root: Table, mark: bytes) -> bytes:
    """A file with a root table."""
    out = bytearray(struct.pack("<I4s", 0, mark))
    struct.pack_into("<I", out, 0, _table(out, root))
    return bytes(out)


def _pad(out: bytearray, size: int) -> None:
    out.extend(bytes(-len(out) % size))


def _table(out: bytearray, fields: Table) -> int:
    """Append a table and what it refers to; returns where it lies."""
    places: dict[int, int] = {}
    body = bytearray(4)
    for number, value in fields.items():
        kind = value.kind if isinstance(value, Scalar) else "<I"
        body.extend(bytes(-len(body) % struct.calcsize(kind)))
        places[number] = len(body)
        body.extend(struct.pack(kind, value.value if isinstance(value, Scalar) else 0))
    vtable = [places.get(number, 0) for number in range(max(fields, default=-1) + 1)]
    _pad(out, 8)
    start = len(out)
    out.extend(struct.pack(f"<HH{len(vtable)}H", 4 + 2 * len(vtable), len(body), *vtable))
    _pad(out, 8)
    at = len(out)
    out.extend(body)
    struct.pack_into("<i", out, at, at - start)
    for number, value in fields.items():
        if not isinstance(value, Scalar):
            place = at + places[number]
            struct.pack_into("<I", out, place, _content(out, value) - place)
    return at


def _content(out: bytearray, value: Any) -> int:  # noqa: ANN401
    if isinstance(value, dict):
        return _table(out, value)
    out.extend(bytes((4 - len(out)) % 8 + 4))
    at = len(out)
    if isinstance(value, list):
        out[at - 4 : at] = struct.pack("<I", len(value))
        out.extend(bytes(4 * len(value)))
        for index, item in enumerate(value):
            place = at + 4 * index
            struct.pack_into("<I", out, place, _content(out, item) - place)
        return at - 4
    data = value.encode() + b"\0" if isinstance(value, str) else np.ascontiguousarray(value).tobytes()
    count = len(value.encode()) if isinstance(value, str) else len(value)
    out[at - 4 : at] = struct.pack("<I", count)
    out.extend(data)
    return at - 4
