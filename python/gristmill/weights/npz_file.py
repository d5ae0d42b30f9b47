"""NumPy's ``.npz`` and ``.npy``, arrays of numbers only, with every size checked before memory is taken."""

from __future__ import annotations

import io
import math
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

from gristmill.errors import ModelFormatError
from gristmill.weights.archive import Archive

__all__ = ["read_npy", "read_npz"]

Array: TypeAlias = npt.NDArray[Any]

_LONGEST_HEADER = 10_000
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npz(stream: BinaryIO) -> dict[str, Array]:
    """Read all arrays of an archive.

    Raises:
        ModelFormatError: If it is damaged, or an array is not of numbers.
    """
    archive = Archive(stream)
    return {name.removesuffix(".npy"): read_npy(archive.read(name), name) for name in archive.names}


def read_npy(data: bytes, name: str) -> Array:
    """Read one array from the bytes of an ``.npy`` file.

    Raises:
        ModelFormatError: If its size is not what its header says, or it is not of numbers.
    """
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise ValueError(f"format version {version} is unknown")
        shape, in_columns, dtype = _HEADERS[version](stream, max_header_size=_LONGEST_HEADER)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise ModelFormatError(f"not an array file: {error}", node=name) from error
    if dtype.kind not in "fiub":
        raise ModelFormatError(f"holds {dtype}, not numbers", node=name)
    if any(extent < 0 for extent in shape) or math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise ModelFormatError(f"holds {len(data) - stream.tell()} bytes for shape {shape} of {dtype}", node=name)
    array = np.frombuffer(data, dtype, offset=stream.tell())
    return array.reshape(shape, order="F" if in_columns else "C").astype(dtype.newbyteorder("="))
