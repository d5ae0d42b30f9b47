from __future__ import annotations

import sys

import numpy as np
import pytest

from graphs import Network, assert_same, ops, random_feeds
from gristmill.graph import Graph
from gristmill.operators import TensorType
from gristmill.passes import simplify, specialize
from gristmill.passes.editor import edited
from gristmill.passes.fold_affine import fold_affine
from gristmill.passes.fold_constants import fold_constants
from gristmill.passes.fuse_pads import fuse_pads
from gristmill.passes.make_layers import make_layers
from gristmill.passes.match_activations import match_activations
from gristmill.passes.remove_identities import remove_identities


def specialized(graph: Graph, **extents: int) -> Graph:
    feeds = random_feeds(graph, **extents)
    types = {name: TensorType(value.dtype, value.shape) for name, value in feeds.items()}
    return specialize(simplify(graph), types)[0]


def test_constants_are_folded_within_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Network()
    x = net.input(2, 3)
    big = net.add("Expand", net.constant(1.0), net.constant([1000, 2, 3], np.int64))
    total = net.add("ReduceSum", big, net.constant([0], np.int64), keepdims=0)
    graph = net.graph(net.add("Add", x, net.add("Exp", total)))
    folded = edited(graph, fold_constants)
    assert ops(folded) == ["Add"]
    assert_same(graph, folded, random_feeds(graph))
    monkeypatch.setattr(sys.modules["gristmill.passes.fold_constants"], "BUDGET", 1000)
    assert ops(edited(graph, fold_constants)) == ["Expand", "ReduceSum", "Exp", "Add"]
    assert ops(edited(graph, lambda editor: fold_constants(editor, frozenset({"Exp"})))) == [
        "Expand",
        "ReduceSum",
        "Exp",
        "Add",
    ]


def test_identities_go_and_outputs_keep_their_names() -> None:
    net = Network()
    x = net.input("n", 3)
    inner = net.add("Sum", net.add("Identity", net.add("Relu", net.add("Identity", x))))
    graph = net.graph(net.add("Identity", inner), net.add("Concat", net.add("Exp", inner), axis=0))
    simple = edited(graph, remove_identities)
    assert sorted(ops(simple)) == ["Exp", "Relu"]
    assert simple.outputs == graph.outputs
    assert_same(graph, simple, random_feeds(graph, n=2))


def test_identity_of_an_input_that_is_an_output_stays() -> None:
    net = Network()
    graph = net.graph(net.add("Identity", net.input(2)))
    assert ops(edited(graph, remove_identities)) == ["Identity"]


def test_batch_norm_behind_layers_is_folded() -> None:
    net = Network()
    x = net.input("n", 4, 6, 6)
    y = net.batch_norm(net.conv(x, 4, 8, 3, group=2), 8)
    y = net.batch_norm(net.add("ConvTranspose", y, net.normal(8, 3, 2, 2), group=2), 6)
    y = net.add("Add", net.add("Mul", net.conv(y, 6, 5, 1), net.normal(5, 1, 1)), net.normal(1, 5, 1, 1))
    y = net.add("Sub", net.constant(2.0), net.add("Div", net.conv(y, 5, 5, 1), net.constant(4.0)))
    graph = net.graph(y)
    folded = edited(graph, make_layers, fold_affine)
    assert ops(folded) == ["ConvLayer", "ConvTranspose", "ConvLayer", "ConvLayer"]
    assert_same(graph, folded, random_feeds(graph, n=2))


def test_batch_norm_before_a_layer_is_folded_where_padding_allows_it() -> None:
    for padding, expected in ((0, ["ConvLayer"]), (1, ["BatchNormalization", "ConvLayer"])):
        net = Network()
        y = net.conv(net.batch_norm(net.input("n", 4, 6, 6), 4), 4, 8, 3, pads=(padding,) * 4)
        graph = net.graph(y)
        folded = edited(graph, make_layers, fold_affine)
        assert ops(folded) == expected
        assert_same(graph, folded, random_feeds(graph, n=2))


