"""Prints how quantize and dequantize compare with plain copies, onnxruntime and numpy, and writes JSON.

    python bench/quantize_table.py [large] [small] [--seconds S] [--json FILE]

One thread on one core, best of interleaved rounds, results into arrays that exist. Large arrays are measured against
the better of two copies that move the same bytes, small ones that stay in the second-level cache against peers.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace

import bars
import bench_quantize
from bars import Bar
from gristmill.benchmark.quantize import AXES, OPS, Call, Case, quantize_bars
from gristmill.timing import interleave

_ROUND_SECONDS, _MOST_CALLS = 1e-4, 20


def large_bars(seconds: float) -> list[Bar]:
    """64 Mi elements against the better copy of the same run."""
    return [replace(bar, target=0.85) for bar in quantize_bars(bench_quantize.LARGE, seconds)]


def _repetitions(call: Call) -> int:
    """Return how often to call in a row, so that the caches hold what the candidate uses and not its predecessor.

    Slow candidates are called less often, which leaves time for more rounds of all.
    """
    call()
    start = time.perf_counter()
    call()
    return min(max(int(_ROUND_SECONDS / (time.perf_counter() - start)), 1), _MOST_CALLS)


def _repeated(call: Call, count: int) -> Call:
    def repeat() -> None:
        for _ in range(count):
            call()

    return repeat


def small_bars(seconds: float) -> list[Bar]:
    """64 Ki elements against onnxruntime and numpy; beside each what the copy, called from Python too, would reach."""
    result = []
    targets = {"onnxruntime": 2.0, "numpy": 8.0, "copy": 0.0}
    for op in OPS:
        for name, axis in AXES.items():
            case = Case.random(bench_quantize.SMALL, axis)
            calls = bench_quantize.candidates(case, op)
            del calls["streaming copy"]
            counts = {who: _repetitions(call) for who, call in calls.items()}
            rounds = {who: _repeated(call, counts[who]) for who, call in calls.items()}
            timings = interleave(rounds, seconds=seconds, max_rounds=100_000)
            best = {who: timings[who].best / count for who, count in counts.items()}
            for peer, target in targets.items():
                against = f"{peer} {1e6 * best[peer]:.1f} µs"
                if peer != "copy":
                    against += f" (copy: {best[peer] / best['copy']:.2f})"
                figure = f"{1e6 * best['ours']:.1f} µs"
                result.append(Bar(f"{op} {name}", figure, against, best[peer] / best["ours"], target))
    return result


def main() -> None:
    """Print the tables."""
    parser = bars.argument_parser(__doc__)
    parser.add_argument("tables", nargs="*", choices=["large", "small", []], help="which tables (default: both)")
    parser.add_argument("--seconds", type=float, default=3.0, help="time to spend on each row")
    arguments = parser.parse_args()
    tables = arguments.tables or ["large", "small"]
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    report = bars.Report(arguments.json)
    if "large" in tables:
        report.add("64 Mi elements, one thread", large_bars(arguments.seconds))
    if "small" in tables:
        report.add("64 Ki elements, one thread", small_bars(arguments.seconds))
    report.close()


if __name__ == "__main__":
    main()
