from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphs import Network, ops, random_feeds, run_plan
from gristmill import reference
from gristmill.compile import compile_graph
from gristmill.errors import UnsupportedOpError
from gristmill.graph import Graph
from gristmill.operators import TensorType
from gristmill.passes import simplify, specialize


class QuantizedNetwork(Network):
    """A builder that writes quantized layers as QuantizeLinear and DequantizeLinear pairs."""

    dtype: np.dtype[Any] = np.dtype(np.uint8)

    def quantize(self, x: str, scale: float, zero_point: int) -> str:
        """To bytes."""
        return self.add("QuantizeLinear", x, self.constant(scale), self.constant(zero_point, self.dtype))

    def dequantize(self, q: str, scale: float, zero_point: int) -> str:
        """From bytes."""
        return self.add("DequantizeLinear", q, self.constant(scale), self.constant(zero_point, self.dtype))

    def pair(self, x: str, scale: float = 0.05, zero_point: int = 100) -> str:
        """To bytes and back."""
        return self.dequantize(self.quantize(x, scale, zero_point), scale, zero_point)

    def weights(self, *shape: int, axis: int = 0, per_channel: bool = True) -> str:
        """Constant int8 weights, dequantized."""
        values = self.constant(self.random.integers(-127, 128, shape), np.int8)
        count = shape[axis] if per_channel else 1
        scales = self.constant(self.random.uniform(0.002, 0.02, count).reshape(-1 if per_channel else ()))
        return self.add("DequantizeLinear", values, scales, axis=axis)

    def bias(self, weights: str, x_scale: float, channels: int) -> str:
        """An int32 bias in steps of the sums."""
        node = next(node for node in self.builder._nodes if node.name == weights)
        scales = self.builder._constants[node.inputs[1]] * np.float32(x_scale)
        values = self.constant(self.random.integers(-2000, 2000, channels), np.int32)
        return self.add("DequantizeLinear", values, self.constant(np.broadcast_to(scales, channels)), axis=0)


def fused(graph: Graph, **extents: int) -> Graph:
    feeds = random_feeds(graph, **extents)
    return specialize(simplify(graph), {name: TensorType(x.dtype, x.shape) for name, x in feeds.items()})[0]


def assert_exact(graph: Graph, expected: list[str], **extents: int) -> Graph:
    """The passes leave these operators, and neither they nor the plan change a bit of the result."""
    result = fused(graph, **extents)
    assert ops(result) == expected
    feeds = random_feeds(graph, **extents)
    feeds = {name: value * 3 if value.dtype.kind == "f" else value for name, value in feeds.items()}
    wanted = reference.run(graph, feeds)
    for name, value in reference.run(result, feeds).items():
        np.testing.assert_array_equal(value, wanted[name], strict=True)
    for threads in (1, 2):
        for info, value in zip(graph.outputs, run_plan(graph, feeds, threads), strict=True):
            np.testing.assert_array_equal(value, wanted[info.name], strict=True)
    return result


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("per_channel", [True, False])
def test_convolutions_run_on_bytes(dtype: type, per_channel: bool, isa: str) -> None:
    net = QuantizedNetwork()
    net.dtype = np.dtype(dtype)
    zero_point = 3 if dtype == np.int8 else 131
    x = net.dequantize(net.input("n", 4, 9, 9, dtype=dtype), 0.05, zero_point)
    w = net.weights(8, 4, 3, 3, per_channel=per_channel)
    y = net.add("Conv", x, w, net.bias(w, 0.05, 8), pads=(1, 1, 1, 1), strides=(2, 2))
    y = net.pair(net.add("Relu", y), 0.2, zero_point)
    w = net.weights(8, 1, 3, 3, per_channel=per_channel)
    y = net.add("Conv", y, w, pads=(1, 1, 1, 1), group=8)
    graph = net.graph(net.quantize(y, 0.3, zero_point), dtype=dtype)
    result = assert_exact(graph, ["ConvLayer", "ConvLayer"], n=2)
    assert result.nodes[0].attributes["activation"] == "relu"


def test_linear_layers_run_on_bytes() -> None:
    net = QuantizedNetwork()
    x = net.dequantize(net.input("n", 20, dtype=np.uint8), 0.05, 120)
    w = net.weights(30, 20)
    y = net.pair(net.add("Gemm", x, w, net.bias(w, 0.05, 30), transB=1), 0.5, 128)
    y = net.pair(net.add("MatMul", y, net.weights(30, 16, axis=1)), 2.0, 90)
    graph = net.graph(net.quantize(net.add("Gemm", y, net.weights(16, 10, axis=1)), 9.0, 7), dtype=np.uint8)
    assert_exact(graph, ["LinearLayer"] * 3, n=3)


