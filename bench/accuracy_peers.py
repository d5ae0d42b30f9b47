"""What users have today: onnxruntime's static quantization, and pruning the smallest weights of all layers."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import gristmill as gm
from ablation import no_worse
from bars import Bar
from real_models import Array, RealModel

_RANGE_SAMPLES, _BATCH = 512, 64
CALIBRATIONS = ("MinMax", "Percentile")


def int8_bars(model: RealModel, ours: gm.Evaluation) -> list[Bar]:
    """Our int8 model against onnxruntime's."""
    found = []
    for method in CALIBRATIONS:
        theirs = _quantized(model, method)
        found.append(no_worse(f"{model.name} int8", ours.against(theirs), f"onnxruntime {method}"))
    return found


def magnitude_bar(model: RealModel, ours: gm.Evaluation, sparsity: float, pattern: str) -> Bar:
    """A pruned and quantized model of ours against one of global magnitude pruning, quantized by us as well."""
    pruned = gm.prune(model.model, sparsity, pattern=pattern, method="magnitude")
    theirs = model.judge(gm.quantize(pruned, model.calibration[:_RANGE_SAMPLES]))
    return no_worse(f"{model.name} {sparsity:.0%} {pattern} int8", ours.against(theirs), "global magnitude")


def _quantized(model: RealModel, method: str) -> gm.Evaluation:
    """The model as onnxruntime quantizes it at its best, on the same 512 samples, and as it runs it."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
        plain, ready, done = (Path(name) / f"{step}.onnx" for step in ("plain", "ready", "done"))
        model.model.export_onnx(plain)
        quant_pre_process(plain, ready, skip_symbolic_shape=True)
        quantization.quantize_static(
            ready,
            done,
            _Reader(model),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod[method],
            # Where it adjusts them, it fails on the ranges that its own Percentile gives.
            extra_options={"QDQDisableWeightAdjustForInt32Bias": True},
        )
        return _run(done, model)


class _Reader:
    """Calibration inputs as onnxruntime asks for them."""

    def __init__(self, model: RealModel) -> None:
        name, inputs = model.model.inputs[0].name, model.calibration[:_RANGE_SAMPLES]
        self._feeds: Iterator[dict[str, Array]] = iter([{name: part} for part in _parts(model, inputs)])

    def get_next(self) -> dict[str, Array] | None:
        return next(self._feeds, None)


def _run(path: Path, model: RealModel) -> gm.Evaluation:
    import onnxruntime as ort

    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    answers = np.concatenate([session.run(None, {name: part})[0] for part in _parts(model, model.inputs)])
    predicted = answers.reshape(len(model.inputs), -1).argmax(axis=1)
    return gm.Evaluation(model.labels.astype(np.int64), predicted, np.ones(len(predicted)))


def _parts(model: RealModel, inputs: Array) -> list[Array]:
    shape = model.model.inputs[0].shape
    size = shape[0] if shape and isinstance(shape[0], int) else _BATCH
    return [inputs[start : start + size] for start in range(0, len(inputs), size)]