def test_a_scale_before_a_padded_layer_is_folded() -> None:
    net = Network()
    graph = net.graph(net.conv(net.add("Mul", net.input(1, 4, 6, 6), net.normal(4, 1, 1)), 4, 8, 3))
    folded = edited(graph, make_layers, fold_affine)
    assert ops(folded) == ["ConvLayer"]
    assert_same(graph, folded, random_feeds(graph))


@pytest.mark.parametrize("shape", [(6,), (6, 1), (4, 6, 6), (2, 1, 1, 1), (1, 1, 4, 1, 1), (1, 6)])
def test_what_is_not_one_number_per_channel_is_not_folded(shape: tuple[int, ...]) -> None:
    net = Network()
    graph = net.graph(net.add("Mul", net.conv(net.input(2, 4, 6, 6), 4, 4, 1), net.normal(*shape)))
    folded = edited(graph, make_layers, fold_affine)
    assert ops(folded) == ["ConvLayer", "Mul"]
    assert_same(graph, folded, random_feeds(graph))


def test_shared_values_are_not_folded_away() -> None:
    net = Network()
    y = net.conv(net.input(1, 4, 6, 6), 4, 4, 1)
    graph = net.graph(net.batch_norm(y, 4), y)
    folded = edited(graph, make_layers, fold_affine)
    assert ops(folded) == ["ConvLayer", "BatchNormalization"]
    assert_same(graph, folded, random_feeds(graph))


def test_linear_layers_compute_what_was_there() -> None:
    net = Network()
    x = net.input("n", 7, 5)
    y = net.add("Add", net.add("MatMul", x, net.normal(5, 6)), net.normal(6))
    y = net.add("Reshape", y, net.constant([-1, 6], np.int64))
    y = net.add("Gemm", y, net.normal(6, 4), net.normal(1, 4), alpha=0.5, beta=2.0)
    y = net.add("Gemm", y, net.normal(3, 4), net.constant(1.5), transB=1)
    graph = net.graph(net.add("Gemm", y, net.normal(14, 2), transA=1))
    simple = simplify(graph)
    assert ops(simple) == ["LinearLayer", "Reshape", "LinearLayer", "LinearLayer", "Gemm"]
    assert_same(graph, simple, random_feeds(graph, n=2))


def test_pads_move_into_convolutions() -> None:
    net = Network()
    x = net.input("n", 3, 5, 5)
    padded = net.add("Pad", x, net.constant([0, 0, 1, 2, 0, 0, 0, 1], np.int64))
    graph = net.graph(net.conv(padded, 3, 4, 3, pads=(0, 1, 0, 0)))
    simple = edited(graph, make_layers, fuse_pads)
    assert ops(simple) == ["ConvLayer"]
    assert simple.nodes[0].attributes["pads"] == (1, 3, 0, 1)
    assert_same(graph, simple, random_feeds(graph, n=2))


@pytest.mark.parametrize(
    ("pads", "value", "mode"),
    [
        ([0, 1, 0, 0, 0, 0, 0, 0], 0.0, "constant"),
        ([0, 0, 1, 0, 0, 0, 0, 0], 0.5, "constant"),
        ([0, 0, 1, -1, 0, 0, 0, 0], 0.0, "constant"),
        ([0, 0, 1, 0, 0, 0, 0, 0], 0.0, "edge"),
    ],
)
def test_other_pads_stay(pads: list[int], value: float, mode: str) -> None:
    net = Network()
    padded = net.add("Pad", net.input(1, 3, 5, 5), net.constant(pads, np.int64), net.constant(value), mode=mode)
    graph = net.graph(net.conv(padded, 3 + pads[1], 4, 3))
    assert ops(edited(graph, make_layers, fuse_pads)) == ["Pad", "ConvLayer"]


