"""Trained models keep their accuracy. ``GRISTMILL_REAL_DATA`` names the folder that holds them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import gristmill as gm
from graphs import Array


@pytest.fixture
def folder() -> Path:
    if "GRISTMILL_REAL_DATA" not in os.environ:
        pytest.skip("GRISTMILL_REAL_DATA names no folder with trained models")
    return Path(os.environ["GRISTMILL_REAL_DATA"])


def correct(path: Path, x: Array, y: Array, batch: int) -> int:
    session = gm.InferenceSession(path)
    name = session.get_inputs()[0].name
    found = [session.run(None, {name: x[start : start + batch]})[0] for start in range(0, len(x), batch)]
    return int((np.concatenate(found).argmax(axis=-1) == y).sum())


def test_keyword_spotting(folder: Path) -> None:
    data = np.load(folder / "kws_1000.npz")
    x = data["x"].reshape(-1, 49, 10, 1)
    assert correct(folder / "kws_dscnn.onnx", x, data["y"], 100) == 910


def test_image_classification(folder: Path) -> None:
    data = np.load(folder / "cifar10_test_lossless.npz")
    scaled = (data["x"] / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    x = np.ascontiguousarray(scaled.transpose(0, 3, 1, 2).astype(np.float32))
    assert correct(folder / "cifar10_resnet20.onnx", x, data["y"], 1) == 268


def test_keras_model(folder: Path) -> None:
    data = np.load(folder / "fashion_mnist.npz")
    x = data["x_test"][..., np.newaxis].astype(np.float32) / 255
    assert correct(folder / "fashion_cnn.h5", x, data["y_test"], 500) == 8921


def test_digits(folder: Path) -> None:
    data = np.load(folder / "mnist_test.npz")
    assert (
        correct(folder / "mnist_cntk.onnx", data["x"].reshape(-1, 1, 28, 28).astype(np.float32), data["y"], 1) == 9891
    )


def test_large_model(folder: Path) -> None:
    data = np.load(folder / "fashion_mnist.npz")
    x = data["x_test"][:, np.newaxis].astype(np.float32) / 255
    assert correct(folder / "fashion_cnn_50mb.onnx", x, data["y_test"], 100) == 9259


def test_tflite_model_and_its_onnx_twin(folder: Path) -> None:
    data = np.load(folder / "kws_1000.npz")
    x = data["x"].reshape(-1, 49, 10, 1).astype(np.float32)
    assert correct(folder / "kws_dscnn_f32.tflite", x, data["y"], 100) == 910
    answers = [gm.InferenceSession(folder / name)(x) for name in ("kws_dscnn_f32.tflite", "kws_dscnn.onnx")]
    np.testing.assert_allclose(answers[0], answers[1], atol=2e-6)


def test_weights_are_the_same_in_every_file(folder: Path) -> None:
    """The ONNX file has normalizations folded into its convolutions."""
    pickled = gm.load_weights(folder / "cifar10_resnet20.th")
    plain = gm.load_weights(folder / "cifar10_resnet20.safetensors")
    assert list(pickled) != []
    assert set(pickled) == set(plain)
    assert all(np.array_equal(pickled[name], plain[name]) for name in plain)
    held = list(gm.load(folder / "cifar10_resnet20.onnx").weights().values())
    assert any(np.array_equal(plain["linear.weight"], array) for array in held)
    layers = [name for name in plain if plain[name].ndim == 4]
    assert len(layers) == 19
    for name in layers:
        norm = name.replace("conv", "bn").removesuffix("weight")
        factor = plain[f"{norm}weight"] / np.sqrt(plain[f"{norm}running_var"] + 1e-5)
        folded = plain[name] * factor.reshape(-1, 1, 1, 1)
        assert any(array.shape == folded.shape and np.allclose(array, folded, rtol=1e-5, atol=1e-6) for array in held)


def test_pruned_keras_weights(folder: Path) -> None:
    weights = gm.load_weights(folder / "KERAS_3layer_95pruned_retrained_weights.h5")
    assert {name: array.shape for name, array in weights.items() if array.ndim == 2} == {
        "fc1_relu/kernel": (16, 64),
        "fc2_relu/kernel": (64, 32),
        "fc3_relu/kernel": (32, 32),
        "output_softmax/kernel": (32, 5),
    }
    assert (weights["fc2_relu/kernel"] == 0).mean() > 0.99


@pytest.mark.filterwarnings("ignore::UserWarning")  # TensorFlow's about itself
@pytest.mark.parametrize("kind", ["float", "f16", "dynamic", "int8", "u8"])
def test_tflite_kinds_agree_with_the_interpreter_on_real_inputs(folder: Path, kind: str) -> None:
    keras = pytest.importorskip("keras")
    from tflite_models import convert, interpret

    data = np.load(folder / "fashion_mnist.npz")
    images = data["x_test"][..., np.newaxis].astype(np.float32) / 255
    model = keras.models.load_model(folder / "fashion_cnn.h5", compile=False)
    content = convert(model, kind, images[5000:5100])
    x, theirs = interpret(content, images[:2000])
    session = gm.InferenceSession(content)
    (ours,) = session.run(None, {session.get_inputs()[0].name: x})
    assert (ours.argmax(1) == theirs.argmax(1)).mean() >= 0.995
