from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphs import Network, assert_plan_agrees, random_feeds, run_plan
from gristmill.compile import compile_graph
from gristmill.graph import Graph
from gristmill.operators import TensorType
from gristmill.passes import simplify


def types_of(feeds: dict[str, Any]) -> dict[str, TensorType]:
    return {name: TensorType(value.dtype, value.shape) for name, value in feeds.items()}


def residual_network() -> Graph:
    net = Network()
    y = net.add("Relu", net.batch_norm(net.conv(net.input("n", 3, 32, 32), 3, 16, 3), 16))
    y = net.add("MaxPool", y, kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1))
    channels = 16
    for filters, stride in ((16, 1), (32, 2), (32, 1)):
        z = net.add("Relu", net.batch_norm(net.conv(y, channels, filters, 3, strides=(stride,) * 2), filters))
        z = net.batch_norm(net.conv(z, filters, filters, 3), filters)
        if channels != filters:
            y = net.batch_norm(net.conv(y, channels, filters, 1, strides=(stride,) * 2), filters)
        y = net.add("Relu", net.add("Add", z, y))
        channels = filters
    side = net.add("Clip", net.conv(y, 32, 32, 3, group=32), net.constant(0.0), net.constant(6.0))
    y = net.add("Flatten", net.add("GlobalAveragePool", net.add("Concat", side, y, axis=1)))
    return net.graph(net.add("Gemm", y, net.normal(10, 64), net.normal(10), transB=1))


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_residual_network_agrees_with_the_reference(batch: int, isa: str) -> None:
    graph = residual_network()
    assert_plan_agrees(graph, random_feeds(graph, n=batch), 1e-4)


def test_results_do_not_depend_on_threads() -> None:
    graph = residual_network()
    feeds = random_feeds(graph, n=2)
    one = run_plan(graph, feeds, threads=1)[0]
    np.testing.assert_array_equal(run_plan(graph, feeds, threads=2)[0], one)


def test_every_node_becomes_one_step_where_it_can() -> None:
    graph = residual_network()
    feeds = random_feeds(graph, n=1)
    plan = compile_graph(simplify(graph), types_of(feeds)).plan
    kernels = [kernel for _, kernel in plan.steps]
    assert len(kernels) == 12
    assert "copy" not in " ".join(kernels)
    # The largest moment: the first layer's output beside the pooled one.
    assert plan.arena_bytes == 4 * 16 * (32 * 32 + 16 * 16)


def test_a_chain_of_functions_works_in_place() -> None:
    net = Network()
    y = net.input(1, 1000)
    for op in ("Exp", "Neg", "Sqrt", "Tanh", "Relu"):
        y = net.add(op, y)
    graph = net.graph(net.add("Add", y, net.constant(1.0)))
    plan = compile_graph(simplify(graph), types_of(random_feeds(graph))).plan
    assert plan.arena_bytes == 0
    net = Network()
    y = net.add("Exp", net.input(1, 1000))
    graph = net.graph(net.add("Add", net.add("Neg", y), net.add("Sqrt", y)))
    assert_plan_agrees(graph)


def test_inputs_are_never_overwritten() -> None:
    net = Network()
    graph = net.graph(net.add("Relu", net.input(10)))
    feeds = random_feeds(graph)
    before = feeds["x"].copy()
    run_plan(graph, feeds)
    np.testing.assert_array_equal(feeds["x"], before)


def single(op: str, *shapes: tuple[int, ...], constants: tuple[Any, ...] = (), **attributes: Any) -> Graph:  # noqa: ANN401
    """A graph of one node that reads inputs of these shapes and then constants."""
    net = Network()
    inputs = [net.input(*shape, name=f"x{index}") for index, shape in enumerate(shapes)]
    names = [net.constant(value, np.int64 if isinstance(value, list) else np.float32) for value in constants]
    return net.graph(net.add(op, *inputs, *names, **attributes))


