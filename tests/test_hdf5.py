"""HDF5 files: what h5py writes is read exactly; whatever bytes are wrong, reading ends with an error or an array."""

from __future__ import annotations

import io
import random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gristmill.errors import GristmillError, ModelFormatError
from gristmill.weights.hdf5 import Hdf5File
from gristmill.weights.keras_file import read_keras_weights

h5py = pytest.importorskip("h5py")

DTYPES = ("<f4", ">f4", "<f8", "<f2", "<i4", ">i8", "u1", "i1", "?", "<u2")
ATTRIBUTES: tuple[Any, ...] = (
    *("text" * 300, "é", [b"abc", b"de"], np.array([], "S1"), 3, 2.5, np.arange(4)),
    np.array(["x", "yyy"], dtype=h5py.string_dtype()),
)


def _settings(rng: random.Random, shape: tuple[int, ...]) -> dict[str, Any]:
    if not shape or rng.random() < 0.4:
        return {}
    settings: dict[str, Any] = {"chunks": tuple(rng.randint(1, extent) for extent in shape)}
    if rng.random() < 0.6:
        settings["compression"] = "gzip"
    return {**settings, "shuffle": rng.random() < 0.5, "fletcher32": rng.random() < 0.3}


def _random_file(seed: int) -> tuple[bytes, dict[str, npt.NDArray[Any]], dict[str, Any]]:
    rng, numbers = random.Random(seed), np.random.default_rng(seed)
    arrays: dict[str, npt.NDArray[Any]] = {}
    attributes = {f"a{k}": rng.choice(ATTRIBUTES) for k in range(rng.randint(0, 6))}
    out = io.BytesIO()
    with h5py.File(out, "w", libver=rng.choice((None, ("earliest", "v108"))), track_order=seed % 5 == 0) as file:
        for k in range(rng.randint(1, 6 if seed % 5 == 0 else 30)):
            folders = [f"g{rng.randint(0, 3)}{'x' * rng.randint(0, 30)}" for _ in range(rng.randint(0, 3))]
            shape = tuple(rng.randint(1, 9) for _ in range(rng.randint(0, 4)))
            values = numbers.normal(0, 50, shape)
            path = "/".join((*folders, f"d{k}"))
            arrays[path] = np.asarray(values > 0 if (kind := rng.choice(DTYPES)) == "?" else values.astype(kind))
            file.create_dataset(path, data=arrays[path], **_settings(rng, shape))
        file.create_dataset("empty", data=np.zeros((0, 3), np.float32))
        file.attrs.update(attributes)
    return out.getvalue(), arrays, attributes


@pytest.mark.filterwarnings("ignore:overflow|invalid value")
@pytest.mark.parametrize("start", range(0, 40, 10))
def test_what_h5py_writes_is_read(start: int) -> None:
    for seed in range(start, start + 10):
        data, arrays, attributes = _random_file(seed)
        file = Hdf5File(data)
        for path, array in arrays.items():
            got = file.read(path)
            assert got.dtype == (np.float32 if array.dtype == np.float16 else array.dtype.newbyteorder("="))
            np.testing.assert_array_equal(got, array)
        assert file.read("empty").shape == (0, 3)
        for name, value in attributes.items():
            plain = np.asarray(value).tolist() if isinstance(value, list | np.ndarray) else value
            if isinstance(plain, list):
                plain = [item.decode() if isinstance(item, bytes) else item for item in plain]
            assert file.attribute("", name) == plain
        assert file.attribute("", "missing") is None
        assert not file.exists("missing/d0")


def _small() -> bytes:
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        file.attrs["layer_names"] = [b"dense"]
        file.create_group("dense").attrs["weight_names"] = [b"dense/kernel:0", b"dense/bias:0"]
        file.create_dataset("dense/dense/kernel:0", data=np.eye(6), chunks=(4, 3), compression="gzip", shuffle=True)
        file["dense/dense/bias:0"] = np.ones(3, np.float32)
    return out.getvalue()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("change", [0x01, 0x80, 0xFF])
def test_every_byte_may_be_wrong(change: int) -> None:
    whole = _small()
    assert list(read_keras_weights(io.BytesIO(whole))) == ["dense/kernel", "dense/bias"]
    refused = 0
    for at, byte in enumerate(whole):
        if at % 3 != change % 3 or (byte == 0 and at % 4):
            continue
        damaged = bytearray(whole)
        damaged[at] ^= change
        refused += _is_refused(bytes(damaged))
    assert refused > 100


@pytest.mark.filterwarnings("ignore")
def test_blocks_may_be_lost_or_exchanged() -> None:
    whole, rng = _small(), random.Random(0)
    refused = sum(_is_refused(whole[:size]) for size in range(0, len(whole), 16))
    assert refused == len(range(0, len(whole), 16))
    for _ in range(400):
        damaged = bytearray(whole)
        at, count = rng.randrange(len(whole)), rng.randrange(1, 200)
        start = rng.randrange(len(whole))
        damaged[at : at + count] = rng.choice((bytes(count), rng.randbytes(count), whole[start : start + count]))
        refused += _is_refused(bytes(damaged))
    assert refused > 600


def _is_refused(data: bytes) -> bool:
    try:
        read_keras_weights(io.BytesIO(data))
    except GristmillError:
        return True
    return False


def test_a_loop_of_nodes_ends() -> None:
    data = bytearray(_small())
    root = data.index(b"TREE")
    data[root + 5] = 1
    data[root + 32 : root + 40] = root.to_bytes(8, "little")
    with pytest.raises(ModelFormatError, match="part of two others"):
        Hdf5File(bytes(data)).exists("dense")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"track_order": True}, "large group"), ({"libver": "latest"}, "large group|latest")],
)
def test_forms_that_are_not_read_are_named(settings: dict[str, Any], reason: str) -> None:
    out = io.BytesIO()
    with h5py.File(out, "w", **settings) as file:
        for index in range(20):
            file.create_group(f"g{index}")
    with pytest.raises(ModelFormatError, match=reason):
        Hdf5File(out.getvalue()).exists("g0")
