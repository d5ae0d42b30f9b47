"""Random ONNX models of one operator each, with inputs: shapes, attributes and opsets vary."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("onnx")

from onnx import ModelProto, TensorProto, helper

from onnx_models import model, node, value

Array = npt.NDArray[Any]
Case = tuple[ModelProto, dict[str, Array]]

#: Makers of cases by operator; each takes a generator of random numbers.
MAKERS: dict[str, Callable[[np.random.Generator], Case]] = {}


def maker(*names: str) -> Callable[[Callable[..., Case]], Callable[..., Case]]:
    """Enter a maker for each of these operators; it gets the operator's name if there are several."""

    def register(function: Callable[..., Case]) -> Callable[..., Case]:
        for name in names:
            MAKERS[name] = partial(function, op=name) if len(names) > 1 else function
        return function

    return register


def floats(r: np.random.Generator, *shape: int) -> Array:
    """Reals around zero."""
    return r.normal(0, 2, shape).astype(np.float32)


def bytes_(r: np.random.Generator, shape: tuple[int, ...], signed: bool) -> Array:
    """The full range of an 8-bit type."""
    low, high, kind = (-128, 128, np.int8) if signed else (0, 256, np.uint8)
    return r.integers(low, high, shape).astype(kind)


def scale(r: np.random.Generator, *shape: int) -> Array:
    """Scales over two decades."""
    return np.exp2(r.uniform(-7, 0, shape)).astype(np.float32)


def i64(*values: int) -> Array:
    """Integers of shape arithmetic."""
    return np.array(values, np.int64)


def case(op: str, feeds: dict[str, Array], inputs: str | None = None, outputs: str = "y", /, **rest: Any) -> Case:  # noqa: ANN401
    """One node; ``feeds`` are its first inputs, ``constants`` the others, ``opset`` and ``domain`` as they say."""
    constants, opset = rest.pop("constants", {}), rest.pop("opset", 17)
    infos = [value(name, array.shape, helper.np_dtype_to_tensor_dtype(array.dtype)) for name, array in feeds.items()]
    names = inputs if inputs is not None else " ".join([*feeds, *constants])
    domains = [rest["domain"]] if rest.get("domain") else []
    results = [value(name, None, rest.pop("result", TensorProto.FLOAT)) for name in outputs.split()]
    made = model([node(op, names, outputs, **rest)], infos, results, opset=opset, domains=domains, **constants)
    return made, feeds


def window(r: np.random.Generator, rank: int) -> dict[str, Any]:
    """Attributes of a kernel that walks over an image."""
    kernel = r.integers(1, 4, rank)
    dilations = r.integers(1, 3, rank)
    found: dict[str, Any] = {
        "kernel_shape": kernel.tolist(),
        "strides": r.integers(1, 4, rank).tolist(),
        "dilations": dilations.tolist(),
    }
    if r.random() < 0.25:
        found["auto_pad"] = str(r.choice(["SAME_UPPER", "SAME_LOWER", "VALID"]))
        found["dilations"] = [1] * rank
        found["strides"] = np.minimum(found["strides"], kernel).tolist()  # wider ones ONNX Runtime refuses to pad
    else:
        found["pads"] = [int(r.integers(0, k)) for k in (*kernel, *kernel)]
    return found


@maker("Conv")
def _conv(r: np.random.Generator) -> Case:
    rank, groups = int(r.integers(1, 4)), int(r.integers(1, 4))
    each, outputs = int(r.integers(1, 4)), groups * int(r.integers(1, 4))
    attributes = window(r, rank)
    x = floats(r, int(r.integers(1, 3)), groups * each, *r.integers(7, 12, rank))
    constants = {"w": floats(r, outputs, each, *attributes["kernel_shape"])}
    if r.random() < 0.5:
        constants["b"] = floats(r, outputs)
    return case("Conv", {"x": x}, constants=constants, group=groups, **attributes)


