"""Convolution against plain numpy: all attributes, borders, extremes, levels, thread counts, and refusals."""

from __future__ import annotations

import copy
import pickle
import time
from typing import Any

import numpy as np
import pytest

import gristmill as gm
import oracles_dense as oracle
from gristmill import kernels
from onnxruntime_peer import exact_session

Array = oracle.Array

_SECONDS = 20.0
_FAST_CASES = 10_000
_SCALAR_CASES = 1_500


def random_attributes(rng: np.random.Generator) -> dict[str, Any]:
    """Stride, padding, dilation and groups with a shape they fit: (attributes, x shape, weight shape)."""
    kind = rng.random()
    groups, per_group, outputs = int(rng.choice([1, 1, 1, 2, 3])), int(rng.integers(1, 7)), int(rng.integers(1, 9))
    if kind < 0.3:
        groups, per_group, outputs = int(rng.integers(1, 9)), 1, int(rng.integers(1, 4))
    elif kind < 0.4:
        per_group, outputs = int(rng.integers(1, 80)), int(rng.integers(1, 40))
    kernel = (1, 1) if rng.random() < 0.3 else tuple(map(int, rng.integers(1, 5, 2)))
    stride = tuple(map(int, rng.integers(1, 4, 2)))
    dilation = tuple(map(int, rng.integers(1, 4, 2)))
    padding = tuple(map(int, rng.integers(0, 4, 4))) if rng.random() < 0.6 else (0, 0, 0, 0)
    covered = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    least = [max(1, covered[0] - padding[0] - padding[2]), max(1, covered[1] - padding[1] - padding[3])]
    height, width = (extent + int(rng.integers(0, 20)) for extent in least)
    return {
        "x": (int(rng.integers(1, 4)), groups * per_group, height, width),
        "weights": (groups * outputs, per_group, *kernel),
        "attributes": {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups},
    }


def random_activations(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Array, int]:
    """Bytes over the whole range, or its ends alone, and a zero point."""
    dtype = str(rng.choice(["uint8", "int8"]))
    low, high = oracle.RANGES[dtype]
    x = rng.choice([low, high], shape) if rng.random() < 0.2 else rng.integers(low, high + 1, shape)
    return x.astype(dtype), int(rng.choice([low, low + 128, high, int(rng.integers(low, high + 1))]))


