"""Operators: types agree with values, and nodes that contradict themselves are refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import gristmill as gm
from gristmill.graph import Attribute, Graph, GraphBuilder, Node, ValueInfo
from gristmill.operators import OPERATORS, TensorType
from gristmill.reference import infer, run

Array = npt.NDArray[Any]
F32 = np.dtype(np.float32)


def node(op: str, inputs: int = 1, outputs: int = 1, **attributes: Attribute) -> Node:
    names = [f"x{index}" for index in range(inputs)]
    return Node(op, tuple(names), tuple(f"y{index}" for index in range(outputs)), attributes, "the_node")


def evaluate(op: str, *inputs: npt.ArrayLike) -> Array:
    return OPERATORS[op].evaluate(node(op, len(inputs)), list(map(np.asarray, inputs)))[0]


def f32(*shape: int) -> TensorType:
    return TensorType(F32, shape)


def i64(*values: int) -> Array:
    return np.array(values, np.int64)


REFUSED: list[tuple[str, Node, list[TensorType | Array | None]]] = [
    ("takes 2 inputs", node("Add"), [f32(2)]),
    ("input 1 is left out", node("Add", 2), [f32(2), None]),
    ("do not go together", node("Add", 2), [f32(2), f32(3)]),
    ("element types differ", node("Add", 2), [f32(2), i64(1, 2)]),
    ("1 results, but 2 are wanted", node("Relu", outputs=2), [f32(2)]),
    ("contradict", node("Conv", 2), [f32(1, 3, 8, 8), f32(4, 2, 3, 3)]),
    ("contradict", node("Conv", 2, group=-1), [f32(1, 3, 8, 8), f32(4, 3, 3, 3)]),
    ("kernel_shape", node("Conv", 2, kernel_shape=(5, 5)), [f32(1, 3, 8, 8), f32(4, 3, 3, 3)]),
    ("strides needs 2 numbers", node("Conv", 2, strides=(1,)), [f32(1, 3, 8, 8), f32(4, 3, 3, 3)]),
    ("strides must lie", node("Conv", 2, strides=(0, 1)), [f32(1, 3, 8, 8), f32(4, 3, 3, 3)]),
    ("dilations must lie", node("Conv", 2, dilations=(2**31, 1)), [f32(1, 3, 8, 8), f32(4, 3, 3, 3)]),
    ("pads must lie", node("Conv", 2, pads=(-1, 0, 0, 0)), [f32(1, 3, 8, 8), f32(4, 3, 3, 3)]),
    ("does not fit", node("Conv", 2), [f32(1, 3, 2, 8), f32(4, 3, 3, 3)]),
    ("a bias of shape", node("Conv", 3), [f32(1, 3, 8, 8), f32(4, 3, 3, 3), f32(3)]),
    ("list of integers", node("Conv", 2, strides=1), [f32(1, 3, 8, 8), f32(4, 3, 3, 3)]),
    ("auto_pad", node("Conv", 2, auto_pad="SOME"), [f32(1, 3, 8, 8), f32(4, 3, 3, 3)]),
    ("training_mode", node("BatchNormalization", 5, training_mode=1), [f32(1, 3, 2), f32(3), f32(3), f32(3), f32(3)]),
    ("not less than the window", node("MaxPool", kernel_shape=(2,), pads=(2, 0)), [f32(1, 3, 8)]),
    ("kernel_shape", node("MaxPool"), [f32(1, 3, 8)]),
    ("cannot become", node("Reshape", 2), [f32(2, 3), i64(4, 2)]),
    ("beside an empty one", node("Reshape", 2), [f32(0, 3), i64(0, -1)]),
    ("is not a shape", node("Reshape", 2), [f32(2, 3), i64(-1, -1)]),
    ("is not a shape", node("Reshape", 2), [f32(2, 3), i64(-2, 3)]),
    ("must be known", node("Reshape", 2), [f32(2, 3), TensorType(np.dtype(np.int64), (2,))]),
    ("out of range", node("Softmax", axis=2), [f32(2, 3)]),
    ("perm", node("Transpose", perm=(0, 0)), [f32(2, 3)]),
    ("name one twice", node("Squeeze", 2), [f32(1, 1), i64(0, -2)]),
    ("parts of", node("Split", 2), [f32(4), i64(2, 3)]),
    ("do not go together", node("Slice", 5), [f32(4), i64(0), i64(2), i64(0), i64(0)]),
    ("below zero", node("ConstantOfShape"), [i64(-3)]),
    ("beyond 16 GiB", node("ConstantOfShape"), [i64(2**62, 2)]),
    ("beyond 16 GiB", node("Expand", 2), [f32(1), i64(2**62)]),
    ("beyond 16 GiB", node("Tile", 2), [f32(8), i64(2**61)]),
    ("reflected", node("Pad", 2, mode="reflect"), [f32(4), i64(4, 0)]),
    ("do not fit", node("Pad", 2), [f32(4), i64(-3, -2)]),
    ("k is", node("TopK", 2), [f32(4), i64(5)]),
    ("scales", node("Resize", 3), [f32(1, 1, 4, 4), None, np.array([1, 1, 0, 2], np.float32)]),
    ("scale of shape", node("QuantizeLinear", 2), [f32(2, 3), f32(2)]),
    ("zero point of int8", node("DequantizeLinear", 3), [np.zeros(3, np.uint8), f32(), np.zeros((), np.int8)]),
    ("block_size must not", node("DequantizeLinear", 2, block_size=-1), [np.zeros((3, 0), np.int8), f32(3, 0)]),
    ("does not divide", node("DepthToSpace", blocksize=2), [f32(1, 6, 2, 2)]),
    ("element type 8", node("Cast", to=8), [f32(1)]),
]


@pytest.mark.parametrize(("reason", "refused", "inputs"), REFUSED, ids=lambda item: str(getattr(item, "op", "")))
def test_contradictions_are_refused(reason: str, refused: Node, inputs: list[TensorType | Array | None]) -> None:
    with pytest.raises(gm.GristmillError) as caught:
        OPERATORS[refused.op].infer(refused, inputs)
    assert reason in str(caught.value)
    assert caught.value.node == "the_node"


def test_indices_out_of_range_are_refused() -> None:
    with pytest.raises(gm.ModelFormatError, match="the_node"):
        evaluate("Gather", np.ones(3, np.float32), i64(3))


def test_unknown_operators_are_refused_with_the_known_ones() -> None:
    graph = Graph((), (ValueInfo("y0", F32),), (node("NonMaxSuppression", 0),))
    with pytest.raises(gm.UnsupportedOpError, match=r"the_node: operator NonMaxSuppression .* Abs, Add"):
        run(graph, {})


def test_halves_are_rounded_to_even() -> None:
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5], np.float32)
    assert evaluate("Round", x).tolist() == [0, 2, 2, 0, -2]
    quantized = evaluate("QuantizeLinear", x, np.float32(1), np.int8(1))
    assert quantized.tolist() == [1, 3, 3, 1, -1]


def test_values_beyond_the_type_saturate() -> None:
    x = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30], np.float32)
    assert evaluate("QuantizeLinear", x, np.float32(1e-3), np.uint8(7)).tolist() == [0, 255, 0, 255, 0]


def test_requantization_multiplies_by_one_scale() -> None:
    """(x_scale * w_scale) / y_scale in this order: -22102 steps of it lie just beyond -72.5, of another order on it."""
    scales = np.float32(0.31097695), np.float32(0.14150394), np.float32(13.4149885)
    x, w = np.array([[254, 4]], np.uint8), np.array([[-87], [-1]], np.int8)
    got = evaluate("QLinearMatMul", x, scales[0], np.uint8(0), w, scales[1], np.int8(0), scales[2], np.int8(0))
    assert got.item() == -73


def test_slices_going_down_from_before_the_start_take_the_first_element() -> None:
    x = np.arange(4, dtype=np.float32)
    assert evaluate("Slice", x, i64(-9), i64(-9), i64(0), i64(-1)).tolist() == [0]
    assert evaluate("Slice", x, i64(-5), i64(-2), i64(0), i64(-1)).tolist() == []
    assert evaluate("Slice", x, i64(9), i64(-(2**63)), i64(0), i64(-2)).tolist() == [3, 1]
    assert evaluate("Slice", x[:0], i64(9), i64(-9), i64(0), i64(-1)).tolist() == []


def test_integer_division_truncates() -> None:
    assert evaluate("Div", i64(-7, 7, -8), i64(2, -2, 2)).tolist() == [-3, -3, -4]


def test_large_arguments_do_not_overflow() -> None:
    x = np.array([-1e4, 1e4], np.float32)
    assert evaluate("Sigmoid", x).tolist() == [0, 1]
    assert evaluate("Softmax", x).tolist() == [0, 1]
    assert evaluate("Softplus", x).tolist() == [0, 1e4]
    assert evaluate("Elu", x).tolist() == [-1, 1e4]


def test_only_what_is_asked_for_is_kept() -> None:
    builder = GraphBuilder()
    x = builder.input("x", np.float32, ("n",))
    hidden = builder.add("Neg", [x])
    graph = builder.build([builder.add("Relu", [hidden])])
    feeds = {"x": np.array([-1, 2], np.float32)}
    assert list(run(graph, feeds)) == ["Relu_0"]
    assert run(graph, feeds, [hidden])[hidden].tolist() == [1, -2]
    with pytest.raises(gm.ArgumentError, match="no value named 'nothing'"):
        run(graph, feeds, ["nothing"])


def test_feeds_are_checked() -> None:
    builder = GraphBuilder()
    graph = builder.build([builder.add("Relu", [builder.input("x", np.float32, ("n", 3))])])
    with pytest.raises(gm.ArgumentError, match="nothing is given for input 'x'"):
        run(graph, {})
    with pytest.raises(gm.ArgumentError, match="there is no input named 'z'"):
        run(graph, {"x": np.zeros((1, 3), np.float32), "z": np.zeros(3)})
    with pytest.raises(gm.DTypeError, match="x: expected float32, got float64"):
        run(graph, {"x": np.zeros((1, 3))})
    with pytest.raises(gm.ShapeError, match=r"x: expected shape \[n, 3\], got \[1, 4\]"):
        run(graph, {"x": np.zeros((1, 4), np.float32)})


def test_shape_arithmetic_is_carried_out_without_values() -> None:
    builder = GraphBuilder()
    x = builder.input("x", np.float32, ("n", 3, "h", "w"))
    batch = builder.add("Gather", [builder.add("Shape", [x]), builder.constant("zero", i64(0))])
    shape = builder.add("Concat", [batch, builder.constant("rest", i64(-1))], axis=0)
    graph = builder.build([builder.add("Reshape", [x, shape])])
    known = infer(graph, {"x": f32(5, 3, 1000, 1000)})
    assert known["Reshape_0"] == f32(5, 3_000_000)
