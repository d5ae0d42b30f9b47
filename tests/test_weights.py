"""Weights files: what frameworks write is read exactly, and nothing else is believed."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gristmill.errors import ModelFormatError
from gristmill.weights import load_weights
from gristmill.weights.pickle_data import read_pickle
from hostile_files import check_refused


class _Storage:
    def __init__(self, key: str, array: np.ndarray[Any, Any], kind: str = "FloatStorage") -> None:
        self.key, self.array, self.kind = key, array, kind


class _Tensor:
    """Pickles as a tensor does."""

    def __init__(self, storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self.parts: tuple[Any, ...] = (storage, offset, shape, strides, False, OrderedDict())

    def __reduce__(self) -> tuple[Any, ...]:
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.parts


class _Pickler(pickle.Pickler):
    legacy = False

    def persistent_id(self, item: object) -> object:
        if not isinstance(item, _Storage):
            return None
        kind = getattr(sys.modules["torch"], item.kind)
        identifier = ("storage", kind, item.key, "cpu", item.array.size)
        return (*identifier, None) if self.legacy else identifier


@pytest.fixture(autouse=True)
def torch_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names that torch's pickles refer to, for writing them."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in ("FloatStorage", "HalfStorage", "BFloat16Storage", "LongStorage", "QInt8Storage"):
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def rebuild(*_: object) -> None: ...

    rebuild.__module__, rebuild.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = rebuild  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


def _archive(root: object, storages: list[_Storage], **extra: bytes) -> bytes:
    pickled = io.BytesIO()
    _Pickler(pickled, protocol=2).dump(root)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", pickled.getvalue())
        for storage in storages:
            archive.writestr(f"archive/data/{storage.key}", storage.array.tobytes())
        for name, data in extra.items():
            archive.writestr(f"archive/{name}", data)
    return out.getvalue()


def _legacy(root: object, storages: list[_Storage]) -> bytes:
    out = io.BytesIO()
    for item in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        pickle.dump(item, out, protocol=2)
    pickler = _Pickler(out, protocol=2)
    pickler.legacy = True
    pickler.dump(root)
    pickle.dump([storage.key for storage in storages], out, protocol=2)
    for storage in storages:
        out.write(struct.pack("<q", storage.array.size) + storage.array.tobytes())
    return out.getvalue()


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def load_bytes(data: bytes, suffix: str = ".pt") -> dict[str, Any]:
        path = tmp_path / f"weights{suffix}"
        path.write_bytes(data)
        return load_weights(path)

    return load_bytes


@pytest.fixture
def values() -> np.ndarray[Any, Any]:
    return np.arange(24, dtype=np.float32)


@pytest.mark.parametrize("write", [_archive, _legacy])
def test_views_of_storages(load: Callable[..., Any], values: np.ndarray[Any, Any], write: Callable[..., bytes]) -> None:
    storage = _Storage("0", values)
    state = OrderedDict(
        whole=_Tensor(storage, 0, (4, 6), (6, 1)),
        transposed=_Tensor(storage, 0, (6, 4), (1, 6)),
        part=_Tensor(storage, 5, (2, 3), (6, 2)),
        scalar=_Tensor(storage, 23, (), ()),
        empty=_Tensor(storage, 0, (0, 3), (3, 1)),
    )
    got = load(write(state, [storage]))
    assert list(got) == list(state)
    np.testing.assert_array_equal(got["whole"], values.reshape(4, 6))
    np.testing.assert_array_equal(got["transposed"], values.reshape(4, 6).T)
    np.testing.assert_array_equal(got["part"], [[5, 7, 9], [11, 13, 15]])
    assert got["scalar"] == 23
    assert got["empty"].shape == (0, 3)


def test_state_inside_a_training_checkpoint_loses_its_prefix(
    load: Callable[..., Any], values: np.ndarray[Any, Any]
) -> None:
    storage = _Storage("0", values)
    root = {"epoch": 3, "best": 0.5, "state_dict": {"module.a.weight": _Tensor(storage, 0, (24,), (1,))}}
    np.testing.assert_array_equal(load(_archive(root, [storage]))["a.weight"], values)


def test_half_types_become_float32(load: Callable[..., Any], values: np.ndarray[Any, Any]) -> None:
    half = _Storage("0", values.astype(np.float16), "HalfStorage")
    brain = _Storage("1", (values.view(np.uint32) >> 16).astype(np.uint16), "BFloat16Storage")
    whole = {"half": _Tensor(half, 0, (24,), (1,)), "brain": _Tensor(brain, 0, (24,), (1,))}
    got = load(_archive(whole, [half, brain]))
    assert {array.dtype for array in got.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(got["half"], values)
    np.testing.assert_array_equal(got["brain"], values)


def test_npz(load: Callable[..., Any]) -> None:
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b.w": np.asfortranarray(np.eye(3, dtype=np.int8)), "s": np.float16(2)}
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    got = load(out.getvalue(), ".npz")
    for name, array in arrays.items():
        np.testing.assert_array_equal(got[name], array)


def _safetensors(header: object, data: bytes = b"", size: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def _entry(shape: object, begin: object, end: object, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_safetensors(load: Callable[..., Any], values: np.ndarray[Any, Any]) -> None:
    brain = (values.view(np.uint32) >> 16).astype(np.uint16)
    header = {
        "__metadata__": {"format": "pt"},
        "b": _entry([24], 96, 144, "BF16"),
        "a": _entry([4, 6], 0, 96),
        "none": _entry([0, 3], 144, 144),
    }
    got = load(_safetensors(header, values.tobytes() + brain.tobytes()), ".safetensors")
    assert list(got) == ["b", "a", "none"]
    np.testing.assert_array_equal(got["a"], values.reshape(4, 6))
    np.testing.assert_array_equal(got["b"], values)
    assert got["none"].shape == (0, 3)


def test_keras_weights(load: Callable[..., Any]) -> None:
    h5py = pytest.importorskip("h5py")
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        file.attrs["layer_names"] = [b"dense", b"flat"]
        file.create_group("flat").attrs["weight_names"] = np.array([], "S1")
        file.create_group("dense").attrs["weight_names"] = [b"dense/kernel:0", b"dense/bias:0"]
        file["dense/dense/kernel:0"] = np.eye(3, dtype=np.float16)
        file["dense/dense/bias:0"] = np.ones(3, np.float32)
    got = load(out.getvalue(), ".h5")
    assert list(got) == ["dense/kernel", "dense/bias"]
    assert got["dense/kernel"].dtype == np.float32


class _Calls:
    """Would run a function if the pickle were executed."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.putenv, ("GRISTMILL_CANARY", "dead")


