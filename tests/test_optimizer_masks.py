"""Masks and schedules: what stays, exactly."""

from __future__ import annotations

import numpy as np
import pytest

import gristmill as gm
from gristmill.optimizer.masks import global_cut, keep_best, mask_of, parse_pattern


@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.5, 0.99])
def test_unstructured_keeps_the_largest(sparsity: float) -> None:
    scores = np.random.default_rng(0).random((8, 12))
    mask = mask_of(scores, 1, parse_pattern("unstructured"), sparsity)
    assert mask.sum() == 96 - round(sparsity * 96)
    assert scores[mask].min() > np.max(scores[~mask], initial=-1.0)


@pytest.mark.parametrize("channels", [4, 6, 8, 1])
def test_blocks_run_along_channels_at_one_tap(channels: int) -> None:
    taps = 9
    scores = np.random.default_rng(1).random((5, channels * taps))
    mask = mask_of(scores, taps, parse_pattern("1x4"), 0.5)
    planes = mask.reshape(5, channels, taps)
    sums = scores.reshape(5, channels, taps)
    kept, dropped = [], []
    for start in range(0, channels, 4):
        block = planes[:, start : start + 4]
        assert np.all(block == block[:, :1])
        total = sums[:, start : start + 4].sum(axis=1)
        kept.extend(total[block[:, 0]])
        dropped.extend(total[~block[:, 0]])
    assert min(kept) >= max(dropped)
    assert len(dropped) == round(0.5 * (len(kept) + len(dropped)))


def test_n_of_m_holds_in_every_group() -> None:
    scores = np.random.default_rng(2).random((6, 8 * 3))
    groups = mask_of(scores, 3, parse_pattern("2:4"), 0.9).reshape(6, 2, 4, 3)
    assert np.all(groups.sum(axis=2) == 2)
    ordered = np.sort(scores.reshape(6, 2, 4, 3), axis=2)
    assert np.all(scores.reshape(6, 2, 4, 3)[groups].sum() == ordered[:, :, 2:].sum())


def test_whole_channels_go() -> None:
    scores = np.outer([1.0, 5.0, 3.0, 2.0], np.ones(7))
    assert mask_of(scores, 7, parse_pattern("channel"), 0.5).all(axis=1).tolist() == [False, True, True, False]


def test_equal_scores_fall_to_the_earlier() -> None:
    assert keep_best(np.ones(5), 2).tolist() == [True, True, False, False, False]
    assert not keep_best(np.ones(3), 0).any()


def test_global_cut_lets_layers_compete() -> None:
    shares = global_cut([np.full((2, 5), 3.0), np.full((1, 10), 1.0)], 0.25)
    assert shares == [0.0, 0.5]


@pytest.mark.parametrize("text", ["4:2", "0:4", "blocks", "1x8", "2:4 "])
def test_unknown_patterns_are_refused(text: str) -> None:
    with pytest.raises(gm.ArgumentError, match="pattern"):
        parse_pattern(text)


def test_polynomial_decay_is_the_known_formula() -> None:
    steps = 7
    expected = [0.9 + (0.2 - 0.9) * (1 - t / (steps - 1)) ** 3 for t in range(steps)]
    assert list(gm.PolynomialDecay(0.2, 0.9, steps)) == pytest.approx(expected)
    assert list(gm.PolynomialDecay(0.2, 0.9)) == [0.9]


@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan")])
def test_schedules_refuse_shares_out_of_range(value: float) -> None:
    for make in (lambda: gm.ConstantSparsity(value), lambda: gm.PolynomialDecay(0.0, value)):
        with pytest.raises(gm.ArgumentError, match="below 1"):
            make()
