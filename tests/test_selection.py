"""Kernels of sparse layers: measured or by sparsity, the same bits in int8, and timings that outlive the process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import gristmill as gm
from graphs import Network, random_feeds
from gristmill import _core
from gristmill.compile import Packer, compile_graph, selection
from gristmill.compile.packer import DENSE, Choice, Layer, Packed, ZeroPattern
from gristmill.compile.selection import Heuristic, Measured, fastest
from gristmill.compile.timings import MOST_ENTRIES, Timings, cache_folder
from gristmill.errors import DTypeError
from gristmill.graph import Graph
from gristmill.operators import TensorType
from gristmill.passes import simplify

Array = npt.NDArray[Any]


class Fixed:
    """Chooses one format wherever it can be had."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def choose(self, layer: Layer, _zeros: ZeroPattern, _pack: Callable[[str], Packed]) -> Choice:
        real = layer.weights.dtype == np.float32
        return Choice(self.kind if real == (self.kind == "singles") else DENSE)

    def finish(self) -> None:
        pass


def pruned(net: Network, *shape: int, zeros: float = 0.8) -> Array:
    return np.asarray(net.random.standard_normal(shape) * (net.random.random(shape) >= zeros), np.float32)


def quantized_graph(zeros: float = 0.8) -> Graph:
    """Convolutions with a residual, strides and groups, and a linear layer; all of bytes."""
    net = Network()
    scale, zero = net.constant(0.05), net.constant(120, np.uint8)

    def pair(x: str) -> str:
        return net.add("DequantizeLinear", net.add("QuantizeLinear", x, scale, zero), scale, zero)

    def weights(*shape: int) -> str:
        values = net.constant(np.clip(np.rint(pruned(net, *shape, zeros=zeros) * 40), -127, 127), np.int8)
        return net.add("DequantizeLinear", values, net.constant(0.01), net.constant(0, np.int8))

    x = pair(net.input("n", 16, 12, 11))
    y = pair(net.add("Relu", net.add("Conv", x, weights(32, 16, 3, 3), pads=(1, 1, 1, 1), strides=(2, 2))))
    z = pair(net.add("Conv", y, weights(32, 16, 1, 3), group=2, pads=(0, 1, 0, 1)))
    y = pair(net.add("Relu", net.add("Add", z, pair(net.add("Conv", y, weights(32, 32, 1, 1))))))
    y = net.add("Flatten", pair(net.add("GlobalAveragePool", y)))
    return net.graph(pair(net.add("MatMul", y, weights(32, 24))))


def run_with(graph: Graph, kind: str, feeds: dict[str, Array], threads: int = 1) -> tuple[list[Array], set[str]]:
    types = {name: TensorType(value.dtype, value.shape) for name, value in feeds.items()}
    compiled = compile_graph(simplify(graph), types, Packer(Fixed(kind)))
    return compiled.plan.run(list(feeds.values()), threads=threads), {kernel for _, kernel in compiled.plan.steps}


@pytest.mark.parametrize("batch", [1, 3, 17])
def test_formats_give_the_same_bits_in_int8(batch: int, isa: str) -> None:
    graph = quantized_graph()
    feeds = random_feeds(graph, n=batch)
    (dense,), kernels = run_with(graph, DENSE, feeds)
    assert not any("sparse" in kernel for kernel in kernels)
    assert len(np.unique(dense)) > 10
    for kind in ("quads", "blocks"):
        for threads in (1, 2):
            (other,), kernels = run_with(graph, kind, feeds, threads)
            assert any("sparse" in kernel for kernel in kernels)
            np.testing.assert_array_equal(other, dense)


def stored(folder: Path) -> dict[str, dict[str, float]]:
    (path,) = folder.glob("kernels-*.json")
    found: dict[str, dict[str, float]] = json.loads(path.read_text())["milliseconds"]
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRISTMILL_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_candidates_are_timed_once_and_kept(folder: Path) -> None:
    graph = quantized_graph()
    feeds = random_feeds(graph, n=2)
    session = gm.InferenceSession(graph, threads=1)
    (expected,) = session.run(None, feeds)
    first = stored(folder)
    assert len(first) == 4
    assert all(set(times) == {"dense", "quads", "blocks"} for times in first.values())
    assert all("threads=1" in key and "density=0." in key for key in first)
    (path,) = folder.glob("*.json")
    before = path.stat().st_mtime_ns
    np.testing.assert_array_equal(gm.InferenceSession(graph, threads=1).run(None, feeds)[0], expected)
    assert path.stat().st_mtime_ns == before
    gm.InferenceSession(graph, threads=1, select="heuristic").run(None, feeds)
    assert stored(folder) == first


