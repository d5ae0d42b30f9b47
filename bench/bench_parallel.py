"""The thread pool: what a parallel section costs, what it gains, and what it burns when there is nothing to do.

Run with ``pytest bench/bench_parallel.py``, or as a program for the table of bars. Scaling is the ratio of sections on
one and on two threads that take turns; it needs two cores with nothing else on them.
"""

from __future__ import annotations

import statistics
import time

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bars import Bar, argument_parser, report
from gristmill import _core, kernels

pytestmark = pytest.mark.threads

_ROUNDS = 2000  # of 12 FMAs: some microseconds per task
_TASKS = 64


def empty_section_seconds(tasks: int = 2) -> float:
    """Return the median cost of a section of empty tasks on two threads, when the pool is hot."""
    seconds: list[float] = _core.bench.time_empty_sections(5000, tasks, 2)
    return statistics.median(seconds)


def meeting_seconds() -> float:
    """Return the median cost of a section in which both of two threads must take part, when the pool is hot.

    The caller of an empty section may be done before the worker has come; here it has to wait for it.
    """
    seconds: list[float] = _core.bench.time_meetings(5000, 2)
    return statistics.median(seconds)


def scaling(rounds: int = _ROUNDS, tasks: int = _TASKS, turns: int = 40) -> float:
    """Return how much faster a compute-bound section is on two threads, by the medians of turns.

    A turn runs several sections in a row, as the layers of a network do; the first may have to wake the worker.
    """
    one: list[float] = []
    two: list[float] = []
    for _ in range(turns):
        one += [_core.bench.time_compute_section(tasks, rounds, 1) for _ in range(4)]
        two += [_core.bench.time_compute_section(tasks, rounds, 2) for _ in range(8)]
    return statistics.median(one) / statistics.median(two)


def idle_seconds() -> float:
    """Return the processor time that the process uses in 200 ms, starting 50 ms after a section."""
    _core.bench.time_compute_section(_TASKS, _ROUNDS, 2)
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.2)
    return time.process_time() - before


needs_two_cores = pytest.mark.skipif(kernels.cpu_info().usable_cores < 2, reason="needs two cores")


@needs_two_cores
@pytest.mark.parametrize("tasks", [2, 64])
def test_empty_section(benchmark: BenchmarkFixture, tasks: int) -> None:
    benchmark.extra_info["median_seconds"] = benchmark(empty_section_seconds, tasks)


@needs_two_cores
def test_meeting(benchmark: BenchmarkFixture) -> None:
    benchmark.extra_info["median_seconds"] = benchmark(meeting_seconds)


@needs_two_cores
@pytest.mark.parametrize("rounds", [200, 2000, 20000])
def test_compute_section(benchmark: BenchmarkFixture, rounds: int) -> None:
    benchmark.extra_info["scaling"] = scaling(rounds, turns=5)
    benchmark(_core.bench.time_compute_section, _TASKS, rounds, 2)


def bars() -> list[Bar]:
    """Measure all figures."""
    time.sleep(0.5)  # numpy's own threads spin for a while after import
    empty, meeting = empty_section_seconds(), meeting_seconds()
    idle = idle_seconds()
    result = [
        Bar("empty section, 2 threads, hot", f"{1e6 * empty:.2f} µs", "3 µs", 3e-6 / empty, 1.0),
        Bar("section in which 2 threads meet, hot", f"{1e6 * meeting:.2f} µs", "3 µs", 3e-6 / meeting, 1.0),
    ]
    for rounds in (200, 2000, 20000):
        single = statistics.median(_core.bench.time_compute_section(_TASKS, rounds, 1) for _ in range(20))
        name = f"compute-bound section of {1e6 * single:.0f} µs, 1 to 2 threads"
        gain = scaling(rounds)
        result.append(Bar(name, f"{gain:.2f}x", "1 thread", gain, 1.85 if rounds > 200 else 0.0))
    result.append(Bar("idle for 200 ms after 50 ms", f"{1e3 * idle:.2f} ms", "2 ms", 2e-3 / max(idle, 1e-9), 1.0))
    return result


def main() -> None:
    """Print the table of bars."""
    arguments = argument_parser(__doc__).parse_args()
    report("Thread pool", bars(), arguments.json)


if __name__ == "__main__":
    main()