def random_weights(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Small ones (which no sum saturates), as trained ones are, all of [-127, 127], extremes alone, some with -128."""
    kind = rng.integers(6)
    if kind == 0:
        return rng.integers(-32, 33, shape).astype(np.int8)
    if kind == 5:
        return np.clip(rng.normal(0, 40, shape), -127, 127).astype(np.int8)
    if kind == 1:
        return rng.choice([-127, 127], shape).astype(np.int8)
    if kind == 2:
        return rng.choice([-128, 127], shape).astype(np.int8)
    return rng.integers(-127 - int(kind == 3), 128, shape).astype(np.int8)


def test_random_convolutions_are_exact(isa: str) -> None:
    rng = np.random.default_rng(3)
    start, cases = time.monotonic(), 0
    for cases in range(1, (_SCALAR_CASES if isa == "scalar" else _FAST_CASES) + 1):
        case = random_attributes(rng)
        x, zero_point = random_activations(rng, case["x"])
        weights = random_weights(rng, case["weights"])
        packed = kernels.PackedConv(weights, **case["attributes"])
        y = kernels.conv2d(x, packed, x_zero_point=zero_point, threads=int(rng.integers(1, 5)))
        expected = oracle.convolve(x, weights, zero_point=zero_point, **case["attributes"])
        np.testing.assert_array_equal(y, expected, err_msg=f"{cases}: {case}, {packed!r}")
        if time.monotonic() - start > _SECONDS:
            break
    assert cases > 100


@pytest.mark.parametrize("zero_point", [0, 128, 255])
@pytest.mark.parametrize(
    ("channels", "outputs", "size", "kernel", "stride", "padding"),
    [
        (64, 37, 7, 3, 1, 1),
        (130, 20, 7, 1, 1, 0),
        (33, 48, 14, 3, 2, 1),
        (3, 64, 30, 7, 2, 3),
        (20, 17, 8, 1, 2, 0),
        (6, 130, 1, 1, 1, 0),
        (300, 7, 9, 3, 1, 1),
        (5, 12, 40, 5, 1, 2),
    ],
)
def test_layers_of_real_networks_are_exact(
    isa: str, channels: int, outputs: int, size: int, kernel: int, stride: int, padding: int, zero_point: int
) -> None:
    rng = np.random.default_rng(4)
    x = rng.choice([0, 255], (2, channels, size, size)).astype(np.uint8)
    weights = rng.choice([-127, 127], (outputs, channels, kernel, kernel)).astype(np.int8)
    packed = kernels.PackedConv(weights, stride=stride, padding=padding)
    y = kernels.conv2d(x, packed, x_zero_point=zero_point)
    expected = oracle.convolve(
        x, weights, zero_point=zero_point, stride=(stride, stride), padding=(padding, padding, padding, padding)
    )
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(7, 7), (14, 14), (11, 10), (28, 27), (9, 32), (40, 33), (3, 64)])
def test_depthwise_layers_of_3x3_are_exact(isa: str, size: tuple[int, int], stride: int) -> None:
    rng = np.random.default_rng(16)
    x, weights = rng.integers(0, 256, (2, 21, *size)).astype(np.uint8), random_weights(rng, (21, 1, 3, 3))
    bias = rng.integers(-10_000, 10_000, 21).astype(np.int32)
    epilogue = kernels.Epilogue(output="uint8", bias=bias, scale=1e-3, zero_point=9)
    packed = kernels.PackedConv(weights, stride=stride, padding=1, groups=21)
    strides, padding = (stride, stride), (1, 1, 1, 1)
    acc = oracle.convolve(x, weights, zero_point=77, stride=strides, padding=padding, groups=21)
    expected = oracle.requantize(acc, bias, np.full(21, 1e-3, np.float32), 9, "uint8", 1)
    for threads in (1, 2, 3):
        y = kernels.conv2d(x, packed, x_zero_point=77, epilogue=epilogue, threads=threads)
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("output", ["uint8", "int8", "float32"])
@pytest.mark.parametrize("depthwise", [False, True])
def test_outputs_are_requantized_as_defined(isa: str, output: str, depthwise: bool) -> None:
    rng = np.random.default_rng(5)
    groups, per_group = (12, 1) if depthwise else (2, 9)
    x = rng.integers(0, 256, (2, groups * per_group, 9, 11)).astype(np.uint8)
    weights = random_weights(rng, (24, per_group, 3, 3))
    bias = rng.integers(-10_000, 10_000, 24).astype(np.int32)
    scale = rng.uniform(1e-4, 2e-2, 24).astype(np.float32)
    zero_point = {"uint8": 100, "int8": -7, "float32": 0}[output]
    epilogue = kernels.Epilogue(output=output, bias=bias, scale=scale, zero_point=zero_point)  # type: ignore[arg-type]
    packed = kernels.PackedConv(weights, padding=1, groups=groups)
    y = kernels.conv2d(x, packed, x_zero_point=77, epilogue=epilogue)
    acc = oracle.convolve(x, weights, zero_point=77, padding=(1, 1, 1, 1), groups=groups)
    np.testing.assert_array_equal(y, oracle.requantize(acc, bias, scale, zero_point, output, 1))


def random_f32(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


def test_f32_is_within_the_bound_of_float64(isa: str) -> None:
    rng = np.random.default_rng(6)
    for case in [random_attributes(rng) for _ in range(300)]:
        x, weights = random_f32(rng, case["x"]), random_f32(rng, case["weights"])
        bias = random_f32(rng, (case["weights"][0],))
        packed = kernels.PackedConv(weights, **case["attributes"])
        y = kernels.conv2d(x, packed, epilogue=kernels.Epilogue(output="float32", bias=bias))
        wide = bias.astype(np.float64).reshape(-1, 1, 1)
        expected = oracle.convolve(x, weights, **case["attributes"]) + wide
        magnitudes = oracle.convolve(np.abs(x), np.abs(weights), **case["attributes"]) + np.abs(wide)
        bound = oracle.f32_bound(magnitudes, int(np.prod(case["weights"][1:])) + 1)
        assert np.all(np.abs(y - expected) <= bound), case


@pytest.mark.parametrize("kind", ["dense", "small planes", "grouped", "depthwise", "float32"])
def test_thread_counts_agree(isa: str, kind: str) -> None:
    rng = np.random.default_rng(7)
    x_shape, w_shape, groups = {
        "dense": ((2, 16, 30, 31), (40, 16, 3, 3), 1),
        "small planes": ((1, 300, 7, 7), (90, 300, 1, 1), 1),
        "grouped": ((1, 24, 14, 14), (48, 6, 3, 3), 4),
        "depthwise": ((2, 20, 15, 15), (40, 1, 3, 3), 20),
        "float32": ((1, 24, 14, 14), (48, 24, 3, 3), 1),
    }[kind]
    if kind == "float32":
        x, weights, epilogue = random_f32(rng, x_shape), random_f32(rng, w_shape), None
    else:
        x, weights = rng.integers(0, 256, x_shape).astype(np.uint8), random_weights(rng, w_shape)
        epilogue = kernels.Epilogue(output="uint8", scale=1e-3, zero_point=9)
    packed = kernels.PackedConv(weights, groups=groups, padding=(0, 1))
    first = kernels.conv2d(x, packed, epilogue=epilogue, threads=1)
    for threads in (2, 3, 4):
        np.testing.assert_array_equal(kernels.conv2d(x, packed, epilogue=epilogue, threads=threads), first)


def test_equals_onnxruntime(isa: str) -> None:
    onnx = pytest.importorskip("onnx")
    rng = np.random.default_rng(8)
    x = rng.integers(0, 256, (2, 24, 13, 15)).astype(np.uint8)
    weights = rng.integers(-64, 65, (32, 24, 3, 3)).astype(np.int8)  # no pair of products leaves int16
    w_scale = rng.uniform(1e-3, 1e-2, 32).astype(np.float32)
    bias = rng.integers(-3000, 3000, 32).astype(np.int32)
    x_scale, y_scale = np.float32(0.021), np.float32(0.35)
    constants = {
        "xs": x_scale, "xz": np.uint8(113), "w": weights, "ws": w_scale, "wz": np.zeros(32, np.int8),
        "ys": y_scale, "yz": np.uint8(120), "b": bias,
    }  # fmt: skip
    helper, types = onnx.helper, onnx.TensorProto
    graph = helper.make_graph(
        [
            helper.make_node(
                "QLinearConv",
                ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"],
                ["y"],
                pads=[1, 1, 1, 1],
                strides=[2, 1],
            )
        ],
        "g",
        [helper.make_tensor_value_info("x", types.UINT8, x.shape)],
        [helper.make_tensor_value_info("y", types.UINT8, None)],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    (expected,) = exact_session(model).run(None, {"x": x})
    scale = x_scale * w_scale / y_scale
    epilogue = kernels.Epilogue(output="uint8", bias=bias, scale=scale, zero_point=120)
    packed = kernels.PackedConv(weights, padding=1, stride=(2, 1))
    np.testing.assert_array_equal(kernels.conv2d(x, packed, x_zero_point=113, epilogue=epilogue), expected)


def test_sequences_are_images_of_one_row(isa: str) -> None:
    rng = np.random.default_rng(9)
    x = rng.integers(0, 256, (2, 10, 50)).astype(np.uint8)
    weights = random_weights(rng, (16, 10, 1, 5))
    packed = kernels.PackedConv(weights, padding=(0, 2), stride=(1, 2))
    expected = oracle.convolve(x[:, :, None], weights, padding=(0, 2, 0, 2), stride=(1, 2))[:, :, 0]
    np.testing.assert_array_equal(kernels.conv1d(x, packed), expected)
    out = np.empty(expected.shape, np.int32)
    assert kernels.conv1d(x, packed, out=out) is out
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("threads", [1, 2])
def test_large_batches_are_staged_in_passes(isa: str, threads: int) -> None:
    rng = np.random.default_rng(18)
    x = rng.integers(0, 256, (7, 40, 80, 80)).astype(np.uint8)  # four of these images fill the staging memory
    weights = random_weights(rng, (4, 40, 1, 3))
    packed = kernels.PackedConv(weights, padding=(0, 1))
    y = kernels.conv2d(x, packed, x_zero_point=3, threads=threads)
    np.testing.assert_array_equal(y, oracle.convolve(x, weights, zero_point=3, padding=(0, 1, 0, 1)))


def test_strided_input_and_empty_batch() -> None:
    rng = np.random.default_rng(10)
    x = rng.integers(0, 256, (2, 5, 9, 8)).astype(np.uint8)
    packed = kernels.PackedConv(random_weights(rng, (4, 5, 3, 3)))
    view = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(kernels.conv2d(view, packed), kernels.conv2d(x, packed))
    assert kernels.conv2d(x[:0], packed).shape == (0, 4, 7, 6)


def test_accumulators_at_their_limit(isa: str) -> None:
    channels = 65_793
    x = np.full((1, channels, 1, 1), 255, np.uint8)
    weights = np.full((1, channels, 1, 1), -128, np.int8)
    assert 255 * 128 * channels <= 2**31 - 1
    assert kernels.conv2d(x, kernels.PackedConv(weights))[0, 0, 0, 0] == -255 * 128 * channels
    with pytest.raises(gm.LimitError, match="magnitudes of output channel 0"):
        kernels.PackedConv(np.full((1, channels + 1, 1, 1), -128, np.int8))
    epilogue = kernels.Epilogue(output="int32", bias=np.array([-(2**31) + 255 * 128 * channels], np.int32))
    with pytest.raises(gm.LimitError, match="bias: channel 0 could overflow"):
        kernels.conv2d(x, kernels.PackedConv(weights), epilogue=epilogue)


_W = np.zeros((4, 2, 3, 3), np.int8)


@pytest.mark.parametrize(
    ("error", "where", "weights", "attributes"),
    [
        (gm.DTypeError, "weights", [[1]], {}),
        (gm.DTypeError, "weights", _W.astype(np.uint8), {}),
        (gm.DTypeError, "weights", _W.astype(np.float64), {}),
        (gm.ShapeError, "weights", _W[0], {}),
        (gm.ShapeError, "weights", _W[:, :, :0], {}),
        (gm.ShapeError, "weights", _W[:0], {}),
        (gm.ArgumentError, "stride", _W, {"stride": 0}),
        (gm.ArgumentError, "stride", _W, {"stride": (1, 2, 3)}),
        (gm.DTypeError, "stride", _W, {"stride": 1.5}),
        (gm.DTypeError, "stride", _W, {"stride": None}),
        (gm.ArgumentError, "stride", _W, {"stride": 2**70}),
        (gm.LimitError, "stride", _W, {"stride": 2**40}),
        (gm.ArgumentError, "dilation", _W, {"dilation": (1, 0)}),
        (gm.ArgumentError, "padding", _W, {"padding": -1}),
        (gm.ArgumentError, "padding", _W, {"padding": (1, 2, 3)}),
        (gm.LimitError, "padding", _W, {"padding": 2**62}),
        (gm.ArgumentError, "groups", _W, {"groups": 0}),
        (gm.ArgumentError, "groups", _W, {"groups": 3}),
    ],
)
def test_bad_weights_are_refused(
    error: type[gm.GristmillError], where: str, weights: object, attributes: dict[str, object]
) -> None:
    with pytest.raises(error) as caught:
        kernels.PackedConv(weights, **attributes)  # type: ignore[arg-type]
    assert caught.value.node == where


_X = np.zeros((1, 2, 5, 5), np.uint8)
_READ_ONLY = np.zeros((1, 4, 3, 3), np.int32)
_READ_ONLY.flags.writeable = False


@pytest.mark.parametrize(
    ("error", "where", "x", "options"),
    [
        (gm.DTypeError, "x", [[1]], {}),
        (gm.DTypeError, "x", _X.astype(np.float32), {}),
        (gm.DTypeError, "x", _X.astype(np.int32), {}),
        (gm.ShapeError, "x", _X[0], {}),
        (gm.ShapeError, "x", _X[:, :1], {}),
        (gm.ShapeError, "x", _X[:, :, :2], {}),
        (gm.ArgumentError, "x_zero_point", _X, {"x_zero_point": 256}),
        (gm.ArgumentError, "x_zero_point", _X, {"x_zero_point": -1}),
        (gm.ArgumentError, "x_zero_point", _X.astype(np.int8), {"x_zero_point": 128}),
        (gm.DTypeError, "out", _X, {"out": np.zeros((1, 4, 3, 3), np.uint8)}),
        (gm.ShapeError, "out", _X, {"out": np.zeros((1, 4, 3, 4), np.int32)}),
        (gm.ArgumentError, "out", _X, {"out": _READ_ONLY}),
        (gm.ArgumentError, "out", _X, {"out": np.zeros((1, 4, 3, 6), np.int32)[..., ::2]}),
        (gm.ArgumentError, "threads", _X, {"threads": 0}),
        (gm.ArgumentError, "residual", _X, {"residual": _X}),
    ],
)
def test_bad_calls_are_refused(
    error: type[gm.GristmillError], where: str, x: object, options: dict[str, object]
) -> None:
    packed = kernels.PackedConv(_W)
    with pytest.raises(error) as caught:
        kernels.conv2d(x, packed, **options)  # type: ignore[arg-type]
    assert caught.value.node == where


def test_output_may_not_share_memory_with_the_input() -> None:
    memory = np.zeros(1 * 2 * 5 * 5 + 4, np.int8)
    x = memory[:50].reshape(1, 2, 5, 5)
    packed = kernels.PackedConv(np.zeros((1, 2, 5, 5), np.int8))
    for start in (0, 47):
        with pytest.raises(gm.ArgumentError, match="out: shares memory"):
            kernels.conv2d(x, packed, out=memory[start : start + 4].view(np.int32).reshape(1, 1, 1, 1))
    assert kernels.conv2d(x, packed, out=memory[50:].view(np.int32).reshape(1, 1, 1, 1)).item() == 0


def test_sizes_beyond_the_address_space_are_refused() -> None:
    padded = kernels.PackedConv(np.zeros((1, 1, 1, 1), np.int8), padding=2**31 - 1)
    with pytest.raises((gm.LimitError, MemoryError)):
        kernels.conv2d(np.zeros((1, 1, 1, 1), np.uint8), padded)
    with pytest.raises(gm.ShapeError, match="fewer than the"):
        kernels.PackedConv(np.zeros((1, 1, 3, 3), np.int8), dilation=2**31 - 1).output_size(2**31 - 1, 10)


def test_packed_weights_are_opaque(isa: str) -> None:
    packed = kernels.PackedConv(_W, groups=2)
    assert repr(packed).startswith("<PackedConv 4x2x3x3, groups=2, ")
    assert isa in repr(packed)
    assert packed.isa == isa
    assert packed.nbytes >= _W.nbytes
    assert packed.output_size(5, 7) == (3, 5)
    for duplicate in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="cannot be pickled or copied"):
            duplicate(packed)


def test_weights_of_another_level_are_refused() -> None:
    levels = kernels.supported_isas()
    if len(levels) < 2:
        pytest.skip("this processor has one level")
    before = gm.get_isa()
    try:
        gm.set_isa(levels[0])
        packed = kernels.PackedConv(_W)
        gm.set_isa(levels[1])
        with pytest.raises(gm.IsaError, match="pack them again"):
            kernels.conv2d(_X, packed)
    finally:
        gm.set_isa(before)
