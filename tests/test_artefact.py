from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gristmill as gm
import strategies
from gristmill.artefact import (
    FORMAT_VERSION,
    is_artefact,
    load_artefact,
    pack_artefact,
    save_artefact,
    sparse_coding,
    unpack_artefact,
)
from gristmill.artefact.container import pack, unpack
from gristmill.graph import Graph, Node, ValueInfo

Array = npt.NDArray[Any]

SAVER = """
import sys
import numpy as np
from gristmill.artefact import save_artefact
from gristmill.graph import Graph

path, size = sys.argv[1], int(sys.argv[2])
value = 0
print("ready", flush=True)
while True:
    value += 1
    save_artefact(Graph((), (), (), {"w": np.full(size, value, np.int64)}), path)
"""


def pruned(shape: tuple[int, ...], sparsity: float, dtype: npt.DTypeLike = np.int8) -> Array:
    """Weights as a trained layer has them: heavy-tailed, the largest kept, quantized per channel."""
    generator = np.random.default_rng(1)
    spread = generator.lognormal(0, 0.8, (shape[0], *[1] * (len(shape) - 1)))
    weights = generator.laplace(size=shape) * spread
    weights[np.abs(weights) < np.quantile(np.abs(weights), sparsity)] = 0
    if np.dtype(dtype) == np.float32:
        return weights.astype(np.float32)
    largest = np.maximum(np.abs(weights).reshape(shape[0], -1).max(1), 1e-9).reshape(spread.shape)
    quantized: Array = np.rint(weights / largest * 127).astype(dtype)
    return quantized


def small_graph() -> Graph:
    attributes: dict[str, Any] = {
        "one": 1,
        "real": 1.0,
        "infinite": -np.inf,
        "text": "é",
        "ints": (1, 2**62, -3),
        "reals": (0.1, float("inf")),
        "texts": ("a", ""),
        "nothing": (),
        "array": np.arange(6, dtype=np.int16).reshape(2, 3),
    }
    constants = {
        "w": pruned((8, 4, 3, 3), 0.9),
        "dense": np.arange(-5, 5, dtype=np.int8),
        "scale": np.float32(0.25).reshape(()),
        "empty": np.zeros((0, 3), np.float32),
        "mask": np.array([True, False]),
        "__metadata__": np.array([7], np.int64),
        "w.gaps": np.array([1.5], np.float64),
    }
    node = Node("Custom", ("x", "w", ""), ("y", ""), attributes, "odd: node")
    inputs = (ValueInfo("x", np.dtype(np.float32), ("n", 4, 5)), ValueInfo("z", np.dtype(np.int64)))
    return Graph(inputs, (ValueInfo("y", np.dtype(np.float32), ()),), (node,), constants)


def packed(graph: Graph) -> bytes:
    return b"".join(pack_artefact(graph))


def assert_same(left: Graph, right: Graph) -> None:
    assert (left.inputs, left.outputs) == (right.inputs, right.outputs)
    assert list(left.constants) == list(right.constants)
    for name, value in left.constants.items():
        other = right.constants[name]
        assert (value.dtype, value.shape, value.tobytes()) == (other.dtype, other.shape, other.tobytes())
    for a, b in zip(left.nodes, right.nodes, strict=True):
        assert (a.op, a.name, a.inputs, a.outputs) == (b.op, b.name, b.inputs, b.outputs)
        assert set(a.attributes) == set(b.attributes)
        for name, attribute in a.attributes.items():
            if isinstance(attribute, np.ndarray):
                np.testing.assert_array_equal(attribute, b.attributes[name], strict=True)
            else:
                assert repr(attribute) == repr(b.attributes[name])


def test_round_trip_keeps_every_bit(tmp_path: Path) -> None:
    graph = small_graph()
    save_artefact(graph, tmp_path / "m.grist")
    assert_same(graph, load_artefact(tmp_path / "m.grist"))
    assert is_artefact((tmp_path / "m.grist").read_bytes()[:64])
    assert packed(load_artefact(tmp_path / "m.grist")) == packed(graph)


def test_constants_cannot_be_written_after_loading() -> None:
    graph = unpack_artefact(packed(small_graph()))
    with pytest.raises(ValueError, match="read-only"):
        graph.constants["dense"][0] = 1


@pytest.mark.parametrize("change", [1, 32, 255])
def test_every_changed_byte_is_noticed(change: int) -> None:
    data = packed(small_graph())
    for place in range(len(data)):
        broken = bytearray(data)
        broken[place] ^= change
        with pytest.raises(gm.ModelFormatError):
            unpack_artefact(bytes(broken))


