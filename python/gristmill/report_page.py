"""Report pages: what the optimizer did and what layers can lose, as one HTML file each with plots and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gristmill.charts import Bar, Html, Level, Section, Series, Tile, bars, notes, page, plot, table, tiles
from gristmill.console import Table, format_bytes
from gristmill.report import LayerReport, Report, Trial

if TYPE_CHECKING:
    from gristmill.optimizer.sensitivity import Sensitivity

__all__ = ["report_page", "sensitivity_page"]


def report_page(report: Report) -> str:
    """The page of a report."""
    sections = [Section("", [tiles(_tiles(report))])]
    if report.notes:
        sections.append(Section("Decisions", [notes(report.notes)]))
    if report.trials:
        sections.append(Section("Search", [*_search_plots(report), table(_trials(report))]))
    sections.append(Section("Layers", [*_layer_bars(report), table(report.table())]))
    return page("What became of the model", sections, lead=". ".join(report.summary()))


def sensitivity_page(found: Sensitivity) -> str:
    """The page of a sensitivity analysis."""
    scale = 1.0 if found.dense is None else 100.0
    lines = [
        Series(name, [(100 * level, scale * value) for level, value in row.items()]) for name, row in found.items()
    ]
    dense = [] if found.dense is None else [Level(100 * found.dense, "dense")]
    unit = "SNR of the answers, dB" if found.dense is None else "accuracy, %"
    shown = plot(found.title, lines, x_title="zeros in the layer, %", y_title=unit, levels=dense)
    lead = "Each line is a layer that was pruned alone; the lower it falls, the more the model depends on it."
    return page("What layers can lose", [Section("", [shown, table(found.table())])], lead=lead)


def _tiles(report: Report) -> list[Tile]:
    part = report.bytes_after / report.bytes_before if report.bytes_before else 1.0
    sizes = f"{format_bytes(report.bytes_before)} before"
    found = [
        Tile(f"{report.sparsity:.1%}", "zeros", f"in {len(report.layers)} layers"),
        Tile(format_bytes(report.bytes_after), "layers as stored", f"{sizes}, {part:.1%} are left"),
    ]
    if (whole := report.whole) is not None:
        runs = f"{whole.ms_before:.3f} ms before, {whole.isa}, {whole.threads} thread{'s' * (whole.threads != 1)}"
        found += [
            Tile(f"{whole.speedup:.1f}×", "speed of a run", runs, "best" if whole.speedup >= 1 else "loss"),
            Tile(f"{whole.ms_after:.3f} ms", "a run", whole.inputs),
            Tile(format_bytes(whole.file_after), "file", f"{format_bytes(whole.file_before)} before"),
            Tile(format_bytes(whole.memory_after), "memory", f"{format_bytes(whole.memory_before)} before"),
        ]
    return found


def _search_plots(report: Report) -> list[Html]:
    """How much was lost at which size, and at which latency."""
    before = report.score_before or 0.0

    def drawn(title: str, x_title: str, points: list[tuple[float, Trial]]) -> Html:
        series = []
        for name, kept, tone in (("inside the budget", True, "best"), ("beyond it", False, "loss")):
            chosen = [(x, trial) for x, trial in points if trial.accepted is kept]
            where = [(x, before - trial.score) for x, trial in chosen]
            labels = [f"{trial.sparsity:.0%}: {trial.score:.4f}" for _, trial in chosen]
            series.append(Series(name, where, joined=False, labels=labels, tone=tone))
        return plot(title, series, x_title=x_title, y_title=f"loss of score (original: {before:.4f})")

    sizes = [(trial.bytes / 1024, trial) for trial in report.trials]
    times = [(trial.ms, trial) for trial in report.trials if trial.ms is not None]
    plots = [drawn("Loss against size, lower left is better", "layers as stored, KiB", sizes)]
    if times:
        plots.append(drawn("Loss against latency, lower left is better", "a run, ms", times))
    return plots


def _trials(report: Report) -> Table:
    shown = Table(["sparsity", "score", "loss at most", "bytes", "ms", ""], align=">>>>><")
    for one in report.trials:
        time = "" if one.ms is None else f"{one.ms:.3f}"
        verdict = "inside the budget" if one.accepted else "beyond it"
        figures = f"{one.sparsity:.1%}", f"{one.score:.4f}", f"{one.loss:.4f}", format_bytes(one.bytes), time
        shown.add(*figures, verdict)
    return shown


def _layer_bars(report: Report) -> list[Html]:
    def pair(layer: LayerReport, before: float, after: float, text: tuple[str, str]) -> list[Bar]:
        note = f"{layer.name}: {text[0]} before, {text[1]} now"
        return [Bar("before", before, text[0], "peer", note=note), Bar("now", after, text[1], "own", note=note)]

    sizes = {
        layer.name: pair(
            layer,
            layer.bytes_before,
            layer.bytes_after,
            (format_bytes(layer.bytes_before), format_bytes(layer.bytes_after)),
        )
        for layer in report.layers
    }
    times = {
        layer.name: pair(
            layer, layer.ms_before, layer.ms_after, (f"{layer.ms_before:.4f} ms", f"{layer.ms_after:.4f} ms")
        )
        for layer in report.layers
        if layer.ms_before is not None and layer.ms_after is not None
    }
    zeros = [Bar(layer.name, 100 * layer.sparsity, f"{layer.sparsity:.1%}") for layer in report.layers]
    found = [bars("Zeros of each layer", zeros), bars("Bytes of each layer as stored, shorter is better", sizes)]
    return [*found, bars("Milliseconds of each layer, shorter is better", times)] if times else found
