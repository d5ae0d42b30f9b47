"""ONNX files in parts: the raw data of large initializers stays in the file until an array is made of it.

A protocol buffer is a sequence of fields: a number and a kind, then the content, which for messages, texts and bytes
has its length before it. To parse a model as a whole, its file is read, its weights are copied by the parser, and once
more by whoever asks for them. Here the fields on the way to raw data alone are followed (``ModelProto.graph``,
``GraphProto.initializer``, ``TensorProto.raw_data``), and large data is passed over; everything else is left to the
parser, and so is every file in which something is odd.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from gristmill.errors import ModelFormatError
from gristmill.graph import Array

_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9
#: Data from this size on stays in the file.
_LARGE = 1 << 12
_LONGEST_VARINT = 10
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class StoredBytes:
    """Bytes that have not been read yet."""

    stream: BinaryIO
    offset: int
    size: int

    def read(self, name: str) -> Array:
        """Read them into an array of bytes, aligned for any element type.

        Raises:
            ModelFormatError: The file has changed; it names the tensor.
        """
        content = np.empty(self.size, np.uint8)
        self.stream.seek(self.offset)
        if self.stream.readinto(content.data) != self.size:  # type: ignore[attr-defined]
            raise ModelFormatError("the file became shorter while it was read", node=name or None)
        return content


def split(stream: BinaryIO) -> tuple[bytes, dict[int, StoredBytes]]:
    """A serialized model without the raw data of its large initializers, which is there but empty; and that data.

    Returns:
        What is left of the model, and where the data is, by the number of the initializer in ``graph.initializer``.
    """
    size = stream.seek(0, 2)
    splitter = _Splitter(stream)
    try:
        return splitter.without_data(size, (_GRAPH, _INITIALIZER, _RAW_DATA)), splitter.found
    except _OddError:
        stream.seek(0)
        return stream.read(), {}


class _OddError(Exception):
    """A file that the parser should see as it is."""


class _Splitter:
    def __init__(self, stream: BinaryIO) -> None:
        stream.seek(0)
        self._stream = stream
        self._at = 0
        self._initializers = 0
        self.found: dict[int, StoredBytes] = {}

    def without_data(self, end: int, path: Sequence[int]) -> bytes:
        """The message that goes on until ``end``, without the data at the end of a path of fields."""
        parts: list[bytes] = []
        while self._at < end:
            head = self._varint()
            number, kind = head[1] >> 3, head[1] & 7
            if kind != _LENGTH:
                parts += head[0], self._scalar(kind)
                continue
            length, size = self._varint()
            if size > end - self._at:
                raise _OddError
            if number != path[0]:
                content = self._take(size)
            elif len(path) == 1:
                content = self._data(size)
            else:
                followed = size >= _LARGE or number == _GRAPH
                content = self.without_data(self._at + size, path[1:]) if followed else self._take(size)
                self._initializers += number == _INITIALIZER
            parts += head[0], length if len(content) == size else _varint(len(content)), content
        if self._at != end:
            raise _OddError
        return b"".join(parts)

    def _data(self, size: int) -> bytes:
        """The raw data of the initializer that is read, if it is small. Of several, the last counts."""
        self.found.pop(self._initializers, None)
        if size < _LARGE:
            return self._take(size)
        self.found[self._initializers] = StoredBytes(self._stream, self._at, size)
        self._at = self._stream.seek(size, 1)
        return b""

    def _take(self, size: int) -> bytes:
        content = self._stream.read(size)
        if len(content) != size:
            raise _OddError
        self._at += size
        return content

    def _scalar(self, kind: int) -> bytes:
        if kind == _VARINT:
            return self._varint()[0]
        if kind not in {_FIXED64, _FIXED32}:
            raise _OddError
        return self._take(8 if kind == _FIXED64 else 4)

    def _varint(self) -> tuple[bytes, int]:
        """A number as written, seven bits in a byte, the least first, and more if the eighth is set; and its value."""
        written, value = b"", 0
        for shift in range(0, 7 * _LONGEST_VARINT, 7):
            byte = self._take(1)
            written += byte
            value |= (byte[0] & 0x7F) << shift
            if byte[0] < 0x80:
                return written, value
        raise _OddError


def _varint(value: int) -> bytes:
    written = bytearray()
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
