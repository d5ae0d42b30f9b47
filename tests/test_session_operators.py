"""Every operator that loaders accept runs in a session, or is refused by the name of the node and what is supported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import gristmill as gm
from graphs import random_feeds
from gristmill import reference
from gristmill.compile import LOWERINGS
from gristmill.graph import Attribute, Graph, GraphBuilder, Node
from gristmill.operators import OPERATORS
from gristmill.passes.layers import LAYERS

Array = npt.NDArray[Any]

_RANDOM = np.random.default_rng(0)


@dataclass(frozen=True)
class Given:
    """A graph input."""

    shape: tuple[int, ...]
    dtype: str = "float32"


def bytes_of(*shape: int, dtype: str = "uint8") -> Array:
    bounds = np.iinfo(dtype)
    return _RANDOM.integers(bounds.min, bounds.max + 1, shape).astype(dtype)


def reals(*shape: int) -> Array:
    return _RANDOM.standard_normal(shape).astype(np.float32)


def whole(*values: int) -> Array:
    return np.array(values, np.int64)


def scale(value: float = 0.02) -> Array:
    return np.array(value, np.float32)


def zero(value: int = 128, dtype: str = "uint8") -> Array:
    return np.array(value, dtype)


def case(*inputs: Given | Array | None, results: int = 1, **attributes: Any) -> tuple[Any, ...]:  # noqa: ANN401
    """Inputs of a node, its number of results and its attributes; arrays are constants, None is left out."""
    return inputs, results, attributes


def graph_of(op: str, inputs: Sequence[Given | Array | None], results: int, attributes: dict[str, Attribute]) -> Graph:
    builder = GraphBuilder()
    names = []
    for index, item in enumerate(inputs):
        if item is None:
            names.append("")
        elif isinstance(item, Given):
            names.append(builder.input(f"x{index}", item.dtype, item.shape))
        else:
            names.append(builder.constant(f"c{index}", item))
    outputs = tuple(f"y{index}" for index in range(results))
    builder.add_node(Node(op, tuple(names), outputs, attributes, "the_node"))
    arrays = [np.zeros(item.shape, item.dtype) if isinstance(item, Given) else item for item in inputs]
    kinds = OPERATORS[op].infer(Node(op, tuple(names), outputs, attributes, "the_node"), arrays)
    graph = builder.build(outputs)
    infos = [gm.graph.ValueInfo(name, kind.dtype, kind.shape) for name, kind in zip(outputs, kinds, strict=False)]
    return graph.replace(outputs=tuple(infos))


X, FLAGS, NUMBERS = Given((2, 3, 4)), Given((2, 3, 4), "bool"), Given((2, 3, 4), "int64")
IMAGE, LINE, VOLUME = Given((2, 4, 7, 6)), Given((2, 4, 9)), Given((1, 4, 5, 6, 4))
BYTES, SIGNED = Given((2, 4, 7, 6), "uint8"), Given((2, 4, 7, 6), "int8")
U8, S8 = Given((2, 3, 4), "uint8"), Given((2, 3, 4), "int8")
MATRIX = Given((3, 8), "uint8")
QUANTIZED = (BYTES, scale(), zero())
INTEGERS = np.arange(6, dtype=np.int32)

_UNARY = "Ceil Celu Cos Elu Erf Exp Floor Gelu HardSigmoid HardSwish LeakyRelu Mish QuickGelu Reciprocal Round Selu"
_UNARY += " Sigmoid Sin Softplus Softsign Swish Tanh ThresholdedRelu Relu Neg Abs Sign Softmax LogSoftmax Hardmax"
_POOLS = [
    case(IMAGE, kernel_shape=(3, 2), strides=(2, 1), pads=(1, 0, 1, 1)),
    case(LINE, kernel_shape=(3,), dilations=(2,)),
    case(VOLUME, kernel_shape=(2, 3, 2), strides=(2, 1, 1), ceil_mode=1),
    case(IMAGE, kernel_shape=(3, 3), strides=(2, 2), auto_pad="SAME_UPPER"),
]
_WINDOWS: list[tuple[Given, tuple[int, ...], dict[str, Any]]] = [
    (IMAGE, (6, 4, 3, 3), {"pads": (1, 0, 1, 1), "strides": (2, 1)}),
    (IMAGE, (6, 2, 3, 1), {"group": 2, "dilations": (2, 1)}),
    (LINE, (6, 4, 3), {"pads": (1, 1)}),
    (VOLUME, (6, 4, 3, 3, 2), {"pads": (1, 1, 0, 1, 1, 1), "strides": (2, 1, 1)}),
    (VOLUME, (6, 2, 2, 3, 2), {"group": 2, "dilations": (2, 1, 1)}),
]
_CONVS = [
    made
    for x, shape, attributes in _WINDOWS
    for made in (
        case(x, reals(*shape), reals(shape[0]), **attributes),
        case(x, Given(shape), **attributes),
        case(x, reals(*shape), Given((shape[0],)), **attributes),
    )
]


def as_bytes(given: Given, dtype: str = "uint8") -> Given:
    return Given(given.shape, dtype)


_BYTE_CONVS = [
    made
    for x, shape, attributes in _WINDOWS
    for made in (
        case(as_bytes(x), bytes_of(*shape, dtype="int8"), zero(3), **attributes),
        case(as_bytes(x), bytes_of(*shape), Given((), "uint8"), zero(), **attributes),
        case(as_bytes(x, "int8"), Given(shape, "uint8"), Given((), "int8"), Given((), "uint8"), **attributes),
        case(as_bytes(x), Given(shape, "int8"), None, Given((shape[0],), "int8"), **attributes),
    )
]
_SPREADS: list[tuple[Given, tuple[int, ...], dict[str, Any]]] = [
    (IMAGE, (4, 3, 3, 2), {"strides": (2, 3), "output_padding": (1, 0), "pads": (1, 0, 0, 1)}),
    (IMAGE, (4, 2, 3, 3), {"group": 2, "dilations": (2, 1)}),
    (LINE, (4, 3, 3), {"pads": (3, 3)}),
    (VOLUME, (4, 3, 2, 3, 2), {"strides": (2, 1, 2)}),
]
_TRANSPOSED = [
    case(x, weights, bias, **attributes)
    for x, shape, attributes in _SPREADS
    for weights, bias in ((reals(*shape), None), (Given(shape), Given((shape[1] * attributes.get("group", 1),))))
]
_RESIZES = [
    case(IMAGE, None, np.array([1, 1, 2, 1.5], np.float32), mode=mode, coordinate_transformation_mode=coordinates)
    for mode in ("nearest", "linear", "cubic")
    for coordinates in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric")
]

CASES: dict[str, list[tuple[Any, ...]]] = {
    **{name: [case(X)] for name in _UNARY.split()},
    **{name: [case(X, X), case(X, Given((3, 1))), case(NUMBERS, NUMBERS)] for name in ("Add", "Sub", "Mul")},
    **{name: [case(X, X), case(U8, U8), case(NUMBERS)] for name in ("Max", "Min")},
    **{name: [case(FLAGS, FLAGS)] for name in ("And", "Or", "Xor")},
    **{name: [case(X, X), case(NUMBERS, whole(3)), case(S8, S8)] for name in ("Less", "LessOrEqual", "Greater")},
    **{name: [case(X, axis=1), case(NUMBERS, axis=-1, keepdims=0)] for name in ("ArgMax", "ArgMin")},
    **{
        f"Reduce{name}": [case(X, whole(1, -1)), case(X, keepdims=0), case(X, noop_with_empty_axes=1)]
        for name in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
    },
    "Abs": [case(X), case(NUMBERS)],
    "AveragePool": [*_POOLS, case(IMAGE, kernel_shape=(3, 3), pads=(1, 1, 1, 1), count_include_pad=1)],
    "BatchNormalization": [
        case(IMAGE, reals(4), reals(4), reals(4), np.abs(reals(4))),
        case(IMAGE, Given((4,)), Given((4,)), reals(4), np.abs(reals(4))),
    ],
    "Cast": [case(X, to=7), case(U8, to=1), case(NUMBERS, to=9), case(X, to=1)],
    "Clip": [case(X, scale(-0.5), scale(0.5)), case(X, None, Given(())), case(S8, zero(-3, "int8"))],
    "Concat": [case(X, X, axis=1), case(U8, Given((2, 0, 4), "uint8"), axis=1)],
    "ConstantOfShape": [case(whole(2, 3)), case(whole(600, 600), value=np.array([2.5], np.float32))],
    "Conv": _CONVS,
    "ConvInteger": _BYTE_CONVS,
    "ConvTranspose": _TRANSPOSED,
    "DepthToSpace": [case(Given((1, 8, 2, 3)), blocksize=2), case(Given((1, 8, 2, 3)), blocksize=2, mode="CRD")],
    "DequantizeLinear": [
        case(U8, scale(), zero()),
        case(S8, reals(3), axis=1),
        case(U8, Given(()), Given((), "uint8")),
        case(S8, reals(2, 3, 2), axis=2, block_size=2),
        case(Given((2, 3), "int32"), scale()),
    ],
    "Div": [case(X, X), case(NUMBERS, NUMBERS)],
    "DynamicQuantizeLinear": [case(X, results=3)],
    "Equal": [case(X, X), case(FLAGS, FLAGS)],
    "Expand": [case(Given((3, 1)), whole(2, 3, 4))],
    "Flatten": [case(X, axis=2)],
    "Gather": [case(X, whole(0, -1), axis=1), case(U8, whole(1, 0, 1).astype(np.int32), axis=0)],
    "Gelu": [case(X), case(X, approximate="tanh")],
    "Gemm": [
        case(Given((3, 5)), reals(5, 4), reals(4), alpha=0.5, beta=2.0),
        case(Given((5, 3)), Given((4, 5)), Given((3, 1)), transA=1, transB=1, alpha=2.0),
    ],
    "GlobalAveragePool": [case(IMAGE), case(VOLUME)],
    "GlobalMaxPool": [case(IMAGE), case(LINE)],
    "GreaterOrEqual": [case(X, X)],
    "Hardmax": [case(X), case(X, axis=1)],
    "Identity": [case(X)],
    "InstanceNormalization": [case(IMAGE, reals(4), reals(4))],
    "LRN": [case(IMAGE, size=3, alpha=0.1)],
    "LayerNormalization": [case(X, reals(4), reals(4)), case(X, Given((3, 4)), axis=1), case(Given((0, 4)), reals(4))],
    "Log": [case(X)],
    "LpPool": [*_POOLS, case(IMAGE, kernel_shape=(3, 3), p=1), case(IMAGE, kernel_shape=(2, 2), p=3)],
    "MatMul": [case(X, reals(4, 5)), case(X, Given((2, 4, 5))), case(Given((4,)), Given((4,)))],
    "MatMulInteger": [
        case(MATRIX, bytes_of(8, 5, dtype="int8")),
        case(MATRIX, bytes_of(8, 5), Given((), "uint8"), zero()),
        case(MATRIX, bytes_of(8, 5), zero(7), zero(1)),
        case(MATRIX, Given((8, 5), "int8"), Given((3,), "uint8"), Given((5,), "int8")),
        case(Given((2, 3, 8), "int8"), Given((2, 8, 5), "uint8"), None, Given((), "uint8")),
    ],
    "MaxPool": [
        *_POOLS,
        case(BYTES, kernel_shape=(2, 2)),
        case(IMAGE, kernel_shape=(3, 3), pads=(1, 1, 1, 1), strides=(2, 2), results=2),
        case(Given((2, 4, 5, 6), "uint8"), kernel_shape=(2, 2), pads=(1, 0, 0, 0), results=2, storage_order=1),
        case(LINE, kernel_shape=(3,), dilations=(2,), results=2),
    ],
    "Mean": [case(X), case(X, X, Given((3, 1)))],
    "Mod": [case(NUMBERS, whole(3)), case(X, scale(0.7), fmod=1)],
    "Neg": [case(X), case(S8)],
    "Not": [case(FLAGS)],
    "PRelu": [case(X, reals(3, 1)), case(X, Given((3, 1)))],
    "Pad": [
        case(X, whole(1, 0, 2, 0, 3, -1), scale(7.5)),
        case(X, whole(1, 0, 2, 0, 3, 0), Given(())),
        case(X, whole(2, 1), None, whole(-1), mode="reflect"),
        case(U8, whole(0, 1, 2, 1, 0, 0), mode="edge"),
        case(X, whole(0, 1, 2, 1, 0, 0), mode="wrap"),
    ],
    "Pow": [case(X, scale(2)), case(NUMBERS, whole(3)), case(X, whole(3))],
    "QGemm": [
        case(MATRIX, scale(), zero(), bytes_of(8, 5, dtype="int8"), scale(), zero(0, "int8"), None, scale(3), zero()),
        case(MATRIX, scale(), zero(), bytes_of(8, 5), scale(), zero(), Given((5,), "int32"), alpha=0.5),
        case(Given((8, 3), "int8"), Given(()), zero(1, "int8"), bytes_of(5, 8), reals(5), zero(2), transA=1, transB=1),
    ],
    "QLinearAdd": [case(*QUANTIZED, BYTES, scale(0.03), zero(100), scale(0.05), zero(90))],
    "QLinearAveragePool": [
        case(*QUANTIZED, scale(0.0311), zero(), kernel_shape=(3, 3), pads=(1, 1, 1, 1)),
        case(
            Given((2, 7, 6, 4), "uint8"), scale(), zero(), scale(0.0311), zero(), kernel_shape=(2, 2), channels_last=1
        ),
    ],
    "QLinearConcat": [case(scale(), zero(), *QUANTIZED, BYTES, scale(0.03), zero(100), axis=1)],
    "QLinearConv": [
        case(*QUANTIZED, bytes_of(6, 4, 3, 3, dtype="int8"), scale(), zero(0, "int8"), scale(2), zero()),
        case(
            *QUANTIZED, bytes_of(6, 4, 3, 3), np.abs(reals(6)), bytes_of(6), scale(2), zero(), np.arange(6, dtype="i4")
        ),
        case(*QUANTIZED, Given((6, 4, 3, 3), "int8"), reals(6), zero(3, "int8"), Given(()), zero(), pads=(1, 1, 1, 1)),
    ],
    "QLinearGlobalAveragePool": [
        case(*QUANTIZED, scale(), zero(100)),
        case(Given((2, 7, 6, 4), "int8"), scale(), zero(1, "int8"), scale(), zero(2, "int8"), channels_last=1),
    ],
    "QLinearLeakyRelu": [case(*QUANTIZED, scale(), zero(100), alpha=0.1)],
    "QLinearMatMul": [
        case(MATRIX, scale(), zero(), bytes_of(8, 5, dtype="int8"), reals(5), zero(0, "int8"), scale(2), zero()),
        case(
            MATRIX, Given((3,)), Given((3,), "uint8"), Given((8, 5), "uint8"), reals(5), bytes_of(5), scale(2), zero()
        ),
        case(MATRIX, scale(), zero(), bytes_of(8, 5), scale(), zero(), Given(()), Given((), "int8")),
    ],
    "QLinearMul": [case(*QUANTIZED, BYTES, scale(0.03), zero(100), scale(0.05), zero(90))],
    "QLinearSigmoid": [case(*QUANTIZED, scale(1 / 256), zero(0))],
    "QLinearSoftmax": [case(*QUANTIZED, scale(1 / 256), zero(0)), case(*QUANTIZED, scale(0.1), zero(9), axis=1)],
    "QuantizeLinear": [
        case(X, scale(), zero()),
        case(X, np.abs(reals(3)), axis=1, output_dtype=3),
        case(X, Given(()), Given((), "int8")),
        case(X, np.abs(reals(2, 2, 4)) + 1, bytes_of(2, 2, 4), axis=1, block_size=2),
        case(Given((2, 3), "int32"), scale(), zero()),
    ],
    "Range": [case(whole(2), whole(300_000), whole(1))],
    "Reshape": [case(X, whole(0, -1))],
    "Resize": [
        *_RESIZES,
        case(IMAGE, None, None, whole(2, 4, 3, 9), mode="linear", antialias=1),
        case(BYTES, None, None, whole(2, 8, 3, 9), coordinate_transformation_mode="tf_half_pixel_for_nn"),
        case(IMAGE, None, None, whole(4, 4, 7, 6), mode="linear"),
        case(
            IMAGE,
            np.array([0.1, 0.9, 0.2, 1.3], np.float32),
            None,
            whole(5, 5),
            axes=(2, 3),
            mode="linear",
            coordinate_transformation_mode="tf_crop_and_resize",
            extrapolation_value=3.0,
        ),
    ],
    "Shape": [case(X, start=1)],
    "Size": [case(X)],
    "Slice": [case(X, whole(1, -2), whole(2, -100), whole(0, 2), whole(1, -1))],
    "SpaceToDepth": [case(Given((1, 2, 4, 6)), blocksize=2)],
    "Split": [case(X, axis=2, results=2), case(X, whole(1, 2), axis=1, results=2)],
    "Sqrt": [case(X)],
    "Squeeze": [case(Given((1, 3, 1)), whole(0)), case(Given((1, 3, 1)))],
    "Sum": [case(X), case(X, X, Given((3, 1)))],
    "Swish": [case(X), case(X, alpha=0.3)],
    "Tile": [case(X, whole(1, 2, 3))],
    "TopK": [case(X, whole(2), results=2, axis=1), case(NUMBERS, whole(2), results=2, largest=0)],
    "Transpose": [case(X, perm=(0, 2, 1)), case(U8)],
    "Unsqueeze": [case(X, whole(0, -1))],
    "Where": [case(FLAGS, X, Given((3, 1)))],
}


def run_both(graph: Graph) -> list[tuple[Array, Array]]:
    feeds = random_feeds(graph)
    expected = reference.run(graph, feeds)
    session = gm.InferenceSession(graph, threads=1)
    return [(got, expected[info.name]) for got, info in zip(session.run(None, feeds), graph.outputs, strict=True)]


def assert_agrees(graph: Graph) -> None:
    for got, wanted in run_both(graph):
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
        if wanted.dtype.kind == "f":
            np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=2e-5)
        else:
            np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("op", sorted(set(OPERATORS) - set(LAYERS) - {"Lookup"}))
def test_operators_run_in_sessions(op: str) -> None:
    assert CASES.get(op), f"no case for {op}"
    for inputs, results, attributes in CASES[op]:
        assert_agrees(graph_of(op, inputs, results, attributes))


def test_every_operator_has_a_lowering_or_is_known_before_anything_runs() -> None:
    assert set(OPERATORS) - set(LOWERINGS) == {"Shape", "Size"}


REFUSED = {
    "Exp": (case(Given((3,), "float64")), "x0: values of float64 cannot be run; these can: bool, float32"),
    "Resize": (
        case(BYTES, None, scale(2).repeat(4), mode="linear"),
        "the_node: Resize: mode linear of uint8; float32 can be run",
    ),
    "Sum": (case(U8, U8), "the_node: Sum: a: add takes float32 or int32 or int64, got uint8"),
}


@pytest.mark.parametrize("op", REFUSED)
def test_what_cannot_be_run_is_refused_by_name(op: str) -> None:
    (inputs, results, attributes), message = REFUSED[op]
    with pytest.raises(gm.UnsupportedOpError) as caught:
        gm.InferenceSession(graph_of(op, inputs, results, attributes))
    assert str(caught.value).startswith(message)


def dynamically_quantized() -> Graph:
    """A convolution and a product of bytes whose scales and zero points the run computes."""
    builder = GraphBuilder()
    y = builder.input("x", np.float32, (2, 4, 7, 6))
    for index, (op, weights) in enumerate([("ConvInteger", bytes_of(4, 4, 3, 3)), ("MatMulInteger", bytes_of(6, 6))]):
        values = (f"q{index}", f"s{index}", f"z{index}")
        builder.add_node(Node("DynamicQuantizeLinear", (y,), values, {}, f"quantize{index}"))
        constants = builder.constant("w", weights // 2 + 60), builder.constant("wz", zero(120))
        moved = builder.add("Relu", [builder.add("DequantizeLinear", list(values))])
        attributes: dict[str, Any] = {"pads": (1, 1, 1, 1)} if op == "ConvInteger" else {}
        sums = builder.add(op, [values[0], constants[0], values[2], constants[1]], **attributes)
        real = builder.add("Mul", [builder.add("Cast", [sums], to=1), values[1]])
        y = builder.add("Add", [builder.add("Mul", [real, builder.constant("ws", scale(1e-3))]), moved])
    return builder.build([y])


def test_dynamically_quantized_layers_run_on_bytes() -> None:
    graph = dynamically_quantized()
    assert_agrees(graph)
    session = gm.InferenceSession(graph, threads=1)
    kernels = [step.kernel for step in session.profile(*random_feeds(graph).values()).steps]
    assert sum(kernel.startswith("s8") for kernel in kernels) == 2