def activation_graphs() -> dict[str, Graph]:
    found = {}
    for name in ("Swish", "HardSwish", "late HardSwish", "HardSigmoid", "Gelu", "Gelu reordered"):
        net = Network()
        x = net.input(4, 5)
        if name == "Swish":
            y = net.add("Mul", net.add("Sigmoid", x), x)
        elif name == "Gelu":
            gate = net.add("Add", net.add("Erf", net.add("Div", x, net.constant(2**0.5))), net.constant(1.0))
            y = net.add("Mul", net.add("Mul", x, gate), net.constant(0.5))
        elif name == "Gelu reordered":
            gate = net.add("Add", net.constant(1.0), net.add("Erf", net.add("Mul", x, net.constant(0.5**0.5))))
            y = net.add("Mul", net.add("Mul", net.constant(0.5), x), gate)
        else:
            clip = net.add("Clip", net.add("Add", x, net.constant(3.0)), net.constant(0.0), net.constant(6.0))
            if name == "late HardSwish":
                y = net.add("Div", net.add("Mul", x, clip), net.constant(6.0))
            else:
                y = net.add("Mul", clip, net.constant(1 / 6))
                y = y if name == "HardSigmoid" else net.add("Mul", y, x)
        found[name] = net.graph(y)
    return found


@pytest.mark.parametrize("name", list(activation_graphs()))
def test_activations_in_parts_are_found(name: str) -> None:
    graph = activation_graphs()[name]
    simple = edited(graph, match_activations)
    assert ops(simple) == [name.split()[0 if name.startswith("Gelu") else -1]]
    assert_same(graph, simple, random_feeds(graph))


def test_similar_activations_are_left_alone() -> None:
    net = Network()
    x = net.input(4, 5)
    a = net.add("Mul", x, net.add("HardSigmoid", x))
    b = net.add("Mul", x, net.add("Sigmoid", a))
    clip = net.add("Clip", net.add("Add", x, net.constant(2.0)), net.constant(0.0), net.constant(6.0))
    graph = net.graph(a, b, net.add("Div", clip, net.constant(6.0)))
    assert ops(edited(graph, match_activations)) == ops(graph)


def test_epilogues_are_fused() -> None:
    net = Network()
    x = net.input("n", 4, 6, 6)
    y = net.add("Relu", net.conv(x, 4, 8, 3))
    z = net.add("Relu", net.add("Add", net.conv(y, 8, 8, 3), y))
    z = net.add("Clip", net.conv(z, 8, 8, 1), net.constant(0.0), net.constant(6.0))
    z = net.add("LeakyRelu", net.conv(z, 8, 8, 1), alpha=0.2)
    z = net.conv(net.add("HardSwish", net.conv(z, 8, 8, 1)), 8, 8, 1)
    graph = net.graph(net.add("Mul", z, net.add("Sigmoid", z)))
    fused = specialized(graph, n=2)
    assert ops(fused) == ["ConvLayer"] * 6
    assert [node.attributes.get("activation") for node in fused.nodes] == [
        "relu",
        None,
        "clip",
        "leaky_relu",
        "hardswish",
        "silu",
    ]
    assert fused.nodes[1].attributes["sum_activation"] == "relu"
    assert_same(graph, fused, random_feeds(graph, n=2))


def test_sums_that_broadcast_are_not_residuals() -> None:
    net = Network()
    x = net.input(2, 4, 6, 6)
    pooled = net.conv(net.add("GlobalAveragePool", x), 4, 4, 1)
    graph = net.graph(net.add("Add", pooled, x))
    fused = specialized(graph)
    assert ops(fused) == ["GlobalAveragePool", "ConvLayer", "Add"]
    assert_same(graph, fused, random_feeds(graph))


def test_shape_arithmetic_is_folded_away() -> None:
    net = Network()
    x = net.input("n", 4, "h", 6)
    shape = net.add("Shape", x)
    rows = net.add("Gather", shape, net.constant([0], np.int64))
    half = net.add("Div", net.add("Gather", shape, net.constant([2], np.int64)), net.constant([2], np.int64))
    target = net.add("Concat", rows, half, net.constant([-1], np.int64), axis=0)
    graph = net.graph(net.add("Reshape", net.add("Relu", x), target))
    fused = specialized(graph, n=2, h=8)
    assert ops(fused) == ["Relu", "Reshape"]
    assert_same(graph, fused, random_feeds(graph, n=2, h=8))