def test_every_truncation_is_noticed() -> None:
    data = packed(small_graph())
    for length in range(len(data)):
        with pytest.raises(gm.ModelFormatError):
            unpack_artefact(data[:length])
    with pytest.raises(gm.ModelFormatError, match="checksum"):
        unpack_artefact(data + b"\0")


def test_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "broken.grist"
    path.write_bytes(packed(small_graph())[:-1])
    with pytest.raises(gm.ModelFormatError, match=r"broken\.grist: is damaged"):
        load_artefact(path)
    path.write_bytes(b"hello")
    with pytest.raises(gm.ModelFormatError, match=r"broken\.grist: is not a gristmill artefact"):
        load_artefact(path)


def resealed(data: bytes, old: bytes, new: bytes) -> bytes:
    """The file with some bytes of its header exchanged and a digest that is right again."""
    assert old in data
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length].rstrip().replace(old, new)
    data = len(header).to_bytes(8, "little") + header + data[8 + length :]
    start = data.index(b'"sha256":"') + 10
    digest = hashlib.sha256(data[:start] + b"0" * 64 + data[start + 64 :]).hexdigest().encode()
    return data[:start] + digest + data[start + 64 :]


def test_newer_major_version_is_refused_with_what_it_needs() -> None:
    data = packed(small_graph())
    newer = resealed(data, b'"format_version":"1.0"', b'"format_version":"2.0"')
    newer = resealed(newer, f'"needs":"{gm.__version__}"'.encode(), b'"needs":"9.1.0"')
    with pytest.raises(gm.ModelFormatError, match=r"needs gristmill >= 9\.1\.0"):
        unpack_artefact(newer)
    assert FORMAT_VERSION == "1.0"
    minor = resealed(data, b'"format_version":"1.0"', b'"format_version":"1.7"')
    assert_same(unpack_artefact(minor), small_graph())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"shape":[10]', b'"shape":[11]'),
        (b'"shape":[10]', b'"shape":[-1]'),
        (b'"shape":[10]', b'"shape":[1e1]'),
        (b'"shape":[0,3]', b'"shape":[0,9223372036854775808]'),
        (b'"dtype":"I8"', b'"dtype":"I9"'),
        (b'"dtype":"I8"', b'"dtype":[]'),
        (b'"format":"gristmill"', b'"format":"other"'),
        (b'\\"op\\":\\"Custom\\"', b'\\"op\\":[]'),
        (b'\\"op\\":\\"Custom\\"', b'\\"no\\":0'),
        (b'[\\"x\\",\\"w\\",\\"\\"]', b'[\\"x\\",\\"v\\",\\"\\"]'),
        (b'[\\"int\\",1]', b'[\\"int\\",\\"1\\"]'),
        (b'[\\"int\\",1]', b'[\\"eval\\",1]'),
        (b'[\\"int\\",1]', b"7"),
        (b'\\"dense\\":\\"scale\\"', b'\\"dense\\":\\"gone\\"'),
        (b'\\"shape\\":[8,4,3,3]', b'\\"shape\\":[8,4,3,4]'),
        (b'\\"shape\\":[8,4,3,3]', b'\\"shape\\":[8,4,3,-3]'),
        (b'\\"shape\\":[8,4,3,3]', b'\\"shape\\":[4611686018427387904,0]'),
        (b'\\"nonzeros\\":', b'\\"nonzeros\\":1'),
        (b'\\"nodes\\":[', b'\\"nodes\\":[' + b"[" * 100_000),
        (b'"mask":{', b'"w.values":{'),
    ],
)
def test_files_with_a_right_digest_are_checked_nevertheless(old: bytes, new: bytes) -> None:
    with pytest.raises(gm.ModelFormatError):
        unpack_artefact(resealed(packed(small_graph()), old, new))


