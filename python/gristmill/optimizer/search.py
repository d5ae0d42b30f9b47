"""Search: the highest sparsity whose loss stays within a budget, found by bisection on evaluated networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from gristmill.errors import ArgumentError

__all__ = ["Found", "Tried", "loss_bound", "loss_interval", "search_sparsity"]

Outcome = TypeVar("Outcome")

#: One-sided and two-sided 95 % of a normal distribution.
_ONE_SIDED, _TWO_SIDED = 1.645, 1.960


@dataclass(frozen=True)
class Tried:
    """One network that a search has made: its sparsity, mean score, bound of its loss, and whether that is accepted."""

    sparsity: float
    score: float
    loss: float
    accepted: bool


@dataclass(frozen=True)
class Found(Generic[Outcome]):
    """What a search ended with.

    Attributes:
        sparsity: Of the outcome.
        outcome: The best one inside the budget.
        trials: Every point evaluated.
    """

    sparsity: float
    outcome: Outcome
    trials: list[Tried] = field(default_factory=list)


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
    mean, error = _loss(before, after)
    return mean + _ONE_SIDED * error


def loss_interval(before: npt.ArrayLike, after: npt.ArrayLike) -> tuple[float, float, float]:
    """The mean loss and its two-sided 95 % interval; of two single scores the interval is their difference alone.

    Raises:
        ArgumentError: Scores are NaN, infinite or differ in number.

    Example:
        >>> loss_interval([1, 1, 1, 0], [1, 0, 1, 0])
        (0.25, -0.24, 0.74)
    """
    mean, error = _loss(before, after)
    return mean, mean - _TWO_SIDED * error, mean + _TWO_SIDED * error


def _loss(before: npt.ArrayLike, after: npt.ArrayLike) -> tuple[float, float]:
    """Mean loss and its standard error, both networks judged on the same samples."""
    first, second = np.asarray(before, np.float64), np.asarray(after, np.float64)
    if first.shape != second.shape or not first.size:
        raise ArgumentError(f"gave scores of shapes {first.shape} and {second.shape}", node="evaluate")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ArgumentError("gave NaN or infinite scores", node="evaluate")
    loss = (first - second).reshape(-1)
    error = loss.std(ddof=1) / np.sqrt(loss.size) if loss.size > 1 else 0.0
    return float(loss.mean()), float(error)


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
    if trials < 1:
        raise ArgumentError(f"must be at least 1, got {trials!r}", node="trials")
    tried: list[Tried] = []

    def judge(share: float) -> Outcome | None:
        outcome, score = attempt(share)
        loss = loss_bound(reference, score)
        tried.append(Tried(share, _mean(score), loss, loss <= max_drop))
        return outcome if loss <= max_drop else None

    best = judge(low)
    if best is None:
        reached = f"{_mean(reference):.4f} -> {tried[0].score:.4f}, at most {tried[0].loss:.4f} lost"
        raise ArgumentError(
            f"{max_drop:g} cannot be promised: best reachable is {reached} at {low:.0%} sparsity; allow more, score "
            "more samples, or leave layers in float32 (quantize=None, ignore=...)",
            node="max_drop",
        )
    for _ in range(trials - 1):
        middle = (low + high) / 2
        outcome = judge(middle)
        low, high, best = (low, middle, best) if outcome is None else (middle, high, outcome)
    return Found(low, best, tried)


def _mean(score: npt.ArrayLike) -> float:
    return float(np.mean(np.asarray(score, np.float64)))
