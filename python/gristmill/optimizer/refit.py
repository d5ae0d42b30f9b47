"""Refit: the best values of the weights that a mask leaves, for a least-squares problem.

Per row the survivors S solve ``R_SS v_S = t_S``. Small systems are solved exactly, rows of equal masks together; where
that would cost more than iterating, all rows run conjugate gradients at once, restricted to their masks.
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


def refit(problem: Problem, mask: Mask) -> Array:
    """The scaled weights of least error among those that are zero where the mask is False."""
    counts = mask.sum(axis=1)
    exact = sum(problem.metric.block_cost(int(k)) + 0.7 * float(k) ** 3 for k in counts)
    iterative = len(mask) * problem.metric.apply_cost() * _STEPS
    # Small factorizations run at a fraction of the speed of large products.
    if 3.0 * exact <= iterative:
        return solve_exactly(problem.metric, problem.target, mask)
    return solve_iteratively(problem.metric, problem.target, mask, problem.weights)


def solve_exactly(metric: Metric, target: Array, mask: Mask) -> Array:
    """Solve each group of rows of equal masks by factorization, in float64."""
    result = np.zeros(target.shape, np.float32)
    for rows in _equal_rows(mask):
        chosen = np.flatnonzero(mask[rows[0]])
        if chosen.size:
            sides = target[np.ix_(rows, chosen)].astype(np.float64)
            result[np.ix_(rows, chosen)] = np.linalg.solve(metric.block(chosen), sides.T).T
    return result


def solve_iteratively(metric: Metric, target: Array, mask: Mask, start: Array, tolerance: float = _TOLERANCE) -> Array:
    """Run conjugate gradients on all rows at once, from ``start``, until residuals fall below a share of the target."""
    keep = mask.astype(np.float32)
    x = start * keep
    residual = (target - metric.apply(x)) * keep
    direction = residual.copy()
    square = _dot(residual, residual)
    goal = tolerance**2 * _dot(target * keep, target)
    for _ in range(_STEPS):
        if np.all(square <= goal):
            break
        moved = metric.apply(direction) * keep
        length = _ratio(square, _dot(direction, moved))
        x += length * direction
        residual -= length * moved
        following = _dot(residual, residual)
        direction = residual + _ratio(following, square) * direction
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
    ratio = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return ratio.astype(np.float32)[:, None]
