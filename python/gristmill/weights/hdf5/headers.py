"""The headers of groups and datasets: lists of messages, each a small record of a numbered kind.

The old form has its messages in 8-byte steps behind a plain prefix; the new one bears the mark ``OHDR``. Either is
continued in other blocks, which messages point to.
"""

from __future__ import annotations

from collections import defaultdict
from enum import IntEnum

from gristmill.errors import ModelFormatError
from gristmill.weights.hdf5.content import Content, Cursor, damage

__all__ = ["Kind", "Messages", "read_messages"]


class Kind(IntEnum):
    """The messages that are of interest."""

    DATASPACE = 0x01
    LINK_INFO = 0x02
    DATATYPE = 0x03
    LINK = 0x06
    EXTERNAL_FILES = 0x07
    LAYOUT = 0x08
    FILTERS = 0x0B
    ATTRIBUTE = 0x0C
    CONTINUATION = 0x10
    SYMBOL_TABLE = 0x11
    ATTRIBUTE_INFO = 0x15


_KNOWN = frozenset(Kind)
_SHARED = 0x02
_MARK = b"OHDR"


class Messages:
    """The messages of an object, by kind."""

    def __init__(self) -> None:
        """Start empty."""
        self._found: defaultdict[int, list[memoryview]] = defaultdict(list)

    def add(self, kind: int, flags: int, data: memoryview) -> None:
        """Keep a message if it is of interest."""
        if kind not in _KNOWN:
            return
        if flags & _SHARED:
            raise ModelFormatError("damaged or unusual HDF5 file: an object borrows its description from another")
        self._found[kind].append(data)

    def all(self, kind: Kind) -> list[Cursor]:
        """The messages of a kind."""
        return [Cursor(data) for data in self._found[kind]]

    def first(self, kind: Kind) -> Cursor | None:
        """The first message of a kind."""
        return next(iter(self.all(kind)), None)

    def need(self, kind: Kind) -> Cursor:
        """The first message of a kind, which must be there."""
        found = self.first(kind)
        if found is None:
            raise damage(f"an object has no {kind.name.lower().replace('_', ' ')}")
        return found


def read_messages(content: Content, at: int) -> Messages:
    """Read the header of the object at an address.

    Raises:
        ModelFormatError: If it is damaged.
    """
    messages = Messages()
    if bytes(content.piece(at, len(_MARK))) == _MARK:
        _read_new(content, at, messages)
    else:
        _read_old(content, at, messages)
    return messages


def _read_old(content: Content, at: int, messages: Messages) -> None:
    prefix = content.structure(at, 16)
    if prefix.integer(1) != 1:
        raise damage(f"there is no object at byte {at}")
    prefix.skip(7)
    blocks = [content.structure(at + 16, prefix.integer(4))]
    while blocks:
        block = blocks.pop(0)
        while block.left >= 8:
            kind, length, flags = block.integer(2), block.integer(2), block.integer(1)
            block.skip(3)
            data = block.take(length)
            if kind == Kind.CONTINUATION:
                blocks.append(content.structure(*_place(data)))
            else:
                messages.add(kind, flags, data)


def _read_new(content: Content, at: int, messages: Messages) -> None:
    form = content.piece(at + 5, 1)[0]
    before = 6 + (16 if form & 0x20 else 0) + (4 if form & 0x10 else 0)
    width = 1 << (form & 3)
    prefix = content.structure(at, before + width)
    prefix.expect(_MARK, 2)
    prefix.skip(before - 5)
    blocks = [content.structure(at + before + width, prefix.integer(width))]
    ordered = 2 if form & 0x04 else 0
    while blocks:
        block = blocks.pop(0)
        while block.left >= 4 + ordered:
            kind, length, flags = block.integer(1), block.integer(2), block.integer(1)
            block.skip(ordered)
            data = block.take(length)
            if kind == Kind.CONTINUATION:
                blocks.append(_continued(content, *_place(data)))
            else:
                messages.add(kind, flags, data)


def _continued(content: Content, at: int, size: int) -> Cursor:
    """The messages of a block between its mark and its checksum."""
    block = content.structure(at, size)
    block.expect(b"OCHK")
    return Cursor(block.take(max(block.left - 4, 0)))


def _place(data: memoryview) -> tuple[int, int]:
    """Where another block is, and how large."""
    cursor = Cursor(data)
    return cursor.integer(8), cursor.integer(8)
