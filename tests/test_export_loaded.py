"""Models of other frameworks, written as ONNX, answer in ONNX Runtime as they do here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import gristmill as gm
from onnxruntime_peer import exact_session

pytest.importorskip("onnx")

DATA = Path(__file__).parent / "data"
MODELS = sorted(path for path in DATA.glob("*/*") if path.suffix in (".h5", ".keras", ".tflite"))


@pytest.mark.parametrize("path", MODELS[::2], ids=lambda path: path.name)
def test_exported_models_answer_the_same(path: Path, tmp_path: Path) -> None:
    model = gm.load(path)
    model.export_onnx(tmp_path / "model.onnx")
    feed = {model.inputs[0].name: np.load(path.with_suffix(".npz"))["x"]}
    (ours,) = gm.InferenceSession(model).run(None, feed)
    (theirs,) = exact_session(tmp_path / "model.onnx").run(None, feed)
    assert ours.dtype == theirs.dtype
    most = 0 if ours.dtype.kind in "iu" else 1e-5 * max(1, np.abs(theirs).max())
    assert np.abs(ours.astype(float) - theirs).max() <= most
