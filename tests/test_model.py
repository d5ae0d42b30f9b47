"""Models: what they show, exchanging weights, and writing them as ONNX for others to run."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import gristmill as gm
from gristmill.artefact import pack_artefact
from gristmill.graph import GraphBuilder
from gristmill.reference import run
from onnx_random import MAKERS
from onnxruntime_peer import exact_session

Array = npt.NDArray[Any]


def small() -> gm.Model:
    """Shape arithmetic and two layers, one of them sparse."""
    builder = GraphBuilder()
    x = builder.input("x", np.float32, ("n", 2, "h", 8))
    w = np.ones((4, 2, 3, 3), np.float32)
    w[2:] = 0
    hidden = builder.add("Conv", [x, builder.constant("w", w)], name="conv")
    pooled = builder.add("GlobalAveragePool", [hidden], name="pool")
    shape = builder.constant("shape", np.array([0, -1], np.int64))
    flat = builder.add("Reshape", [pooled, shape], name="flat")
    v = builder.constant("v", np.full((3, 4), 0.5, np.float32))
    return gm.Model(builder.build([builder.add("Gemm", [flat, v], name="fc", transB=1)]))


@pytest.mark.parametrize("duplicate", [lambda model: pickle.loads(pickle.dumps(model)), copy.deepcopy])
def test_models_are_pickled(duplicate: Callable[[gm.Model], gm.Model]) -> None:
    model = small()
    x = np.random.default_rng(0).standard_normal((1, 2, 8, 8)).astype(np.float32)
    quantized = gm.quantize(model, [{"x": x}], mode="static")
    for each in (model, quantized):
        again = duplicate(each)
        assert b"".join(pack_artefact(again.graph)) == b"".join(pack_artefact(each.graph))
        assert (again.report, repr(again)) == (each.report, repr(each))
        assert not any(value.flags.writeable for value in again.graph.constants.values())


def test_layers_tell_what_they_hold() -> None:
    layers = {layer.name: layer for layer in small().layers()}
    assert layers["conv"].shape == ("n", 4, "?", 6)
    assert (layers["conv"].parameters, layers["conv"].nbytes, layers["conv"].sparsity) == (72, 288, 0.5)
    assert (layers["fc"].shape, layers["flat"].parameters) == (("n", 3), 0)


def test_weights_belong_to_the_layer_that_multiplies_by_them() -> None:
    builder = GraphBuilder()
    x, scale = builder.input("x", np.float32, ("n", 2)), builder.constant("scale", np.ones(3, np.float32))
    zero = builder.constant("zero", np.array([1, 2, 3], np.uint8))
    stored = builder.constant("stored", np.array([[1, 9], [2, 9], [3, 3]], np.uint8))
    real = builder.add("DequantizeLinear", [stored, scale, zero], name="real", axis=0)
    product = builder.add("MatMul", [x, builder.add("Transpose", [real], name="turn", perm=(1, 0))], name="fc")
    blocks = [builder.constant(name, np.full((rows, 3), 5, np.int8)) for name, rows in (("w", 2), ("z", 1))]
    steps = builder.constant("steps", np.ones((1, 3), np.float32))
    again = builder.add("DequantizeLinear", [blocks[0], steps, blocks[1]], name="again", axis=0, block_size=2)
    other = builder.add("MatMul", [x, again], name="blocks")
    bias = builder.constant("bias", np.zeros(3, np.float32))
    model = gm.Model(builder.build([builder.add("Add", [product, bias], name="add"), other]))
    layers = {layer.name: layer for layer in model.layers()}
    fc = layers["fc"]
    assert (fc.weight, fc.weight_shape, fc.dtype, fc.parameters, fc.nbytes) == ("stored", (3, 2), np.dtype("u1"), 6, 6)
    assert fc.zeros == 4
    assert layers["real"].parameters == layers["turn"].parameters == layers["again"].parameters == 0
    assert layers["blocks"].zeros == 6
    assert (layers["add"].weight, layers["add"].parameters, layers["add"].zeros) == ("", 3, 3)


@pytest.mark.parametrize(
    ("shape", "attributes"),
    [
        ((2,), {"axis": 0}),
        ((3, 1), {"axis": 1}),
        ((3,), {"axis": 2}),
        ((0,), {"axis": 0}),
        ((3, 2), {"axis": 0}),
        ((2, 2), {"axis": 0, "block_size": 3}),
        ((3,), {"axis": 0, "block_size": 1}),
        ((3, 2), {"axis": 0, "block_size": -1}),
    ],
)
def test_zero_points_that_do_not_fit_are_refused(shape: tuple[int, ...], attributes: dict[str, int]) -> None:
    builder = GraphBuilder()
    x, zero = builder.input("x", np.float32, ("n", 3)), builder.constant("zero", np.ones(shape, np.int8))
    scale, stored = builder.constant("scale", np.ones(shape, np.float32)), np.ones((3, 2), np.int8)
    real = builder.add("DequantizeLinear", [builder.constant("w", stored), scale, zero], name="real", **attributes)
    model = gm.Model(builder.build([builder.add("MatMul", [x, real])]))
    with pytest.raises(gm.ModelFormatError, match="real: DequantizeLinear"):
        model.layers()


def test_zero_points_of_rows_and_columns_are_told_apart() -> None:
    builder = GraphBuilder()
    x, zeros = builder.input("x", np.uint8, ("n", 2)), builder.constant("zeros", np.array([1, 2], np.uint8))
    w = builder.constant("w", np.array([[1, 1], [2, 3]], np.uint8))
    columns = builder.add("MatMulInteger", [x, w, "", zeros], name="columns")
    rows = builder.add("MatMulInteger", [w, builder.input("y", np.uint8, (2, "m")), zeros], name="rows")
    model = gm.Model(builder.build([columns, rows], np.int32))
    assert {layer.name: layer.zeros for layer in model.layers()} == {"columns": 1, "rows": 3}


def test_the_summary_shows_layers_and_totals() -> None:
    text = repr(small())
    assert "4 layers, 84 parameters (42.9% zeros), 336 B" in text
    assert "x: float32[n, 2, h, 8]" in text
    assert "conv   Conv" in text


def test_long_summaries_leave_out_layers_without_weights() -> None:
    builder = GraphBuilder()
    x = builder.input("x", np.float32, ("n", 4))
    for _ in range(50):
        x = builder.add("Relu", [x])
    x = builder.add("MatMul", [x, builder.constant("w", np.ones((4, 4), np.float32))])
    text = repr(gm.Model(builder.build([x])))
    assert "and 50 layers without weights" in text
    assert "Relu_3 " not in text


def test_weights_are_exchanged_by_name() -> None:
    model = small()
    before = model.graph
    assert list(model.weights()) == ["w", "v"]
    fresh = np.zeros((3, 4), np.float32)
    model.set_weights({"v": fresh})
    fresh[:] = 7
    assert not model.weights()["v"].any()
    assert before.constants["v"].all()


@pytest.mark.parametrize(
    ("weights", "error", "reason"),
    [
        ({"z": np.zeros(1)}, gm.ArgumentError, "z: there is no such weight; there are: w, v"),
        ({"v": np.zeros((4, 3), np.float32)}, gm.ShapeError, r"v: expected shape \[3, 4\], got \[4, 3\]"),
        ({"v": np.zeros((3, 4))}, gm.DTypeError, "v: expected float32, got float64"),
        ({"shape": np.zeros(2, np.int64)}, gm.ArgumentError, "no such weight"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    weights: dict[str, Array], error: type[gm.GristmillError], reason: str
) -> None:
    model = small()
    with pytest.raises(error, match=reason):
        model.set_weights({"w": np.full((4, 2, 3, 3), 3, np.float32), **weights})
    assert model.weights()["w"].max() == 1


def exported(model: gm.Model, feeds: dict[str, Array], folder: Path) -> list[Array]:
    """What onnxruntime computes from the exported file, after it came back the same."""
    path = folder / "exported.onnx"
    model.export_onnx(path)
    back = gm.load(path)
    assert [node.op for node in back.graph.nodes] == [node.op for node in model.graph.nodes]
    assert (back.inputs, back.outputs) == (model.inputs, model.outputs)
    for name, constant in model.graph.constants.items():
        assert back.graph.constants[name].shape == constant.shape
        np.testing.assert_array_equal(back.graph.constants[name], constant)
    found: list[Array] = exact_session(path).run(None, feeds)
    return found


@pytest.mark.parametrize("op", MAKERS)
def test_every_operator_is_exported(op: str, tmp_path: Path) -> None:
    for seed in range(3):
        made, feeds = MAKERS[op](np.random.default_rng(seed))
        model = gm.load(made)
        expected = run(model.graph, feeds)
        for ours, theirs in zip(expected.values(), exported(model, feeds, tmp_path), strict=True):
            if ours.dtype.kind == "f":
                np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5)
            else:
                np.testing.assert_array_equal(ours, theirs)


def test_a_saved_model_is_loaded_as_it_was(tmp_path: Path) -> None:
    model = small()
    model.save(tmp_path / "small.grist")
    again = gm.load(tmp_path / "small.grist")
    assert again.format == "gristmill"
    for name, array in model.graph.constants.items():
        np.testing.assert_array_equal(again.graph.constants[name], array)
    x = np.ones((2, 2, 8, 8), np.float32)
    np.testing.assert_array_equal(gm.InferenceSession(tmp_path / "small.grist")(x), gm.InferenceSession(model)(x))


def test_networks_are_exported(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(5, 2, 9, 8)).astype(np.float32)
    (result,) = exported(small(), {"x": x}, tmp_path)
    np.testing.assert_allclose(run(small().graph, {"x": x})["fc"], result, rtol=1e-5)


def test_models_beyond_the_format_are_refused(tmp_path: Path) -> None:
    builder = GraphBuilder()
    huge = np.broadcast_to(np.float32(1), (1 << 15, 1 << 14))
    y = builder.add("MatMul", [builder.input("x", np.float32, (1, 1 << 15)), builder.constant("w", huge)])
    model = gm.Model(builder.build([y]))
    path = tmp_path / "model.onnx"
    path.write_bytes(b"old")
    with pytest.raises(gm.LimitError, match="2 GiB"):
        model.export_onnx(path)
    assert path.read_bytes() == b"old"
