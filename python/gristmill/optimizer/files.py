"""Array files: ``.npy`` and ``.npz``, of which no more is read than is wanted, and ``.npz`` written in one step."""

from __future__ import annotations

import io
import math
import os
import zipfile
import zlib
from collections.abc import Mapping
from typing import BinaryIO, cast

import numpy as np
from numpy.lib import format as npy

from gristmill.artefact.atomic_file import replace_file
from gristmill.errors import ArgumentError
from gristmill.graph import Array

__all__ = ["ALL_ROWS", "one_of", "read_arrays", "write_arrays"]


#: More rows than any file has.
ALL_ROWS = 1 << 62
#: What numpy and zipfile raise about files that are damaged, encrypted, or say that they are absurdly large.
_DAMAGED: tuple[type[Exception], ...] = (
    *(ValueError, TypeError, EOFError, RuntimeError, SyntaxError, OverflowError, MemoryError),
    *(zipfile.BadZipFile, zlib.error),
)


def read_arrays(path: str | os.PathLike[str], rows: int) -> Array | dict[str, Array]:
    """The array of a ``.npy`` file, or those of an ``.npz`` file by name; of each at least the first ``rows``.

    A ``.npy`` file is mapped into memory and read as far as it is looked at; of an ``.npz`` file nothing behind the
    rows is unpacked.

    Raises:
        ArgumentError: It is no such file, is damaged, or holds Python objects.
        OSError: It cannot be read.
    """
    try:
        with open(path, "rb") as file:
            zipped = file.read(2) == b"PK"
        if zipped:
            with zipfile.ZipFile(path) as archive:
                return {
                    name.removesuffix(".npy"): _read(cast("BinaryIO", archive.open(name)), rows)
                    for name in archive.namelist()
                }
        with np.errstate(over="ignore"):  # of the size that a header tells
            loaded = np.load(path, mmap_mode="r", allow_pickle=False)
    except _DAMAGED as error:
        raise ArgumentError(f"is no .npy or .npz file that can be read: {error}", file=os.fspath(path)) from None
    assert isinstance(loaded, np.ndarray)
    return loaded


def _read(stream: BinaryIO, rows: int) -> Array:
    with stream:
        version = npy.read_magic(stream)
        header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = header(stream)
        if dtype.hasobject:
            raise ValueError("it holds Python objects")
        if shape and not fortran:
            shape = (min(shape[0], rows), *shape[1:])
        size = math.prod(shape) * dtype.itemsize
        data = stream.read(size)
        if len(data) != size:
            raise ValueError("it ends too early")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, Array]) -> None:
    """Write an ``.npz`` file of that very name, in one step; arrays may have any names.

    Raises:
        OSError: It cannot be written.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, value in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                npy.write_array(member, value, allow_pickle=False)
    replace_file(path, [stream.getbuffer()])


def one_of(arrays: Mapping[str, Array], names: tuple[str, ...], path: str) -> Array:
    """The first of these arrays that there is.

    Raises:
        ArgumentError: There is none.
    """
    for name in names:
        if name in arrays:
            return arrays[name]
    raise ArgumentError(f"holds none of {', '.join(names)}; there is: {', '.join(arrays)}", file=path)