def test_timings_tell_shapes_and_functions_of_outputs_apart(folder: Path) -> None:
    graph = quantized_graph()
    for batch in (1, 2):
        gm.InferenceSession(graph, threads=1).run(None, random_feeds(graph, n=batch))
    assert len(stored(folder)) == 8
    net = Network()
    weights = pruned(net, 16, 16, 1, 1)
    for activation in ("", "Sigmoid", "Tanh"):
        net = Network()
        y = net.add("Conv", net.input(1, 16, 6, 6), net.constant(weights))
        graph = net.graph(net.add(activation, y) if activation else y)
        gm.InferenceSession(graph, threads=1).run(None, random_feeds(graph))
    found = [key for key in stored(folder) if "float32" in key]
    assert len({key.split("activation=")[1].split()[0] for key in found}) == len(found) >= 2


def test_beyond_the_seconds_of_a_plan_sparsity_decides(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "_PLAN_SECONDS", 1e-9)
    graph = quantized_graph()
    session = gm.InferenceSession(graph, threads=1)
    for batch in (1, 2):
        (x,) = random_feeds(graph, n=batch).values()
        reasons = [step.choice for step in session.profile(x, runs=1).steps if step.macs]
        assert reasons[1:] == ["by sparsity"] * 3
        assert reasons[0] != "by sparsity"
        assert len(stored(folder)) == batch


@pytest.mark.parametrize("winner", ["dense", "quads", "blocks"])
def test_what_was_measured_decides_in_the_next_process(folder: Path, winner: str) -> None:
    graph = quantized_graph()
    feeds = random_feeds(graph, n=1)
    gm.InferenceSession(graph, threads=1).run(None, feeds)
    (path,) = folder.glob("*.json")
    document = json.loads(path.read_text())
    for times in document["milliseconds"].values():
        times.update(dict.fromkeys(times, 1.0) | {winner: 0.5})
    path.write_text(json.dumps(document))
    timings = Timings(path, document["machine"])
    types = {name: TensorType(value.dtype, value.shape) for name, value in feeds.items()}
    compiled = compile_graph(simplify(graph), types, Packer(Measured(timings, 1)))
    assert {choice.format for choice in compiled.choices.values()} == {winner}
    assert all(str(choice).startswith(f"{winner} 0.500, ") for choice in compiled.choices.values())


def test_a_sparse_format_that_loses_is_not_used_and_the_profile_says_so() -> None:
    assert fastest({"dense": 1.0, "quads": 1.1, "blocks": 1.2}) == "dense"
    assert fastest({"dense": 1.0, "quads": 0.98}) == "dense"
    assert fastest({"dense": 1.0, "quads": 0.9, "blocks": 0.8}) == "blocks"
    graph = quantized_graph()
    (x,) = random_feeds(graph, n=1).values()
    profile = gm.InferenceSession(graph, threads=1).profile(x, runs=2)
    layers = [step for step in profile.steps if step.macs]
    assert len(layers) == 4
    for step in layers:
        assert {part.split()[0] for part in step.choice.split(", ")} == {"dense", "quads", "blocks"}
        assert step.of_bound == pytest.approx(step.giga_macs / step.bound)
        assert step.bound > 0
    assert "candidates, ms" in str(profile)
    by_sparsity = gm.InferenceSession(graph, threads=1, select="heuristic").profile(x, runs=1)
    assert {step.choice for step in by_sparsity.steps if step.macs} == {"by sparsity"}


def test_dense_layers_are_not_measured(folder: Path) -> None:
    graph = quantized_graph(zeros=0.1)
    gm.InferenceSession(graph).run(None, random_feeds(graph, n=1))
    assert not folder.exists()


