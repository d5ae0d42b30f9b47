"""Schedules: how sparsity grows over the steps of pruning that is done in stages."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gristmill.errors import ArgumentError

__all__ = ["ConstantSparsity", "PolynomialDecay", "check_sparsity"]


def check_sparsity(value: float, what: str = "sparsity") -> float:
    """The value, if it is a share in [0, 1).

    Raises:
        ArgumentError: It is not.
    """
    if not 0.0 <= value < 1.0:
        raise ArgumentError(f"must be at least 0 and below 1, got {value!r}", node=what)
    return float(value)


@dataclass(frozen=True)
class ConstantSparsity:
    """The target from the first step on.

    Example:
        >>> list(ConstantSparsity(0.5, steps=2))
        [0.5, 0.5]
    """

    target_sparsity: float
    steps: int = 1

    def __post_init__(self) -> None:
        check_sparsity(self.target_sparsity)
        _check_steps(self.steps)

    def __iter__(self) -> Iterator[float]:
        return iter([self.target_sparsity] * self.steps)


@dataclass(frozen=True)
class PolynomialDecay:
    """Fast at first and slower toward the end: ``s(t) = final + (initial - final) * (1 - t)**power``.

    ``t`` goes from 0 at the first step to 1 at the last; with one step the target is met at once.

    Example:
        >>> [round(s, 3) for s in PolynomialDecay(0.0, 0.8, steps=5)]
        [0.0, 0.463, 0.7, 0.788, 0.8]
    """

    initial_sparsity: float
    final_sparsity: float
    steps: int = 1
    power: float = 3.0

    def __post_init__(self) -> None:
        check_sparsity(self.initial_sparsity, "initial_sparsity")
        check_sparsity(self.final_sparsity, "final_sparsity")
        _check_steps(self.steps)
        if not self.power > 0:
            raise ArgumentError(f"must be above 0, got {self.power!r}", node="power")

    def __iter__(self) -> Iterator[float]:
        for step in range(self.steps):
            left = 1.0 - step / (self.steps - 1) if self.steps > 1 else 0.0
            yield self.final_sparsity + (self.initial_sparsity - self.final_sparsity) * left**self.power


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise ArgumentError(f"must be at least 1, got {steps!r}", node="steps")
