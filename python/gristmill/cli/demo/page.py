"""The demonstration as a page."""

from __future__ import annotations

import numpy as np

import gristmill
from gristmill import charts
from gristmill.charts import Bar, Html, Section, Tile, element
from gristmill.cli.demo.findings import cost_table, fastest, gain, losses, mistakes, smallest, speed_table
from gristmill.cli.demo.story import BATCHES, Candidate, Float32, Story
from gristmill.cli.demo.text import machine
from gristmill.console import Table, format_bytes, format_seconds

__all__ = ["draw_page"]

_MANY = 24


def draw_page(story: Story) -> str:
    """A page that needs nothing else."""
    best = smallest(story)
    images = ["The result's mistakes come last, marked; under each image what was read.", _gallery(story)]
    sections = [
        Section("", [_headline(story)]),
        Section("What was done", [_steps(story)]),
        Section(
            "Accuracy and size", [charts.table(cost_table(story), best=[story.candidates.index(best)]), _sizes(story)]
        ),
        Section("Speed", [charts.table(speed_table(story)), _times(story)]),
        Section("What does not win, or was lost", [charts.notes([*losses(story), *story.notes])]),
        Section("Images that it has never seen", images),
        Section("Layer by layer", [_layers(story), charts.folded("Time of each step, one image", _profile(story))]),
        Section("Exactness", [_exactness(story)]),
    ]
    footer = (
        f"gristmill {gristmill.__version__} on {machine()}. Times are the best of interleaved rounds; thin lines reach "
        "to the median. Images: Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, UCI Machine "
        "Learning Repository, CC BY 4.0."
    )
    lead = "A trained network, pruned, refitted and quantized in seconds, without labels and without training."
    return charts.page("gristmill demo", sections, lead=lead, footer=footer)


def _headline(story: Story) -> Html:
    dense, best = story.candidates[0], smallest(story)
    right, before = (int(one.answers.correct.sum()) for one in (best, dense))
    low, high = best.answers.interval
    shown = [
        Tile(f"{right} of {len(best.answers.labels)}", "images right", f"{low:.1%} to {high:.1%}; before: {before}"),
        Tile(
            f"{dense.bytes / best.bytes:.1f}×", "smaller", f"{format_bytes(dense.bytes)} to {format_bytes(best.bytes)}"
        ),
    ]
    for batch in BATCHES:
        times = f"{format_seconds(dense.timings[batch].best)} to {format_seconds(best.timings[batch].best)}"
        factor = gain(story, best, batch)
        tone = "best" if factor > 1 else "loss"
        shown.append(Tile(f"{factor:.1f}×", f"faster, {batch} image{'s' * (batch > 1)}", times, tone))
    return charts.tiles(shown)


def _steps(story: Story) -> Html:
    table = Table(["step", "outcome", "time"], align="<<>")
    for step in story.steps:
        table.add(step.verb, step.outcome, format_seconds(step.seconds))
    return charts.table(table)


def _tone(candidate: Candidate, best: Candidate) -> str:
    if candidate is best:
        return "best"
    return "own" if candidate.is_ours else "peer"


def _sizes(story: Story) -> Html:
    least = min(story.candidates, key=lambda one: one.bytes)
    rows = [Bar(one.name, one.bytes, format_bytes(one.bytes), _tone(one, least)) for one in story.candidates]
    return charts.bars("Bytes on disk, shorter is better", rows)


def _times(story: Story) -> Html:
    drawn = []
    for batch in BATCHES:
        rows = [
            Bar(
                one.name,
                one.timings[batch].best * 1e6,
                f"{format_seconds(one.timings[batch].best)}, {gain(story, one, batch):.1f}×",
                _tone(one, fastest(story, batch)),
                one.timings[batch].median * 1e6,
            )
            for one in story.candidates
        ]
        drawn.append(charts.bars(f"Time of a run, {batch} image{'s' * (batch > 1)}, shorter is better", rows))
    return charts.join(*drawn)


def _layers(story: Story) -> Html:
    table = Table(["layer", "weights", "zeros", "type", "bytes", "before", "error", "noise", "why"], align="<<><>>>><")
    for layer in story.report.layers:
        table.add(
            layer.name,
            "×".join(map(str, layer.shape)),
            f"{layer.sparsity:.1%}",
            layer.dtype,
            format_bytes(layer.bytes_after),
            format_bytes(layer.bytes_before),
            "" if layer.error is None else f"{layer.error:.2g}",
            "" if layer.sqnr is None else f"{layer.sqnr:.0f} dB",
            layer.reason,
        )
    return charts.table(table)


def _profile(story: Story) -> Html:
    return charts.table(story.profile.table())


def _exactness(story: Story) -> str:
    same = [level for level, equal in story.levels.items() if equal]
    differ = [level for level, equal in story.levels.items() if not equal]
    if differ:
        return f"The int8 results DIFFER from those of level scalar on: {', '.join(differ)}."
    return f"The int8 results are the same, bit for bit, on every level that runs here: {', '.join(same)}."


def _gallery(story: Story) -> Html:
    best = smallest(story)
    wrong = mistakes(story)[:_MANY]
    right = [int(index) for index in np.flatnonzero(best.answers.correct)[: _MANY - len(wrong)]]
    shown = [_picture(story, best, index) for index in (*right, *wrong)]
    columns = 12
    rows = -(-len(shown) // columns)
    placed = [
        element("g", drawing, transform=f"translate({70 * (i % columns)} {92 * (i // columns)})")
        for i, drawing in enumerate(shown)
    ]
    title = f"What {best.name} reads"
    drawing = element("svg", *placed, viewBox=f"0 0 {70 * columns} {92 * rows}", role="img", aria_label=title)
    return element("figure", element("figcaption", title), drawing)


def _picture(story: Story, candidate: Candidate, index: int) -> Html:
    image: Float32 = story.digits.images[index, 0]
    squares = [
        element("rect", x=7 * x, y=7 * y, width=7.1, height=7.1, fill="currentColor", fill_opacity=round(float(v), 3))
        for (y, x), v in ((position, image[position]) for position in ((y, x) for y in range(8) for x in range(8)))
        if v > 0
    ]
    found, wanted = candidate.answers.predicted[index], candidate.answers.labels[index]
    caption = f"{found}" if found == wanted else f"{found}, is {wanted}"
    tone = "figure best" if found == wanted else "figure loss"
    return charts.join(*squares, element("text", caption, class_=tone, x=28, y=70, text_anchor="middle"))