def test_float32_layers_choose_too(folder: Path) -> None:
    net = Network()
    x = net.input(1, 32, 8, 8)
    graph = net.graph(net.add("Conv", x, net.constant(pruned(net, 32, 32, 3, 3, zeros=0.95)), pads=(1, 1, 1, 1)))
    session = gm.InferenceSession(graph, threads=1)
    (times,) = stored(folder).values()
    assert set(times) == {"dense", "singles"}
    feeds = random_feeds(graph)
    (dense,), _ = run_with(graph, DENSE, feeds)
    (sparse,), _ = run_with(graph, "singles", feeds)
    np.testing.assert_allclose(sparse, dense, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(session.run(None, feeds)[0], dense, rtol=1e-5, atol=1e-5)


def file_of(milliseconds: object, number: object = 1) -> str:
    return json.dumps({"format": number, "machine": "m", "milliseconds": milliseconds})


DAMAGED = ["", "{", "[]", "null", "[" * 100_000, "\0\xff", '{"format": 1}', file_of({}, 2), file_of({"a": 3})]
DAMAGED += [file_of({"a": {"dense": value}}) for value in ("x", -1, float("nan"), None)]


@pytest.mark.parametrize("text", DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_files_count_as_missing_and_are_replaced(tmp_path: Path, text: str) -> None:
    path = tmp_path / "t.json"
    path.write_text(text, encoding="latin-1")
    timings = Timings(path, "m")
    assert timings.get("a") is None
    timings.put("b", {"dense": 1.0})
    timings.store()
    assert Timings(path, "m").get("b") == {"dense": 1.0}
    assert Timings(path, "another machine").get("b") is None


def test_other_processes_additions_stay(tmp_path: Path) -> None:
    one, two = Timings(tmp_path / "t.json", "m"), Timings(tmp_path / "t.json", "m")
    one.put("a", {"dense": 1.0})
    two.put("b", {"dense": 2.0})
    one.store()
    two.store()
    merged = Timings(tmp_path / "t.json", "m")
    assert (merged.get("a"), merged.get("b")) == ({"dense": 1.0}, {"dense": 2.0})


def test_the_file_does_not_grow_without_end(tmp_path: Path) -> None:
    timings = Timings(tmp_path / "t.json", "m")
    for index in range(MOST_ENTRIES + 5):
        timings.put(str(index), {"dense": 1.0})
    timings.store()
    again = Timings(tmp_path / "t.json", "m")
    assert again.get("4") is None
    assert again.get("5") is not None


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GRISTMILL_CACHE_DIR", str(tmp_path / "file" / "below"))
    graph = quantized_graph()
    feeds = random_feeds(graph, n=1)
    (first,) = gm.InferenceSession(graph, threads=1).run(None, feeds)
    np.testing.assert_array_equal(gm.InferenceSession(graph, threads=1).run(None, feeds)[0], first)


WRITER = """
import sys
from pathlib import Path
from gristmill.compile.timings import Timings
for turn in range(8):
    timings = Timings(Path(sys.argv[1]), "m")
    timings.put(f"{sys.argv[2]} {turn}", {"dense": 1.0, "quads": 2.0})
    timings.store()
"""


def test_processes_that_write_at_once_leave_a_sound_file(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(number)]) for number in range(2)]
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            assert json.loads(path.read_text())["machine"] == "m"
        time.sleep(0.01)
    assert [writer.returncode for writer in writers] == [0, 0]
    assert all(len(times) == 2 for times in json.loads(path.read_text())["milliseconds"].values())
    assert os.listdir(tmp_path) == ["t.json"]


def test_folder_is_where_the_platform_keeps_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRISTMILL_CACHE_DIR", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("GRISTMILL_CACHE_DIR")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache_folder() == tmp_path / "x" / "gristmill"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "gristmill"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder() == tmp_path / "Library" / "Caches" / "gristmill"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_folder() == tmp_path / "local" / "gristmill" / "Cache"


def test_break_even_depends_on_the_level() -> None:
    graph = quantized_graph(zeros=0.6)
    feeds = random_feeds(graph, n=1)
    types = {name: TensorType(value.dtype, value.shape) for name, value in feeds.items()}
    simple = simplify(graph)
    chosen = {
        isa: sorted(c.format for c in compile_graph(simple, types, Packer(Heuristic(isa))).choices.values())
        for isa in ("avx512vnni", "avx2")
    }
    assert chosen == {"avx512vnni": ["dense"] * 4, "avx2": ["dense", "dense", "quads", "quads"]}


def test_heuristic_goes_by_the_pattern_of_zeros() -> None:
    net = Network()
    graph = quantized_graph(zeros=0.95)
    feeds = random_feeds(graph, n=1)
    types = {name: TensorType(value.dtype, value.shape) for name, value in feeds.items()}
    compiled = compile_graph(simplify(graph), types, Packer(Heuristic()))
    assert {str(choice) for choice in compiled.choices.values()} == {"by sparsity"}
    assert sorted(choice.format for choice in compiled.choices.values()) == ["dense", "quads", "quads", "quads"]
    blocks = np.kron(net.random.random((16, 8)) < 0.1, np.ones((1, 4))) * net.random.integers(1, 100, (16, 32))
    pattern = ZeroPattern.of(blocks.astype(np.int8))
    assert pattern.touched == pattern.density
    taps = np.kron(net.random.random((16, 8, 3, 3)) < 0.1, np.ones((1, 4, 1, 1)))
    pattern = ZeroPattern.of(taps.astype(np.int8))
    assert pattern.touched == pattern.density


def test_zeros_are_counted(isa: str) -> None:
    assert isa in _core.supported_isas()
    random = np.random.default_rng(4)
    for shape in [(0, 3), (1, 1), (7, 9, 3, 3), (64, 300)]:
        weights = random.integers(-2, 3, shape).astype(np.int8)
        assert _core.count_nonzero(weights) == np.count_nonzero(weights)
    with pytest.raises(DTypeError):
        _core.count_nonzero(np.zeros(3, np.uint8))
