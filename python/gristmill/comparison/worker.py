"""What a fresh process does: measure and tell.

It pins itself to its cores before any engine starts threads, writes lines of JSON to standard output, and ends. What
engines print goes to standard error.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.comparison.agreement import agreement
from gristmill.comparison.engines import ENGINES, Array, Opened
from gristmill.kernels import calibrate, set_isa
from gristmill.timing import interleave

__all__ = ["main"]

_Job = Mapping[str, Any]
_Say = Callable[[Mapping[str, object]], None]


def pin(threads: int) -> bool:
    """Keep this thread, and those that it starts, on the last ``threads`` cores; False where that is not possible."""
    if not hasattr(os, "sched_setaffinity"):
        return False
    cores = sorted(os.sched_getaffinity(0))
    try:
        os.sched_setaffinity(0, set(cores[-threads:]))
    except OSError:
        return False
    return True


def process_status() -> str:
    """What the system tells of this process; empty where it does not."""
    try:
        return Path("/proc/self/status").read_text(encoding="ascii")
    except OSError:
        return ""


def resident_bytes(status: str, field: str) -> int | None:
    """``VmRSS`` or ``VmHWM``.

    Example:
        >>> resident_bytes("VmHWM:  20 kB\\nVmRSS:  10 kB", "VmRSS")
        10240
    """
    found = next((line for line in status.splitlines() if line.startswith(f"{field}:")), None)
    return int(found.split()[1]) * 1024 if found else None


def measure_cold(job: _Job, say: _Say) -> None:
    """Import an engine, open a file and run once; nothing of the kind has happened in this process before."""
    feeds = _arrays(job["inputs"])
    engine = ENGINES[job["engine"]]
    start, status = (job["start"], job["status"]) if job["engine"] == "gristmill" else (None, process_status())
    before = resident_bytes(status, "VmRSS")
    start = time.perf_counter() if start is None else start
    if engine.module is not None:
        importlib.import_module(engine.module)
    imported = time.perf_counter()
    engine.open(job["path"], job["threads"], feeds).run()
    done = time.perf_counter()
    peak = resident_bytes(process_status(), "VmHWM")
    memory = None if peak is None or before is None else peak - before
    say({"import_seconds": imported - start, "cold_seconds": done - imported, "memory_bytes": memory})


def measure_warm(job: _Job, say: _Say) -> None:
    """Open all candidates, let them take turns, and compare their outputs with those of the first."""
    feeds = _arrays(job["inputs"])
    opened: dict[str, Opened] = {}
    for candidate in job["candidates"]:
        name = candidate["name"]
        say({"doing": f"opening {name}", "name": name})
        try:
            one = ENGINES[candidate["engine"]].open(candidate["path"], job["threads"], feeds)
            one.run()
            opened[name] = one
        except Exception as error:  # a peer may raise anything; it becomes a line of the report
            say({"failed": name, "reason": _one_line(error)})
    say({"doing": f"timing {len(opened)} candidates in turns"})
    seconds = job["seconds"] * len(opened)
    timings = interleave({n: o.run for n, o in opened.items()}, seconds=seconds, turn=job["turn"], max_rounds=100_000)
    for name, timing in timings.items():
        say({"timed": name, "timing": dataclasses.asdict(timing)})
    if job["samples"]:
        _compare_outputs(job, opened, say)
    if job["profile"]:
        say({"doing": "measuring what a core can do"})
        bounds = calibrate(seconds=max(job["seconds"], 0.05))
        say({"bounds": {**dataclasses.asdict(bounds), "int8_peak": bounds.int8_peak}})
        for name, one in opened.items():
            if one.step_table is not None:
                say({"doing": f"profiling {name}"})
                say({"profiled": name, "steps": one.step_table()})


def _compare_outputs(job: _Job, opened: Mapping[str, Opened], say: _Say) -> None:
    samples = _arrays(job["samples"])
    size = len(next(iter(_arrays(job["inputs"]).values())))
    total = len(next(iter(samples.values()))) // size * size
    batches = [{n: v[i : i + size] for n, v in samples.items()} for i in range(0, total, size)]
    exact: list[Array] = []
    for name, one in opened.items():
        say({"doing": f"comparing outputs of {name}"})
        rows = [one.outputs(batch) for batch in batches]
        outputs = [np.concatenate([np.atleast_1d(row[i]) for row in rows]) for i in range(len(rows[0]))]
        exact = exact or outputs
        say({"agreed": name, "agreement": dataclasses.asdict(agreement(exact, outputs))})


def _arrays(path: str) -> dict[str, Array]:
    with np.load(path, allow_pickle=False) as stored:
        return {name: np.ascontiguousarray(stored[name]) for name in stored.files}


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"


def main(path: str, start: float, status: str) -> None:
    """Do the job in a file.

    Args:
        path: A JSON document.
        start: When this process began to import gristmill.
        status: What :func:`process_status` told before.
    """
    job: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(line: Mapping[str, object]) -> None:
        answers.write(json.dumps(line) + "\n")
        answers.flush()

    say({"pinned": pin(job["threads"])})
    set_isa(job["isa"])
    if job["kind"] == "cold":
        measure_cold({**job, "start": start, "status": status}, say)
    else:
        measure_warm(job, say)
