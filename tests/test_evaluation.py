"""Accuracy, its intervals, and comparisons on the same samples."""

from __future__ import annotations

import math

import numpy as np
import pytest

import gristmill as gm
from gristmill.evaluation import Comparison
from gristmill.graph import GraphBuilder
from small_nets import conv_net, images


def _counts(right: int, wrong: int) -> gm.Evaluation:
    labels = np.zeros(right + wrong, np.int64)
    return gm.Evaluation(labels, (np.arange(right + wrong) >= right).astype(np.int64), np.ones(right + wrong))


def test_the_interval_is_wilsons() -> None:
    low, high = _counts(80, 20).interval
    assert (low, high) == pytest.approx((0.7112, 0.8666), abs=1e-4)
    assert _counts(0, 10).interval[0] == 0.0
    assert _counts(10, 0).interval[1] == 1.0


def test_the_paired_test_is_mcnemars() -> None:
    won, lost = 3, 12
    expected = 2 * sum(math.comb(15, k) for k in range(4)) / 2**15
    assert Comparison(0.5, 0.6, won, lost, 100).p_value == pytest.approx(expected)
    assert Comparison(0.5, 0.5, 0, 0, 100).p_value == 1.0
    assert Comparison(0.9, 0.8, 5000, 4000, 100000).p_value < 1e-20


def test_models_are_compared_on_the_same_samples() -> None:
    model, x = gm.Model(conv_net()), images(100)
    labels = gm.InferenceSession(model).run(None, {"x": x})[0].argmax(axis=1)
    exact, pruned = (gm.evaluate(m, x, labels) for m in (model, gm.prune(model, 0.9)))
    compared = pruned.against(exact)
    assert exact.accuracy == 1.0
    assert compared.won == 0
    assert compared.gain == pytest.approx(pruned.accuracy - 1.0)
    assert compared.interval[0] < compared.gain < compared.interval[1]
    assert np.all((exact.confidence > 0.1) & (exact.confidence <= 1.0))
    with pytest.raises(gm.ShapeError, match="different samples"):
        exact.against(gm.evaluate(model, x[:50], labels[:50]))


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (np.zeros(3, np.int64), gm.ShapeError, "one for each of 4"),
        (np.full(4, 10), gm.ArgumentError, "between 0 and 9, got 10"),
        (np.full(4, -1), gm.ArgumentError, "between 0 and 9"),
        (np.zeros(4), gm.DTypeError, "integers"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: np.ndarray, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        gm.evaluate(gm.Model(conv_net()), images(4), labels)


def test_models_that_are_no_classifiers_are_refused() -> None:
    builder = GraphBuilder()
    model = gm.Model(builder.build([builder.add("Relu", [builder.input("x", np.float32, ("n", 3, 10, 10))])]))
    with pytest.raises(gm.ShapeError, match="a number for each class"):
        gm.evaluate(model, images(4), [0, 0, 0, 0])
