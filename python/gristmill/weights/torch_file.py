"""PyTorch checkpoints (``.pt``, ``.pth``, ``.th``) without PyTorch: tensors, containers, numbers and strings.

A checkpoint is a pickle of containers in which a tensor is a view (offset, shape, strides) of a numbered storage. Since
PyTorch 1.6 it is a zip archive with the pickle as ``data.pkl`` and a member for each storage; before, a file of five
pickles followed by the storages. The pickle is read as data (:mod:`gristmill.weights.pickle_data`).
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

from gristmill.errors import ModelFormatError
from gristmill.weights.archive import Archive
from gristmill.weights.pickle_data import read_pickle

__all__ = ["read_checkpoint"]

Array: TypeAlias = npt.NDArray[Any]

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_MOST_RANK = 32


@dataclass(frozen=True)
class _ElementType:
    """What a torch element type is in numpy. bfloat16 is stored as the upper half of a float32."""

    name: str
    dtype: np.dtype[Any]
    bfloat16: bool = False

    def array(self, data: bytes) -> Array:
        stored = np.frombuffer(data, self.dtype)
        return (stored.astype(np.uint32) << 16).view(np.float32) if self.bfloat16 else stored


_ELEMENT_TYPES = {
    item.name: item
    for item in (
        _ElementType("Float", np.dtype("<f4")),
        _ElementType("Double", np.dtype("<f8")),
        _ElementType("Half", np.dtype("<f2")),
        _ElementType("BFloat16", np.dtype("<u2"), bfloat16=True),
        _ElementType("Long", np.dtype("<i8")),
        _ElementType("Int", np.dtype("<i4")),
        _ElementType("Short", np.dtype("<i2")),
        _ElementType("Char", np.dtype("<i1")),
        _ElementType("Byte", np.dtype("<u1")),
        _ElementType("Bool", np.dtype("?")),
    )
}


@dataclass(eq=False)
class _Storage:
    """A run of elements; ``array`` is filled in when its bytes have been found."""

    kind: _ElementType
    count: int
    array: Array | None = None


@dataclass(frozen=True, eq=False)
class _View:
    """A tensor before its storage is known."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self, name: str) -> Array:
        data = self.storage.array
        if data is None:
            raise ModelFormatError("its storage is missing", node=name)
        numbers = (self.offset, *self.shape, *self.strides)
        if len(self.shape) != len(self.strides) or len(self.shape) > _MOST_RANK or any(n < 0 for n in numbers):
            raise ModelFormatError(f"a view of shape {self.shape} and strides {self.strides} makes no sense", node=name)
        if 0 in self.shape:
            return np.empty(self.shape, data.dtype)
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        if last >= data.size or math.prod(self.shape) > data.size:
            raise ModelFormatError(f"reaches element {last} of a storage of {data.size}", node=name)
        steps = tuple(step * data.itemsize for step in self.strides)
        return np.array(np.lib.stride_tricks.as_strided(data[self.offset :], self.shape, steps))


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object
) -> _View:
    whole = isinstance(offset, int) and all(
        isinstance(items, tuple) and all(isinstance(item, int) for item in items) for items in (shape, strides)
    )
    if not isinstance(storage, _Storage) or not whole:
        raise ModelFormatError("damaged checkpoint: a tensor is not a view of a storage")
    return _View(storage, offset, shape, strides)


def _rebuild_parameter(view: _View, *_: object) -> _View:
    return view


def _ordered_dict(items: Any = ()) -> dict[Any, Any]:  # noqa: ANN401
    return dict(items)


def _size(items: tuple[int, ...] = ()) -> tuple[int, ...]:
    return tuple(items)


def _device(*names: object) -> str:
    return ":".join(map(str, names))


_NAMES: dict[str, Any] = {
    "collections OrderedDict": _ordered_dict,
    "torch._utils _rebuild_tensor": _rebuild_tensor,
    "torch._utils _rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils _rebuild_parameter": _rebuild_parameter,
    "torch Size": _size,
    "torch device": _device,
    **{f"torch {name}Storage": kind for name, kind in _ELEMENT_TYPES.items()},
}


