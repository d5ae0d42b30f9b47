"""Datasets: the elements of an array, from where its layout says they are: in its header, in one run, or in chunks."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gristmill.errors import ModelFormatError
from gristmill.weights.hdf5.content import UNDEFINED, Content, Cursor, damage
from gristmill.weights.hdf5.headers import Kind, Messages
from gristmill.weights.hdf5.links import tree_leaves
from gristmill.weights.hdf5.types import read_shape, read_type

__all__ = ["Dataset", "locate"]

Array: TypeAlias = npt.NDArray[Any]

_COMPACT, _CONTIGUOUS, _CHUNKED, _VIRTUAL = range(4)
_DEFLATE, _SHUFFLE, _CHECKSUM = 1, 2, 3


@dataclass(frozen=True)
class _Chunk:
    """Where a chunk lies in the array and in the file."""

    start: tuple[int, ...]
    data: memoryview
    skipped_filters: int


@dataclass(frozen=True)
class Dataset:
    """An array that has been found in the file; one without chunks is a single one.

    Attributes:
        shape: Of the array.
        dtype: As stored; truth values are bytes.
        extents: Shape of each chunk.
        chunks: All that the array needs.
        filters: What was done to them, by number.
        truths: Whether the elements are truth values.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    extents: tuple[int, ...]
    chunks: Sequence[_Chunk]
    filters: Sequence[int] = ()
    truths: bool = False

    def array(self) -> Array:
        """The elements, in the machine's byte order.

        Raises:
            ModelFormatError: A chunk is damaged.
        """
        array = np.zeros(self.shape, bool if self.truths else self.dtype.newbyteorder("="))
        if not array.size:
            return array
        for chunk in self.chunks:
            piece = np.frombuffer(self._unfiltered(chunk), self.dtype).reshape(self.extents)
            ends = [min(at + extent, n) for at, extent, n in zip(chunk.start, self.extents, self.shape, strict=True)]
            target = tuple(slice(at, end) for at, end in zip(chunk.start, ends, strict=True))
            array[target] = piece[tuple(slice(end - at) for at, end in zip(chunk.start, ends, strict=True))]
        return array

    def _unfiltered(self, chunk: _Chunk) -> bytes | memoryview:
        size = math.prod(self.extents) * self.dtype.itemsize
        data: bytes | memoryview = chunk.data
        for position, code in reversed(list(enumerate(self.filters))):
            if chunk.skipped_filters >> position & 1:
                continue
            if code == _DEFLATE:
                data = _inflate(data, size + 4)
            elif code == _CHECKSUM:
                data = data[:-4]
            elif len(data) % self.dtype.itemsize == 0:
                data = np.frombuffer(data, np.uint8).reshape(self.dtype.itemsize, -1).T.tobytes()
        if len(data) != size:
            raise ModelFormatError(f"has a chunk of {len(data)} bytes, not {size}")
        return data


def _inflate(data: bytes | memoryview, most: int) -> bytes:
    machine = zlib.decompressobj()
    try:
        inflated = machine.decompress(data, most)
    except zlib.error as error:
        raise ModelFormatError(f"cannot be decompressed: {error}") from error
    if not machine.eof:
        raise ModelFormatError(f"has a chunk that does not end after {len(inflated)} bytes")
    return inflated


def locate(content: Content, messages: Messages) -> Dataset:
    """Find the parts of an array of numbers.

    Raises:
        ModelFormatError: If it is damaged, not of numbers, lies elsewhere, or is larger than the file can hold.
    """
    if messages.first(Kind.EXTERNAL_FILES) is not None:
        raise ModelFormatError("is stored in another file")
    kind, shape = read_type(messages.need(Kind.DATATYPE)), read_shape(messages.need(Kind.DATASPACE))
    if kind.dtype is None or shape is None:
        raise ModelFormatError(f"holds {'nothing' if shape is None else kind.description}, not numbers")
    truths = kind.dtype == bool
    dtype = np.dtype(np.uint8) if truths else kind.dtype
    layout = messages.need(Kind.LAYOUT)
    version, storage = layout.integer(1), layout.integer(1)
    if version not in (3, 4):
        raise ModelFormatError(f"has a layout of version {version}, which is not supported")
    if storage == _VIRTUAL:
        raise ModelFormatError("is stored in another file")
    if storage == _CHUNKED and version != 3:
        raise ModelFormatError("has chunks in the form of libver='latest'; save it with h5py's defaults")
    if storage == _CHUNKED:
        extents, chunks = _chunks(content, layout, shape, dtype)
        return Dataset(shape, dtype, extents, chunks, _filters(messages.first(Kind.FILTERS)), truths)
    size = math.prod(shape) * dtype.itemsize
    data = _run(content, layout, storage)
    if len(data) < size:
        raise ModelFormatError(f"declares {size} bytes, and the file has {len(data)} for it")
    return Dataset(shape, dtype, shape, [_Chunk((0,) * len(shape), data[:size], 0)], truths=truths)


def _run(content: Content, layout: Cursor, storage: int) -> memoryview:
    if storage == _COMPACT:
        return layout.take(layout.integer(2))
    if storage != _CONTIGUOUS:
        raise damage(f"a layout of class {storage}")
    at, size = layout.integer(8), layout.integer(8)
    return content.structure(at, size).take(size) if size and at != UNDEFINED else memoryview(b"")


def _filters(message: Cursor | None) -> list[int]:
    if message is None:
        return []
    version, count = message.integer(1), message.integer(1)
    message.skip(6 if version == 1 else 0)
    found = []
    for _ in range(count):
        code = message.integer(2)
        name = message.integer(2) if version == 1 or code >= 256 else 0
        message.skip(2)
        values = message.integer(2)
        message.skip(name + 4 * values + (4 if version == 1 and values % 2 else 0))
        if code not in (_DEFLATE, _SHUFFLE, _CHECKSUM):
            raise ModelFormatError(f"is compressed by filter {code}; only gzip is supported")
        found.append(code)
    return found


def _chunks(
    content: Content, layout: Cursor, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> tuple[tuple[int, ...], list[_Chunk]]:
    rank, root = layout.integer(1) - 1, layout.integer(8)
    extents = tuple(layout.integer(4) for _ in range(max(rank, 0)))
    if rank != len(shape) or rank < 1 or not all(extents) or layout.integer(4) != dtype.itemsize:
        raise damage(f"chunks of {extents} for a shape of {shape}")
    content.expand((math.prod(shape) + math.prod(extents)) * dtype.itemsize)
    found: dict[tuple[int, ...], _Chunk] = {}
    for key, address in tree_leaves(content, root, kind=1, key_bytes=8 * rank + 16):
        size, skipped = key.integer(4), key.integer(4)
        start = tuple(key.integer(8) for _ in range(rank))
        if any(at % extent or at >= n for at, extent, n in zip(start, extents, shape, strict=True)):
            raise damage(f"a chunk at {start} of {shape}")
        found[start] = _Chunk(start, content.structure(address, size).take(size), skipped)
    needed = math.prod(-(-n // extent) for n, extent in zip(shape, extents, strict=True))
    if len(found) != needed:
        raise ModelFormatError(f"has {len(found)} chunks of the {needed} that it needs")
    return extents, list(found.values())