CASES: dict[str, Graph] = {
    "reshape": single("Reshape", (2, 3, 4), constants=([0, -1],)),
    "flatten": single("Flatten", (2, 3, 4), axis=2),
    "squeeze": single("Squeeze", (1, 3, 1), constants=([0],)),
    "transpose": single("Transpose", (2, 3, 4, 5), perm=(0, 2, 3, 1)),
    "transpose of ones": single("Transpose", (2, 1, 4, 5), perm=(0, 2, 3, 1)),
    "transpose reversed": single("Transpose", (2, 3, 4)),
    "concat": single("Concat", (1, 3, 4), (1, 2, 4), axis=1),
    "concat inner": single("Concat", (2, 3, 4), (2, 3, 1), axis=-1),
    "concat empty": single("Concat", (2, 0), (2, 3), axis=1),
    "slice": single("Slice", (5, 6), constants=([1, -2], [4, -100], [0, 1], [2, -1])),
    "slice rows": single("Slice", (5, 6), constants=([1], [3])),
    "expand": single("Expand", (3, 1), constants=([2, 3, 4],)),
    "tile": single("Tile", (2, 3), constants=([2, 3],)),
    "pad": single("Pad", (2, 3), constants=([1, 0, 2, 3], 7.5)),
    "pad negative": single("Pad", (4, 5), constants=([-1, 2, 1, -2],)),
    "depth to space": single("DepthToSpace", (2, 8, 3, 4), blocksize=2),
    "depth to space CRD": single("DepthToSpace", (2, 8, 3, 4), blocksize=2, mode="CRD"),
    "space to depth": single("SpaceToDepth", (2, 3, 4, 6), blocksize=2),
    "broadcast": single("Mul", (2, 1, 4), (3, 1)),
    "sum of three": single("Sum", (2, 3), (3,), (1, 1)),
    "mean of three": single("Mean", (2, 3), (3,), (1, 1)),
    "max of one": single("Max", (2, 3)),
    "pad reflect": single("Pad", (2, 4, 5), constants=([0, 2, 1, 0, 3, 4],), mode="reflect"),
    "pad edge": single("Pad", (4, 5), constants=([2, 1, 3, 4],), mode="edge"),
    "pad wrap": single("Pad", (4, 5), constants=([2, 1, 3, 4],), mode="wrap"),
    "reduce": single("ReduceMean", (2, 3, 4), constants=([1, -1],)),
    "reduce all": single("ReduceMax", (2, 3, 4), keepdims=0),
    "softmax": single("Softmax", (2, 3, 4), axis=1),
    "log softmax": single("LogSoftmax", (2, 3)),
    "matmul": single("MatMul", (2, 3, 4), (4, 5)),
    "matmul of vectors": single("MatMul", (4,), (4,)),
    "gemm": single("Gemm", (4, 3), (5, 4), (3, 1), transA=1, transB=1, alpha=0.5, beta=2.0),
    "gather": single("Gather", (4, 5), constants=([[0, -1], [2, 1]],), axis=1),
    "lrn": single("LRN", (1, 6, 3, 3), size=3, alpha=0.1),
    "instance norm": single("InstanceNormalization", (2, 3, 4, 4), (3,), (3,)),
    "cast": single("Cast", (5,), to=1),
    "prelu": single("PRelu", (2, 3, 4), (3, 1)),
    "clip": single("Clip", (10,), constants=(-0.5, 0.5)),
    "clip inverted": single("Clip", (10,), constants=(0.5, -0.5)),
    "hard sigmoid": single("HardSigmoid", (10,), alpha=0.3, beta=0.4),
    "elu": single("Elu", (10,), alpha=0.3),
    "gelu": single("Gelu", (10,)),
    "gelu tanh": single("Gelu", (10,), approximate="tanh"),
    "scalar": single("Exp", ()),
    "empty": single("Exp", (0, 3)),
    "max pool": single("MaxPool", (1, 2, 7, 7), kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1), ceil_mode=1),
    "max pool 1-D": single("MaxPool", (1, 2, 7), kernel_shape=(3,), dilations=(2,)),
    "average pool": single("AveragePool", (1, 2, 6, 7), kernel_shape=(3, 2), pads=(1, 0, 1, 1)),
    "average pool with pads": single(
        "AveragePool", (1, 2, 6, 6), kernel_shape=(3, 3), pads=(1, 1, 1, 1), count_include_pad=1
    ),
    "global max pool": single("GlobalMaxPool", (2, 3, 4, 5)),
    "global average pool 3-D": single("GlobalAveragePool", (2, 3, 4, 5, 2)),
    "global average pool of no image axes": single("GlobalAveragePool", (2, 3)),
    "global max pool of no image axes": single("GlobalMaxPool", (2, 3)),
}


