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
