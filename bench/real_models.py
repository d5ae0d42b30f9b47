"""Trained models with labelled data, from the folder that ``GRISTMILL_REAL_DATA`` names.

Each comes with inputs to calibrate on that none of its test samples are among. Where a model has no training set, some
of its test samples are set aside for that, the same in every run, and the others are judged on.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import gristmill as gm

Array = npt.NDArray[Any]

_CALIBRATION = 2048


@dataclass(frozen=True, eq=False)
class RealModel:
    """One model.

    Attributes:
        name: A short one.
        model: As loaded.
        calibration: Inputs to calibrate on.
        inputs: Inputs to judge on.
        labels: Their classes.
        split: Where both come from.
        fresh: More inputs that are neither calibrated nor judged on; may be empty.
    """

    name: str
    model: gm.Model
    calibration: Array
    inputs: Array
    labels: Array
    split: str
    fresh: Array

    @functools.cached_property
    def dense(self) -> gm.Evaluation:
        """How good it is as it came."""
        return self.judge(self.model)

    def judge(self, made: gm.Model) -> gm.Evaluation:
        """How good a model made of it is."""
        return gm.evaluate(made, self.inputs, self.labels)

    def smaller(self, calibration: int, judged: int) -> RealModel:
        """The same with fewer samples, at most."""
        if judged >= len(self.inputs) and calibration >= len(self.calibration):
            return self
        inputs, labels = self.inputs[:judged], self.labels[:judged]
        split = f"the first {calibration} of {self.split}, of which {len(inputs)} are used"
        return replace(self, calibration=self.calibration[:calibration], inputs=inputs, labels=labels, split=split)


def folder() -> Path:
    """Where the data is; leaves the program if it is not there."""
    if "GRISTMILL_REAL_DATA" not in os.environ:
        sys.exit("GRISTMILL_REAL_DATA names no folder with trained models; nothing is measured")
    return Path(os.environ["GRISTMILL_REAL_DATA"])


def _fashion(file: str, shape: tuple[int, ...]) -> RealModel:
    data = np.load(folder() / "fashion_mnist.npz")
    order = np.random.default_rng(0).permutation(len(data["x_train"]))[: 2 * _CALIBRATION]
    train = _unit(data["x_train"][order], shape)
    return RealModel(
        Path(file).stem,
        gm.load(folder() / file),
        train[:_CALIBRATION],
        _unit(data["x_test"], shape),
        data["y_test"],
        f"{_CALIBRATION} training images; judged on all {len(data['y_test'])} test images",
        train[_CALIBRATION:],
    )


def _unit(pixels: Array, shape: tuple[int, ...]) -> Array:
    return np.asarray(pixels / np.float32(255), np.float32).reshape(-1, *shape)


def _set_aside(file: str, inputs: Array, labels: Array, count: int) -> RealModel:
    order = np.random.default_rng(0).permutation(len(inputs))
    ours, theirs = order[:count], np.sort(order[count:])
    split = f"{count} of {len(inputs)} test samples, labels unused; judged on the other {len(theirs)}"
    model = gm.load(folder() / file)
    return RealModel(Path(file).stem, model, inputs[ours], inputs[theirs], labels[theirs], split, inputs[:0])


def _keywords() -> RealModel:
    data = np.load(folder() / "kws_1000.npz")
    return _set_aside("kws_dscnn.onnx", data["x"].reshape(-1, 49, 10, 1).astype(np.float32), data["y"], 256)


def _digits() -> RealModel:
    data = np.load(folder() / "mnist_test.npz")
    return _set_aside("mnist_cntk.onnx", data["x"].reshape(-1, 1, 28, 28).astype(np.float32), data["y"], 512)


def _photos() -> RealModel:
    degraded, lossless = (np.load(folder() / f"cifar10_{kind}.npz") for kind in ("jpeg_a", "test_lossless"))
    new = ~_have_twins(lossless["x"], degraded["x"])
    inputs = _normalized(np.concatenate([degraded["x"], lossless["x"][new]]))
    return _set_aside("cifar10_resnet20.onnx", inputs, np.concatenate([degraded["y"], lossless["y"][new]]), 1024)


def _have_twins(images: Array, others: Array) -> npt.NDArray[np.bool_]:
    """Whether another set holds the same image, degraded or not."""
    first, second = (_directions(pixels) for pixels in (images, others))
    return np.asarray((first @ second.T).max(axis=1) > 0.97)


def _directions(pixels: Array) -> Array:
    flat = pixels.reshape(len(pixels), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    return np.asarray(flat / np.linalg.norm(flat, axis=1, keepdims=True))


def _normalized(pixels: Array) -> Array:
    scaled = (pixels / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2).astype(np.float32))


_MODELS: dict[str, Callable[[], RealModel]] = {
    "fashion_cnn_50mb": lambda: _fashion("fashion_cnn_50mb.onnx", (1, 28, 28)),
    "fashion_cnn": lambda: _fashion("fashion_cnn.h5", (28, 28, 1)),
    "kws_dscnn": _keywords,
    "cifar10_resnet20": _photos,
    "mnist_cntk": _digits,
}


@functools.cache
def real_model(name: str) -> RealModel:
    """A model by name."""
    return _MODELS[name]()


def real_models() -> list[RealModel]:
    """All of them."""
    return [real_model(name) for name in _MODELS]
