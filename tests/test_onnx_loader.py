"""Reading ONNX models: where they may come from, and what is made the same whatever the file had."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import gristmill as gm

pytest.importorskip("onnx")

import onnx
from onnx import helper, numpy_helper

from gristmill.reference import run
from onnx_models import external, model, node, tensor, value, with_tensor
from onnxruntime_peer import exact_session

Array = npt.NDArray[Any]
X = np.array([[-1, 2, -3], [4, -5, 6]], np.float32)
W = np.arange(6, dtype=np.float32).reshape(2, 3)
_REAL = os.environ.get("GRISTMILL_REAL_DATA")


def result(loaded: gm.Model, **feeds: Array) -> Array:
    (found,) = run(loaded.graph, feeds or {"x": X}).values()
    return found


def test_models_come_from_paths_bytes_files_and_memory(tmp_path: Path) -> None:
    made = model([node("Add", "x w")], w=W)
    content = made.SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with path.open("rb") as stream:
        sources = [path, str(path), content, bytearray(content), memoryview(content), io.BytesIO(content), stream, made]
        for source in sources:
            np.testing.assert_array_equal(result(gm.load(source)), X + W)
    assert gm.load(path).source == str(path)
    assert gm.load(path).format == "ONNX"


def test_a_file_without_the_suffix_is_recognized_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(model([node("Relu")]).SerializeToString())
    np.testing.assert_array_equal(result(gm.load(path)), np.maximum(X, 0))


def test_text_files_and_other_objects_are_refused() -> None:
    with pytest.raises(gm.ArgumentError, match="binary mode"):
        gm.load(io.StringIO("text"))
    with pytest.raises(gm.ModelFormatError, match="int is not of a format"):
        gm.load(7)


def test_without_onnx_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(gm.ArgumentError, match=r'pip install "gristmill\[onnx\]"'):
        gm.load(b"\x08\x08 a model")


def test_external_data_is_read_from_the_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "w.bin").write_bytes(b"skip" + W.tobytes() + b"rest")
    path = tmp_path / "model.onnx"
    entries = {"location": "data/w.bin", "offset": "4", "length": "24"}
    path.write_bytes(with_tensor(external([2, 3], **entries)).SerializeToString())
    np.testing.assert_array_equal(result(gm.load(path)), X + W)
    with pytest.raises(gm.ModelFormatError, match="load the model by its path"):
        gm.load(path.read_bytes())


def test_the_cache_of_the_hugging_face_hub_loads(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0123" / "onnx"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / "aaaa").write_bytes(with_tensor(external([2, 3], location="model.onnx_data")).SerializeToString())
    (blobs / "bbbb").write_bytes(W.tobytes())
    try:
        (snapshot / "model.onnx").symlink_to("../../../blobs/aaaa")
        (snapshot / "model.onnx_data").symlink_to("../../../blobs/bbbb")
    except OSError:
        pytest.skip("links cannot be made here")
    np.testing.assert_array_equal(result(gm.load(snapshot / "model.onnx")), X + W)


@pytest.mark.parametrize(("kind", "bits"), [(10, np.float16), (16, None)])
def test_16_bit_floats_become_float32(kind: int, bits: type[np.float16] | None) -> None:
    short = W.view(np.uint32) >> 16 if bits is None else W.astype(bits).view(np.uint16)
    raw = tensor(dims=[2, 3], data_type=kind, raw_data=short.astype("<u2").tobytes())
    items = tensor(dims=[2, 3], data_type=kind, int32_data=short.ravel().tolist())
    for weight in (raw, items):
        loaded = gm.load(with_tensor(weight))
        assert loaded.weights()["w"].dtype == np.float32
        np.testing.assert_array_equal(loaded.weights()["w"], W)


@pytest.mark.parametrize(
    "dtype", [np.float64, np.uint8, np.int8, np.uint16, np.int16, np.int32, np.int64, np.uint32, np.uint64, np.bool_]
)
def test_other_types_are_kept(dtype: type[np.generic]) -> None:
    bounds = [0, 1] if dtype in {np.float64, np.bool_} else [np.iinfo(dtype).min, np.iinfo(dtype).max]  # type: ignore[type-var]
    for values in (np.array(bounds, dtype), np.array(bounds * 100, dtype), np.arange(100).astype(dtype)):
        fields = helper.make_tensor("w", helper.np_dtype_to_tensor_dtype(values.dtype), [len(values)], values.tolist())
        for weight in (numpy_helper.from_array(values, "w"), fields):
            made = model([node("Identity", "w")], w=W)
            made.graph.initializer[0].CopyFrom(weight)
            made.graph.output[0].type.tensor_type.elem_type = weight.data_type
            found = result(gm.load(made), x=X)
            assert found.dtype == dtype
            np.testing.assert_array_equal(found, values)


def test_weights_listed_as_inputs_are_weights() -> None:
    made = model([node("Add", "x w")], [value("x", [2, 3]), value("w", [2, 3])], w=W)
    assert [info.name for info in gm.load(made).inputs] == ["x"]


def test_missing_and_double_names_get_new_ones() -> None:
    nodes = [node("Relu", "x", "a"), node("Relu", "a", "b"), node("Relu", "b", "c", name=""), node("Neg", "c", name="")]
    names = [item.name for item in gm.load(model(nodes)).graph.nodes]
    assert len(set(names)) == 4
    assert names[0] == "n"
    assert all(names)


def test_nodes_are_put_in_order_and_dead_ones_left_out() -> None:
    nodes = [node("Neg", "a"), node("Relu", "x", "a", name="m"), node("Abs", "x", "dead", name="d")]
    loaded = gm.load(model(nodes, unused=W))
    assert [item.op for item in loaded.graph.nodes] == ["Relu", "Neg"]
    assert loaded.weights() == {}


def test_an_opset_without_a_version_is_the_newest() -> None:
    made = model([node("Swish")])
    made.opset_import[0].ClearField("version")
    assert gm.load(made).graph.nodes[0].op == "Swish"


def test_open_extents_keep_or_get_names() -> None:
    made = model([node("Relu")], [value("x", ["batch", None, 3])])  # type: ignore[list-item]
    assert gm.load(made).inputs[0].shape == ("batch", "x_1", 3)
    assert gm.load(model([node("Relu")], [value("x", None)])).inputs[0].shape is None


@pytest.mark.parametrize("chosen", [True, False])
def test_the_branch_of_a_constant_condition_is_inlined(chosen: bool) -> None:
    def branch(op: str) -> onnx.GraphProto:
        parts = [node("Constant", "", "k", value_float=2.0, name="k"), node("Mul", "a k", "h"), node(op, "h", "z")]
        return helper.make_graph(parts, "g", [], [value("z", None)])

    choice = node("If", "c", then_branch=branch("Neg"), else_branch=branch("Identity"))
    loaded = gm.load(model([node("Relu", "x", "a", name="m"), choice], c=np.array(chosen)))
    np.testing.assert_array_equal(result(loaded), np.maximum(X, 0) * (-2 if chosen else 2))


def test_functions_are_inlined_with_their_attributes() -> None:
    body = [
        helper.make_node("LeakyRelu", ["a"], ["h"], name="leaky"),
        helper.make_node("Add", ["h", "b"], ["y"], name="add"),
    ]
    body[0].attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT))
    imports = [helper.make_opsetid("", 17)]
    function = helper.make_function("mine", "F", ["a", "b"], ["y"], body, imports, attributes=["slope"])
    calls = [
        helper.make_node("F", ["x", "w"], ["t"], domain="mine", slope=0.5),
        helper.make_node("F", ["t", "w"], ["y"], domain="mine", slope=0.25),
    ]
    loaded = gm.load(model(calls, functions=[function], domains=["mine"], w=W))
    once = np.where(X < 0, X / 2, X) + W
    np.testing.assert_array_equal(result(loaded), np.where(once < 0, once / 4, once) + W)


def test_values_from_outside_are_unknown_in_functions() -> None:
    body = [helper.make_node("Add", ["a", "w"], ["y"])]
    function = helper.make_function("mine", "F", ["a"], ["y"], body, [helper.make_opsetid("", 17)])
    call = helper.make_node("F", ["x"], ["y"], domain="mine")
    with pytest.raises(gm.ModelFormatError, match="reads 'w', which nothing has written"):
        gm.load(model([call], functions=[function], domains=["mine"], w=W))


def test_dropout_passes_everything_on() -> None:
    loaded = gm.load(model([node("Dropout", "x", "y mask", ratio=0.9)], opset=11))
    np.testing.assert_array_equal(result(loaded), X)
    made = model([node("Dropout", "x", "h mask"), node("Identity", "mask", name="m")])
    made.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.BOOL
    assert result(gm.load(made)).all()


@pytest.mark.parametrize(("factors", "picked"), [([1, 2.0], [0, 0, 1, 1, 2, 2]), ([1, 0.6], [0, 2])])
def test_resizing_at_opset_10_repeats_and_skips(factors: list[float], picked: list[int]) -> None:
    made = model([node("Resize", "x s")], opset=10, s=np.array(factors, np.float32))
    expected = exact_session(made).run(None, {"x": X})[0][:, : len(picked)]
    np.testing.assert_array_equal(result(gm.load(made))[:, : len(picked)], expected)


@pytest.mark.skipif(_REAL is None, reason="GRISTMILL_REAL_DATA names no folder of real models")
@pytest.mark.parametrize("name", ["cifar10_resnet20", "fashion_cnn_50mb", "kws_dscnn", "mnist_cntk"])
def test_real_models_give_what_onnxruntime_gives(name: str) -> None:
    path = Path(_REAL or "") / f"{name}.onnx"
    loaded = gm.load(path)
    (info,) = loaded.inputs
    assert info.shape is not None
    shape = [extent if isinstance(extent, int) else 3 for extent in info.shape]
    x = np.random.default_rng(0).random(shape, np.float32)
    (expected,) = exact_session(path).run(None, {info.name: x})
    np.testing.assert_allclose(result(loaded, **{info.name: x}), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "declared"),
    [
        ([2, 3], ([2, 3], "INT64")),
        ([2, 3], ([2, 3, 1], "FLOAT")),
        ([2, 3], (["n", 4], "FLOAT")),
        (["n", 3], (["n", 3], "INT64")),
        (["n", 3], (["n"], "FLOAT")),
    ],
)
def test_outputs_declared_otherwise_are_refused(
    inputs: list[int | str], declared: tuple[list[int | str], str], tmp_path: Path
) -> None:
    shape, kind = declared
    path = tmp_path / "m.onnx"
    output = value("y", shape, onnx.TensorProto.DataType.Value(kind))
    path.write_bytes(model([node("Relu", "x")], [value("x", inputs)], [output]).SerializeToString())
    with pytest.raises(gm.ModelFormatError, match=r"is declared as .* is computed; correct the declaration") as caught:
        gm.InferenceSession(path)(np.ones((2, 3), np.float32))
    assert (caught.value.file, caught.value.node) == (str(path), "y")
    if "n" not in inputs:
        with pytest.raises(gm.ModelFormatError, match="is declared as "):
            gm.load(path)


@pytest.mark.parametrize("declared", [["n", 3], ["rows", "columns"], [1, 3], None])
def test_outputs_that_inputs_leave_open_are_not_refused(declared: list[int | str] | None) -> None:
    made = model([node("Relu", "x")], [value("x", ["n", 3])], [value("y", declared)])
    assert np.shape(gm.InferenceSession(made)(np.ones((2, 3), np.float32))) == (2, 3)


def test_outputs_without_a_type_are_what_is_computed() -> None:
    made = model([node("Shape", "x")], [value("x", [2, 3])], [onnx.ValueInfoProto(name="y")])
    assert np.array_equal(gm.InferenceSession(made)(np.ones((2, 3), np.float32)), [2, 3])
