"""Exact greedy pruning (optimal brain surgeon): drop one weight at a time, each time the one that costs least.

Dropping weight j of a row costs ``w_j^2 / P_jj``, where P is the inverse of the metric over the weights still there.
The others then move to make up for it, and P loses row and column j. Every row is pruned to the end, and the cheapest
drops over all rows are carried out. Cubic in the columns for each row: for small layers.
"""

from __future__ import annotations

import numpy as np

from gristmill.graph import Array
from gristmill.optimizer.masks import Mask, keep_best
from gristmill.optimizer.metric import Problem

__all__ = ["affordable", "greedy_mask"]

_LARGEST = 4e9


def affordable(shape: tuple[int, ...]) -> bool:
    """Whether a layer of this shape is small enough."""
    rows, columns = shape
    return float(rows) * columns**3 <= _LARGEST


def greedy_mask(problem: Problem, sparsity: float) -> Mask:
    """The mask of the cheapest drops."""
    rows, columns = problem.weights.shape
    everything = np.arange(columns)
    inverse = np.linalg.inv(problem.metric.block(everything))
    dense = problem.target.astype(np.float64) @ inverse
    cost, order = np.empty((rows, columns)), np.empty((rows, columns), np.int64)
    for row in range(rows):
        cost[row], order[row] = _drop_all(dense[row].copy(), inverse.copy())
    # Costs along a row never fall, as far as the choice over rows is concerned: a drop needs those before it.
    reached = np.maximum.accumulate(cost, axis=1)
    kept = keep_best(reached.reshape(-1), reached.size - round(sparsity * reached.size)).reshape(rows, columns)
    dropped = columns - kept.sum(axis=1)
    mask = np.ones((rows, columns), np.bool_)
    for row in range(rows):
        mask[row, order[row, : dropped[row]]] = False
    return mask


def _drop_all(weights: Array, inverse: Array) -> tuple[Array, Array]:
    """Costs and indices of the drops of one row, in order."""
    columns = len(weights)
    cost, order = np.empty(columns), np.empty(columns, np.int64)
    alive = np.ones(columns, np.bool_)
    for step in range(columns):
        diagonal = np.maximum(inverse.diagonal(), 1e-12)
        price = np.where(alive, weights**2 / diagonal, np.inf)
        j = int(np.argmin(price))
        cost[step], order[step] = price[j], j
        alive[j] = False
        column = inverse[:, j] / diagonal[j]
        weights -= weights[j] * column
        weights[j] = 0.0
        inverse -= np.outer(column, inverse[j])
        inverse[j] = inverse[:, j] = 0.0
    return cost, order