def _tensor(offset: int, shape: tuple[Any, ...], strides: tuple[int, ...], kind: str = "FloatStorage") -> bytes:
    storage = _Storage("0", np.zeros(24, np.float32), kind)
    return _archive({"w": _Tensor(storage, offset, shape, strides)}, [storage])


def _whole() -> bytes:
    return _tensor(0, (24,), (1,))


def _npz(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return out.getvalue()


def _npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def _hostile_torch() -> Iterator[tuple[str, bytes]]:
    whole = _whole()
    legacy_storage = _Storage("0", np.zeros(24, np.float32))
    legacy = _legacy({"w": _Tensor(legacy_storage, 0, (24,), (1,))}, [legacy_storage])
    yield from ((f"archive cut to {share} %", whole[: len(whole) * share // 100]) for share in range(0, 100, 3))
    yield from ((f"legacy cut to {share} %", legacy[: len(legacy) * share // 100]) for share in range(3, 100, 4))
    yield "calls a function", _archive({"w": _Calls()}, [])
    yield "names a class", _archive({"w": Path("/")}, [])
    yield "no tensors", _archive({"epoch": 3}, [])
    yield "a list", _archive([1, 2], [])
    yield "beyond the storage", _tensor(1, (24,), (1,))
    yield "far beyond", _tensor(0, (2**40,), (1,))
    yield "wide strides", _tensor(0, (2, 2), (2**62, 1))
    yield "overlapping blow-up", _tensor(0, (2**20, 2**20), (0, 0))
    yield "negative offset", _tensor(-1, (2,), (1,))
    yield "negative shape", _tensor(0, (-2,), (1,))
    yield "negative strides", _tensor(8, (2,), (-1,))
    yield "ranks differ", _tensor(0, (2, 3), (1,))
    yield "shape of floats", _tensor(0, (2.5,), (1,))
    yield "unknown element type", _tensor(0, (24,), (1,), kind="QInt8Storage")
    missing = _Storage("7", np.zeros(24, np.float32))
    yield "storage missing", _archive({"w": _Tensor(missing, 0, (24,), (1,))}, [])
    short = _Storage("0", np.zeros(24, np.float32))
    pickled_long = _archive({"w": _Tensor(short, 0, (24,), (1,))}, [_Storage("0", np.zeros(3, np.float32))])
    yield "storage short", pickled_long
    yield "big-endian", _archive({"w": _Tensor(short, 0, (24,), (1,))}, [short], byteorder=b"big")
    yield "a program", _archive({"w": _Tensor(short, 0, (24,), (1,))}, [short], **{"constants.pkl": b"\x80\x02)."})
    yield "legacy storage short", legacy[:-104] + struct.pack("<q", 2**60) + legacy[-96:]
    yield "not a checkpoint", pickle.dumps(5, protocol=2)
    yield "text", b"hello, world\n" * 50
    yield "no pickle inside", _npz(a=b"")
    deep: list[Any] = []
    for _ in range(300):
        deep = [deep]
    yield "nested deep", _archive({"a": deep}, [])
    loop: dict[str, Any] = {}
    loop["self"] = loop
    yield "contains itself", _archive(loop, [])


def _hostile_npz() -> Iterator[tuple[str, bytes]]:
    good = _npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}\n", bytes(8))
    yield from ((f"cut to {share} %", _npz(a=good)[: len(_npz(a=good)) * share // 100]) for share in range(0, 100, 2))
    yield "not an array", _npz(a=b"hello")
    yield "shape too large", _npz(a=_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (9,)}\n", bytes(8)))
    yield "shape huge", _npz(a=_npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2**60,)}\n", bytes(8)))
    yield (
        "shape huge, plain",
        _npz(a=_npy(f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({2**60},)}}\n", bytes(8))),
    )
    yield "negative", _npz(a=_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (-2,)}\n", bytes(8)))
    yield "objects", _npz(a=_npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}\n", pickle.dumps(1)))
    yield "strings", _npz(a=_npy("{'descr': '<U2', 'fortran_order': False, 'shape': (1,)}\n", bytes(8)))
    yield "header is code", _npz(a=_npy("__import__('os').putenv('GRISTMILL_CANARY', 'dead')\n"))
    yield "header long", _npz(a=_npy("{'descr': '<f4'," + " " * 20000 + "}\n"))
    yield "header nested", _npz(a=_npy("(" * 5000 + ")" * 5000))
    yield "version", _npz(a=b"\x93NUMPY\x09\x00" + good[8:])
    yield "bomb", _npz(a=bytes(80 << 20))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.npy", good)
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.npy", good)
    yield "two of a name", out.getvalue()
    lying = bytearray(_npz(a=good))
    at = lying.rindex(b"PK\x01\x02") + 24
    lying[at : at + 4] = struct.pack("<I", 5)
    yield "lies about its size", bytes(lying)


def _hostile_safetensors() -> Iterator[tuple[str, bytes]]:
    good = _safetensors({"w": _entry([2], 0, 8)}, bytes(8))
    yield from ((f"cut to {length}", good[:length]) for length in range(len(good)))
    yield "trailing bytes", good + b"x"
    yield "header beyond the file", _safetensors({}, size=1000)
    yield "header of 2^63", _safetensors({}, size=2**63)
    yield "header no JSON", _safetensors(b"{")
    yield "header a list", _safetensors([])
    yield "header nested", _safetensors(b"[" * 100_000)
    yield "header no text", _safetensors(b"\xff\xfe{}")
    yield "a name twice", _safetensors(b'{"a": {}, "a": {}}')
    yield "no offsets", _safetensors({"w": {"dtype": "F32", "shape": [1]}}, bytes(4))
    yield "entry no object", _safetensors({"w": 5})
    for name, entry in {
        "shape negative": _entry([-2], 0, 8),
        "shape overflows": _entry([2**32, 2**32], 0, 8),
        "shape of truths": _entry([True, 2], 0, 8),
        "shape no list": _entry("ab", 0, 8),
        "type unknown": _entry([2], 0, 8, "F4"),
        "too small": _entry([3], 0, 8),
        "backwards": _entry([2], 8, 0),
        "beyond": _entry([4], 0, 16),
        "gap": _entry([1], 4, 8),
        "offsets of text": _entry([2], "0", "8"),
    }.items():
        yield name, _safetensors({"w": entry}, bytes(8))
    yield "overlap", _safetensors({"a": _entry([2], 0, 8), "b": _entry([2], 4, 12)}, bytes(12))


def _is_refused(load: Callable[..., Any], data: bytes, suffix: str) -> bool:
    try:
        load(data, suffix)
    except ModelFormatError as error:
        return error.file is not None
    return False


@pytest.mark.parametrize(
    ("suffix", "files"), [(".pt", _hostile_torch), (".npz", _hostile_npz), (".safetensors", _hostile_safetensors)]
)
def test_hostile_files_are_refused(
    tmp_path: Path, suffix: str, files: Callable[[], Iterator[tuple[str, bytes]]]
) -> None:
    check_refused(tmp_path, files(), suffix, "gristmill.load_weights")


@pytest.mark.parametrize(
    "code", [b"c__builtin__\neval\n.", b"(S'x'\ni__builtin__\neval\n.", b"\x82\x01.", b"}q\x00b.", b"."]
)
def test_pickles_that_are_programs(code: bytes) -> None:
    with pytest.raises(ModelFormatError):
        read_pickle(io.BytesIO(code), {})


def test_every_byte_of_a_checkpoint_may_be_wrong(load: Callable[..., Any]) -> None:
    whole = _whole()
    refused = 0
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 0x55
        refused += _is_refused(load, bytes(damaged), ".pt")
    assert refused > len(whole) // 2


def test_unknown_suffix_names_what_is_known(load: Callable[..., Any]) -> None:
    with pytest.raises(ModelFormatError, match=r"\.doc.*\.npz"):
        load(b"", ".doc")
