"""Search: the highest sparsity whose loss stays within a budget, found by bisection on evaluated networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from gristmill.errors import ArgumentError

__all__ = ["Found", "loss_bound", "search_sparsity"]

Outcome = TypeVar("Outcome")

#: One-sided 95 % of a normal distribution.
_CONFIDENCE = 1.645


@dataclass(frozen=True)
class Found(Generic[Outcome]):
    """What a search ended with.

    Attributes:
        sparsity: Of the outcome.
        outcome: The best one inside the budget.
        trials: Sparsity and mean score of every point evaluated.
    """

    sparsity: float
    outcome: Outcome
    trials: list[tuple[float, float]] = field(default_factory=list)


def loss_bound(before: npt.ArrayLike, after: npt.ArrayLike) -> float:
    """How much lower scores have become, at most.

    With one score per sample this is the upper end of a one-sided 95 % interval of the mean loss, both networks judged
    on the same samples. Of two single scores it is their difference.

    Raises:
        ArgumentError: Scores are NaN, infinite or differ in number.

    Example:
        >>> round(loss_bound(0.92, 0.915), 4)
        0.005
    """
    first, second = np.asarray(before, np.float64), np.asarray(after, np.float64)
    if first.shape != second.shape or not first.size:
        raise ArgumentError(f"gave scores of shapes {first.shape} and {second.shape}", node="evaluate")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ArgumentError("gave NaN or infinite scores", node="evaluate")
    loss = (first - second).reshape(-1)
    margin = _CONFIDENCE * loss.std(ddof=1) / np.sqrt(loss.size) if loss.size > 1 else 0.0
    return float(loss.mean() + margin)


def search_sparsity(
    attempt: Callable[[float], tuple[Outcome, npt.ArrayLike]],
    reference: npt.ArrayLike,
    max_drop: float,
    *,
    low: float = 0.0,
    high: float = 0.98,
    trials: int = 7,
) -> Found[Outcome]:
    """Bisect for the highest sparsity whose loss is at most ``max_drop``.

    Args:
        attempt: Makes a network of a sparsity; returns it with its score, or its score per sample.
        reference: Score of the original.
        max_drop: The budget.
        low: The least sparsity worth having; it is tried first.
        high: The most.
        trials: How many networks to make, at least 1.

    Raises:
        ArgumentError: Even ``low`` breaks the budget; the message tells what it reaches.
    """
    if not 0.0 <= max_drop < 1.0:
        raise ArgumentError(f"must be at least 0 and below 1, got {max_drop!r}", node="max_drop")
    outcome, score = attempt(low)
    tried = [(low, _mean(score))]
    if (lost := loss_bound(reference, score)) > max_drop:
        reached = f"{_mean(reference):.4f} -> {_mean(score):.4f}, at most {lost:.4f} lost"
        raise ArgumentError(
            f"{max_drop:g} cannot be promised: best reachable is {reached} at {low:.0%} sparsity", node="max_drop"
        )
    best = low
    for _ in range(trials - 1):
        middle = (low + high) / 2
        given, score = attempt(middle)
        tried.append((middle, _mean(score)))
        if loss_bound(reference, score) <= max_drop:
            low = best = middle
            outcome = given
        else:
            high = middle
    return Found(best, outcome, tried)


def _mean(score: npt.ArrayLike) -> float:
    return float(np.mean(np.asarray(score, np.float64)))
