"""Errors of sessions name the file and the node, whether they come from loading, compiling, packing or running."""

from __future__ import annotations

import pickle
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import gristmill as gm
from gristmill.graph import Graph, GraphBuilder

#: As many float32 as the largest tensor has.
HUGE = (1 << 34) // 4


def saved(graph: Graph, path: Path) -> Path:
    gm.Model(graph).save(path)
    return path


def layer(op: str, shape: tuple[int | str, ...], dtype: npt.DTypeLike, weights: npt.NDArray[np.generic]) -> Graph:
    builder = GraphBuilder()
    x = builder.input("x", dtype, shape)
    return builder.build([builder.add(op, [x, builder.constant("w", weights)], name="the layer")])


def overflowing(rows: int | str) -> Graph:
    return layer("MatMulInteger", (rows, 140_000), np.uint8, np.full((140_000, 3), 127, np.int8))


def test_errors_of_packing_name_file_and_node(tmp_path: Path) -> None:
    path = saved(overflowing(2), tmp_path / "m.grist")
    for model in (path, gm.load(path)):
        with pytest.raises(gm.LimitError, match="MatMulInteger: weights: the magnitudes of output channel 0") as caught:
            gm.InferenceSession(model)
        assert (caught.value.file, caught.value.node) == (str(path), "the layer")


def test_errors_of_compiling_at_a_run_name_the_file(tmp_path: Path) -> None:
    path = saved(overflowing("n"), tmp_path / "m.grist")
    session = gm.InferenceSession(path)
    for given in (session, pickle.loads(pickle.dumps(session))):
        with pytest.raises(gm.LimitError) as caught:
            given(np.zeros((2, 140_000), np.uint8))
        assert (caught.value.file, caught.value.node) == (str(path), "the layer")


def test_errors_of_passes_name_the_file(tmp_path: Path) -> None:
    builder = GraphBuilder()
    x = builder.input("x", np.float32, ("n", 3))
    graph = builder.build([builder.add("Lookup", [x], name="the layer")])
    path = saved(graph, tmp_path / "m.grist")
    with pytest.raises(gm.ModelFormatError, match="attribute table must be an array") as caught:
        gm.InferenceSession(path)(np.zeros((1, 3), np.float32))
    assert (caught.value.file, caught.value.node) == (str(path), "the layer")


def test_lack_of_memory_in_passes_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lack(_: Graph) -> None:
        raise MemoryError

    path = saved(overflowing(2), tmp_path / "m.grist")
    monkeypatch.setattr("gristmill.session.simplify", lack)
    with pytest.raises(gm.OutOfMemoryError, match="memory does not suffice") as caught:
        gm.InferenceSession(path)
    assert caught.value.file == str(path)


@pytest.mark.parametrize("select", ["measure", "heuristic"])
def test_integer_layers_without_channels_are_refused(select: str) -> None:
    graph = layer("ConvInteger", (1, 3, 8, 8), np.uint8, np.zeros((0, 3, 3, 3), np.uint8))
    with pytest.raises(gm.ShapeError, match="none of them 0") as caught:
        gm.InferenceSession(graph, select=select)
    assert caught.value.node == "the layer"


def expanded(then: str | None) -> Graph:
    builder = GraphBuilder()
    size = builder.constant("size", np.array([HUGE], np.int64))
    wide = builder.add("Expand", [builder.input("x", np.float32, (1,)), size], name="wide")
    return builder.build([builder.add(then, [wide], name="then") if then else wide])


@pytest.mark.parametrize(
    ("then", "needs"), [(None, "17179869184 bytes of outputs and 0 "), ("ReduceSum", "4 bytes of")]
)
@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are not obeyed everywhere")
def test_lack_of_memory_names_file_node_and_bytes(then: str | None, needs: str, tmp_path: Path) -> None:
    import resource

    session = gm.InferenceSession(saved(expanded(then), tmp_path / "m.grist"), threads=1)
    x, before = np.ones(1, np.float32), resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, before[1]))
    try:
        for run in (session, lambda x: session.profile(x, runs=1)):
            with pytest.raises(gm.OutOfMemoryError, match=needs) as caught:
                run(x)
            assert isinstance(caught.value, MemoryError)
            assert (caught.value.file, caught.value.node) == (str(tmp_path / "m.grist"), "wide")
            assert "float32[4294967296] of this Expand 17179869184;" in caught.value.reason
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("mode", ["edge", "reflect", "wrap"])
def test_wide_borders_are_planned_soon(mode: str) -> None:
    builder = GraphBuilder()
    pads = builder.constant("pads", np.array([2_000_000, 1_000_001], np.int64))
    x = builder.input("x", np.uint8, (2_000_002,))
    start = time.perf_counter()
    session = gm.InferenceSession(builder.build([builder.add("Pad", [x, pads], mode=mode)]), threads=1)
    values = np.arange(2_000_002).astype(np.uint8)
    found = session(values)
    assert time.perf_counter() - start < 1.5
    assert np.array_equal(found, np.pad(values, (2_000_000, 1_000_001), mode))  # type: ignore[call-overload]
