"""Errors of sessions name the file and the node, or the argument, wherever they come from: loading to running."""

from __future__ import annotations

import pickle
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import gristmill as gm
from graphs import Network, random_feeds, small_graph
from gristmill.graph import Graph, GraphBuilder

Array = npt.NDArray[Any]

#: As many float32 as the largest tensor has.
HUGE = (1 << 34) // 4


def saved(graph: Graph, path: Path) -> Path:
    gm.Model(graph).save(path)
    return path


def layer(op: str, shape: tuple[int | str, ...], dtype: npt.DTypeLike, weights: Array) -> Graph:
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


@pytest.mark.parametrize(
    ("feeds", "kind", "message"),
    [
        ({}, gm.ArgumentError, r"x: nothing is given for this input: x: float32\[n, 3, h, 8\]"),
        ({"x": [[1.0]]}, gm.DTypeError, "x: expected an array of float32, got list"),
        ({"x": np.zeros((1, 3, 4, 8))}, gm.DTypeError, r"expected float32, got float64: pass x\.astype\(np\.float32\)"),
        (
            {"x": np.zeros((1, 3, 4, 8), np.dtype("f4").newbyteorder("S"))},
            gm.DTypeError,
            r"x: expected float32, got byte-swapped float32: pass x\.astype\(np\.float32\)",
        ),
        ([np.zeros((1, 3, 4, 8), "f4")], gm.ArgumentError, r"feeds: expected arrays by name, {'x': \.\.\.}, got list"),
        (None, gm.ArgumentError, "feeds: expected arrays by name, .* got NoneType"),
        ({"x": np.zeros((3, 4, 8), "f4")}, gm.ShapeError, r"x: expected shape \[n, 3, h, 8\], got \[3, 4, 8\]"),
        ({"x": np.zeros((1, 4, 4, 8), "f4")}, gm.ShapeError, r"x: expected shape \[n, 3, h, 8\], got \[1, 4, 4, 8\]"),
        (
            {"x": np.zeros((1, 3, 4, 8), "f4"), "z": 1},
            gm.ArgumentError,
            "z: there is no input of that name; there are: x",
        ),
    ],
)
def test_wrong_inputs_are_named(feeds: dict[str, Array], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        gm.InferenceSession(small_graph()).run(None, feeds)


def test_wrong_outputs_and_options_are_named() -> None:
    session = gm.InferenceSession(small_graph())
    feeds = random_feeds(small_graph(), n=1, h=4)
    with pytest.raises(gm.ArgumentError, match="y: there is no output of that name; there are: logits, Relu_0"):
        session.run(["y"], feeds)
    with pytest.raises(gm.ShapeError, match="output 0"):
        session.run(None, feeds, out=[np.empty((1, 4), np.float32), None])
    for out in (5, np.empty((1, 5), np.float32)):
        with pytest.raises(gm.ArgumentError, match="out: expected a list with an array for each output, got"):
            session.run(None, feeds, out=out)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"threads": 0}, gm.ArgumentError, "threads: expected a whole number of at least 1, got 0"),
        ({"threads": True}, gm.ArgumentError, "threads: expected a whole number of at least 1, got True"),
        ({"threads": 9999}, gm.ArgumentError, r"threads: must be in 1\.\.256, got 9999"),
        ({"select": "random"}, gm.ArgumentError, "select: expected 'measure' or 'heuristic', got 'random'"),
        ({"isa": "mmx"}, gm.IsaError, "isa: unknown level 'mmx'; choose one of: scalar"),
        ({"isa": ""}, gm.IsaError, "isa: unknown level ''"),
        ({"isa": 5}, gm.ArgumentError, "isa: expected the name of a level, got 5"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(
    options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    before = gm.get_isa()
    with pytest.raises(kind, match=message):
        gm.InferenceSession(small_graph(), **options)
    assert gm.get_isa() == before


def test_models_of_float64_are_refused_with_a_remedy() -> None:
    net = Network()
    graph = net.graph(net.add("Relu", net.input("n", 3, dtype=np.float64)))
    with pytest.raises(gm.UnsupportedOpError, match=r"x: values of float64 cannot .*; export the model in float32"):
        gm.InferenceSession(graph)
