"""The page of a benchmark."""

from __future__ import annotations

from gristmill.benchmark.bars import Bar
from gristmill.benchmark.bars import table as bar_table
from gristmill.benchmark.sparse import break_even
from gristmill.benchmark.suites import TABLES, Benchmark
from gristmill.charts import Bar as Drawn
from gristmill.charts import Content, Level, Section, Series, Tile, bars, notes, page, plot, table, tiles

__all__ = ["benchmark_page"]

_HOW = (
    "One core, pinned, unless threads are named; candidates took turns, and the best round of each counts.",
    "A ratio of 1.00 is exactly the bound: what the same core did in the same run with operands in registers, or by "
    "reading or copying the same bytes. Beside dense layers and one thread it tells how many times as fast.",
)


def benchmark_page(found: Benchmark) -> str:
    """The page."""
    info = found.machine
    sections = [Section("", [_tiles(found)])]
    for name, measured in found.tables.items():
        drawn = _break_even(found) if name == "sparse" else [_ratios(name, measured)]
        sections.append(Section(TABLES[name], [*drawn, table(bar_table("", measured))]))
    sections.append(Section("Notes", [notes([*found.notes, *_HOW])]))
    footer = ", ".join(f"{name} {value}" for name, value in info.items() if name not in {"cpu", "level"})
    lead = f"gristmill bench, level {info['level']}"
    return page(str(info["cpu"]), sections, lead=lead, footer=footer)


def _tiles(found: Benchmark) -> Content:
    bounds = found.bounds
    shown = [
        Tile(f"{bounds.int8_peak:.0f}", "int8 GMAC/s, the bound of a core"),
        Tile(f"{bounds.f32_fmas.best:.0f}", "float32 GMAC/s, the bound of a core"),
        *(Tile(f"{read.gigabytes.best:.0f}", f"GB/s read from {read.memory}") for read in bounds.reads),
    ]
    return tiles(shown)


def _ratios(name: str, measured: list[Bar]) -> Content:
    title = "Times as fast as one thread" if name == "threads" else "Share of the bound: 1.00 is all that there is"
    return bars(title, [Drawn(bar.name, bar.ratio, f"{bar.ratio:.2f}", note=bar.figure) for bar in measured])


def _break_even(found: Benchmark) -> list[Content]:
    series = [Series(name, [(100 * share, ratio) for share, ratio in points]) for name, points in found.curve.items()]
    chart = plot(
        "Times as fast as dense weights of the same type",
        series,
        x_title="zeros, %",
        y_title="times as fast as dense",
        y_log=True,
        levels=[Level(1.0, "as fast as dense")],
    )
    starts = {name: break_even(points) for name, points in found.curve.items()}
    lines = [
        f"{name}: never as fast as dense here" if start is None else f"{name}: pays from {start:.0%} zeros on"
        for name, start in starts.items()
    ]
    return [chart, notes(lines)]