def read_checkpoint(stream: BinaryIO) -> object:
    """What the checkpoint holds, with every tensor as a numpy array.

    Raises:
        ModelFormatError: If the file is damaged or holds anything but tensors and plain data.
    """
    magic = stream.read(4)
    stream.seek(0)
    return _read_archive(Archive(stream)) if magic == b"PK\x03\x04" else _read_legacy(stream)


@dataclass
class _Storages:
    """Storages by key, made when the pickle first refers to them."""

    known: dict[str, _Storage] = field(default_factory=dict)
    load: Callable[[str, _ElementType], Array] | None = None

    def resolve(self, identifier: object) -> _Storage:
        match identifier:
            case ("storage", _ElementType() as kind, str() as key, str(), int() as count, *rest):
                if rest not in ([], [None]):
                    raise ModelFormatError("views of storages are not supported; save the checkpoint again")
            case _:
                raise ModelFormatError("damaged checkpoint: a storage without type, key and size")
        if key not in self.known:
            self.known[key] = _Storage(kind, count, None if self.load is None else self.load(key, kind))
        storage = self.known[key]
        if storage.kind != kind or storage.count != count or (storage.array is not None and storage.array.size < count):
            raise ModelFormatError(f"storage {key} has not the {count} elements that it should")
        return storage


def _read_archive(archive: Archive) -> object:
    pickles = [name for name in archive.names if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ModelFormatError("this zip archive is not a PyTorch checkpoint: it has no data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.names and archive.read(f"{folder}byteorder") != b"little":
        raise ModelFormatError("big-endian checkpoints are not supported")
    if f"{folder}constants.pkl" in archive.names:
        raise ModelFormatError("this is a TorchScript program, not weights; save model.state_dict()")

    def load(key: str, kind: _ElementType) -> Array:
        data = archive.read(f"{folder}data/{key}")
        return kind.array(data[: len(data) // kind.dtype.itemsize * kind.dtype.itemsize])

    storages = _Storages(load=load)
    return _materialize(read_pickle(io.BytesIO(archive.read(pickles[0])), _NAMES, storages.resolve))


def _read_legacy(stream: BinaryIO) -> object:
    if read_pickle(stream, {}) != _LEGACY_MAGIC:
        raise ModelFormatError("not a PyTorch checkpoint")
    if read_pickle(stream, {}) != _LEGACY_PROTOCOL:
        raise ModelFormatError("a checkpoint of an unknown protocol")
    system = read_pickle(stream, {})
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ModelFormatError("big-endian checkpoints are not supported")
    storages = _Storages()
    root = read_pickle(stream, _NAMES, storages.resolve)
    keys = read_pickle(stream, {})
    if not isinstance(keys, list):
        raise ModelFormatError("damaged checkpoint: no list of storages")
    for key in keys:
        if key not in storages.known:
            raise ModelFormatError(f"damaged checkpoint: storage {key!r} belongs to no tensor")
        _read_legacy_storage(stream, storages.known[key], key)
    return _materialize(root)


def _read_legacy_storage(stream: BinaryIO, storage: _Storage, key: str) -> None:
    header = stream.read(8)
    if len(header) != 8 or struct.unpack("<q", header)[0] != storage.count:
        raise ModelFormatError(f"storage {key} has not the {storage.count} elements that it should")
    size = storage.count * storage.kind.dtype.itemsize
    start = stream.tell()
    if size > stream.seek(0, io.SEEK_END) - start:
        raise ModelFormatError(f"storage {key} is cut off")
    stream.seek(start)
    storage.array = storage.kind.array(stream.read(size))


def _materialize(root: object) -> object:
    """Turn views into arrays, in a copy of the containers; a container within itself is refused."""
    open_containers: set[int] = set()

    def convert(value: Any, name: str) -> object:  # noqa: ANN401
        if isinstance(value, _View):
            return value.array(name)
        if not isinstance(value, (dict, list, tuple)):
            return value
        if id(value) in open_containers or len(open_containers) > 100:
            raise ModelFormatError("containers are nested too deep", node=name)
        open_containers.add(id(value))
        result: object
        if isinstance(value, dict):
            result = {key: convert(item, f"{name}.{key}" if name else str(key)) for key, item in value.items()}
        else:
            result = [convert(item, f"{name}[{i}]") for i, item in enumerate(value)]
            result = tuple(result) if isinstance(value, tuple) else result
        open_containers.discard(id(value))
        return result

    return convert(root, "")
