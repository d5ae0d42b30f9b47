"""A comparison while it is measured: jobs for fresh processes, and what they answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from gristmill import kernels
from gristmill.comparison.agreement import Agreement
from gristmill.comparison.candidates import Candidate
from gristmill.comparison.child import run_job
from gristmill.comparison.curve import KINDS
from gristmill.comparison.engines import ENGINES
from gristmill.comparison.result import Comparison, Facts, Measurement, Setting, judged
from gristmill.comparison.samples import Samples, save_arrays
from gristmill.errors import GristmillError
from gristmill.machine import machine
from gristmill.timing import Timing

__all__ = ["Run"]

#: A turn of a quick candidate, in seconds: long enough to find its caches as it left them.
TURN = 0.002


class Run:
    """A comparison on its way.

    Attributes:
        candidates: Those that are still in it.
        notes: What a reader should know; grows.
    """

    def __init__(
        self,
        folder: Path,
        data: Samples,
        seconds: float,
        say: Callable[[str], None],
        candidates: list[Candidate],
        notes: list[str],
    ) -> None:
        """Begin with candidates whose files exist."""
        self.candidates, self.notes = candidates, notes
        self._folder, self._data, self._seconds, self._say = folder, data, seconds, say
        self._facts = {c.name: Facts(c.nbytes, ENGINES[c.engine].version) for c in candidates}
        self._measurements: list[Measurement] = []
        self._bounds: dict[str, Any] = {}
        self._ratios: dict[str, list[tuple[float, float]]] = {}

    def measure(self, setting: Setting) -> None:
        """Time all candidates in one setting; in the first one, also compare outputs and profile layers."""
        first = not self._measurements
        timings = self._warm(self.candidates, setting, first=first)
        self.candidates = [c for c in self.candidates if c.name in timings] if first else self.candidates
        if not timings:
            raise GristmillError(f"nothing could be measured: {self.notes[-1]}")
        self._measurements += judged(self.candidates, setting, timings)

    def _warm(self, candidates: list[Candidate], setting: Setting, *, first: bool) -> dict[str, Timing]:
        """The timings of those candidates that survive, in one process."""
        left = list(candidates)
        while left:
            timings: dict[str, Timing] = {}
            opening: list[str] = []

            def listen(
                line: dict[str, Any], timings: dict[str, Timing] = timings, opening: list[str] = opening
            ) -> None:
                self._heard(line, setting, timings, opening)

            reason = run_job(self._job("warm", setting, left, first=first), self._folder, listen)
            if reason is None:
                return timings
            # The process died: leave out what it was opening, and try again with the others.
            lost = opening[-1] if opening else left[0].name
            self.notes.append(f"{lost} is left out: its process {reason}")
            left = [c for c in left if c.name != lost]
        return {}

    def _heard(self, line: dict[str, Any], setting: Setting, timings: dict[str, Timing], opening: list[str]) -> None:
        if "doing" in line:
            self._say(f"{setting}: {line['doing']}")
            opening += [line["name"]] if "name" in line else []
        elif "failed" in line:
            self.notes.append(f"{line['failed']} is left out at {setting}: {line['reason']}")
        elif "timed" in line:
            timings[line["timed"]] = Timing(**line["timing"])
        elif "agreed" in line:
            self._learn(line["agreed"], agreement=Agreement(**line["agreement"]))
        elif "profiled" in line:
            self._learn(line["profiled"], steps=tuple(line["steps"]))
        elif "bounds" in line:
            self._bounds = line["bounds"]
        elif line.get("pinned") is False:
            note = "This system lets no process choose its cores: times are not pinned."
            self.notes += [note] if note not in self.notes else []

    def _job(self, kind: str, setting: Setting, candidates: list[Candidate], *, first: bool) -> dict[str, Any]:
        return {
            "kind": kind,
            "isa": kernels.get_isa(),
            "threads": setting.threads,
            "seconds": self._seconds,
            "turn": min(TURN, self._seconds / 10),
            "inputs": save_arrays(self._folder / "inputs.npz", self._data.batch(setting.batch)),
            "samples": save_arrays(self._folder / "samples.npz", self._data.judged) if first else None,
            "profile": first,
            "candidates": [{"name": c.name, "engine": c.engine, "path": c.path} for c in candidates],
        }

    def cold_starts(self, count: int) -> None:
        """Open each candidate in that many processes of its own; the best start and the least memory count.

        Ours open once more where nothing is remembered of this machine, as at their first start ever.
        """
        for candidate in self.candidates:
            self._say(f"cold start of {candidate.name}")
            found = [self._cold_start(candidate, cache) for cache in ["cache"] * count]
            starts = [start for start in found if start is not None]
            if not starts:
                continue
            memory = [start["memory_bytes"] for start in starts if start["memory_bytes"] is not None]
            first = self._cold_start(candidate, f"empty {candidate.name}") if candidate.own else None
            self._learn(
                candidate.name,
                import_seconds=min(start["import_seconds"] for start in starts),
                cold_seconds=min(start["cold_seconds"] for start in starts),
                first_seconds=first["cold_seconds"] if first else None,
                memory_bytes=min(memory, default=None),
            )

    def _cold_start(self, candidate: Candidate, cache: str) -> dict[str, Any] | None:
        heard: list[dict[str, Any]] = []
        job = self._job("cold", self._measurements[0].setting, [], first=False)
        job |= {"engine": candidate.engine, "path": candidate.path}
        reason = run_job(job, self._folder, heard.append, cache=cache)
        if reason is None:
            return heard[-1]
        note = f"{candidate.name} has no cold start: its process {reason}"
        self.notes += [note] if note not in self.notes else []
        return None

    def curve(self, forms: list[Candidate]) -> None:
        """Time sparse forms of rising sparsity beside the dense ones."""
        setting = self._measurements[0].setting
        dense = [c for c in self.candidates if c.own and not c.sparsity]
        timings = self._warm([*dense, *forms], setting, first=False)
        base = {c.precision: timings[c.name].best for c in dense if c.name in timings}
        for kind, (precision, pattern) in KINDS.items():
            points = [c for c in forms if (c.precision, c.pattern) == (precision, pattern) and c.name in timings]
            self._ratios[kind] = [(c.sparsity, base[precision] / timings[c.name].best) for c in points]

    def _learn(self, name: str, **found: Any) -> None:  # noqa: ANN401
        if name in self._facts:
            self._facts[name] = replace(self._facts[name], **found)

    def result(self, name: str) -> Comparison:
        """What was found."""
        return Comparison(
            model=name,
            machine=machine(),
            candidates=tuple(self.candidates),
            facts={c.name: self._facts[c.name] for c in self.candidates},
            measurements=tuple(self._measurements),
            notes=tuple(self.notes),
            bounds=self._bounds,
            curve=self._ratios,
        )
