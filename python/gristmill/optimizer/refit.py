"""Refit: the best values of the weights that a mask leaves, for a least-squares problem.

Per row the survivors S solve ``R_SS v_S = t_S``. Small systems are solved exactly, rows of equal masks together; where
that would cost more than iterating, rows run conjugate gradients at once, restricted to their masks. Each of those
steps lowers the error by a known amount, so they end where they are no longer worth their time: early, if they start
from weights that a search for masks has already moved to where they belong.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gristmill.graph import Array
from gristmill.optimizer.masks import Mask
from gristmill.optimizer.metric import Metric, Problem

__all__ = ["refit", "solve_exactly", "solve_iteratively"]

_STEPS = 40
_TOLERANCE = 1e-3
#: The part of a row's error that a step has to take away, in the mean over the rows, for another one to be made.
_PROGRESS = 0.003
#: Errors below this part of a row's power are rounding.
_NEGLIGIBLE = 1e-6


def refit(problem: Problem, mask: Mask, start: Array | None = None, progress: float = _PROGRESS) -> Array:
    """The scaled weights of least error among those that are zero where the mask is False.

    Args:
        problem: The layer's least-squares problem.
        mask: What may differ from zero.
        start: Where to iterate from; the original weights by default.
        progress: As :func:`solve_iteratively` takes it.
    """
    counts = mask.sum(axis=1)
    exact = np.array([problem.metric.block_cost(int(k)) + 0.7 * float(k) ** 3 for k in counts])
    # Small factorizations run at a fraction of the speed of large products.
    cheap = 3.0 * exact <= problem.metric.apply_cost() * _STEPS
    result = np.zeros(mask.shape, np.float32)
    if cheap.any():
        result[cheap] = solve_exactly(problem.metric, problem.target[cheap], mask[cheap])
    if not cheap.all():
        others = problem.rows(~cheap)
        first = None if start is None else start[~cheap]
        result[~cheap] = solve_iteratively(others, mask[~cheap], first, progress=progress)
    return result


def solve_exactly(metric: Metric, target: Array, mask: Mask) -> Array:
    """Solve each group of rows of equal masks by factorization, in float64."""
    result = np.zeros(target.shape, np.float32)
    for rows in _equal_rows(mask):
        chosen = np.flatnonzero(mask[rows[0]])
        if chosen.size:
            sides = target[np.ix_(rows, chosen)].astype(np.float64)
            result[np.ix_(rows, chosen)] = np.linalg.solve(metric.block(chosen), sides.T).T
    return result


def solve_iteratively(
    problem: Problem,
    mask: Mask,
    start: Array | None = None,
    tolerance: float = _TOLERANCE,
    progress: float = _PROGRESS,
) -> Array:
    """Run conjugate gradients on all rows at once.

    Args:
        problem: The layer's least-squares problem.
        mask: What may differ from zero.
        start: Where to begin; the original weights by default.
        tolerance: Share of the target that residuals have to fall below.
        progress: End as well when a step lowers the rows' errors by less than this part of them, in the mean.
    """
    metric, target = problem.metric, problem.target
    keep = mask.astype(np.float32)
    x = (problem.weights if start is None else start) * keep
    residual = (target - metric.apply(x)) * keep
    direction = residual.copy()
    square = _dot(residual, residual)
    goal = tolerance**2 * _dot(target * keep, target)
    error = problem.power - _dot(x, target) - _dot(x, residual)
    for _ in range(_STEPS):
        if np.all(square <= goal):
            break
        moved = metric.apply(direction) * keep
        length = _ratio(square, _dot(direction, moved))
        drop = length * square
        error -= drop
        scaled = length.astype(np.float32)[:, None]
        x += scaled * direction
        if np.mean(drop / np.maximum(error, _NEGLIGIBLE * problem.power + 1e-300)) < progress:
            break
        residual -= scaled * moved
        following = _dot(residual, residual)
        direction *= _ratio(following, square).astype(np.float32)[:, None]
        direction += residual
        square = following
    return x


def _equal_rows(mask: Mask) -> Iterator[Array]:
    packed = np.packbits(mask, axis=1)
    _, group = np.unique(packed, axis=0, return_inverse=True)
    order = np.argsort(group.reshape(-1), kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(group.reshape(-1)[order])) + 1)


def _dot(a: Array, b: Array) -> Array:
    return np.asarray(np.einsum("ij,ij->i", a, b, dtype=np.float64))


def _ratio(above: Array, below: Array) -> Array:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)
