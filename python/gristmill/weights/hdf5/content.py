"""The bytes of an HDF5 file, read with every place and length checked.

A file's structures refer to each other by address. In a sound file none lies in another, so that all of them together
are no larger than the file, and none is reached twice. Holding a file to this bounds the work: no loop or shared part
can be followed without end, however the addresses were chosen.
"""

from __future__ import annotations

from gristmill.errors import ModelFormatError

__all__ = ["UNDEFINED", "Content", "Cursor", "damage"]

#: The address of what does not exist.
UNDEFINED = (1 << 64) - 1
#: Compressed data may become this much larger than the file, beyond what is small anyway.
_MOST_EXPANSION = 64
_SMALL = 1 << 24


def damage(reason: str) -> ModelFormatError:
    """An error about the file as such."""
    return ModelFormatError(f"damaged HDF5 file: {reason}")


class Cursor:
    """A place in a piece of the file, moving on as it is read; reading beyond the end of the piece is an error."""

    def __init__(self, data: memoryview) -> None:
        """Stand at the beginning."""
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        """Bytes from here to the end."""
        return len(self._data) - self._at

    def take(self, count: int) -> memoryview:
        """The next bytes."""
        if count > self.left:
            raise damage(f"a structure of {len(self._data)} bytes ends too soon")
        self._at += count
        return self._data[self._at - count : self._at]

    def integer(self, size: int) -> int:
        """An unsigned integer of ``size`` bytes."""
        return int.from_bytes(self.take(size), "little")

    def skip(self, count: int) -> None:
        """Move on."""
        self.take(count)

    def align(self, size: int) -> None:
        """Move on to a multiple of ``size``, or to the end if that is nearer."""
        self.skip(min(-self._at % size, self.left))

    def expect(self, signature: bytes, version: int | None = None) -> None:
        """Check what a structure begins with."""
        found = bytes(self.take(len(signature)))
        if found != signature:
            raise damage(f"found {found!r} where {signature!r} belongs")
        if version is not None and (got := self.integer(1)) != version:
            raise damage(f"{signature!r} of unknown version {got}")


class Content:
    """The whole file."""

    def __init__(self, data: bytes) -> None:
        """Hold the bytes."""
        self._data = memoryview(data)
        self._claimed: set[int] = set()
        self._left = len(data)
        self._expansion = _SMALL + _MOST_EXPANSION * len(data)
        self._heaps: dict[int, dict[int, memoryview]] = {}

    def piece(self, at: int, count: int) -> memoryview:
        """Some bytes."""
        if at + count > len(self._data):
            raise damage(f"refers to {count} bytes at {at} of {len(self._data)}")
        return self._data[at : at + count]

    def structure(self, at: int, count: int) -> Cursor:
        """The bytes of a structure, which may be asked for once."""
        if at in self._claimed:
            raise damage(f"the structure at byte {at} is part of two others")
        piece = self.piece(at, count)
        self._claimed.add(at)
        self._left -= count
        if self._left < 0:
            raise damage("its structures overlap")
        return Cursor(piece)

    def expand(self, count: int) -> None:
        """Account for bytes that compressed data shall become.

        Raises:
            ModelFormatError: The file declares more than it can hold.
        """
        self._expansion -= count
        if self._expansion < 0:
            raise ModelFormatError(f"declares {count} bytes, more than the file can hold")

    def heap_piece(self, at: int, index: int) -> memoryview:
        """A numbered piece of the global heap at an address."""
        if at not in self._heaps:
            self._heaps[at] = self._read_heap(at)
        if index not in self._heaps[at]:
            raise damage(f"the heap at byte {at} has no piece {index}")
        return self._heaps[at][index]

    def _read_heap(self, at: int) -> dict[int, memoryview]:
        size = int.from_bytes(self.piece(at + 8, 8), "little")
        heap = self.structure(at, size)
        heap.expect(b"GCOL", 1)
        heap.skip(11)
        pieces: dict[int, memoryview] = {}
        while heap.left >= 16 and (index := heap.integer(2)):
            heap.skip(6)
            length = heap.integer(8)
            pieces[index] = heap.take(length)
            heap.align(8)
        return pieces
