"""Least squares behind pruning, against numpy's own solver and brute force."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gristmill.optimizer import statistics
from gristmill.optimizer.admm import search_mask
from gristmill.optimizer.masks import mask_of, parse_pattern
from gristmill.optimizer.metric import DenseMetric, LowRankMetric, Problem
from gristmill.optimizer.obs import greedy_mask
from gristmill.optimizer.refit import refit, solve_exactly, solve_iteratively
from gristmill.optimizer.statistics import Statistics, best_shrinkage

Array = npt.NDArray[Any]
_ANY = parse_pattern("unstructured")


def _inputs(count: int, columns: int, seed: int = 0) -> Array:
    """Correlated inputs with means that differ from zero, one of them dead."""
    rng = np.random.default_rng(seed)
    hidden = max(3, columns // 5)
    mixed = rng.standard_normal((count, hidden)) @ np.random.default_rng(99).standard_normal((hidden, columns))
    mixed = np.maximum(mixed + 0.3 * rng.standard_normal((count, columns)) + 0.4, 0.0)
    mixed[:, columns // 2] = 0.0
    return mixed.astype(np.float32)


def _weights(rows: int, columns: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)


def _statistics(weights: Array, x: Array, z: Array | None = None, size: int = 100) -> Statistics:
    found = Statistics(weights)
    for start in range(0, len(x), size):
        part = x[start : start + size]
        found.add(part, part if z is None else z[start : start + size])
    return found


def test_refit_is_the_least_squares_solution() -> None:
    x = _inputs(900, 24)
    z = np.maximum(x + 0.1 * _inputs(900, 24, seed=5), 0.0).astype(np.float32)
    weights = _weights(6, 24)
    found = _statistics(weights, x, z)
    problem = found.problem(shrinkage=0.0)
    mask = mask_of(weights**2, 1, _ANY, 0.6)
    fitted = refit(problem, mask) / problem.scale
    y = (x - x.mean(axis=0)).astype(np.float64) @ weights.T
    for row in range(6):
        chosen = np.flatnonzero(mask[row] & (z.std(axis=0) > 0))
        centred = (z - z.mean(axis=0))[:, chosen].astype(np.float64)
        expected = np.linalg.lstsq(centred, y[:, row], rcond=None)[0]
        np.testing.assert_allclose(fitted[row, chosen], expected, rtol=2e-3, atol=2e-4)
    assert not fitted[~mask].any()
    shifted = z @ fitted.T + found.bias_shift(fitted)
    np.testing.assert_allclose(shifted.mean(axis=0), (x @ weights.T).mean(axis=0), atol=1e-4)


def test_error_is_what_the_outputs_show() -> None:
    x, weights = _inputs(500, 16), _weights(4, 16)
    problem = _statistics(weights, x).problem(shrinkage=0.0)
    pruned = problem.weights * mask_of(weights**2, 1, _ANY, 0.5)
    gap = (x - x.mean(axis=0)).astype(np.float64) @ (weights - pruned / problem.scale).T
    np.testing.assert_allclose(problem.error(pruned), np.square(gap).mean(axis=0), rtol=1e-3)


def test_statistics_do_not_depend_on_the_batches() -> None:
    x, weights = _inputs(640, 20), _weights(5, 20)
    one, many = (_statistics(weights, x, size=size).problem() for size in (640, 32))
    np.testing.assert_allclose(one.target, many.target, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(one.scale, many.scale, rtol=1e-5)


def test_both_metrics_are_the_same_matrix() -> None:
    samples = np.random.default_rng(3).standard_normal((40, 15)).astype(np.float32)
    rows = np.random.default_rng(4).standard_normal((3, 15)).astype(np.float32)
    dense, low = DenseMetric(samples.T @ samples / 40, 0.2), LowRankMetric(samples, 0.2)
    np.testing.assert_allclose(low.apply(rows), dense.apply(rows), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(low.shifted_inverse(0.7)(rows), dense.shifted_inverse(0.7)(rows), rtol=1e-4, atol=1e-5)
    chosen = np.array([1, 4, 14])
    np.testing.assert_allclose(low.block(chosen), dense.block(chosen), rtol=1e-5, atol=1e-6)


def test_iterations_reach_the_exact_solution() -> None:
    problem = _statistics(_weights(8, 30), _inputs(800, 30)).problem(shrinkage=0.05)
    mask = mask_of(problem.weights**2, 1, _ANY, 0.5)
    mask[0] = False
    exact = solve_exactly(problem.metric, problem.target, mask)
    near = solve_iteratively(problem, mask, tolerance=1e-6, progress=0.0)
    np.testing.assert_allclose(near, exact, atol=1e-3)
    assert not near[0].any()


@pytest.mark.parametrize("pattern", ["unstructured", "1x4"])
@pytest.mark.parametrize("sparsity", [0.5, 0.8])
def test_searched_masks_beat_magnitude_and_refit_beats_none(pattern: str, sparsity: float) -> None:
    problem = _statistics(_weights(16, 64), _inputs(3000, 64)).problem()
    kind = parse_pattern(pattern)
    magnitude = mask_of(problem.weights**2, 1, kind, sparsity)
    searched, start = search_mask(problem, 1, kind, sparsity)
    assert searched.sum() == magnitude.sum()
    plain = problem.error(problem.weights * magnitude).sum()
    refitted = problem.error(refit(problem, magnitude)).sum()
    best = problem.error(refit(problem, searched, start)).sum()
    assert best < refitted < 0.7 * plain


def test_greedy_pruning_is_near_the_best_of_all_masks() -> None:
    problem = _statistics(_weights(1, 8), _inputs(400, 8)).problem(shrinkage=0.02)
    errors = []
    for chosen in combinations(range(8), 4):
        mask = np.zeros((1, 8), np.bool_)
        mask[0, list(chosen)] = True
        errors.append(float(problem.error(solve_exactly(problem.metric, problem.target, mask)).sum()))
    mask = greedy_mask(problem, 0.5)
    assert mask.sum() == 4
    found = float(problem.error(solve_exactly(problem.metric, problem.target, mask)).sum())
    assert found <= sorted(errors)[3]


def _held_out(problem: Problem, mask: Array, weights: Array, x: Array) -> float:
    """Relative error on inputs that the problem has not seen."""
    fitted = refit(problem, mask) / problem.scale
    centred = x - x.mean(axis=0)
    return float(np.square(centred @ (weights - fitted).T).sum() / np.square(centred @ weights.T).sum())


def test_wide_layers_do_not_overfit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "_WIDE", 200)
    rng = np.random.default_rng(7)
    factors = rng.standard_normal((24, 600)).astype(np.float32)

    def draw(count: int) -> Array:
        hidden = rng.standard_normal((count, 24)).astype(np.float32)
        return np.maximum(hidden @ factors / 5 + 0.5 * rng.standard_normal((count, 600)).astype(np.float32), 0.0)

    x, fresh, weights = draw(256), draw(2000), _weights(20, 600)
    gathered = _statistics(weights, x)
    chosen, bare = gathered.problem(), gathered.problem(shrinkage=1e-4)
    assert isinstance(chosen.metric, LowRankMetric)
    mask = mask_of(chosen.weights**2, 1, _ANY, 0.5)
    ours = _held_out(chosen, mask, weights, fresh)
    plain = chosen.weights * mask / chosen.scale
    centred = fresh - fresh.mean(axis=0)
    untouched = float(np.square(centred @ (weights - plain).T).sum() / np.square(centred @ weights.T).sum())
    assert ours < untouched
    assert ours < 0.8 * _held_out(bare, mask, weights, fresh)


def test_shrinkage_grows_as_samples_get_fewer() -> None:
    weights = _weights(8, 300)

    def chosen(count: int) -> float:
        z = _inputs(count, 300, seed=count)
        z = (z - z.mean(axis=0)) / np.maximum(z.std(axis=0), 0.1)
        return best_shrinkage(z, z @ weights.T, weights)

    assert chosen(40) > chosen(6000)
