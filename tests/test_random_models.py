"""Random models in onnxruntime and here. ``GRISTMILL_RANDOM_MODELS=2000`` asks for more of them."""

from __future__ import annotations

import os

import numpy as np
import pytest

import gristmill as gm

pytest.importorskip("onnx")

from onnxruntime_peer import exact_session
from random_models import Array, RandomModel

COUNT = int(os.environ.get("GRISTMILL_RANDOM_MODELS", "150"))
CHUNK = 25


def both(model: RandomModel, seed: int) -> list[tuple[Array, Array]]:
    """The outputs of a session here and of one of onnxruntime."""
    x = np.random.default_rng(seed).standard_normal(model.input_shape).astype(np.float32)
    data = model.model().SerializeToString()
    theirs = exact_session(data).run(None, {"x": x})
    return list(zip(gm.InferenceSession(data).run(None, {"x": x}), theirs, strict=True))


@pytest.mark.parametrize("start", range(0, COUNT, CHUNK))
def test_random_float_models_agree(start: int) -> None:
    for seed in range(start, start + CHUNK):
        for ours, theirs in both(RandomModel(seed), seed):
            scale = max(1.0, float(np.abs(theirs).max(initial=0)))
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * scale, err_msg=f"seed {seed}")


@pytest.mark.parametrize("start", range(0, COUNT, CHUNK))
def test_random_int8_models_agree(start: int) -> None:
    for seed in range(start, start + CHUNK):
        for ours, theirs in both(RandomModel(seed, int8=True), seed):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6, err_msg=f"seed {seed}")
