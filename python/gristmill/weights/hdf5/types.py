"""Element types, shapes, and attributes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gristmill.errors import ModelFormatError
from gristmill.weights.hdf5.content import Content, Cursor, damage

__all__ = ["Attribute", "ElementType", "read_attribute", "read_shape", "read_type"]

Array: TypeAlias = npt.NDArray[Any]

_MOST_RANK = 32
_MOST_ELEMENTS = 1 << 48
_FIXED, _FLOAT, _TEXT, _ENUM, _VARIABLE = 0, 1, 3, 8, 9
_CLASSES = (
    *("integers", "floats", "times", "texts", "bit fields", "opaque", "compound", "references", "enumerations"),
    *("variable length", "arrays"),
)
#: Bits, place of the exponent, its bits, place of the mantissa, its bits, bias.
_IEEE = {2: (16, 10, 5, 0, 10, 15), 4: (32, 23, 8, 0, 23, 127), 8: (64, 52, 11, 0, 52, 1023)}


@dataclass(frozen=True)
class ElementType:
    """What the elements are.

    Attributes:
        size: Bytes of each.
        dtype: For numbers.
        text: ``"fixed"`` for texts of that size, ``"variable"`` for texts in a heap.
        description: For messages.
    """

    size: int
    dtype: np.dtype[Any] | None = None
    text: str = ""
    description: str = "numbers"


def read_type(cursor: Cursor) -> ElementType:
    """Read a datatype message. Truth values are an enumeration of bytes."""
    first, bits, size = cursor.integer(1), cursor.integer(3), cursor.integer(4)
    kind = first & 0x0F
    name = _CLASSES[kind] if kind < len(_CLASSES) else f"class {kind}"
    if size == 0:
        raise damage("elements of no bytes")
    if kind in (_FIXED, _FLOAT):
        return ElementType(size, _number(cursor, kind, bits, size), description=name)
    if kind == _TEXT:
        return ElementType(size, text="fixed", description=name)
    if kind == _VARIABLE and bits & 0x0F == 1 and size == 16:
        return ElementType(size, text="variable", description="texts")
    if kind == _ENUM and size == 1:
        return ElementType(size, np.dtype(bool), description="truths")
    return ElementType(size, description=name)


def _number(cursor: Cursor, kind: int, bits: int, size: int) -> np.dtype[Any]:
    order = ">" if bits & 1 else "<"
    offset, precision = cursor.integer(2), cursor.integer(2)
    if kind == _FIXED:
        if size not in (1, 2, 4, 8) or offset or precision != 8 * size:
            raise ModelFormatError(f"integers of {precision} bits in {size} bytes are not supported")
        return np.dtype(f"{order}{'i' if bits & 8 else 'u'}{size}")
    layout = (precision, *(cursor.integer(1) for _ in range(4)), cursor.integer(4))
    if offset or _IEEE.get(size) != layout or bits & 0x40:
        raise ModelFormatError(f"floats of {precision} bits in a form other than IEEE 754's are not supported")
    return np.dtype(f"{order}f{size}")


def read_shape(cursor: Cursor) -> tuple[int, ...] | None:
    """Read a dataspace message: the extents, or None for nothing at all."""
    version, rank, _ = cursor.integer(1), cursor.integer(1), cursor.integer(1)
    if version not in (1, 2) or rank > _MOST_RANK:
        raise damage(f"a shape of version {version} and {rank} axes")
    kind = cursor.integer(1)
    if version == 1:
        cursor.skip(4)
    elif kind == 2:
        return None
    shape = tuple(cursor.integer(8) for _ in range(rank))
    if math.prod(max(extent, 1) for extent in shape) > _MOST_ELEMENTS:
        raise damage(f"a shape of {shape}")
    return shape


@dataclass(frozen=True)
class Attribute:
    """An attribute message.

    Attributes:
        name: Of the attribute.
        kind: Of its elements.
        shape: None for nothing at all.
        data: The elements; texts may be in the file's heap.
    """

    name: str
    kind: ElementType
    shape: tuple[int, ...] | None
    data: memoryview

    def value(self, content: Content) -> object:
        """A text, number, or list of such.

        Raises:
            ModelFormatError: If it is damaged, or neither texts nor numbers.
        """
        if self.shape is None:
            return []
        size = self.kind.size
        data = Cursor(self.data).take(size * math.prod(self.shape))
        if self.kind.dtype is not None:
            values: list[Any] = np.frombuffer(data, self.kind.dtype).tolist()
        elif self.kind.text == "fixed":
            values = [_text(data[at : at + size]) for at in range(0, len(data), size)]
        elif self.kind.text == "variable":
            values = [_heap_text(content, Cursor(data[at : at + size])) for at in range(0, len(data), size)]
        else:
            raise ModelFormatError(f"attribute {self.name} holds {self.kind.description}, neither texts nor numbers")
        return values if self.shape else values[0]


def read_attribute(cursor: Cursor) -> Attribute:
    """Read an attribute message."""
    version, flags = cursor.integer(1), cursor.integer(1)
    if version not in (1, 2, 3):
        raise damage(f"an attribute of unknown version {version}")
    if version > 1 and flags & 3:
        raise ModelFormatError("an attribute borrows its type from another object")
    sizes = [cursor.integer(2) for _ in range(3)]
    cursor.skip(1 if version == 3 else 0)
    parts = []
    for size in sizes:
        parts.append(cursor.take(size))
        cursor.skip(-size % 8 if version == 1 else 0)
    return Attribute(
        _text(parts[0]), read_type(Cursor(parts[1])), read_shape(Cursor(parts[2])), cursor.take(cursor.left)
    )


def _text(data: memoryview) -> str:
    return bytes(data).split(b"\0", maxsplit=1)[0].decode(errors="replace")


def _heap_text(content: Content, reference: Cursor) -> str:
    length, at, index = reference.integer(4), reference.integer(8), reference.integer(4)
    return _text(Cursor(content.heap_piece(at, index)).take(length)) if length else ""
