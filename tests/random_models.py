"""Random small ONNX models over the operators of convolution networks, for comparison with onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]
Shape = tuple[int, ...]


class RandomModel:
    """Draws a model from a seed: nodes are added to a pool of values, each reading some of it.

    With ``int8`` every value is quantized and dequantized again, and so are the weights of layers.
    """

    def __init__(self, seed: int, *, int8: bool = False) -> None:
        self.random = np.random.default_rng(seed)
        self.int8 = int8
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.scales: dict[str, float] = {}
        shape = (self.integer(1, 3), self.integer(1, 6), self.integer(5, 12), self.integer(5, 12))
        self.input_shape = shape
        self.pool: list[tuple[str, Shape]] = [(self.finish("x", shape)[0], shape)]
        for _ in range(self.integer(2, 9)):
            self.grow()

    def integer(self, low: int, high: int) -> int:
        """A number from low to high, both possible."""
        return int(self.random.integers(low, high + 1))

    def chance(self, probability: float) -> bool:
        """True with that probability."""
        return bool(self.random.random() < probability)

    def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        """An initializer."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(self, op: str, *inputs: str, outputs: int = 1, **attributes: Any) -> list[str]:  # noqa: ANN401
        """A node; returns its results."""
        names = [f"v{len(self.nodes)}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, name=names[0], **attributes))
        return names

    def finish(self, name: str, shape: Shape) -> tuple[str, Shape]:
        """Quantize and dequantize a value in int8 models."""
        if not self.int8:
            return name, shape
        scale = float(self.random.uniform(0.01, 0.06))
        arguments = self.constant(scale), self.constant(self.integer(80, 170), np.uint8)
        (integers,) = self.node("QuantizeLinear", name, *arguments)
        (real,) = self.node("DequantizeLinear", integers, *arguments)
        self.scales[real] = scale
        return real, shape

    def weights(self, shape: Shape, fan_in: int, axis: int) -> tuple[str, Array]:
        """Weights, with some zeros; in int8 models dequantized from bytes. Also returns the scales."""
        values = self.random.standard_normal(shape) * fan_in**-0.5
        if self.chance(0.4):
            values *= self.random.random(shape) < self.random.choice([0.05, 0.2, 0.5])
        if not self.int8:
            return self.constant(values), np.ones(1)
        others = tuple(index for index in range(len(shape)) if index != axis)
        scales = np.maximum(np.abs(values).max(axis=others), 1e-3) / 127
        spread = scales.reshape([-1 if index == axis else 1 for index in range(len(shape))])
        integers = self.constant(np.rint(values / spread), np.int8)
        zeros = self.constant(np.zeros(len(scales)), np.int8)
        return self.node("DequantizeLinear", integers, self.constant(scales), zeros, axis=axis)[0], scales

    def bias(self, x: str, scales: Array, channels: int) -> str:
        """A bias; in int8 models dequantized from int32."""
        values = self.random.standard_normal(channels)
        if not self.int8:
            return self.constant(values)
        step = (np.float32(self.scales[x]) * scales.astype(np.float32)).astype(np.float32)
        integers = self.constant(np.rint(values / step), np.int32)
        zeros = self.constant(np.zeros(channels), np.int32)
        return self.node("DequantizeLinear", integers, self.constant(step), zeros, axis=0)[0]

    def grow(self) -> None:
        """Add one random operation."""
        x, shape = self.pool[self.integer(max(0, len(self.pool) - 3), len(self.pool) - 1)]
        image = len(shape) == 4
        kinds = ["curve", "binary", "reshape"] if not self.int8 else ["curve", "binary"]
        kinds += ["conv"] * 4 + ["pool", "global", "concat", "pad"] if image else ["gemm"] * 3
        if image and not self.int8:
            kinds += ["norm", "transposed", "slice", "split", "transpose", "depth"]
        kind = str(self.random.choice(kinds))
        name, shape = getattr(self, f"add_{kind}")(x, shape)
        if self.chance(0.3):
            (name,) = self.node("Relu", name)
        self.pool.append(self.finish(name, shape))

    def add_conv(self, x: str, shape: Shape) -> tuple[str, Shape]:
        """A convolution that fits."""
        channels = shape[1]
        groups = int(self.random.choice([g for g in range(1, channels + 1) if channels % g == 0]))
        filters = groups * self.integer(1, 4)
        kernel = [self.integer(1, 3) for _ in range(2)]
        dilations = [self.integer(1, 2) if self.chance(0.2) else 1 for _ in range(2)]
        strides = [self.integer(1, 2) for _ in range(2)]
        pads = [self.integer(0, 2) for _ in range(4)]
        extents = []
        for axis in range(2):
            span = (kernel[axis] - 1) * dilations[axis] + 1
            pads[axis] = max(pads[axis], span - shape[2 + axis])
            extents.append((shape[2 + axis] + pads[axis] + pads[2 + axis] - span) // strides[axis] + 1)
        taps = channels // groups * kernel[0] * kernel[1]
        w, scales = self.weights((filters, channels // groups, *kernel), taps, 0)
        inputs = [x, w, self.bias(x, scales, filters)] if self.chance(0.7) else [x, w]
        shape_of: dict[str, Any] = {
            "kernel_shape": kernel,
            "strides": strides,
            "pads": pads,
            "dilations": dilations,
            "group": groups,
        }
        return self.node("Conv", *inputs, **shape_of)[0], (shape[0], filters, *extents)

    def add_transposed(self, x: str, shape: Shape) -> tuple[str, Shape]:
        """A transposed convolution."""
        filters, kernel, stride = self.integer(1, 4), self.integer(1, 3), self.integer(1, 2)
        w, _ = self.weights((shape[1], filters, kernel, kernel), shape[1], 1)
        extents = [(extent - 1) * stride + kernel for extent in shape[2:]]
        attributes: dict[str, Any] = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2}
        return self.node("ConvTranspose", x, w, **attributes)[0], (shape[0], filters, *extents)

    def add_norm(self, x: str, shape: Shape) -> tuple[str, Shape]:
        """A batch normalization."""
        values = [self.random.uniform(low, 1.5, shape[1]) for low in (0.5, -1, -1, 0.5)]
        return self.node("BatchNormalization", x, *map(self.constant, values))[0], shape

    def add_pool(self, x: str, shape: Shape) -> tuple[str, Shape]:
        """A pooling window."""
        kernel = [self.integer(1, min(3, extent)) for extent in shape[2:]]
        strides = [self.integer(1, 2) for _ in range(2)]
        pads = [self.integer(0, (kernel[axis % 2] - 1) // 2) for axis in range(4)]
        op = "MaxPool" if self.int8 or self.chance(0.5) else "AveragePool"
        extents = [
            (shape[2 + axis] + pads[axis] + pads[2 + axis] - kernel[axis]) // strides[axis] + 1 for axis in range(2)
        ]
        attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "pads": pads}
        return self.node(op, x, **attributes)[0], (*shape[:2], *extents)

    def add_global(self, x: str, shape: Shape) -> tuple[str, Shape]:
        """The mean or greatest of each plane."""
        op = "GlobalAveragePool" if self.int8 or self.chance(0.7) else "GlobalMaxPool"
        return self.node(op, x)[0], (*shape[:2], 1, 1)

    def add_curve(self, x: str, shape: Shape) -> tuple[str, Shape]:
        """An activation."""
        op = str(
            self.random.choice(["Relu", "LeakyRelu", "Sigmoid", "HardSwish", "HardSigmoid", "Clip", "Tanh", "Elu"])
        )
        if self.int8 and op not in {"Relu", "LeakyRelu", "Sigmoid"}:
            op = "Relu"
        bounds = (self.constant(-0.5), self.constant(1.0)) if op == "Clip" else ()
        return self.node(op, x, *bounds)[0], shape

    def add_binary(self, x: str, shape: Shape) -> tuple[str, Shape]:
        """A sum or product with another value of the same shape, or with a constant per channel."""
        op = str(self.random.choice(["Add", "Mul"]))
        same = [name for name, other in self.pool if other == shape]
        if self.int8 or self.chance(0.6):
            return self.node(op, x, str(self.random.choice(same)))[0], shape
        channels = (shape[1], *[1] * (len(shape) - 2))
        return self.node(op, x, self.constant(self.random.uniform(0.5, 1.5, channels)))[0], shape

    def add_concat(self, x: str, shape: Shape) -> tuple[str, Shape]:
        """With others of the same size."""
        fitting = [(n, s) for n, s in self.pool if len(s) == 4 and (s[0], s[2:]) == (shape[0], shape[2:])]
        other, other_shape = fitting[self.integer(0, len(fitting) - 1)]
        return self.node("Concat", x, other, axis=1)[0], (shape[0], shape[1] + other_shape[1], *shape[2:])

    def add_pad(self, x: str, shape: Shape) -> tuple[str, Shape]:
        """Zeros around the image."""
        pads = [0, 0, self.integer(0, 2), self.integer(0, 2), 0, 0, self.integer(0, 2), self.integer(0, 2)]
        extents = [shape[2 + axis] + pads[2 + axis] + pads[6 + axis] for axis in range(2)]
        return self.node("Pad", x, self.constant(pads, np.int64))[0], (*shape[:2], *extents)

    def add_slice(self, x: str, shape: Shape) -> tuple[str, Shape]:
        """Every n-th row from somewhere."""
        start, step = self.integer(0, shape[2] - 1), self.integer(1, 2)
        numbers = [self.constant([value], np.int64) for value in (start, shape[2], 2, step)]
        return self.node("Slice", x, *numbers)[0], (*shape[:2], -(-(shape[2] - start) // step), shape[3])

    def add_split(self, x: str, shape: Shape) -> tuple[str, Shape]:
        """Two parts of the channels, swapped."""
        if shape[1] < 2:
            return self.node("Identity", x)[0], shape
        first = self.integer(1, shape[1] - 1)
        a, b = self.node("Split", x, self.constant([first, shape[1] - first], np.int64), outputs=2, axis=1)
        return self.node("Concat", b, a, axis=1)[0], shape

    def add_transpose(self, x: str, shape: Shape) -> tuple[str, Shape]:
        """Rows and columns exchanged."""
        return self.node("Transpose", x, perm=[0, 1, 3, 2])[0], (*shape[:2], shape[3], shape[2])

    def add_depth(self, x: str, shape: Shape) -> tuple[str, Shape]:
        """Blocks of pixels as channels."""
        if shape[2] % 2 or shape[3] % 2:
            return self.node("Neg", x)[0], shape
        return self.node("SpaceToDepth", x, blocksize=2)[0], (shape[0], shape[1] * 4, shape[2] // 2, shape[3] // 2)

    def add_reshape(self, x: str, shape: Shape) -> tuple[str, Shape]:
        """All of an example in one row."""
        return self.node("Flatten", x)[0], (shape[0], int(np.prod(shape[1:])))

    def add_gemm(self, x: str, shape: Shape) -> tuple[str, Shape]:
        """A linear layer."""
        outputs = self.integer(1, 9)
        w, scales = self.weights((outputs, shape[1]), shape[1], 0)
        return self.node("Gemm", x, w, self.bias(x, scales, outputs), transB=1)[0], (shape[0], outputs)

    def model(self) -> onnx.ModelProto:
        """The model, which gives out the last value and one other."""
        names = list(dict.fromkeys((self.pool[-1][0], self.pool[self.integer(0, len(self.pool) - 1)][0])))
        graph = helper.make_graph(
            self.nodes,
            "random",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.input_shape)],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names if name != "x"],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
