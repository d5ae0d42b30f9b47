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
#: The file is read in pieces of this size, beside that data.
_BLOCK = 1 << 13
_LONGEST_VARINT = 10
_VARINT, _LENGTH = 0, 2
_SMALL_KINDS = (_VARINT, _LENGTH)
#: Of fields of the other kinds, and of what follows the number of a varint.
_FIXED_SIZES = {_VARINT: 0, 1: 8, 5: 4}


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
        self._block, self._start, self._next = b"", 0, 0
        self._initializers = 0
        self.found: dict[int, StoredBytes] = {}

    def without_data(self, end: int, path: Sequence[int]) -> bytes:
        """The message that goes on until ``end``, without the data at the end of a path of fields."""
        parts: list[bytes] = []
        while self._start + self._next < end:
            parts.append(self._small_fields(end, path[0]))
            if self._start + self._next == end:
                break
            self._fill(2 * _LONGEST_VARINT)
            block, first = self._block, self._next
            tag, behind_tag = _number(block, first)
            number, kind = tag >> 3, tag & 7
            if kind in _FIXED_SIZES:
                self._next = behind_tag if kind != _VARINT else _number(block, behind_tag)[1]
                parts += block[first : self._next], self._take(_FIXED_SIZES[kind])
                continue
            if kind != _LENGTH:
                raise _OddError
            size, self._next = _number(block, behind_tag)
            if size > end - self._start - self._next:
                raise _OddError
            head = block[first : self._next]
            if number != path[0]:
                content = self._take(size)
            elif len(path) == 1:
                content = self._data(size)
            else:
                followed = size >= _LARGE or number == _GRAPH
                inside = self._start + self._next + size
                content = self.without_data(inside, path[1:]) if followed else self._take(size)
                self._initializers += number == _INITIALIZER
            parts += head if len(content) == size else block[first:behind_tag] + _varint(len(content)), content
        if self._start + self._next != end:
            raise _OddError
        return b"".join(parts)

    def _small_fields(self, end: int, number: int) -> bytes:
        """The fields that come next and are at hand, as long as they are small and nothing in them is followed."""
        block, first = self._block, self._next
        last = min(len(block), end - self._start)
        at = first
        while at + 3 < last:
            tag, size, content = block[at], block[at + 1], at + 2
            if size >= 0x80:
                size, content = size & 0x7F | block[at + 2] << 7, at + 3
            # A longer number in the place of either, or another kind of field, is not below these bounds.
            kind = tag & 0x87
            if size >= _LARGE or kind not in _SMALL_KINDS:
                break
            if kind == _LENGTH:
                content += size
                followed = tag >> 3 == number
                if content > last or (followed and number != _INITIALIZER):
                    break
                self._initializers += followed
            at = content
        self._next = at
        return block[first:at]

    def _data(self, size: int) -> bytes:
        """The raw data of the initializer that is read, if it is small. Of several, the last counts."""
        self.found.pop(self._initializers, None)
        if size < _LARGE:
            return self._take(size)
        offset = self._start + self._next
        self.found[self._initializers] = StoredBytes(self._stream, offset, size)
        self._block, self._start, self._next = b"", self._stream.seek(offset + size), 0
        return b""

    def _take(self, size: int) -> bytes:
        self._fill(size)
        content = self._block[self._next : self._next + size]
        if len(content) != size:
            raise _OddError
        self._next += size
        return content

    def _fill(self, size: int) -> None:
        """Have this many bytes at hand, if there are as many."""
        left = len(self._block) - self._next
        if left < size:
            self._block = self._block[self._next :] + self._stream.read(max(size - left, _BLOCK))
            self._start, self._next = self._start + self._next, 0


def _number(block: bytes, at: int) -> tuple[int, int]:
    """A number, seven bits in a byte, the least first, and more if the eighth is set; and where it ends."""
    value = shift = 0
    for byte in block[at : at + _LONGEST_VARINT]:
        at += 1
        if byte < 0x80:
            return value | byte << shift, at
        value |= (byte & 0x7F) << shift
        shift += 7
    raise _OddError


def _varint(value: int) -> bytes:
    written = bytearray()
    while value >= 0x80:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
