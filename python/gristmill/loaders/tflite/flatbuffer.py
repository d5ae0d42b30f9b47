"""FlatBuffers read with every offset checked.

A table begins with the distance back to its *vtable*, which lists for each field how far behind the table's start it
lies, or 0 for its default:

    vtable:  u16 bytes of the vtable | u16 bytes of the table | u16 field 0 | u16 field 1 | ...
    table:   i32 distance to the vtable | inline scalars, and u32 distances to vectors, texts and tables

Nothing in a file is believed: each read is within the file, vectors are no longer than it, and a field that is missing
is its default. Tables are only entered as far as the caller asks, so that no nesting can exhaust the stack.
"""

from __future__ import annotations

import struct
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gristmill.errors import ModelFormatError

__all__ = ["Table", "root_table"]

Array: TypeAlias = npt.NDArray[Any]


def root_table(data: bytes) -> Table:
    """The table that the file begins with.

    Raises:
        ModelFormatError: If the file is damaged; as with all reads.
    """
    return Table(data, _read(data, "<I", 0))


class Table:
    """A table at a place in a file."""

    def __init__(self, data: bytes, position: int) -> None:
        """Find the vtable."""
        self._data, self._position = data, position
        self._vtable = position - _read(data, "<i", position)
        self._fields = (_read(data, "<H", self._vtable) - 4) // 2

    def integer(self, field: int, kind: str = "<i", default: int = 0) -> int:
        """A scalar of the struct format ``kind``."""
        at = self._find(field)
        return int(_read(self._data, kind, at)) if at else default

    def real(self, field: int, default: float = 0.0) -> float:
        """A float."""
        at = self._find(field)
        return float(_read(self._data, "<f", at)) if at else default

    def table(self, field: int) -> Table | None:
        """A table within the table."""
        at = self._find(field)
        return Table(self._data, self._follow(at)) if at else None

    def tables(self, field: int) -> list[Table]:
        """A vector of tables."""
        start, count = self._vector(field, 4)
        return [Table(self._data, self._follow(start + 4 * index)) for index in range(count)]

    def text(self, field: int) -> str:
        """A text."""
        return self.array(field, "<u1").tobytes().decode(errors="replace")

    def array(self, field: int, dtype: str) -> Array:
        """A vector of scalars, in place."""
        element = np.dtype(dtype)
        start, count = self._vector(field, element.itemsize)
        return np.frombuffer(self._data, element, count, start)

    def _find(self, field: int) -> int:
        """Where a field lies; 0 if it is missing."""
        if field >= self._fields:
            return 0
        distance = _read(self._data, "<H", self._vtable + 4 + 2 * field)
        return self._position + int(distance) if distance else 0

    def _follow(self, at: int) -> int:
        return at + int(_read(self._data, "<I", at))

    def _vector(self, field: int, element_bytes: int) -> tuple[int, int]:
        at = self._find(field)
        if not at:
            return 0, 0
        start = self._follow(at)
        count = int(_read(self._data, "<I", start))
        if count * element_bytes > len(self._data) - start - 4:
            raise ModelFormatError(f"damaged: a list of {count} elements at byte {start} leaves the file")
        return start + 4, count


def _read(data: bytes, kind: str, at: int) -> Any:  # noqa: ANN401
    if at < 0 or at + struct.calcsize(kind) > len(data):
        raise ModelFormatError(f"damaged: refers to byte {at} of {len(data)}")
    return struct.unpack_from(kind, data, at)[0]