@maker("ConvTranspose")
def _conv_transpose(r: np.random.Generator) -> Case:
    rank, groups = int(r.integers(1, 3)), int(r.integers(1, 3))
    attributes = window(r, rank)
    attributes.pop("auto_pad", None)
    attributes["strides"] = [int(s) for s in r.integers(1, 4, rank)]
    attributes["output_padding"] = [int(r.integers(0, s)) for s in attributes["strides"]]
    x = floats(r, int(r.integers(1, 3)), groups * 2, *r.integers(4, 8, rank))
    constants = {"w": floats(r, groups * 2, 3, *attributes["kernel_shape"]), "b": floats(r, 3 * groups)}
    return case("ConvTranspose", {"x": x}, constants=constants, group=groups, **attributes)


@maker("MaxPool", "AveragePool")
def _pool(r: np.random.Generator, op: str) -> Case:
    rank = int(r.integers(1, 4))
    attributes = window(r, rank)
    attributes["ceil_mode"] = int(r.integers(0, 2)) if "pads" in attributes else 0
    if op == "AveragePool":
        attributes["count_include_pad"] = int(r.integers(0, 2))
    return case(op, {"x": floats(r, 2, 3, *r.integers(7, 12, rank))}, opset=19, **attributes)


@maker("Gemm")
def _gemm(r: np.random.Generator) -> Case:
    m, n, k = (int(item) for item in r.integers(1, 9, 3))
    trans_a, trans_b = (int(item) for item in r.integers(0, 2, 2))
    shape = [(), (n,), (1, n), (m, 1), (m, n)][r.integers(5)]
    constants = {"w": floats(r, *((n, k) if trans_b else (k, n))), "c": floats(r, *shape)}
    feeds = {"x": floats(r, *((k, m) if trans_a else (m, k)))}
    factors = {"alpha": float(r.uniform(-2, 2)), "beta": float(r.uniform(-2, 2))}
    return case("Gemm", feeds, constants=constants, transA=trans_a, transB=trans_b, **factors)


@maker("MatMul")
def _matmul(r: np.random.Generator) -> Case:
    m, n, k = (int(item) for item in r.integers(1, 9, 3))
    a, b = [((m, k), (k, n)), ((2, 3, m, k), (3, k, n)), ((k,), (k, n)), ((2, m, k), (k,))][r.integers(4)]
    return case("MatMul", {"a": floats(r, *a), "b": floats(r, *b)})


@maker("BatchNormalization")
def _batch_normalization(r: np.random.Generator) -> Case:
    constants = {name: floats(r, 5) for name in ("s", "b", "m")} | {"v": np.abs(floats(r, 5)) + np.float32(0.1)}
    return case("BatchNormalization", {"x": floats(r, 2, 5, *r.integers(1, 5, r.integers(0, 4)))}, constants=constants)


@maker("InstanceNormalization")
def _instance_normalization(r: np.random.Generator) -> Case:
    constants = {"s": floats(r, 5), "b": floats(r, 5)}
    return case("InstanceNormalization", {"x": floats(r, 2, 5, 4, 6)}, constants=constants, epsilon=1e-3)


@maker("LRN")
def _lrn(r: np.random.Generator) -> Case:
    attributes = {"alpha": float(r.uniform(0, 1)), "beta": float(r.uniform(0.2, 1)), "bias": 1.5}
    return case("LRN", {"x": floats(r, 2, 7, 3, 4)}, size=int(r.choice([1, 3, 5, 9])), **attributes)


_PLAIN = ("Abs", "Ceil", "Erf", "Exp", "Floor", "HardSwish", "Identity", "Neg", "Relu", "Round", "Sigmoid", "Sign")


@maker(*_PLAIN, "Softplus", "Softsign", "Tanh", "Reciprocal", "GlobalAveragePool", "GlobalMaxPool", "Mish")
def _plain(r: np.random.Generator, op: str) -> Case:
    return case(op, {"x": floats(r, *r.integers(1, 6, r.integers(3, 5)))}, opset=18)