@pytest.mark.parametrize("name", CASES)
def test_single_nodes_agree_with_the_reference(name: str) -> None:
    assert_plan_agrees(CASES[name])


def test_split_and_joined_again() -> None:
    net = Network()
    parts = net.builder.fresh("a"), net.builder.fresh("b")
    from gristmill.graph import Node

    x = net.input(1, 6, 4)
    net.builder.add_node(Node("Split", (x, net.constant([2, 4], np.int64)), parts, {"axis": 1}, "split"))
    graph = net.graph(net.add("Concat", net.add("Exp", parts[1]), parts[0], parts[0], axis=1), parts[1])
    assert_plan_agrees(graph)


def test_one_value_in_two_concatenations() -> None:
    net = Network()
    a, b = net.add("Exp", net.input(1, 3, 4)), net.add("Neg", net.input(1, 2, 4, name="z"))
    first, second = net.add("Concat", a, b, axis=1), net.add("Concat", b, a, a, axis=1)
    graph = net.graph(net.add("Relu", first), second, net.add("Concat", net.add("Relu", second), first, axis=1), a)
    assert_plan_agrees(graph)


def test_inputs_constants_and_doubles_may_be_outputs() -> None:
    net = Network()
    x = net.input(2, 3)
    y = net.add("Exp", x)
    graph = net.graph(x, net.normal(2), y, y, net.add("Reshape", y, net.constant([6], np.int64)))
    assert_plan_agrees(graph)


def test_convolution_of_sequences() -> None:
    net = Network()
    y = net.add("Conv", net.input(2, 3, 20), net.normal(4, 3, 5), pads=(1, 2), strides=(2,), dilations=(2,))
    graph = net.graph(net.add("Relu", net.add("Conv", y, net.normal(4, 1, 3), net.normal(4), group=4)))
    assert_plan_agrees(graph)


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": (2, 3), "output_padding": (1, 2)},
        {"pads": (1, 0, 2, 1), "dilations": (2, 1)},
        {"pads": (3, 2, 3, 3), "strides": (2, 2)},
        {"auto_pad": "SAME_UPPER", "strides": (2, 2)},
        {"group": 2},
    ],
)
def test_transposed_convolutions(attributes: dict[str, Any]) -> None:
    net = Network()
    groups = attributes.get("group", 1)
    weights, bias = net.normal(4, 6 // groups, 3, 3), net.normal(6)
    assert_plan_agrees(net.graph(net.add("ConvTranspose", net.input(2, 4, 5, 6), weights, bias, **attributes)))


def test_same_padding_is_resolved() -> None:
    for mode in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        net = Network()
        weights = net.normal(4, 3, 3, 2)
        graph = net.graph(net.add("Conv", net.input(1, 3, 7, 8), weights, auto_pad=mode, strides=(2, 3)))
        assert_plan_agrees(graph)


def test_sparse_weights_run_sparse_and_agree() -> None:
    net = Network()
    weights = net.random.standard_normal((32, 16, 3, 3)) * (net.random.random((32, 16, 3, 3)) < 0.1)
    y = net.add("Conv", net.input(1, 16, 14, 14), net.constant(weights), pads=(1,) * 4)
    rows = net.random.standard_normal((10, 32)) * (net.random.random((10, 32)) < 0.1)
    y = net.add("Gemm", net.add("Flatten", net.add("GlobalAveragePool", y)), net.constant(rows), transB=1)
    graph = net.graph(y)
    feeds = random_feeds(graph)
    kernels = [kernel for _, kernel in compile_graph(simplify(graph), types_of(feeds)).plan.steps]
    assert sum("singles" in kernel or "sparse" in kernel for kernel in kernels) == 2
    assert_plan_agrees(graph, feeds)
