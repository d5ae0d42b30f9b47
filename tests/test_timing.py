from __future__ import annotations

import time

from gristmill.timing import Timing, interleave


def test_candidates_take_turns() -> None:
    calls: list[str] = []
    timings = interleave(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, seconds=0.0, min_rounds=3, max_rounds=3
    )
    assert calls == ["a", "b"] * 4  # one warm-up round and three timed ones
    assert timings["a"].rounds == 3


def test_best_is_not_above_median_and_measures_the_call() -> None:
    timing = interleave({"sleep": lambda: time.sleep(0.002)}, seconds=0.02)["sleep"]
    assert 0.002 <= timing.best <= timing.median
    assert timing.spread >= 0


def test_time_limit_ends_the_rounds() -> None:
    assert interleave({"sleep": lambda: time.sleep(0.01)}, seconds=0.0, min_rounds=2)["sleep"].rounds == 2


def test_spread_of_nothing_is_zero() -> None:
    assert Timing(0.0, 0.0, 1).spread == 0.0