@maker("Elu", "LeakyRelu", "Celu", "HardSigmoid", "ThresholdedRelu", "Selu")
def _curve(r: np.random.Generator, op: str) -> Case:
    return case(op, {"x": floats(r, 3, 17)}, alpha=float(r.uniform(0.1, 2)))


@maker("Softmax", "LogSoftmax")
def _softmax(r: np.random.Generator, op: str) -> Case:
    rank = int(r.integers(1, 5))
    opset = int(r.choice([7, 11, 13]))
    axis = int(r.integers(0 if opset < 11 else -rank, rank))
    return case(op, {"x": floats(r, *r.integers(1, 6, rank))}, axis=axis, opset=opset)


@maker("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "PRelu")
def _binary(r: np.random.Generator, op: str) -> Case:
    a, b = [((2, 3, 4), (4,)), ((2, 3, 4), (3, 1)), ((4, 1, 3), (2, 1)), ((2, 3), ()), ((0, 3), (1, 3))][r.integers(5)]
    if op == "PRelu":
        b = (3, 1) if a == (4, 1, 3) else b
        b = b if len(b) < 2 or a != (4, 1, 3) else (1, 3)
    x = np.abs(floats(r, *a)) if op == "Pow" else floats(r, *a)
    return case(op, {"a": x, "b": floats(r, *b)})


@maker("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceProd", "ReduceLogSumExp")
def _reduce(r: np.random.Generator, op: str) -> Case:
    axes = r.permutation(4)[: r.integers(1, 5)].tolist()
    opset = int(r.choice([11, 18]))
    feeds, keep = {"x": floats(r, *r.integers(1, 5, 4))}, int(r.integers(0, 2))
    if opset == 11:
        return case(op, feeds, axes=axes, keepdims=keep, opset=11)
    return case(op, feeds, constants={"axes": i64(*axes)}, keepdims=keep, opset=18)


@maker("ArgMax", "ArgMin")
def _arg(r: np.random.Generator, op: str) -> Case:
    x = r.integers(0, 4, (3, 5, 4)).astype(np.float32)
    attributes = {"axis": int(r.integers(-3, 3)), "keepdims": int(r.integers(0, 2))}
    return case(op, {"x": x}, result=TensorProto.INT64, select_last_index=int(r.integers(0, 2)), **attributes)


@maker("TopK")
def _top(r: np.random.Generator) -> Case:
    x = r.integers(0, 6, (3, 9)).astype(np.float32)
    made, feeds = case("TopK", {"x": x}, None, "y z", constants={"k": i64(4)}, largest=int(r.integers(0, 2)))
    made.graph.output[1].type.tensor_type.elem_type = TensorProto.INT64
    return made, feeds


@maker("Resize")
def _resize(r: np.random.Generator) -> Case:
    mode = str(r.choice(["nearest", "linear", "cubic"]))
    how = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric"]
    attributes = {"mode": mode, "coordinate_transformation_mode": str(r.choice(how))}
    if mode == "nearest":
        attributes["nearest_mode"] = str(r.choice(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]))
    x = floats(r, 1, 2, *r.integers(3, 9, 2))
    sizes = i64(1, 2, *r.integers(3, 17, 2).tolist())
    return case("Resize", {"x": x}, "x - - s", constants={"s": sizes}, opset=19, **attributes)


@maker("Upsample")
def _upsample(r: np.random.Generator) -> Case:
    mode, scales = str(r.choice(["nearest", "linear"])), [1.0, 1.0, 2.0, 3.0]
    x = {"x": floats(r, 1, 2, 4, 5)}
    if r.random() < 0.5:
        return case("Upsample", x, opset=7, mode=mode, scales=scales)
    return case("Upsample", x, opset=9, mode=mode, constants={"s": np.array(scales, np.float32)})


