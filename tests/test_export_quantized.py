"""Networks that are quantized here answer in ONNX Runtime as they do here, and run on bytes in both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gristmill as gm
from graphs import Array
from gristmill.graph import Graph, GraphBuilder, Node
from gristmill.passes.dynamic_layers import make_dynamic_layers
from gristmill.passes.editor import edited
from onnxruntime_peer import exact_session
from small_nets import conv_net, images

onnx = pytest.importorskip("onnx")


def deep_net(rank: int) -> Graph:
    """Many layers in a row, so that what one rounds differently the next ones turn into steps."""
    rng = np.random.default_rng(rank)
    builder = GraphBuilder()
    y = builder.input("x", np.float32, ("n", 8, *[9, 8, 7][:rank]))
    for index in range(8):
        groups = 2 if index % 3 == 1 else 1
        shape = (8, 8 // groups, *[3] * rank)
        inputs = [y, builder.constant("w", (rng.standard_normal(shape) / np.sqrt(4 * 3**rank)).astype(np.float32))]
        if index % 2:
            inputs.append(builder.constant("b", rng.standard_normal(8).astype(np.float32)))
        y = builder.add("Conv", inputs, pads=(1,) * 2 * rank, group=groups)
        y = builder.add("LeakyRelu" if index % 2 else "Relu", [y])
    y = builder.add("Flatten", [y])
    columns = 8 * int(np.prod([9, 8, 7][:rank]))
    for rows, across in ((24, False), (16, True)):
        weights = (rng.standard_normal((rows, columns)) / np.sqrt(columns)).astype(np.float32)
        y = builder.add("Gemm", [y, builder.constant("w", weights if across else weights.T)], transB=int(across))
        columns = rows
    y = builder.add("MatMul", [y, builder.constant("w", rng.standard_normal((16, 10)).astype(np.float32))])
    return builder.build([y])


def theirs(path: Path, x: Array, *, precise: bool = True) -> Array:
    return np.asarray(exact_session(path, precise=precise).run(None, {"x": x})[0])


def assert_same_answers(made: gm.Model, x: Array, path: Path, *, precise: bool = True) -> None:
    made.export_onnx(path)
    (ours,) = gm.InferenceSession(made).run(None, {"x": x})
    np.testing.assert_allclose(ours, theirs(path, x, precise=precise), rtol=0, atol=1e-5 * np.abs(ours).max())


@pytest.mark.parametrize("pattern", [None, "unstructured", "1x4", "channel"])
@pytest.mark.parametrize("mode", ["static", "dynamic", "weights"])
def test_every_mode_and_pattern(mode: str, pattern: str | None, tmp_path: Path) -> None:
    model, x = gm.Model(conv_net()), images(32)
    if pattern is None:
        made = gm.quantize(model, x, mode=mode)
    else:
        made = gm.optimize(model, x, sparsity=0.5, pattern=pattern, quantize=mode, method="magnitude", measure=False)
    assert_same_answers(made, x, tmp_path / "model.onnx")


def clamped_net() -> Graph:
    """Clamps behind convolutions and behind a sum, with room above them and without."""
    rng = np.random.default_rng(5)
    builder = GraphBuilder()

    def conv(x: str, groups: int) -> str:
        shape = (12, 12 // groups, 3, 3)
        weights = builder.constant("w", (rng.standard_normal(shape) / np.sqrt(54 / groups)).astype(np.float32))
        return builder.add("Conv", [x, weights], pads=(1, 1, 1, 1), group=groups)

    def clip(x: str, low: float, high: float) -> str:
        return builder.add("Clip", [x, *(builder.constant("bound", np.float32(bound)) for bound in (low, high))])

    y = start = clip(conv(builder.input("x", np.float32, ("n", 12, 9, 9)), 1), 0.0, 6.0)
    for groups in (12, 1, 12, 1):
        y = clip(conv(y, groups), -1.0, 1.0) if groups > 1 else builder.add("Relu", [conv(y, groups)])
    y = clip(conv(clip(builder.add("Add", [y, start]), 0.0, 2.0), 1), 0.0, 0.5)
    return builder.build([builder.add("Flatten", [conv(y, 1)])])


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("net", [conv_net, clamped_net])
def test_clamps_and_signed_bytes(net: Callable[[], Graph], symmetric: bool, tmp_path: Path) -> None:
    """ONNX Runtime would compute some of them in float32."""
    graph = net()
    shape = map(int, (graph.inputs[0].shape or ())[1:])
    x = np.random.default_rng(2).standard_normal((600, *shape)).astype(np.float32)
    made = gm.quantize(gm.Model(graph), x[:32], symmetric=symmetric)
    assert_same_answers(made, x, tmp_path / "model.onnx")
    np.testing.assert_array_equal(gm.InferenceSession(made)(x), gm.InferenceSession(tmp_path / "model.onnx")(x))


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("mode", ["static", "dynamic", "weights"])
def test_deep_networks(mode: str, rank: int, tmp_path: Path) -> None:
    graph = deep_net(rank)
    x = np.random.default_rng(7).standard_normal((16, *map(int, (graph.inputs[0].shape or ())[1:]))).astype(np.float32)
    assert_same_answers(gm.quantize(gm.Model(graph), x, mode=mode), x, tmp_path / "model.onnx")


def test_dynamic_layers_run_on_bytes(tmp_path: Path) -> None:
    made = gm.quantize(gm.Model(conv_net()), mode="dynamic")
    steps = gm.InferenceSession(made, threads=1).profile(images(4)).steps
    layers = [step for step in steps if step.macs]
    assert len(layers) == 6
    assert all(step.kernel.startswith("s8") for step in layers)
    assert [step.macs for step in layers[-2:]] == [4 * 64 * 800, 4 * 64 * 10]
    assert all(0 < step.sparsity < 0.1 for step in layers)
    made.export_onnx(tmp_path / "model.onnx")
    ops = [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]
    assert (ops.count("ConvInteger"), ops.count("MatMulInteger")) == (4, 2)
    assert not {"Conv", "Gemm", "DequantizeLinear"} & set(ops)


def dynamic_product(weights: Array, **attributes: Any) -> Graph:  # noqa: ANN401
    builder = GraphBuilder()
    x = builder.input("x", np.float32, ("n", 3))
    parts = ("q", "s", "z")
    builder.add_node(Node("DynamicQuantizeLinear", (x,), parts, {}, "range"))
    scale = builder.constant("scale", np.full(2, 0.01, np.float32))
    zero = builder.constant("zero", np.zeros(2, weights.dtype))
    w = builder.add("DequantizeLinear", [builder.constant("w", weights), scale, zero], axis=1)
    real = builder.add("DequantizeLinear", list(parts))
    return builder.build([builder.add("Gemm", [real, w], **attributes)])


def test_products_that_bytes_cannot_form_stay_real() -> None:
    assert "MatMulInteger" in [
        node.op for node in edited(dynamic_product(np.ones((3, 2), np.int8)), make_dynamic_layers).nodes
    ]
    for graph in (
        dynamic_product(np.ones((3, 2), np.int8), alpha=2.0),
        dynamic_product(np.full((3, 2), 255, np.uint8)),
        dynamic_product(np.ones((3, 2), np.int32)),
    ):
        assert edited(graph, make_dynamic_layers) is graph


def test_sums_beyond_int32_stay_real() -> None:
    weights = np.full((70_000, 1), 127, np.int8)
    builder = GraphBuilder()
    x = builder.input("x", np.float32, ("n", len(weights)))
    parts = ("q", "s", "z")
    builder.add_node(Node("DynamicQuantizeLinear", (x,), parts, {}, "range"))
    inputs = [builder.constant("w", weights), builder.constant("scale", np.float32(0.5))]
    w, real = builder.add("DequantizeLinear", inputs), builder.add("DequantizeLinear", list(parts))
    graph = builder.build([builder.add("MatMul", [real, w])])
    (y,) = gm.InferenceSession(graph).run(None, {"x": np.ones((1, len(weights)), np.float32)})
    assert y == pytest.approx(70_000 * 63.5, rel=1e-5)


@pytest.mark.parametrize("shape", [(5, 64), (5, 3, 64)])
def test_products_with_stored_weights(shape: tuple[int, ...], tmp_path: Path) -> None:
    """ONNX Runtime would round their other factor."""
    rng = np.random.default_rng(3)
    builder = GraphBuilder()
    x = builder.input("x", np.float32, shape)
    weights = builder.constant("w", rng.integers(-127, 128, (64, 48)).astype(np.int8))
    scale = builder.constant("scale", rng.random(48, np.float32))
    y = builder.add("MatMul", [x, builder.add("DequantizeLinear", [weights, scale], axis=1)])
    given = rng.standard_normal(shape).astype(np.float32)
    assert_same_answers(gm.Model(builder.build([y])), given, tmp_path / "model.onnx", precise=False)
