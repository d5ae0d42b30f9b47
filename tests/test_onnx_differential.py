"""Random models of one operator each give what ONNX Runtime gives: floats nearly, integers exactly."""

from __future__ import annotations

import numpy as np
import pytest

import gristmill as gm
from onnx_random import MAKERS
from test_onnx_backend import RUNNERS

ort = pytest.importorskip("onnxruntime")

SEEDS = 12
#: ONNX Runtime's vector code computes these in another order of operations, which differs by one quantum in ties.
ONE_QUANTUM = frozenset({"QLinearAdd", "QLinearMul", "QLinearSoftmax"})


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("op", MAKERS)
def test_same_as_onnxruntime(op: str, runner: str) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    for seed in range(SEEDS):
        made, feeds = MAKERS[op](np.random.default_rng(seed))
        session = ort.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
        expected = session.run(None, feeds)
        got = RUNNERS[runner](gm.load(made), feeds)
        for ours, theirs in zip(got, expected, strict=True):
            assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), f"seed {seed}"
            if ours.dtype.kind == "f":
                np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5, err_msg=f"seed {seed}")
            else:
                away = np.abs(ours.astype(np.int64) - theirs.astype(np.int64))
                assert away.max(initial=0) <= (op in ONE_QUANTUM), f"seed {seed}: {made.graph.node[0]}"