def test_container_is_a_safetensors_file(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    graph = small_graph()
    path = tmp_path / "m.grist"
    save_artefact(graph, path)
    tensors = safetensors.load_file(path)
    np.testing.assert_array_equal(tensors["dense"], graph.constants["dense"], strict=True)
    assert {tensors[name].ctypes.data % tensors[name].itemsize for name in tensors} == {0}


def test_wide_elements_are_aligned() -> None:
    arrays: dict[str, Array] = {"a": np.zeros(3, np.int8), "b": np.zeros(5, np.float64), "c": np.zeros(1, np.float16)}
    data = b"".join(pack({}, arrays))
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    assert length % 8 == 0
    assert header["b"]["data_offsets"] == [0, 40]
    assert list(unpack(data).tensors) == ["b", "c", "a"]


@given(st.data())
def test_sparse_coding_keeps_any_bits(data: st.DataObject) -> None:
    shape = data.draw(strategies.shapes.filter(len))
    dtype = np.dtype(data.draw(st.sampled_from(["int8", "uint8", "float32"])))
    array = data.draw(strategies.arrays(shape, dtype))
    keep = np.random.default_rng(data.draw(st.integers(0, 99))).random(shape) < data.draw(
        st.sampled_from([0, 0.003, 0.1, 1])
    )
    bits = np.where(keep, array.view(f"u{dtype.itemsize}"), 0).astype(f"u{dtype.itemsize}")
    array = np.ascontiguousarray(bits).view(dtype).reshape(shape)
    coded = sparse_coding.encode(array)
    assert sparse_coding.decode(coded, dtype, shape).tobytes() == array.tobytes()


@pytest.mark.parametrize("gap", [0, 1, 254, 255, 256, 509, 510, 511, 100_000])
def test_sparse_coding_escapes_long_gaps(gap: int) -> None:
    array = np.zeros(gap + 2 + gap, np.float32)
    array[[gap, gap + 1]] = -0.0, np.nan
    coded = sparse_coding.encode(array)
    assert coded.nonzeros == 2
    assert sparse_coding.decode(coded, array.dtype, array.shape).tobytes() == array.tobytes()


def test_sparse_int8_weights_take_little_room() -> None:
    weights = pruned((512, 4608), 0.9)
    nonzeros = np.count_nonzero(weights)
    assert 0.09 < nonzeros / weights.size < 0.11
    size = len(packed(Graph((), (), (), {"w": weights})))
    assert size < 1.35 * nonzeros + 1000
    assert len(packed(Graph((), (), (), {"w": pruned((512, 4608), 0.0)}))) < weights.size + 1000


def test_sparse_coding_comes_near_the_entropy() -> None:
    generator = np.random.default_rng(0)
    dense = generator.integers(1, 65, 1_000_000).astype(np.int8)
    weights = np.where(generator.random(dense.size) < 0.1, dense, 0).astype(np.int8)
    coded = sparse_coding.encode(weights)
    positions = -(0.1 * np.log2(0.1) + 0.9 * np.log2(0.9)) * dense.size / 8
    assert coded.gaps.size < 1.02 * positions
    assert coded.values.size < 1.01 * coded.nonzeros * 6 / 8


def test_small_streams_cannot_fill_the_memory() -> None:
    import zlib

    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = np.frombuffer(coder.compress(b"\xff" * 10_000_000 + b"\0") + coder.flush(), np.uint8)
    coded = sparse_coding.Coded(bomb, np.zeros(0, np.uint8), np.zeros(1, np.uint32), 0)
    with pytest.raises(gm.ModelFormatError, match="wrong length"):
        sparse_coding.decode(coded, np.dtype(np.float32), (1, 2_550_000_000))


def test_an_error_while_saving_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.grist"
    save_artefact(small_graph(), path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for function in ("write", "fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, function, fail)
            with pytest.raises(OSError, match="No space"):
                save_artefact(Graph((), (), (), {}), path)
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == ["m.grist"]


def test_full_device_is_an_error() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    # The folder of a device file cannot take a temporary file, or its content cannot be written: both are OSError.
    with pytest.raises(OSError, match=r".+"):
        save_artefact(small_graph(), "/dev/full/m.grist")


@pytest.mark.skipif(os.name != "posix", reason="symbolic links and permissions are POSIX's")
def test_links_and_permissions_survive(tmp_path: Path) -> None:
    real = tmp_path / "real.grist"
    save_artefact(Graph((), (), (), {}), real)
    real.chmod(0o640)
    link = tmp_path / "link.grist"
    link.symlink_to(real)
    save_artefact(small_graph(), link)
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert_same(load_artefact(real), small_graph())


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_killing_a_saving_process_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "m.grist"
    size = 100_000
    generator = np.random.default_rng(0)
    seen, orphans = set(), 0
    for _ in range(12):
        with subprocess.Popen([sys.executable, "-c", SAVER, path, str(size)], stdout=subprocess.PIPE) as saver:
            assert saver.stdout is not None
            saver.stdout.readline()
            time.sleep(generator.uniform(0.02, 0.1))
            saver.send_signal(signal.SIGKILL)
        if path.exists():
            weights = load_artefact(path).constants["w"]
            assert weights.shape == (size,)
            assert len(set(weights.tolist())) == 1
            seen.add(int(weights[0]))
        orphans = max(orphans, len(os.listdir(tmp_path)) - path.exists())
    assert len(seen) > 1
    assert orphans > 0
    for name in os.listdir(tmp_path):
        os.utime(tmp_path / name, (0, 0))
    save_artefact(small_graph(), path)
    assert os.listdir(tmp_path) == ["m.grist"]