@pytest.mark.parametrize("block", [1, 4])
def test_sparse_weights_of_bytes_give_the_same_bits(block: int, isa: str) -> None:
    net = QuantizedNetwork()
    x = net.dequantize(net.input("n", 32, 6, 6, dtype=np.uint8), 0.05, 120)
    density = 0.05 if isa == "amx" else 0.1  # at a tenth, dense tiles are faster than quads

    def pruned(*shape: int) -> str:
        kept = np.repeat(net.random.random((shape[0], int(np.prod(shape[1:])) // block)) < density, block, axis=1)
        values = net.random.integers(-127, 128, shape) * kept.reshape(shape)
        return net.add(
            "DequantizeLinear",
            net.constant(values, np.int8),
            net.constant(net.random.uniform(0.01, 0.02, shape[0])),
            axis=0,
        )

    y = net.pair(net.add("Conv", x, pruned(64, 32, 1, 1)), 0.1, 128)
    y = net.pair(net.add("Reshape", y, net.constant([-1, 64], np.int64)), 0.1, 128)
    graph = net.graph(net.quantize(net.add("Gemm", y, pruned(48, 64), transB=1), 0.1, 128), dtype=np.uint8)
    for batch in (1, 3):
        assert_exact(graph, ["ConvLayer", "Reshape", "LinearLayer"], n=batch)
    types = {"x": TensorType(np.dtype(np.uint8), (1, 32, 6, 6))}
    kernels = [kernel for _, kernel in compile_graph(simplify(graph), types).plan.steps if "sparse" in kernel]
    # On AVX2 linear layers run quads faster at this density, blocks or not.
    forms = ["quads", "quads"] if block == 1 else ["1x4 blocks", "quads" if isa == "avx2" else "1x4 blocks"]
    assert [kernel.removeprefix("s8 sparse ") for kernel in kernels] == forms


def test_sums_are_residuals_or_sums_of_bytes() -> None:
    net = QuantizedNetwork()
    x = net.dequantize(net.input("n", 4, 6, 6, dtype=np.uint8), 0.05, 120)
    y = net.pair(net.add("Conv", x, net.weights(4, 4, 1, 1)), 0.1, 128)
    y = net.pair(net.add("Relu", net.add("Add", y, x)), 0.07, 0)
    z = net.pair(net.add("Exp", y), 0.3, 5)
    graph = net.graph(net.quantize(net.add("Add", y, z), 0.11, 60), dtype=np.uint8)
    result = assert_exact(graph, ["ConvLayer", "Lookup", "QLinearAdd"], n=2)
    assert result.nodes[0].attributes["sum_zero_point"] == 0


def test_bytes_stay_bytes_between_layers() -> None:
    net = QuantizedNetwork()
    x = net.dequantize(net.input("n", 4, 8, 8, dtype=np.uint8), 0.05, 120)
    y = net.pair(net.add("MaxPool", x, kernel_shape=(2, 2), strides=(2, 2)), 0.05, 120)
    y = net.pair(net.add("Transpose", y, perm=(0, 2, 3, 1)), 0.05, 120)
    y = net.pair(net.add("Reshape", y, net.constant([0, 4, 4, 4], np.int64)), 0.05, 120)
    y = net.pair(net.add("Pad", y, net.constant([0, 0, 1, 1, 0, 0, 0, 0], np.int64)), 0.05, 120)
    graph = net.graph(net.quantize(y, 0.05, 120), dtype=np.uint8)
    assert_exact(graph, ["MaxPool", "Transpose", "Reshape", "Pad"], n=2)


def test_concatenations_map_their_parts() -> None:
    net = QuantizedNetwork()
    a = net.dequantize(net.input(1, 3, 4, dtype=np.uint8), 0.05, 120)
    b = net.dequantize(net.input(1, 2, 4, dtype=np.uint8, name="z"), 0.07, 90)
    graph = net.graph(net.quantize(net.add("Concat", a, b, axis=1), 0.07, 90), dtype=np.uint8)
    assert_exact(graph, ["Lookup", "Concat"])


@pytest.mark.parametrize("op", ["Sigmoid", "HardSwish", "LeakyRelu", "Tanh", "Gelu", "Clip"])
def test_functions_of_bytes_are_tables(op: str) -> None:
    net = QuantizedNetwork()
    x = net.dequantize(net.input(256, dtype=np.uint8), 0.05, 120)
    bounds = (net.constant(-0.5), net.constant(1.0)) if op == "Clip" else ()
    graph = net.graph(net.quantize(net.add("Relu", net.add(op, x, *bounds)), 0.01, 10), dtype=np.uint8)
    assert_exact(graph, ["Lookup"])


def test_means_and_products_of_bytes() -> None:
    net = QuantizedNetwork()
    x = net.dequantize(net.input("n", 4, 5, 5, dtype=np.uint8), 0.05, 120)
    gate = net.pair(net.add("GlobalAveragePool", x), 0.02, 128)
    graph = net.graph(net.quantize(net.add("Mul", x, gate), 0.02, 128), dtype=np.uint8)
    result = fused(graph, n=2)
    assert ops(result) == ["QLinearGlobalAveragePool", "QLinearMul"]
    feeds = random_feeds(graph, n=2)
    wanted = reference.run(graph, feeds)[graph.outputs[0].name].astype(int)
    (actual,) = run_plan(graph, feeds)
    # ONNX Runtime's integer mean rounds once where the operators as written round twice.
    assert np.abs(actual.astype(int) - wanted).max() <= 1


def test_layers_without_a_quantized_result_yield_reals() -> None:
    net = QuantizedNetwork()
    x = net.pair(net.input("n", 20))
    w = net.weights(30, 20)
    y = net.add("Relu", net.add("Gemm", x, w, net.bias(w, 0.05, 30), transB=1))
    graph = net.graph(y)
    result = fused(graph, n=2)
    assert ops(result) == ["QuantizeLinear", "LinearLayer"]
    feeds = random_feeds(graph, n=2)
    wanted = reference.run(graph, feeds)[y]
    np.testing.assert_allclose(run_plan(graph, feeds)[0], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "change", ["weight zero point", "wide weights", "float weights", "two scales", "weights by input"]
)
def test_what_is_not_an_integer_layer_runs_on_reals(change: str) -> None:
    net = QuantizedNetwork()
    x = net.dequantize(net.input(2, 4, dtype=np.uint8), 0.05, 120)
    values = net.constant(net.random.integers(0, 255, (3, 4)), np.uint8)
    if change == "two scales":
        x = net.add("DequantizeLinear", "x", net.constant([0.1] * 4), net.constant([3] * 4, np.uint8), axis=1)
    if change == "weight zero point":
        w = net.add("DequantizeLinear", values, net.constant([0.1] * 3), net.constant([1, 2, 3], np.uint8), axis=0)
    elif change == "wide weights":
        w = net.add("DequantizeLinear", values, net.constant(0.1), net.constant(3, np.uint8))
    elif change == "weights by input":
        w = net.weights(3, 4, axis=1)
    elif change == "float weights":
        w = net.normal(3, 4)
    else:
        w = net.weights(3, 4)
    graph = net.graph(net.add("Gemm", x, w, transB=1))
    result = fused(graph)
    assert ops(result) == ["DequantizeLinear", "LinearLayer"]
    feeds = random_feeds(graph)
    wanted = reference.run(graph, feeds)[graph.outputs[0].name]
    np.testing.assert_allclose(run_plan(graph, feeds)[0], wanted, rtol=1e-4, atol=1e-4)


def test_operators_on_bytes_are_layers() -> None:
    net = QuantizedNetwork()

    def byte(value: int) -> str:
        return net.constant(value, np.uint8)

    x = net.input("n", 3, 6, 6, dtype=np.uint8)
    w = net.constant(net.random.integers(-127, 128, (4, 3, 3, 3)), np.int8)
    maps = net.constant(0.1), byte(100), w, net.constant([0.01, 0.02, 0.03, 0.04]), net.constant([0] * 4, np.int8)
    bias = net.constant(net.random.integers(-999, 999, 4), np.int32)
    y = net.add("QLinearConv", x, *maps, net.constant(0.5), byte(90), bias)
    y = net.add("Flatten", y)
    w = net.constant(net.random.integers(-127, 128, (64, 7)), np.int8)
    y = net.add(
        "QLinearMatMul",
        y,
        net.constant(0.5),
        byte(90),
        w,
        net.constant(0.01),
        net.constant(0, np.int8),
        net.constant(2.0),
        byte(128),
    )
    w = net.constant(net.random.integers(-127, 128, (5, 7)), np.int8)
    maps = net.constant(2.0), byte(128), w, net.constant([0.01] * 5), net.constant([0] * 5, np.int8)
    bias = net.constant(net.random.integers(-999, 999, 5), np.int32)
    graph = net.graph(net.add("QGemm", y, *maps, bias, net.constant(1.5), byte(50), transB=1), dtype=np.uint8)
    assert_exact(graph, ["ConvLayer", "Flatten", "LinearLayer", "LinearLayer"], n=2)


@pytest.mark.filterwarnings("ignore:.*(divide by zero|invalid value|overflow)")
@pytest.mark.parametrize("scale", [-0.5, 0.0, -0.0, np.nan, np.inf])
def test_integers_say_nothing_about_order_unless_their_scale_is_a_step(scale: float) -> None:
    """Of what is negative, the greatest byte is the least real, and a clamp from below is one from above."""
    net = QuantizedNetwork()
    x = net.input("n", 4, 8, 8, dtype=np.uint8)
    pooled = net.add("MaxPool", net.dequantize(x, scale, 3), kernel_shape=(2, 2), strides=(2, 2))
    real, w = net.dequantize(x, 0.1, 100), net.weights(4, 4, 1, 1)
    nets = [
        pooled,
        net.pair(pooled, 0.5, 3),
        net.quantize(net.add("Relu", net.add("Conv", real, w)), scale, 0),
        net.quantize(net.add("Relu", net.add("Add", real, real)), scale, 0),
        net.quantize(net.add("Conv", net.dequantize(x, scale, 3), w), 0.1, 3),
        net.quantize(net.dequantize(x, scale, 3), scale, 3),
        net.quantize(net.add("Concat", real, net.dequantize(x, scale, 3), axis=1), scale, 3),
        net.add("GlobalAveragePool", net.dequantize(x, scale, 3)),
    ]
    graph = net.graph(*nets, dtype=np.float32)
    feeds = random_feeds(graph, n=2)
    wanted = reference.run(graph, feeds)
    for info, value in zip(graph.outputs, run_plan(graph, feeds), strict=True):
        np.testing.assert_allclose(value, wanted[info.name], 1e-5, 1e-5)


@pytest.mark.filterwarnings("ignore:.*(divide by zero|invalid value|overflow)")
@pytest.mark.parametrize("scale", [-0.01, 0.0, np.nan, np.inf])
def test_weights_are_those_of_integer_layers_only_if_their_scales_are_steps(scale: float) -> None:
    net = QuantizedNetwork()
    x = net.dequantize(net.input("n", 20, dtype=np.uint8), 0.05, 120)
    scales = np.linspace(0.01, 0.02, 6, dtype=np.float32)
    scales[3] = scale
    values = net.constant(net.random.integers(-127, 128, (6, 20)), np.int8)
    w = net.add("DequantizeLinear", values, net.constant(scales), axis=0)
    y = net.add("Gemm", x, w, net.constant(np.arange(6.0)), transB=1)
    graph = net.graph(y)
    feeds = random_feeds(graph, n=3)
    np.testing.assert_allclose(run_plan(graph, feeds)[0], reference.run(graph, feeds)[y], 1e-4, 1e-4)


@pytest.mark.parametrize("op", ["QLinearAdd", "QLinearMul"])
@pytest.mark.parametrize("scale", [-0.1, 0.0, np.nan, np.inf])
def test_operators_on_bytes_refuse_scales_that_are_no_steps(op: str, scale: float) -> None:
    net = QuantizedNetwork()
    x, zero = net.input("n", 4, dtype=np.uint8), net.constant(0, np.uint8)
    x_map, y_map = (net.constant(0.05), zero), (net.constant(scale), zero)
    w = net.constant(np.eye(4), np.int8), net.constant(1.0), net.constant(0, np.int8)
    layer = net.add("QLinearMatMul", x, *x_map, *w, *x_map)
    graph = net.graph(net.add(op, layer, *x_map, x, *x_map, *y_map), dtype=np.uint8)
    with pytest.raises(UnsupportedOpError, match=f"{op}: a scale of {scale:g}; scales must be finite and greater than"):
        run_plan(graph, random_feeds(graph, n=2))


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
@pytest.mark.parametrize("written", [True, False])
def test_integers_without_a_zero_point_are_of_the_type_that_they_have(dtype: type, written: bool) -> None:
    net = QuantizedNetwork()
    net.dtype = np.dtype(dtype)
    x = net.quantize(net.input("n", 4, 6, 6), 0.5, 3) if written else net.input("n", 4, 6, 6, dtype=dtype)
    x = net.add("MaxPool", x, kernel_shape=(2, 2))
    moved = net.add("Transpose", net.add("DequantizeLinear", x, net.constant(0.5)), perm=(0, 1, 3, 2))
    net.dtype = np.dtype(np.uint8)
    outputs = [
        net.quantize(net.add("Relu", moved), 0.25, 3),
        net.quantize(net.add("Add", moved, moved), 0.25, 3),
        net.quantize(net.add("Concat", moved, moved, axis=1), 0.25, 3),
        net.add("Pad", moved, net.constant([0, 0, 1, 1, 0, 0, 1, 1], np.int64)),
    ]
    graph = net.graph(*outputs, dtype=np.float32)
    left = fused(graph, n=2)
    assert "Relu" not in ops(left)
    assert "Lookup" in ops(left)
    feeds = {name: value * 9 if value.dtype.kind == "f" else value for name, value in random_feeds(graph, n=2).items()}
    wanted = reference.run(graph, feeds)
    for info, value in zip(graph.outputs, run_plan(graph, feeds), strict=True):
        np.testing.assert_array_equal(value, wanted[info.name], strict=True)


@pytest.mark.parametrize("zero", [3, None])
def test_bytes_of_a_type_that_is_not_seen_stay_as_they_are(zero: int | None) -> None:
    """Only the zero point says whether what the run computes is int8 or uint8."""
    net = QuantizedNetwork()
    net.dtype = np.dtype(np.int8)
    x = net.add("Cast", net.input("n", 6), to=3)
    zeros = [net.constant(zero, np.int8)] if zero is not None else []
    y = net.quantize(net.add("Relu", net.add("DequantizeLinear", x, net.constant(0.5), *zeros)), 0.25, 3)
    graph = net.graph(y, dtype=np.int8)
    assert ("Lookup" in ops(fused(graph, n=2))) == (zero is not None)
    feeds = {"x": np.arange(-100, 100, 20, dtype=np.float32)[:6].reshape(1, 6)}
    np.testing.assert_array_equal(run_plan(graph, feeds)[0], reference.run(graph, feeds)[y], strict=True)


@pytest.mark.parametrize("bias", [np.nan, np.inf, -1e30, 2.0**31 * 0.05 * 0.01])
def test_layers_with_a_bias_beyond_int32_stay_real(bias: float) -> None:
    net = QuantizedNetwork()
    x = net.dequantize(net.input("n", 20, dtype=np.uint8), 0.05, 120)
    values, scale = net.constant(net.random.integers(-127, 128, (2, 20)), np.int8), net.constant(0.01)
    y = net.add("Gemm", x, net.add("DequantizeLinear", values, scale), net.constant([1.0, bias]), transB=1)
    graph = net.graph(net.quantize(y, 0.1, 100), dtype=np.uint8)
    feeds = random_feeds(graph, n=3)
    (found,) = run_plan(graph, feeds)
    np.testing.assert_array_equal(found[:, 1], 255 if bias > 0 else 0)
    np.testing.assert_allclose(found, reference.run(graph, feeds)[graph.outputs[0].name].astype(float), atol=1)


@pytest.mark.parametrize(("x_scale", "w_scale"), [(1e-30, 1e-30), (1e30, 1e30)])
def test_layers_whose_scales_have_no_product_stay_real(x_scale: float, w_scale: float) -> None:
    net = QuantizedNetwork()
    x = net.dequantize(net.input("n", 4, dtype=np.uint8), x_scale, 120)
    w = net.add("DequantizeLinear", net.constant(np.eye(4), np.int8), net.constant(w_scale))
    graph = net.graph(net.add("Gemm", x, w, net.constant([1.0, 2, 3, 4]), transB=1))
    feeds = {"x": np.full((1, 4), 121, np.uint8)}
    (found,) = run_plan(graph, feeds)
    np.testing.assert_array_equal(found, reference.run(graph, feeds)[graph.outputs[0].name])
    assert np.isinf(found).all() or found.tolist() == [[1, 2, 3, 4]]