@maker("Pad")
def _pad(r: np.random.Generator) -> Case:
    mode, opset = str(r.choice(["constant", "reflect", "edge"])), int(r.choice([7, 13]))
    pads = [0, 0, *r.integers(0, 3, 2).tolist(), 0, 0, *r.integers(0, 3, 2).tolist()]
    x = {"x": floats(r, 1, 2, 5, 4)}
    if opset == 7:
        return case("Pad", x, opset=7, mode=mode, pads=pads, value=1.5)
    return case("Pad", x, opset=13, mode=mode, constants={"p": i64(*pads), "v": np.float32(1.5)})


@maker("Slice")
def _slice(r: np.random.Generator) -> Case:
    starts, ends = r.integers(-9, 9, 2).tolist(), r.integers(-9, 9, 2).tolist()
    x = {"x": floats(r, 6, 5, 4)}
    if r.random() < 0.3:
        return case("Slice", x, opset=7, starts=starts, ends=ends, axes=[0, 2])
    steps = [int(step) for step in r.choice([-2, -1, 1, 3], 2)]
    constants = {"s": i64(*starts), "e": i64(*ends), "a": i64(0, 2), "t": i64(*steps)}
    return case("Slice", x, opset=13, constants=constants)


@maker("Clip")
def _clip(r: np.random.Generator) -> Case:
    low, high = sorted(floats(r, 2).tolist())
    if r.random() < 0.5:
        return case("Clip", {"x": floats(r, 4, 5)}, opset=7, min=low, max=high)
    return case("Clip", {"x": floats(r, 4, 5)}, "x - h", constants={"h": np.float32(high)})


@maker("DepthToSpace", "SpaceToDepth")
def _space(r: np.random.Generator, op: str) -> Case:
    mode = {"mode": str(r.choice(["DCR", "CRD"]))} if op == "DepthToSpace" else {}
    return case(op, {"x": floats(r, 2, 8, 4, 6)}, blocksize=2, **mode)


@maker("QuantizeLinear", "DequantizeLinear")
def _quantize(r: np.random.Generator, op: str) -> Case:
    signed, many = bool(r.integers(2)), bool(r.integers(2))
    axis = int(r.integers(-3, 3))
    shape = (3, 4, 5)
    count = (shape[axis],) if many else ()
    constants = {"s": scale(r, *count), "z": bytes_(r, count, signed)}
    if op == "DequantizeLinear":
        return case(op, {"x": bytes_(r, shape, signed)}, constants=constants, axis=axis)
    x = floats(r, *shape) * np.float32(30)
    kind = TensorProto.INT8 if signed else TensorProto.UINT8
    return case(op, {"x": x}, constants=constants, axis=axis, result=kind)


@maker("QLinearConv")
def _qlinear_conv(r: np.random.Generator) -> Case:
    signed, groups = bool(r.integers(2)), int(r.integers(1, 3))
    outputs, attributes = groups * int(r.integers(1, 5)), window(r, 2)
    count = (outputs,) if r.integers(2) else ()
    x = bytes_(r, (2, groups * 3, *r.integers(7, 12, 2)), signed)
    constants = {"xs": scale(r), "xz": bytes_(r, (), signed)}
    constants["w"] = bytes_(r, (outputs, 3, *attributes["kernel_shape"]), True)
    constants |= {"ws": scale(r, *count), "wz": np.zeros(count, np.int8), "ys": scale(r) * np.float32(20)}
    constants["yz"] = bytes_(r, (), signed)
    if r.integers(2):
        constants["b"] = r.integers(-9999, 9999, outputs).astype(np.int32)
    kind = TensorProto.INT8 if signed else TensorProto.UINT8
    return case("QLinearConv", {"x": x}, constants=constants, group=groups, result=kind, **attributes)


@maker("QLinearMatMul")
def _qlinear_matmul(r: np.random.Generator) -> Case:
    m, n, k = (int(item) for item in r.integers(1, 40, 3))
    count = (n,) if r.integers(2) else ()
    constants = {"xs": scale(r), "xz": bytes_(r, (), False), "w": bytes_(r, (k, n), True), "ws": scale(r, *count)}
    constants |= {"wz": np.zeros(count, np.int8), "ys": scale(r) * np.float32(20), "yz": bytes_(r, (), False)}
    return case("QLinearMatMul", {"x": bytes_(r, (m, k), False)}, constants=constants, result=TensorProto.UINT8)


