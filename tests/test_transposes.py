"""Networks with channels last, as exporters write them, lose their transposes and compute the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gristmill as gm
from graphs import Array, Network, assert_same, ops, random_feeds
from gristmill import reference
from gristmill.graph import Graph
from gristmill.passes import simplify
from gristmill.passes.editor import edited
from gristmill.passes.sink_transposes import sink_transposes

_FIRST, _LAST = (0, 3, 1, 2), (0, 2, 3, 1)


class ChannelsLast(Network):
    """Images with their channels last, turned around before and after each convolution and pooling."""

    def around(self, op: str, x: str, *more: str, **attributes: Any) -> str:  # noqa: ANN401
        """An operator that wants its channels first."""
        first = self.add("Transpose", x, perm=_FIRST)
        return self.add("Transpose", self.add(op, first, *more, **attributes), perm=_LAST)

    def convolution(self, x: str, channels: int, filters: int, **attributes: Any) -> str:  # noqa: ANN401
        """A 3x3 convolution."""
        weights = self.normal(filters, channels // attributes.get("group", 1), 3, 3, scale=0.2)
        return self.around("Conv", x, weights, **{"pads": (1, 1, 1, 1), **attributes})

    def integers(self, *values: int) -> str:
        """A constant for shape arithmetic."""
        return self.constant(values, np.int64)


def network() -> Graph:
    """Everything that exporters leave between convolutions."""
    net = ChannelsLast()
    x = net.convolution(net.input("n", 12, 8, 3), 3, 8)
    x = net.add("Relu", net.add("Add", x, net.normal(8)))
    side = net.convolution(x, 8, 8, group=8)
    x = net.add("Clip", net.add("Add", side, x), net.constant(-1.0), net.constant(2.0))
    padded = net.add("Pad", x, net.integers(0, 1, 0, 0, 0, 0, 1, 0), net.constant(0.5))
    x = net.around("MaxPool", padded, kernel_shape=(2, 2), strides=(2, 2))
    x = net.add("Concat", x, net.convolution(x, 8, 4), axis=3)
    gate = net.add("ReduceMean", x, net.integers(1, 2), keepdims=1)
    gate = net.add("Sigmoid", net.convolution(gate, 12, 12))
    x = net.convolution(net.add("Mul", x, gate), 12, 6)
    x = net.add("Resize", x, "", net.constant([1, 2, 2, 1]), mode="nearest", nearest_mode="floor")
    x = net.convolution(net.add("PRelu", x, net.normal(1, 1, 6)), 6, 5)
    x = net.add("Softmax", net.add("ReduceMean", x, net.integers(1, 2), keepdims=0), axis=-1)
    return net.graph(net.add("Gemm", x, net.normal(3, 5), transB=1))


def test_no_transpose_remains_but_that_of_the_input() -> None:
    graph = network()
    feeds = random_feeds(graph, n=2)
    simple = simplify(graph)
    assert ops(graph).count("Transpose") == 14
    assert ops(simple).count("Transpose") == 1
    assert simple.nodes[0].op == "Transpose"
    assert_same(graph, simple, feeds)
    (expected,) = reference.run(graph, feeds).values()
    np.testing.assert_allclose(gm.InferenceSession(graph).run(None, feeds)[0], expected, rtol=1e-4, atol=1e-5)


def test_bytes_between_quantizers_are_the_same() -> None:
    net = ChannelsLast()

    def bytes_(x: str) -> str:
        scale = net.constant(0.05), net.constant(3, np.uint8)
        return net.add("DequantizeLinear", net.add("QuantizeLinear", x, *scale), *scale)

    x = bytes_(net.convolution(bytes_(net.input("n", 6, 6, 3)), 3, 4))
    scales = net.constant(np.arange(1, 5) / 100), net.constant(np.arange(4), np.uint8)
    x = net.add("DequantizeLinear", net.add("QuantizeLinear", x, *scales, axis=-1), *scales, axis=-1)
    graph = net.graph(net.convolution(bytes_(net.add("Relu", x)), 4, 2))
    simple = simplify(graph)
    assert ops(simple).count("Transpose") == 2
    feeds = random_feeds(graph, n=1)
    assert_same(graph, edited(graph, sink_transposes), feeds, 0)


@pytest.mark.parametrize(
    ("op", "more", "attributes"),
    [
        ("ReduceSum", [(0, -1)], {"keepdims": 0}),
        ("ReduceMax", [], {"keepdims": 1}),
        ("ReduceMean", [], {"keepdims": 0}),
        ("Split", [(2, 3)], {"axis": 2}),
        ("Squeeze", [(3,)], {}),
        ("LogSoftmax", [], {"axis": 1}),
        ("Pad", [(1, 2, 0, 0, 0, 3, 1, 0)], {"mode": "constant"}),
        ("Resize", ["", "", (2, 8, 10, 1)], {"mode": "linear"}),
    ],
)
def test_each_operator_computes_the_same_above_its_transpose(
    op: str, more: list[Any], attributes: dict[str, Any]
) -> None:
    net = ChannelsLast()
    x = net.add("Transpose", net.input(2, 1, 4, 5), perm=(0, 2, 3, 1))
    inputs = [name if name == "" else net.integers(*name) for name in more]
    y = net.add(op, x, *inputs, **attributes)
    graph = net.graph(net.add("Relu", y))
    sunk = edited(graph, sink_transposes)
    assert sunk.nodes[0].op == op
    assert_same(graph, sunk, random_feeds(graph))


def test_transposes_stay_where_moving_them_makes_more() -> None:
    net = ChannelsLast()
    x = net.add("Transpose", net.input(2, 3, 4, 5), perm=_LAST)
    graph = net.graph(net.add("Abs", x), net.add("Neg", x), x)
    assert edited(graph, sink_transposes) is graph


def test_other_sides_that_are_not_turned_keep_the_transpose() -> None:
    net = ChannelsLast()
    x = net.add("Transpose", net.input(2, 3, 4, 5), perm=_LAST)
    graph = net.graph(net.add("Add", x, net.input(2, 4, 5, 3, name="other")))
    assert ops(edited(graph, sink_transposes)) == ["Transpose", "Add"]
    feeds: dict[str, Array] = random_feeds(graph)
    assert_same(graph, simplify(graph), feeds)
