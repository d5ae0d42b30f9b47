"""Fair timing on a machine that drifts: candidates take turns, and the best round of each counts.

A processor changes its clock and shares its memory with neighbours, so two figures taken a minute apart do not
compare. Here every candidate runs once per round, A B C A B C ..., and figures of one call are only ever compared with
each other.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Seconds per call over all rounds.

    Attributes:
        best: The fastest round: what the code can do when nothing disturbs it.
        median: The round in the middle: what to expect.
        rounds: How many calls were timed.
    """

    best: float
    median: float
    rounds: int

    @property
    def spread(self) -> float:
        """How far the median lies above the best, as a fraction: large on a disturbed machine."""
        return self.median / self.best - 1.0 if self.best > 0 else 0.0


def interleave(
    candidates: Mapping[str, Callable[[], object]],
    *,
    seconds: float = 1.0,
    min_rounds: int = 5,
    max_rounds: int = 1000,
    turn: float = 0.0,
) -> dict[str, Timing]:
    """Time the candidates in turns for about ``seconds`` in all, after one call of each to warm up.

    Args:
        candidates: Functions without arguments, by name.
        seconds: Time to spend; ``min_rounds`` are run however long they take.
        min_rounds: Fewest rounds.
        max_rounds: Most rounds.
        turn: How long a candidate's turn lasts at least. One that is quicker runs again and again, each call timed but
            the first, which finds the caches full of what others used.

    Returns:
        The timing of each candidate, in the order given.

    Example:
        >>> timings = interleave({"sum": lambda: sum(range(100)), "max": lambda: max(range(100))}, seconds=0.01)
        >>> list(timings), timings["sum"].rounds >= 5
        (['sum', 'max'], True)
    """
    for call in candidates.values():
        call()
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    clock = time.perf_counter
    end = clock() + seconds
    for done in range(max_rounds):
        if done >= min_rounds and clock() >= end:
            break
        for name, call in candidates.items():
            taken = samples[name]
            if taken and taken[-1] < turn:
                call()
            turn_end = clock() + turn
            stop = 0.0
            while stop < turn_end:
                start = clock()
                call()
                stop = clock()
                taken.append(stop - start)
    return {name: Timing(min(taken), statistics.median(taken), len(taken)) for name, taken in samples.items()}