@maker("QGemm")
def _qgemm(r: np.random.Generator) -> Case:
    m, n, k = (int(item) for item in r.integers(1, 40, 3))
    constants = {"xs": scale(r), "xz": bytes_(r, (), False), "w": bytes_(r, (n, k), True), "ws": scale(r, n)}
    constants |= {"wz": np.zeros(n, np.int8), "c": r.integers(-9999, 9999, n).astype(np.int32)}
    constants |= {"ys": scale(r) * np.float32(20), "yz": bytes_(r, (), False)}
    x = {"x": bytes_(r, (m, k), False)}
    return case("QGemm", x, constants=constants, transB=1, domain="com.microsoft", result=TensorProto.UINT8)


@maker("ConvInteger")
def _conv_integer(r: np.random.Generator) -> Case:
    attributes = window(r, 2)
    constants = {"w": bytes_(r, (4, 3, *attributes["kernel_shape"]), False), "z": bytes_(r, (), False)}
    x = {"x": bytes_(r, (2, 3, 9, 8), False)}
    return case("ConvInteger", x, constants=constants, result=TensorProto.INT32, **attributes)


@maker("MatMulInteger")
def _matmul_integer(r: np.random.Generator) -> Case:
    constants = {"w": bytes_(r, (7, 5), True), "xz": bytes_(r, (), False), "wz": bytes_(r, (5,), True)}
    return case("MatMulInteger", {"x": bytes_(r, (3, 7), False)}, constants=constants, result=TensorProto.INT32)


@maker("QLinearGlobalAveragePool", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearAveragePool")
def _qcurve(r: np.random.Generator, op: str) -> Case:
    constants = {"xs": scale(r), "xz": bytes_(r, (), False), "ys": scale(r), "yz": bytes_(r, (), False)}
    more = {"kernel_shape": [3, 2], "strides": [2, 1]} if op == "QLinearAveragePool" else {}
    x = {"x": bytes_(r, (2, 3, 7, 6), False)}
    return case(op, x, constants=constants, domain="com.microsoft", result=TensorProto.UINT8, **more)


@maker("QLinearSoftmax")
def _qlinear_softmax(r: np.random.Generator) -> Case:
    constants = {"xs": scale(r), "xz": bytes_(r, (), False), "ys": np.float32(1 / 256), "yz": np.uint8(0)}
    x = {"x": bytes_(r, (2, 3, 11), False)}
    made, feeds = case(
        "QLinearSoftmax", x, constants=constants, axis=-1, domain="com.microsoft", result=TensorProto.UINT8
    )
    made.graph.node[0].attribute.append(helper.make_attribute("opset", 13))
    return made, feeds


@maker("QLinearAdd", "QLinearMul")
def _qbinary(r: np.random.Generator, op: str) -> Case:
    feeds = {"a": bytes_(r, (2, 3, 5), False), "b": bytes_(r, (3, 1), False)}
    constants = {"as": scale(r), "az": bytes_(r, (), False), "bs": scale(r), "bz": bytes_(r, (), False)}
    constants |= {"ys": scale(r), "yz": bytes_(r, (), False)}
    names = "a as az b bs bz ys yz"
    return case(op, feeds, names, constants=constants, domain="com.microsoft", result=TensorProto.UINT8)


@maker("DynamicQuantizeLinear")
def _dynamic(r: np.random.Generator) -> Case:
    made, feeds = case("DynamicQuantizeLinear", {"x": floats(r, 5, 7) + floats(r)}, None, "y s z")
    for index, kind in enumerate([TensorProto.UINT8, TensorProto.FLOAT, TensorProto.UINT8]):
        made.graph.output[index].type.tensor_type.elem_type = kind
    return made, feeds
