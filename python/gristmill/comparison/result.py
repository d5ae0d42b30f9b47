"""What a comparison found: as Python objects, tables, JSON, CSV and a page."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from gristmill.comparison.agreement import Agreement
from gristmill.comparison.candidates import Candidate
from gristmill.console import Cell, Console, Table, format_bytes, format_seconds
from gristmill.timing import Timing

__all__ = ["Comparison", "Facts", "Measurement", "Setting"]

SCHEMA = 1
#: Ratios this close to 1 are neither a win nor a loss.
TIE = 0.02


@dataclass(frozen=True, order=True)
class Setting:
    """Under which conditions a time was taken."""

    batch: int
    threads: int

    def __str__(self) -> str:
        return f"batch {self.batch}, {self.threads} thread{'s' * (self.threads > 1)}"


@dataclass(frozen=True)
class Facts:
    """What is known of a candidate beside its times; None where it could not be measured.

    Attributes:
        nbytes: Its file's size.
        version: Its engine's version.
        agreement: Its outputs against those of the first candidate.
        import_seconds: Importing the engine in a fresh process.
        cold_seconds: Opening the file and running once, after that.
        first_seconds: The same where nothing is remembered of this machine, so that kernels are timed; ours only.
        memory_bytes: How much the peak of that process's memory lay above what Python and numpy take.
        steps: Its layers' time and work, if the engine is ours.
    """

    nbytes: int
    version: str = ""
    agreement: Agreement | None = None
    import_seconds: float | None = None
    cold_seconds: float | None = None
    first_seconds: float | None = None
    memory_bytes: int | None = None
    steps: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Measurement:
    """The time of one candidate in one setting; only times of the same setting compare.

    Attributes:
        candidate: Its name.
        setting: Batch and threads.
        timing: Seconds of a run.
        against: The fastest peer of the same precision in that setting; empty if there is none, or for peers.
        ratio: How many times as fast as that peer; None if there is none.
        fastest: Whether nothing was faster in that setting.
    """

    candidate: str
    setting: Setting
    timing: Timing
    against: str = ""
    ratio: float | None = None
    fastest: bool = False


@dataclass(frozen=True)
class Comparison:
    """The result of :func:`gristmill.compare`; printing it shows its tables.

    Attributes:
        model: What was compared.
        machine: Processor, level, versions.
        candidates: In the order measured.
        facts: Of each candidate.
        measurements: Of each candidate in each setting.
        notes: What was left out and why, and what a reader should know.
        bounds: What a core can do, as of :func:`gristmill.kernels.calibrate`; empty if it was not measured.
        curve: For each kind of sparse form, (part of zeros, times as fast as the dense form of that precision).
    """

    model: str
    machine: Mapping[str, object]
    candidates: tuple[Candidate, ...]
    facts: Mapping[str, Facts]
    measurements: tuple[Measurement, ...]
    notes: tuple[str, ...] = ()
    bounds: Mapping[str, Any] = field(default_factory=dict)
    curve: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)

    @property
    def settings(self) -> list[Setting]:
        """In the order measured."""
        return list(dict.fromkeys(m.setting for m in self.measurements))

    def at(self, setting: Setting) -> list[Measurement]:
        """The measurements of one setting."""
        return [m for m in self.measurements if m.setting == setting]

    def winner(self, setting: Setting | None = None) -> Measurement:
        """The fastest in a setting, by default the first one."""
        return next(m for m in self.at(setting or self.settings[0]) if m.fastest)

    def candidate(self, name: str) -> Candidate:
        """A candidate by name."""
        return next(c for c in self.candidates if c.name == name)

    def speed_table(self, setting: Setting) -> Table:
        """The times of one setting."""
        table = Table(["candidate", "minimum", "median", "spread", "vs peer", ""], title=str(setting), align="<>>>><")
        for one in self.at(setting):
            own = self.candidate(one.candidate).own
            verdict, style = _verdict(one)
            table.add(
                Cell(one.candidate, "" if own else "dim"),
                Cell(format_seconds(one.timing.best), "bold green" if one.fastest else ""),
                format_seconds(one.timing.median),
                f"{one.timing.spread:.0%}",
                Cell("" if one.ratio is None else f"{one.ratio:.2f}×", style),
                Cell(verdict, style),
            )
        return table

    def facts_table(self) -> Table:
        """Sizes, agreement, cold start and memory."""
        first = self.facts[self.candidates[0].name].nbytes
        columns = ["candidate", "on disk", "of first", "top-1", "SNR", "first start", "cold start", "memory"]
        table = Table(columns, title="Size, agreement with the first, cold start and memory in a fresh process")
        for candidate in self.candidates:
            facts = self.facts[candidate.name]
            found = facts.agreement
            top1 = "" if found is None or found.top1 is None else f"{found.top1:.1%}"
            snr = "" if found is None else "equal" if found.snr is None else f"{found.snr:.0f} dB"
            table.add(
                Cell(candidate.name, "" if candidate.own else "dim"),
                format_bytes(facts.nbytes),
                f"{facts.nbytes / first:.1%}",
                top1,
                snr,
                "" if facts.first_seconds is None else format_seconds(facts.first_seconds),
                "" if facts.cold_seconds is None else format_seconds(facts.cold_seconds),
                "" if facts.memory_bytes is None else format_bytes(facts.memory_bytes),
            )
        return table

    def show(self, console: Console) -> None:
        """Print tables and notes."""
        console.print(Cell(f"{self.model}", "bold"))
        console.print(f"{self.machine['cpu']}, level {self.machine['level']}, gristmill {self.machine['gristmill']}")
        for setting in self.settings:
            console.print()
            console.print(self.speed_table(setting))
        console.print()
        console.print(self.facts_table())
        console.print()
        for note in self.notes:
            console.print(note)

    def __str__(self) -> str:
        text = io.StringIO()
        self.show(Console(text))
        return text.getvalue().rstrip("\n")

    def document(self) -> dict[str, object]:
        """Everything, for JSON."""
        candidates = [
            {"name": c.name, "engine": c.engine, "precision": c.precision, "sparsity": c.sparsity, "pattern": c.pattern}
            | asdict(self.facts[c.name])
            for c in self.candidates
        ]
        measurements = [
            {"candidate": m.candidate, **asdict(m.setting), **asdict(m.timing), "spread": m.timing.spread}
            | {"against": m.against, "ratio": m.ratio, "fastest": m.fastest}
            for m in self.measurements
        ]
        return {
            "schema": SCHEMA,
            "model": self.model,
            "machine": dict(self.machine),
            "candidates": candidates,
            "measurements": measurements,
            "curve": {name: [list(point) for point in points] for name, points in self.curve.items()},
            "bounds": dict(self.bounds),
            "notes": list(self.notes),
        }

    def json(self) -> str:
        """A JSON document."""
        return json.dumps(self.document(), indent=2)

    def csv(self) -> str:
        """A row for each candidate in each setting, times in seconds."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        columns = ["candidate", "engine", "precision", "sparsity", "pattern", "batch", "threads", "best", "median"]
        columns += ["spread", "ratio", "fastest", "bytes", "top1", "snr_db", "cold_seconds", "memory_bytes"]
        writer.writerow(columns)
        for m in self.measurements:
            c, facts = self.candidate(m.candidate), self.facts[m.candidate]
            found = facts.agreement
            judged = (None, None) if found is None else (found.top1, found.snr)
            row = [c.name, c.engine, c.precision, c.sparsity, c.pattern, m.setting.batch, m.setting.threads]
            row += [m.timing.best, m.timing.median, m.timing.spread, m.ratio, int(m.fastest), facts.nbytes]
            writer.writerow([*row, *judged, facts.cold_seconds, facts.memory_bytes])
        return text.getvalue()

    def html(self) -> str:
        """A page that needs nothing else, with tables and charts."""
        from gristmill.comparison.report import comparison_page

        return comparison_page(self)


def judged(candidates: Sequence[Candidate], setting: Setting, timings: Mapping[str, Timing]) -> list[Measurement]:
    """Times of one setting, with who is fastest and how ours compare with the fastest peer of the same precision."""
    best = min(timings.values(), key=lambda timing: timing.best).best if timings else 0.0
    result = []
    for one in candidates:
        if one.name not in timings:
            continue
        timing = timings[one.name]
        peers = [c.name for c in candidates if not c.own and c.precision == one.precision and c.name in timings]
        rival = min(peers, key=lambda name: timings[name].best) if one.own and peers else ""
        ratio = timings[rival].best / timing.best if rival else None
        result.append(Measurement(one.name, setting, timing, rival, ratio, timing.best == best))
    return result


def _verdict(one: Measurement) -> tuple[str, str]:
    """What to say of a measurement, and its style."""
    if one.ratio is None:
        return ("fastest", "bold green") if one.fastest else ("", "")
    if one.fastest:
        return "fastest", "bold green"
    if one.ratio < 1 - TIE:
        return f"slower than {one.against}", "red"
    if one.ratio < 1 + TIE:
        return f"as fast as {one.against}", ""
    return f"faster than {one.against}", "green"
