"""Networks that ONNX Runtime quantized compute, number for number, what ONNX Runtime computes with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import gristmill as gm
from gristmill.reference import run
from onnx_models import model, node, value
from onnxruntime_peer import exact_session, saturates

quantization = pytest.importorskip("onnxruntime.quantization")

Array = npt.NDArray[Any]


def network(r: np.random.Generator) -> bytes:
    """Convolutions (one depthwise) with a residual, pooling, and a linear layer."""

    def weights(*shape: int) -> Array:
        return np.asarray(r.normal(size=shape) / np.sqrt(np.prod(shape[1:])), np.float32)

    nodes = [
        node("Conv", "x w1 b1", "a", pads=[1, 1, 1, 1], name="conv1"),
        node("Relu", "a", "b", name="relu1"),
        node("Conv", "b w2", "c", pads=[1, 1, 1, 1], group=8, name="conv2"),
        node("Add", "b c", "d", name="add"),
        node("MaxPool", "d", "e", kernel_shape=[2, 2], strides=[2, 2], name="maxpool"),
        node("Conv", "e w3", "f", name="conv3"),
        node("Relu", "f", "g", name="relu3"),
        node("GlobalAveragePool", "g", "h", name="pool"),
        node("Flatten", "h", "i", name="flatten"),
        node("Gemm", "i w4 b4", "y", transB=1, name="fc"),
    ]
    constants: dict[str, Any] = {"w1": weights(8, 3, 3, 3), "b1": weights(8), "w2": weights(8, 1, 3, 3)}
    constants |= {"w3": weights(16, 8, 1, 1), "w4": weights(10, 16), "b4": weights(10)}
    made = model(nodes, [value("x", ["n", 3, 12, 12])], [value("y", ["n", 10])], **constants)
    return bytes(made.SerializeToString())


class Calibration(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
    """Some images."""

    def __init__(self, images: list[Array]) -> None:
        self._images: Iterator[dict[str, Array]] = iter([{"x": image} for image in images])

    def get_next(self) -> dict[str, Array] | None:
        return next(self._images, None)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
@pytest.mark.parametrize("activation", ["QUInt8", "QInt8"])
def test_quantized_networks_agree_exactly(form: str, activation: str, per_channel: bool, tmp_path: Path) -> None:
    r = np.random.default_rng(7)
    images = [r.normal(size=(4, 3, 12, 12)).astype(np.float32) for _ in range(4)]
    (tmp_path / "float.onnx").write_bytes(network(r))
    path = tmp_path / "quantized.onnx"
    quantization.quantize_static(
        tmp_path / "float.onnx",
        path,
        Calibration(images),
        quant_format=quantization.QuantFormat[form],
        per_channel=per_channel,
        activation_type=quantization.QuantType[activation],
        weight_type=quantization.QuantType.QInt8,
        reduce_range=saturates(),
    )
    (expected,) = exact_session(path, optimized=False).run(None, {"x": images[0]})
    loaded = gm.load(path)
    np.testing.assert_array_equal(run(loaded.graph, {"x": images[0]})["y"], expected)
    loaded.export_onnx(tmp_path / "back.onnx")
    session = exact_session(tmp_path / "back.onnx", optimized=False)
    np.testing.assert_array_equal(session.run(None, {"x": images[0]})[0], expected)
