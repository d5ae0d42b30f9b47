"""The network that the package carries, with images to calibrate and to judge it: for demonstrations and examples.

``data/digits.npz`` holds a convolution network for handwritten digits (four convolutions with normalization, 149
thousand weights in bfloat16 precision) and the images that it was trained and judged on. ``bench/train_digits.py``
trains it and writes the file.

The images are the *Optical Recognition of Handwritten Digits* of E. Alpaydin and C. Kaynak (UCI Machine Learning
Repository, 1998, https://doi.org/10.24432/C50P49), the 1797 of the original test set as scikit-learn has them, under
CC BY 4.0; shuffled, split at random (so that most writers are on both sides) and stored anew, otherwise unchanged.
"""

from __future__ import annotations

from importlib import resources
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gristmill.graph import Array, GraphBuilder
from gristmill.model import Model

__all__ = ["Digits", "load_digits"]

Float32 = npt.NDArray[np.float32]

_BRIGHTEST = 16


class Digits(NamedTuple):
    """A trained network with its data.

    Attributes:
        model: Takes float32 images of (n, 1, 8, 8) from 0 to 1, gives ten scores for each.
        images: 800 images that the network was not trained on.
        labels: Their digits.
        calibration: The 997 images that it was trained on.
    """

    model: Model
    images: Float32
    labels: npt.NDArray[np.int64]
    calibration: Float32


def load_digits() -> Digits:
    """Return the network and its images; nothing is downloaded.

    Example:
        >>> model, images, labels, calibration = load_digits()
        >>> images.shape, labels[:5].tolist(), calibration.shape
        ((800, 1, 8, 8), [6, 6, 6, 2, 5], (997, 1, 8, 8))
    """
    with (resources.files("gristmill") / "data" / "digits.npz").open("rb") as file, np.load(file) as stored:
        arrays = {name: stored[name] for name in stored.files}
    images, calibration = (_pixels(arrays[name]) for name in ("images", "calibration"))
    return Digits(_network(arrays), images, arrays["labels"].astype(np.int64), calibration)


def _pixels(images: Array) -> Float32:
    return np.asarray(images[:, None] / np.float32(_BRIGHTEST), np.float32)


def _network(arrays: dict[str, Array]) -> Model:
    build = GraphBuilder()
    x = build.input("image", np.float32, ("n", 1, 8, 8))
    for index in range(sum(name.startswith("conv") for name in arrays)):
        weight = arrays[f"conv{index}.weight"]
        edge = weight.shape[-1] // 2
        x = build.add("Conv", [x, build.constant(f"conv{index}.weight", weight)], name=f"conv{index}", pads=(edge,) * 4)
        learned = (f"norm{index}.{part}" for part in ("scale", "bias", "mean", "variance"))
        x = build.add("BatchNormalization", [x, *(build.constant(name, arrays[name]) for name in learned)])
        x = build.add("Relu", [x])
    x = build.add("Flatten", [build.add("GlobalAveragePool", [x])])
    head = [build.constant(f"head.{part}", arrays[f"head.{part}"]) for part in ("weight", "bias")]
    return Model(build.build([build.add("Gemm", [x, *head], name="head", transB=1)]), format="embedded")
