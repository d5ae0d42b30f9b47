"""The page of a comparison."""

from __future__ import annotations

from gristmill.charts import (
    Bar,
    Content,
    Level,
    Section,
    Series,
    Tile,
    bars,
    folded,
    notes,
    page,
    plot,
    roofline,
    table,
    tiles,
)
from gristmill.comparison.result import TIE, Comparison, Measurement, Setting
from gristmill.console import format_bytes, format_seconds

__all__ = ["comparison_page"]

#: Fewer answers than this that agree are a loss.
_FEW = 0.95
_METHOD = (
    "Fresh processes, pinned to as many cores as there are threads, measured; in each, all candidates took turns. "
    "A turn of a quick one is many runs of which the first does not count.",
    "Compare minima: the median shows how disturbed the machine was. Only figures of one table compare.",
    "“vs peer” is against the fastest engine of the same precision, which runs the dense model, since none gains from "
    "zeros. Every engine computes float32 in float32.",
    "The first start on a machine also times the kernels of sparse layers; later ones find what was measured. "
    "A cold start is opening the file and the first run, in a fresh process, the engine already imported; memory is "
    "what the peak of that process lay above Python and numpy, the engine's own code included.",
)


def comparison_page(found: Comparison) -> str:
    """The page."""
    machine = found.machine
    lead = f"gristmill compare on {machine['cpu']}, level {machine['level']}"
    sections = [
        Section("", [_tiles(found)]),
        Section("Latency", _latency(found)),
        Section("Size, agreement, cold start, memory", [_sizes(found), table(found.facts_table())]),
    ]
    if any(found.curve.values()):
        sections.append(Section("Where zeros begin to pay", _break_even(found)))
    if found.bounds:
        sections.append(Section("What one core can do, and what the layers reach", _roofline(found)))
    sections.append(Section("Notes", [notes(found.notes), folded("How this was measured", notes(_METHOD))]))
    footer = ", ".join(f"{name} {value}" for name, value in machine.items() if name not in {"cpu", "level"})
    engines = {c.engine: found.facts[c.name].version for c in found.candidates if not c.own}
    footer = ", ".join([footer, *(f"{name} {version}".rstrip() for name, version in engines.items())])
    return page(found.model, sections, lead=lead, footer=footer)


def _tiles(found: Comparison) -> Content:
    setting = found.settings[0]
    own = [m for m in found.at(setting) if found.candidate(m.candidate).own]
    peers = [m for m in found.at(setting) if not found.candidate(m.candidate).own]
    best, first = min(own, key=lambda m: m.timing.best), own[0]
    shown = [_against(best, peers, setting)] if peers else []
    ratio = first.timing.best / best.timing.best
    shown.append(Tile(f"{ratio:.2f}×", f"{best.candidate}, as fast as dense f32", _times(best, first)))
    small = min((c for c in found.candidates if c.own), key=lambda c: found.facts[c.name].nbytes)
    sizes = [found.facts[name].nbytes for name in (small.name, first.candidate)]
    shown.append(Tile(f"{sizes[0] / sizes[1]:.0%}", "of the bytes", f"{small.name}: {format_bytes(sizes[0])}"))
    agreed = found.facts[best.candidate].agreement
    if agreed is not None:
        text = f"{agreed.top1:.1%}" if agreed.top1 is not None else str(agreed)
        label = "of the answers agree" if agreed.top1 is not None else "agreement"
        tone = "loss" if agreed.top1 is not None and agreed.top1 < _FEW else ""
        shown.append(Tile(text, label, f"{best.candidate}, {agreed.samples} samples", tone))
    return tiles(shown)


def _against(best: Measurement, peers: list[Measurement], setting: Setting) -> Tile:
    rival = min(peers, key=lambda m: m.timing.best)
    ratio = rival.timing.best / best.timing.best
    tone = "best" if ratio > 1 + TIE else "loss" if ratio < 1 - TIE else ""
    label = f"as fast as {rival.candidate}, the fastest peer"
    return Tile(f"{ratio:.2f}×", label, f"{_times(best, rival)}, {setting}", tone)


