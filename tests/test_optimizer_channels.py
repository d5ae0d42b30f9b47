"""Whole channels leave the network without changing what it computes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import gristmill as gm
from gristmill import reference
from gristmill.graph import Graph, GraphBuilder
from gristmill.optimizer.channels import drop_dead_channels, owners_of_channels
from small_nets import conv_net, images

Array = npt.NDArray[Any]
Weights = Callable[..., str]


def _chain(build: Callable[[GraphBuilder, str, Weights], str]) -> Graph:
    """A network of 3-channel images with random weights by name and shape."""
    rng = np.random.default_rng(0)
    builder = GraphBuilder()

    def weights(name: str, *shape: int) -> str:
        return builder.constant(name, rng.standard_normal(shape).astype(np.float32))

    return builder.build([build(builder, builder.input("x", np.float32, ("n", 3, 10, 10)), weights)])


def _with(graph: Graph, **constants: Array) -> Graph:
    return graph.replace(constants={**graph.constants, **constants})


def _without(array: Array, rows: list[int], axis: int = 0) -> Array:
    array = np.moveaxis(array.copy(), axis, 0)
    array[rows] = 0
    return np.moveaxis(array, 0, axis)


def _assert_same(before: Graph, after: Graph) -> None:
    x = images(4)
    (exact,), (given,) = (reference.run(graph, {"x": x}).values() for graph in (before, after))
    np.testing.assert_allclose(given, exact, rtol=1e-5, atol=1e-5 * np.abs(exact).max())
    np.testing.assert_allclose(gm.InferenceSession(after)(x), exact, rtol=1e-4, atol=1e-4 * np.abs(exact).max())


def _shapes(graph: Graph, *names: str) -> list[tuple[int, ...]]:
    return [graph.constants[name].shape for name in names]


def _deep(b: GraphBuilder, x: str, w: Weights) -> str:
    """Convolution, batch normalization, pool, depthwise convolution, flattening, two linear layers."""
    y = b.add("Conv", [x, w("a", 8, 3, 3, 3), w("a.b", 8)], pads=(1, 1, 1, 1), name="a")
    spread = b.constant("variance", np.linspace(0.5, 2.0, 8, dtype=np.float32))
    norm = [y, w("gamma", 8), b.constant("beta", np.zeros(8, np.float32)), b.constant("mean", np.zeros(8, np.float32))]
    y = b.add("Relu", [b.add("BatchNormalization", [*norm, spread])])
    y = b.add("MaxPool", [y], kernel_shape=(2, 2), strides=(2, 2))
    y = b.add("Conv", [y, w("d", 8, 1, 3, 3), w("d.b", 8)], pads=(1, 1, 1, 1), group=8, name="d")
    y = b.add("Conv", [b.add("Relu", [y]), w("p", 6, 8, 1, 1), w("p.b", 6)], name="p")
    y = b.add("AveragePool", [y], kernel_shape=(2, 2))
    y = b.add("Reshape", [y, b.constant("to", np.array([-1, 6 * 16], np.int64))])
    y = b.add("Relu", [b.add("Gemm", [y, w("h", 96, 12), w("h.b", 12)], name="h")])
    return b.add("Gemm", [y, w("o", 5, 12)], transB=1, name="o")


def test_zero_channels_go_from_writers_and_readers() -> None:
    graph = _chain(_deep)
    c = graph.constants
    dead = _with(graph, a=_without(c["a"], [1, 4]), **{"a.b": _without(c["a.b"], [1, 4])}, p=_without(c["p"], [0]))
    dead = _with(dead, **{"p.b": _without(c["p.b"], [0])}, h=_without(c["h"], [3, 7], axis=1))
    small = drop_dead_channels(dead)
    _assert_same(dead, small)
    assert _shapes(small, "a", "gamma", "d", "p", "h", "o") == [
        (6, 3, 3, 3),
        (6,),
        (6, 1, 3, 3),
        (5, 6, 1, 1),
        (80, 10),
        (5, 10),
    ]
    assert [node.attributes["group"] for node in small.nodes if "group" in node.attributes] == [6]


def test_channels_that_nobody_reads_go_and_take_others_along() -> None:
    graph = _chain(_deep)
    blind = _with(graph, h=_without(graph.constants["h"], list(range(16, 32))), p=graph.constants["p"].copy())
    blind.constants["p"][:, 5] = 0
    small = drop_dead_channels(blind)
    _assert_same(blind, small)
    assert _shapes(small, "a", "p", "h") == [(7, 3, 3, 3), (5, 7, 1, 1), (80, 12)]


def test_constants_move_into_biases_where_nothing_is_padded() -> None:
    graph = _chain(_deep)
    positive = np.abs(graph.constants["d.b"])
    constant = _with(graph, d=_without(graph.constants["d"], [2, 3]), **{"d.b": positive})
    small = drop_dead_channels(constant)
    _assert_same(constant, small)
    assert _shapes(small, "d", "p") == [(6, 1, 3, 3), (6, 6, 1, 1)]
    assert not np.array_equal(small.constants["p.b"], constant.constants["p.b"])


def test_padding_keeps_channels_that_are_constant_but_not_zero() -> None:
    def build(b: GraphBuilder, x: str, w: Weights) -> str:
        y = b.add("Conv", [x, w("a", 8, 3, 1, 1), w("a.b", 8)], name="a")
        return b.add("Conv", [y, w("c", 4, 8, 3, 3)], pads=(1, 1, 1, 1), name="c")

    graph = _chain(build)
    assert drop_dead_channels(_with(graph, a=_without(graph.constants["a"], [0]))).constants["a"].shape[0] == 8


def test_sums_lose_what_both_sides_lack() -> None:
    def build(b: GraphBuilder, x: str, w: Weights) -> str:
        left = b.add("Conv", [x, w("a", 8, 3, 1, 1)], name="a")
        right = b.add("Conv", [left, w("c", 8, 8, 1, 1)], name="c")
        return b.add("Conv", [b.add("Relu", [b.add("Add", [left, right])]), w("e", 4, 8, 3, 3)], name="e")

    graph = _chain(build)
    assert owners_of_channels(graph) == set()
    half = _with(graph, a=_without(graph.constants["a"], [0, 1, 2]))
    assert drop_dead_channels(half) is half
    whole = _with(half, c=_without(graph.constants["c"], [1, 2, 5]))
    small = drop_dead_channels(whole)
    _assert_same(whole, small)
    assert _shapes(small, "a", "c", "e") == [(6, 3, 1, 1), (6, 6, 1, 1), (4, 6, 3, 3)]


@pytest.mark.parametrize("op", ["Softmax", "Transpose"])
def test_operators_that_mix_channels_and_outputs_keep_them(op: str) -> None:
    def build(b: GraphBuilder, x: str, w: Weights) -> str:
        y = b.add("Conv", [x, w("a", 8, 3, 1, 1)], name="a")
        y = b.add(op, [y], **({"axis": 1} if op == "Softmax" else {"perm": (0, 1, 3, 2)}))
        return b.add("Conv", [y, w("c", 4, 8, 1, 1)], name="c")

    graph = _chain(build)
    dead = _with(graph, a=_without(graph.constants["a"], [0]), c=_without(graph.constants["c"], [3]))
    assert drop_dead_channels(dead) is dead


def test_one_channel_always_stays() -> None:
    def build(b: GraphBuilder, x: str, w: Weights) -> str:
        y = b.add("Conv", [x, w("a", 8, 3, 1, 1)], name="a")
        return b.add("Conv", [y, w("c", 4, 8, 1, 1)], name="c")

    graph = _chain(build)
    dead = _with(graph, a=np.zeros_like(graph.constants["a"]))
    small = drop_dead_channels(dead)
    assert small.constants["a"].shape[0] == 1
    _assert_same(dead, small)


def test_constants_that_nodes_share_are_not_cut_for_all() -> None:
    def build(b: GraphBuilder, x: str, w: Weights) -> str:
        shared = w("shared", 8)
        y = b.add("Conv", [x, w("a", 8, 3, 1, 1), shared], name="a")
        y = b.add("Conv", [b.add("Relu", [y]), w("c", 8, 8, 1, 1), shared], name="c")
        return b.add("Conv", [y, w("e", 4, 8, 1, 1)], name="e")

    graph = _chain(build)
    dead = _with(graph, c=_without(graph.constants["c"], [6], axis=1))
    small = drop_dead_channels(dead)
    _assert_same(dead, small)
    assert _shapes(small, "a", "c", "shared") == [(7, 3, 1, 1), (8, 7, 1, 1), (8,)]


def test_blocks_of_four_stay_side_by_side() -> None:
    def build(b: GraphBuilder, x: str, w: Weights) -> str:
        y = b.add("Conv", [x, w("a", 16, 3, 1, 1)], name="a")
        return b.add("Conv", [y, w("c", 8, 16, 3, 3)], pads=(1, 1, 1, 1), name="c")

    graph = _chain(build)
    blocks = np.random.default_rng(1).random((8, 4, 1, 3, 3)) < 0.5
    blocks[:, 2] = False
    blocked = graph.constants["c"] * np.repeat(blocks, 4, axis=2).reshape(8, 16, 3, 3)
    dead = _with(graph, c=blocked, a=_without(graph.constants["a"], [1, 2]))
    small = drop_dead_channels(dead)
    _assert_same(dead, small)
    assert _shapes(small, "a", "c") == [(12, 3, 1, 1), (8, 12, 3, 3)]
    single = _with(dead, c=graph.constants["c"] * (np.random.default_rng(2).random((8, 16, 3, 3)) < 0.5))
    assert drop_dead_channels(single).constants["a"].shape[0] == 14


@pytest.mark.parametrize("calibrated", [True, False])
def test_pruned_channels_are_really_gone(calibrated: bool) -> None:
    model, x = gm.Model(conv_net(depthwise=False)), images(128)
    made = gm.prune(model, 0.4, pattern="channel", calibration=x if calibrated else None)
    shapes = {name: made.graph.constants[name].shape for name in ("w4", "w5")}
    assert shapes["w4"][0] == shapes["w5"][0] < 64
    rows = {row.name: row for row in made.report.layers}
    assert rows["hidden"].weights == 64 * 800
    assert rows["hidden"].nonzeros < 0.62 * 64 * 800
    assert made.report.bytes_after < 0.7 * made.report.bytes_before
    assert "sum" in rows["inner"].reason
