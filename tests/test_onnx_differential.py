"""Random models of one operator each give what ONNX Runtime gives: floats nearly, integers exactly.

``GRISTMILL_FUZZ_MODELS=2000`` makes that many models, spread over the operators, instead of a few of each.
"""

from __future__ import annotations

import os

import numpy as np
import pytest

import gristmill as gm
from onnx_random import MAKERS
from onnxruntime_peer import exact_session
from test_onnx_backend import RUNNERS

SEEDS = -(-int(os.environ.get("GRISTMILL_FUZZ_MODELS", 6 * len(MAKERS))) // len(MAKERS))


@pytest.mark.parametrize("op", MAKERS)
def test_same_as_onnxruntime(op: str) -> None:
    for seed in range(SEEDS):
        made, feeds = MAKERS[op](np.random.default_rng(seed))
        peer = exact_session(made)
        expected, model = peer.run(None, feeds), gm.load(made)
        for runner, run in RUNNERS.items():
            for ours, theirs in zip(run(model, feeds), expected, strict=True):
                where = f"{runner}, seed {seed}: {made.graph.node[0]}"
                assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), where
                if ours.dtype.kind == "f":
                    np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5, err_msg=where)
                else:
                    np.testing.assert_array_equal(ours, theirs, err_msg=where)


def test_how_many_models_there_were_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n{SEEDS * len(MAKERS)} random models of {len(MAKERS)} operators compared with ONNX Runtime")
