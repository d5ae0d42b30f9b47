"""How arrays of mostly zeros are stored: the gaps between nonzeros, and the nonzeros.

A gap is the number of zeros before a nonzero, or before the end. Gaps are bytes; 255 stands for 255 zeros with more to
come. Gaps and 8-bit values then pass through Huffman coding (Deflate without its matching), which brings both near
their entropy: at random positions and 90 % zeros a gap takes 0.59 bytes, and pruned weights take 0.8 to 0.9. Rows come
in the order of their density, since the code adapts to its surroundings. Wider values are stored as they are. Nonzero
means any bit set, so that -0.0 survives.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.errors import ModelFormatError
from gristmill.operators.registry import require_size

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

_ESCAPE = 255


@dataclass(frozen=True)
class Coded:
    """The parts of a coded array.

    Attributes:
        gaps: Coded gaps.
        values: Nonzeros, coded if they are bytes.
        order: The row that comes first, second, ...
        nonzeros: How many there are.
    """

    gaps: Bytes
    values: Bytes
    order: npt.NDArray[np.uint32]
    nonzeros: int

    @property
    def nbytes(self) -> int:
        """Size of all parts."""
        return self.gaps.nbytes + self.values.nbytes + self.order.nbytes


def encode(array: Array) -> Coded:
    """Code an array of one dimension or more."""
    rows = np.ascontiguousarray(array).reshape(len(array), math.prod(array.shape[1:]))
    bits = rows.view(f"u{array.itemsize}")
    order = np.argsort(np.count_nonzero(bits, axis=1), kind="stable")
    places = np.flatnonzero(bits[order])
    gaps = np.diff(places, prepend=-1, append=array.size) - 1
    escapes = gaps // _ESCAPE
    stream = np.full(gaps.size + int(escapes.sum()), _ESCAPE, np.uint8)
    stream[np.arange(gaps.size) + np.cumsum(escapes)] = gaps % _ESCAPE
    values = rows[order].reshape(-1)[places].view(np.uint8)
    coded = _huffman(values) if array.itemsize == 1 else values
    return Coded(_huffman(stream), coded, order.astype(np.uint32), places.size)


def decode(coded: Coded, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """The array that was coded.

    Raises:
        ModelFormatError: If the parts do not make an array of that type and shape.
        LimitError: If it is too large.
    """
    count = coded.nonzeros
    stream = _unhuffman(coded.gaps)
    values = _unhuffman(coded.values) if dtype.itemsize == 1 else coded.values
    ends = np.flatnonzero(stream != _ESCAPE)
    if values.size != count * dtype.itemsize or ends.size != count + 1 or ends[-1] != stream.size - 1:
        raise ModelFormatError(f"has {ends.size} gaps and {values.size} bytes for {count} values")
    places = np.cumsum(stream, dtype=np.int64)[ends] + np.arange(count + 1)
    if not shape or places[-1] != math.prod(shape):
        raise ModelFormatError(f"has {places[-1]} elements, which do not make the shape {shape}")
    require_size(shape, dtype.itemsize)
    if not np.array_equal(np.sort(coded.order), np.arange(shape[0])):
        raise ModelFormatError(f"has an order that is none of {shape[0]} rows")
    sorted_rows = np.zeros(places[-1], dtype)
    sorted_rows[places[:-1]] = values.view(dtype)
    rows = np.empty(shape, dtype)
    rows[coded.order] = sorted_rows.reshape(shape)
    return rows


def _huffman(data: Bytes) -> Bytes:
    coder = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
    return np.frombuffer(coder.compress(data.tobytes()) + coder.flush(), np.uint8)


def _unhuffman(data: Bytes) -> Bytes:
    """Decode a stream; without matching no byte takes less than a bit, so that a small file cannot fill the memory."""
    coder = zlib.decompressobj(-15)
    most = 8 * data.size
    try:
        plain = coder.decompress(data.tobytes(), most + 1)
    except zlib.error as error:
        raise ModelFormatError(f"has a stream that cannot be decoded: {error}") from None
    if not coder.eof or coder.unused_data or len(plain) > most:
        raise ModelFormatError("has a stream of the wrong length")
    return np.frombuffer(plain, np.uint8)
