"""Trained models that ONNX Runtime quantized give, byte for byte, what it gives with them.

``GRISTMILL_REAL_DATA`` names the folder that holds them.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gristmill as gm
from graphs import Array
from onnxruntime_peer import exact_session


@pytest.fixture
def folder() -> Path:
    if "GRISTMILL_REAL_DATA" not in os.environ:
        pytest.skip("GRISTMILL_REAL_DATA names no folder with trained models")
    return Path(os.environ["GRISTMILL_REAL_DATA"])


def sounds(folder: Path) -> tuple[Array, Array]:
    data = np.load(folder / "kws_1000.npz")
    return data["x"].reshape(-1, 49, 10, 1), data["y"]


def pictures(folder: Path) -> tuple[Array, Array]:
    data = np.load(folder / "cifar10_test_lossless.npz")
    scaled = (data["x"] / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2).astype(np.float32)), data["y"]


def digits(folder: Path) -> tuple[Array, Array]:
    data = np.load(folder / "mnist_test.npz")
    return data["x"].reshape(-1, 1, 28, 28).astype(np.float32), data["y"]


def clothes(folder: Path) -> tuple[Array, Array]:
    data = np.load(folder / "fashion_mnist.npz")
    return (data["x_test"] / np.float32(255)).reshape(-1, 1, 28, 28), data["y_test"]


def clothes_last(folder: Path) -> tuple[Array, Array]:
    x, y = clothes(folder)
    return x.reshape(-1, 28, 28, 1), y


#: File, data, and images at a time.
MODELS = [
    ("kws_dscnn.onnx", sounds, 100),
    ("cifar10_resnet20.onnx", pictures, 1),
    ("mnist_cntk.onnx", digits, 1),
    ("fashion_cnn_50mb.onnx", clothes, 100),
    ("fashion_cnn.h5", clothes_last, 100),
]


def outputs(session: Any, x: Array, batch: int) -> Array:  # noqa: ANN401
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: x[at : at + batch]})[0] for at in range(0, len(x), batch)])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("activation", ["QUInt8", "QInt8"])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(("name", "data", "batch"), MODELS)
def test_quantized_outputs_are_those_of_onnxruntime(
    folder: Path,
    tmp_path: Path,
    name: str,
    data: Any,  # noqa: ANN401
    batch: int,
    per_channel: bool,
    activation: str,
) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    if name.startswith("mnist") and per_channel:
        pytest.skip("ONNX Runtime does not quantize this model by channels")
    x = data(folder)[0][: 1000 if batch > 1 else 200]
    plain, quantized = tmp_path / "plain.onnx", tmp_path / "quantized.onnx"
    gm.load(folder / name).export_onnx(plain) if name.endswith(".h5") else plain.write_bytes(
        (folder / name).read_bytes()
    )
    prepared = tmp_path / "prepared.onnx"
    quantization.quant_pre_process(plain, prepared, skip_symbolic_shape=True)
    feeds = gm.load(prepared).inputs[0].name

    class Calibration(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        batches = iter([{feeds: x[at : at + batch]} for at in range(0, 5 * batch, batch)])

        def get_next(self) -> Any:  # noqa: ANN401
            return next(self.batches, None)

    quantization.quantize_static(
        prepared,
        quantized,
        Calibration(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=per_channel,
        activation_type=quantization.QuantType[activation],
        weight_type=quantization.QuantType.QInt8,
    )
    # Without this it computes signed activations in float32 on x86-64.
    peer = exact_session(quantized, qdqisint8allowed="1")
    np.testing.assert_array_equal(outputs(gm.InferenceSession(quantized), x, batch), outputs(peer, x, batch))


@pytest.mark.parametrize("pattern", [None, "unstructured", "1x4", "channel"])
@pytest.mark.parametrize("mode", ["static", "dynamic", "weights"])
@pytest.mark.parametrize(("name", "data", "batch"), MODELS)
def test_models_quantized_here_answer_in_onnxruntime_as_here(
    folder: Path,
    tmp_path: Path,
    name: str,
    data: Any,  # noqa: ANN401
    batch: int,
    mode: str,
    pattern: str | None,
) -> None:
    x = data(folder)[0][:200]
    model = gm.load(folder / name)
    few = x[:64] if batch > 1 else [{model.inputs[0].name: image[np.newaxis]} for image in x[:64]]
    if pattern is not None:
        model = gm.prune(model, 0.3, pattern=pattern, method="magnitude", calibration=few)
    made = gm.quantize(model, few, mode=mode)
    made.export_onnx(tmp_path / "model.onnx")
    peer = exact_session(tmp_path / "model.onnx")
    ours = outputs(gm.InferenceSession(made), x, batch)
    np.testing.assert_allclose(ours, outputs(peer, x, batch), rtol=0, atol=1e-5 * np.abs(ours).max())


def test_exported_keras_model_keeps_its_accuracy(folder: Path, tmp_path: Path) -> None:
    x, y = clothes_last(folder)
    gm.load(folder / "fashion_cnn.h5").export_onnx(tmp_path / "model.onnx")
    theirs = outputs(exact_session(tmp_path / "model.onnx"), x, 500)
    ours = outputs(gm.InferenceSession(folder / "fashion_cnn.h5"), x, 500)
    assert (theirs.argmax(axis=1) == y).sum() == 8921
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