def _times(one: Measurement, other: Measurement) -> str:
    return f"{format_seconds(one.timing.best)} against {format_seconds(other.timing.best)}"


def _latency(found: Comparison) -> list[Content]:
    content: list[Content] = []
    for setting in found.settings:
        rows = found.at(setting)
        best = [i for i, m in enumerate(rows) if m.fastest]
        drawn = [
            Bar(
                m.candidate,
                m.timing.best,
                f"{format_seconds(m.timing.best)}{' fastest' if m.fastest else ''}",
                "best" if m.fastest else "own" if found.candidate(m.candidate).own else "peer",
                m.timing.median,
                f"{m.candidate}: minimum {format_seconds(m.timing.best)}, median {format_seconds(m.timing.median)}",
            )
            for m in rows
        ]
        title = f"One run at {setting}: minimum, thin line to the median; shorter is better"
        content += [bars(title, drawn), table(found.speed_table(setting), best=best)]
    return content


def _sizes(found: Comparison) -> Content:
    sizes = {c.name: found.facts[c.name].nbytes for c in found.candidates}
    least = min(sizes.values())
    drawn = [
        Bar(
            c.name,
            sizes[c.name],
            format_bytes(sizes[c.name]),
            "best" if sizes[c.name] == least else "own" if c.own else "peer",
        )
        for c in found.candidates
    ]
    return bars("The model's file; shorter is better", drawn)


def _break_even(found: Comparison) -> list[Content]:
    series = [Series(kind, [(100 * share, ratio) for share, ratio in points]) for kind, points in found.curve.items()]
    setting = found.settings[0]
    levels = [Level(1.0, "as fast as dense")]
    peers = [m for m in found.at(setting) if not found.candidate(m.candidate).own]
    dense = {found.candidate(m.candidate).precision: m for m in found.at(setting) if not _sparse(found, m)}
    for precision in ("int8", "f32"):
        rivals = [m for m in peers if found.candidate(m.candidate).precision == precision]
        if rivals and precision in dense:
            rival = min(rivals, key=lambda m: m.timing.best)
            ratio = dense[precision].timing.best / rival.timing.best
            levels.append(Level(ratio, f"{rival.candidate}, against our dense {precision}"))
    title = f"The whole model at {setting}: times as fast as the dense model of that precision"
    chart = plot(title, series, x_title="zeros, %", y_title="times as fast as dense", y_log=True, levels=levels)
    text = "The same share of zeros in every layer, by magnitude; the session takes the faster kernel for each layer."
    return [chart, text]


def _sparse(found: Comparison, m: Measurement) -> bool:
    candidate = found.candidate(m.candidate)
    return candidate.sparsity > 0 or not candidate.own


def _roofline(found: Comparison) -> list[Content]:
    bounds = found.bounds
    peaks = {"int8": bounds["int8_peak"], "float32": bounds["f32_fmas"]["best"]}
    reads = {read["memory"]: read["gigabytes"]["best"] for read in bounds["reads"]}
    series = []
    for c in found.candidates:
        steps = [s for s in found.facts[c.name].steps if s["macs"] and s["seconds"] and s["bytes"]]
        if not steps or (c.sparsity and c.sparsity != max(o.sparsity for o in found.candidates)):
            continue
        points = [(_executed(s) / s["bytes"], _executed(s) / s["seconds"] / 1e9) for s in steps]
        few = len(steps) <= 8
        labels = [f"{s['name']} ({s['kernel']})" for s in steps] if not few else [s["name"] for s in steps]
        series.append(Series(c.name.removeprefix("gristmill "), points, joined=False, labels=labels if few else ()))
    chart = roofline(f"Each layer at {found.settings[0]}", series, peaks=peaks, bandwidths=reads)
    text = (
        "Multiplications by nonzero weights that were done, over the least bytes that a layer moves: input, nonzero "
        "weights and output. A sparse layer below a dense one may still be faster: it has less to do."
    )
    return [chart, text]


def _executed(step: object) -> float:
    assert isinstance(step, dict)
    return float(step["macs"]) * (1.0 - float(step["zeros"]))
