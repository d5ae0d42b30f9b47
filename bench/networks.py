"""ONNX models for benchmarks: real topologies, random weights, pruned or not, float32 or quantized by onnxruntime."""

from __future__ import annotations

import io
import itertools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Pruning:
    """Which part of the weights is zero, one by one or in blocks along the input channels."""

    sparsity: float = 0.0
    block: int = 1

    @property
    def name(self) -> str:
        """Such as ``s90b4``; empty for none."""
        if not self.sparsity:
            return ""
        return f"s{round(self.sparsity * 100)}" + (f"b{self.block}" if self.block > 1 else "")

    def apply(self, weights: Array) -> Array:
        """Zero the groups of least magnitude."""
        if not self.sparsity:
            return weights
        moved = np.moveaxis(weights, 1, -1)
        groups = moved.reshape(-1, self.block)
        score = np.abs(groups).sum(1)
        kept = score > np.quantile(score, self.sparsity)
        pruned = (groups * kept[:, None]).reshape(moved.shape)
        return np.ascontiguousarray(np.moveaxis(pruned, -1, 1), np.float32)


class Writer:
    """Collects the nodes of a model; every method returns the name of its result."""

    def __init__(self, pruning: Pruning, seed: int = 0) -> None:
        self.pruning = pruning
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, value: Array) -> str:
        """An initializer."""
        name = f"w{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value, np.float32), name))
        return name

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:  # noqa: ANN401
        """A node."""
        name = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=name, **attributes))
        return name

    def conv(self, x: str, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> str:
        """A convolution with the bias that a folded normalization leaves."""
        taps = inputs // groups * kernel**2
        weights = self.random.standard_normal((outputs, inputs // groups, kernel, kernel)) * (2 / taps) ** 0.5
        if groups == 1 and inputs > 3:
            weights = self.pruning.apply(weights)
        bias = self.random.standard_normal(outputs) * 0.1
        shape = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4, "group": groups}
        return self.node("Conv", x, self.constant(weights), self.constant(bias), **shape)

    def linear(self, x: str, inputs: int, outputs: int) -> str:
        """A linear layer."""
        weights = self.pruning.apply(self.random.standard_normal((outputs, inputs)) * (2 / inputs) ** 0.5)
        return self.node("Gemm", x, self.constant(weights), self.constant(np.zeros(outputs)), transB=1)

    def model(self, y: str, shape: tuple[int, ...]) -> onnx.ModelProto:
        """The model from ``x`` to ``y``, of any batch."""
        self.nodes[-1].output[0] = "y"
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            self.initializers,
        )
        assert y
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def resnet50(pruning: Pruning) -> onnx.ModelProto:
    """ResNet-50."""
    net = Writer(pruning)
    y = net.node("Relu", net.conv("x", 3, 64, 7, 2))
    y = net.node("MaxPool", y, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    channels = 64
    for width, blocks, first in [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)]:
        for block in range(blocks):
            stride = first if block == 0 else 1
            z = net.node("Relu", net.conv(y, channels, width, 1))
            z = net.node("Relu", net.conv(z, width, width, 3, stride))
            z = net.conv(z, width, 4 * width, 1)
            if block == 0:
                y = net.conv(y, channels, 4 * width, 1, stride)
            y = net.node("Relu", net.node("Add", z, y))
            channels = 4 * width
    y = net.node("Flatten", net.node("GlobalAveragePool", y))
    return net.model(net.linear(y, 2048, 1000), (3, 224, 224))


def mobilenet_v1(pruning: Pruning) -> onnx.ModelProto:
    """MobileNetV1."""
    net = Writer(pruning)
    y = net.node("Relu", net.conv("x", 3, 32, 3, 2))
    channels = 32
    steps = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for filters, stride in steps:
        y = net.node("Relu", net.conv(y, channels, channels, 3, stride, groups=channels))
        y = net.node("Relu", net.conv(y, channels, filters, 1))
        channels = filters
    y = net.node("Flatten", net.node("GlobalAveragePool", y))
    return net.model(net.linear(y, 1024, 1000), (3, 224, 224))


def mlp(pruning: Pruning, sizes: tuple[int, ...] = (784, 2048, 2048, 2048, 1024, 10)) -> onnx.ModelProto:
    """A perceptron."""
    net = Writer(pruning)
    y = "x"
    for index, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        y = net.linear(y, inputs, outputs)
        if index < len(sizes) - 2:
            y = net.node("Relu", y)
    return net.model(y, (sizes[0],))


NETWORKS: dict[str, Callable[[Pruning], onnx.ModelProto]] = {
    "resnet50": resnet50,
    "mobilenetv1": mobilenet_v1,
    "mlp": mlp,
}


def input_shape(model: onnx.ModelProto) -> tuple[int, ...]:
    """The shape of one example."""
    return tuple(axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim[1:])


def quantized(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with QuantizeLinear and DequantizeLinear pairs, int8 weights per channel."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    generator = np.random.default_rng(0)
    shape = input_shape(model)

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = 2

        def get_next(self) -> dict[str, Array] | None:
            self.left -= 1
            return {"x": generator.standard_normal((1, *shape), np.float32)} if self.left >= 0 else None

    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        options = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, "per_channel": True}
        quantize_static(source, target, Reader(), quant_format=QuantFormat.QDQ, **options)
        return onnx.load(io.BytesIO(target.read_bytes()))
