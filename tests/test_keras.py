"""Keras models: what Keras answers is answered."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pytest

import gristmill as gm
from gristmill import reference
from gristmill.errors import ModelFormatError, UnsupportedOpError
from gristmill.graph import Graph
from gristmill.loaders.keras import read_h5, read_keras
from keras_files import CONV, ENTRY, KERNEL, conv_weights, functional, h5_bytes, keras_layer, keras_node, sequential

h5py = pytest.importorskip("h5py")

DATA = Path(__file__).parent / "data" / "keras"
MODELS = sorted(path for path in DATA.iterdir() if path.suffix in (".h5", ".keras"))


def _read(stream: BinaryIO, suffix: str) -> Graph:
    return read_h5(stream) if suffix == ".h5" else read_keras(stream)


def _answer(graph: Graph, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """What a session answers, which is what the reference does."""
    (expected,) = reference.run(graph, {graph.inputs[0].name: x}).values()
    got = gm.InferenceSession(gm.Model(graph))(x)
    assert isinstance(got, np.ndarray)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * max(1, np.abs(expected).max()))
    return got


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.name)
def test_models_answer_as_keras_did(path: Path) -> None:
    expected = np.load(path.with_suffix(".npz"))
    with path.open("rb") as stream:
        got = _answer(_read(stream, path.suffix), expected["x"])
    assert got.shape == expected["y"].shape
    np.testing.assert_allclose(got, expected["y"], rtol=1e-5, atol=1e-5 * max(1, np.abs(expected["y"]).max()))


@pytest.mark.filterwarnings("ignore")  # Keras's about NumPy and HDF5
@pytest.mark.parametrize("block", range(8))
def test_random_models_answer_as_keras_does(block: int, tmp_path: Path) -> None:
    pytest.importorskip("keras")
    from keras_models import random_model

    for seed in range(1000 + 50 * block, 1050 + 50 * block):
        model, x = random_model(seed)
        path = tmp_path / ("model.h5" if seed % 2 else "model.keras")
        model.save(path)
        expected = model(x, training=False).numpy()
        with path.open("rb") as stream:
            got = _answer(_read(stream, path.suffix), x)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * max(1, np.abs(expected).max()))


def test_wrappers_of_pruning_are_taken_off_and_zeros_kept() -> None:
    wrapped = {"class_name": "PruneLowMagnitude", "config": {"name": "prune_conv", "layer": CONV}}
    kernel = np.where(KERNEL % 3 == 0, 0, KERNEL)
    weights = {"prune_conv": {**conv_weights(kernel)["conv2d"], "mask": kernel != 0, "threshold": np.float32(1)}}
    graph = read_h5(io.BytesIO(h5_bytes(sequential(wrapped), weights)))
    plain = read_h5(io.BytesIO(h5_bytes(sequential(CONV), conv_weights(kernel))))
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 2)).astype(np.float32)
    np.testing.assert_array_equal(_answer(graph, x), _answer(plain, x))
    stored = next(array for array in graph.constants.values() if array.ndim == 4)
    assert (stored == 0).sum() == (kernel == 0).sum()


def test_wrappers_of_quantization_are_taken_off() -> None:
    activation = {"class_name": "QuantizeAwareActivation", "config": {"activation": "relu"}}
    inner = {**CONV, "config": {**CONV["config"], "activation": activation}}
    wrapped = {"class_name": "QuantizeWrapperV2", "config": {"name": "quant_conv2d", "layer": inner}}
    weights = {"quant_conv2d": {**conv_weights()["conv2d"], "kernel_min": np.zeros(3), "post_activation_max": 1.0}}
    entry = {"class_name": "QuantizeLayer", "config": {"name": "quantize_layer"}}
    graph = read_h5(io.BytesIO(h5_bytes(sequential(entry, wrapped), weights)))
    plain = read_h5(io.BytesIO(h5_bytes(sequential(CONV), conv_weights())))
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 2)).astype(np.float32)
    np.testing.assert_array_equal(_answer(graph, x), _answer(plain, x))


def test_functions_of_keras_are_told_from_layers() -> None:
    def called(name: str, *arguments: object) -> dict[str, Any]:
        nodes = [{"args": list(arguments), "kwargs": {}}]
        return {"module": "keras.src.ops.numpy", "class_name": name, "name": "f", "config": {"name": "f"}} | {
            "inbound_nodes": nodes
        }

    def answer(layer: dict[str, Any]) -> npt.NDArray[Any]:
        model = functional([keras_node(ENTRY), layer], [["inputlayer", 0, 0]], [["f", 0, 0]])
        return _answer(read_h5(io.BytesIO(h5_bytes(model))), np.ones((1, 5, 5, 2), np.float32))

    x = {"class_name": "__keras_tensor__", "config": {"keras_history": ["inputlayer", 0, 0]}}
    np.testing.assert_array_equal(answer(called("Add", x, x)), np.full((1, 5, 5, 2), 2))
    np.testing.assert_array_equal(answer(called("Subtract", 4.0, x)), np.full((1, 5, 5, 2), 3))
    with pytest.raises(UnsupportedOpError, match="called with a number"):
        answer({**called("ReLU", x, 2.0), "module": "keras.layers"})
    with pytest.raises(UnsupportedOpError, match=r"Average is an operation of keras\.ops"):
        answer(called("Average", x))


@pytest.mark.parametrize("major", [2, 3])
def test_calls_of_models_within_models_are_counted_as_keras_does(major: int) -> None:
    """The model within is called twice; the outer one gives the first of the results."""
    relu = functional(
        [keras_node(ENTRY), keras_node(CONV, ["inputlayer", 0, 0])], [["inputlayer", 0, 0]], [["conv2d", 0, 0]]
    )
    relu["config"]["name"] = "inner"
    head = keras_node(keras_layer("Conv2D", filters=2, kernel_size=[1, 1]), ["inner", 3 - major, 0])
    head = {**head, "name": "head", "config": {**head["config"], "name": "head"}}
    inner = {**relu, "name": "inner", "inbound_nodes": [[[*r, {}]] for r in (["inputlayer", 0, 0], ["head", 0, 0])]}
    model = functional([keras_node(ENTRY), inner, head], [["inputlayer", 0, 0]], [["inner", 1, 0], ["inner", 2, 0]])
    pointwise = {"kernel": np.ones((1, 1, 3, 2), np.float32), "bias": np.zeros(2, np.float32)}
    data = h5_bytes(
        {**model, "keras_version": f"{major}.0.0"},
        {"inner": conv_weights()["conv2d"], "head": pointwise},
        lambda file: file.attrs.__setitem__("keras_version", f"{major}.0.0"),
    )
    graph = read_h5(io.BytesIO(data))
    x = np.random.default_rng(0).normal(size=(1, 5, 5, 2)).astype(np.float32)
    first, second = reference.run(graph, {graph.inputs[0].name: x}).values()
    plain = read_h5(io.BytesIO(h5_bytes(sequential(CONV), conv_weights())))
    np.testing.assert_allclose(first, _answer(plain, x), rtol=1e-5)
    np.testing.assert_allclose(second, _answer(plain, np.repeat(first.sum(-1, keepdims=True), 2, -1)), rtol=1e-4)


def test_weights_alone_need_the_architecture() -> None:
    weights = h5_bytes(None, conv_weights())
    with pytest.raises(ModelFormatError, match="architecture="):
        read_h5(io.BytesIO(weights))
    graph = read_h5(io.BytesIO(weights), json.dumps(sequential(CONV)))
    assert [node.op for node in graph.nodes].count("Conv") == 1


def test_channels_first() -> None:
    entry = keras_layer("InputLayer", batch_shape=[None, 2, 5, 5])
    conv = {**CONV, "config": {**CONV["config"], "data_format": "channels_first"}}
    flatten = keras_layer("Flatten", data_format="channels_first")
    first = {"class_name": "Sequential", "config": {"layers": [entry, conv, flatten]}}
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 2)).astype(np.float32)
    last = read_h5(io.BytesIO(h5_bytes(sequential(CONV, keras_layer("Flatten")), conv_weights())))
    graph = read_h5(io.BytesIO(h5_bytes(first, conv_weights())))
    np.testing.assert_allclose(_answer(graph, x.transpose(0, 3, 1, 2)), _answer(last, x), rtol=1e-6)


def test_unknown_layers_are_named() -> None:
    with pytest.raises(UnsupportedOpError, match=r"LSTM is not known; known are .*Conv2D") as caught:
        read_h5(io.BytesIO(h5_bytes(sequential(keras_layer("LSTM")))))
    assert caught.value.node == "lstm"
