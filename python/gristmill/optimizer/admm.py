"""Mask search by alternating directions (ADMM): between the best weights and the nearest ones that fit the pattern.

In scaled coordinates ``W`` minimizes the layer's error plus its distance to ``Z - U``, ``Z`` is the projection of
``W + U`` on the pattern, and ``U`` adds up what they disagree on. Sparsity grows along a cubic schedule, so early
choices can be taken back. An iteration is one product with a fixed inverse. The weights that come with the mask are
close to its refit, which therefore starts from them.
"""

from __future__ import annotations

import numpy as np

from gristmill.graph import Array
from gristmill.optimizer.masks import Mask, Pattern, mask_of
from gristmill.optimizer.metric import Problem

__all__ = ["search_mask"]

_STEPS, _RAMP, _PENALTY = 20, 15, 1.0


def search_mask(
    problem: Problem, taps: int, pattern: Pattern, sparsity: float, steps: int = _STEPS
) -> tuple[Mask, Array]:
    """The mask on which alternating directions settle, and the scaled weights that they have come to, all of them.

    Args:
        problem: The layer's least-squares problem.
        taps: Weights per input channel.
        pattern: What stays together.
        sparsity: Share of the weights to drop.
        steps: Iterations; the sparsity is reached after three quarters of them.
    """
    inverse = problem.metric.shifted_inverse(_PENALTY)
    base = inverse(problem.target)
    weights = problem.weights
    # Arrays of the layer's size are used again: fresh ones would cost as much as the arithmetic on them.
    gap, fitted, scratch = (np.zeros_like(weights) for _ in range(3))
    ramp = max(1, steps * _RAMP // _STEPS)
    mask = np.ones(weights.shape, np.bool_)
    for step in range(steps):
        share = sparsity * (1.0 - (1.0 - min(step + 1, ramp) / ramp) ** 3)
        wanted = np.add(weights, gap, out=gap)
        mask = mask_of(np.square(wanted, out=scratch), taps, pattern, share)
        np.multiply(wanted, mask, out=fitted)
        np.subtract(wanted, fitted, out=gap)
        weights = inverse(np.subtract(fitted, gap, out=scratch))
        weights *= _PENALTY
        weights += base
    return mask, weights
