"""What follows from the measurements: intervals, gains, losses, in words that tables and pages share."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from gristmill.cli.demo.story import BATCHES, Candidate, Story
from gristmill.console import Cell, Table, format_bytes, format_seconds

__all__ = ["cost_table", "fastest", "losses", "mistakes", "smallest", "speed_table", "story_document"]

#: A difference below this share is not called one.
_NOTABLE = 1.03


def fastest(story: Story, batch: int) -> Candidate:
    """The candidate with the best time."""
    return min(story.candidates, key=lambda one: one.timings[batch].best)


def smallest(story: Story) -> Candidate:
    """The result of it all: int8 and sparse."""
    return next(one for one in story.candidates if one.is_ours and one.sparsity and one.dtype == "int8")


def mistakes(story: Story) -> list[int]:
    """The held-out images that the result gets wrong."""
    return [int(index) for index in np.flatnonzero(~smallest(story).answers.correct)]


def gain(story: Story, candidate: Candidate, batch: int) -> float:
    """How much faster than dense float32 a candidate is, by best times."""
    return story.candidates[0].timings[batch].best / candidate.timings[batch].best


def cost_table(story: Story) -> Table:
    """What each candidate gets right, and its bytes."""
    count = len(story.digits.labels)
    table = Table(["network", "images right", "accuracy", "95% interval", "on disk", "of dense"], title="What is kept")
    least = min(one.bytes for one in story.candidates)
    for one in story.candidates:
        right = int(one.answers.correct.sum())
        low, high = one.answers.interval
        size = Cell(format_bytes(one.bytes), "bold green" if one.bytes == least else "")
        share = f"{one.bytes / story.candidates[0].bytes:.0%}"
        spread = f"{low:.1%} to {high:.1%}"
        table.add(one.name, f"{right} of {count}", f"{right / count:.2%}", spread, size, share)
    return table


def speed_table(story: Story) -> Table:
    """The times of each candidate, the best of each batch marked."""
    heads = [head for batch in BATCHES for head in (_images(batch), "median", "gain")]
    cores = "one thread" if story.threads == 1 else f"{story.threads} threads"
    table = Table(["network", *heads], title=f"Time of a run on {cores}: the best, the median, the gain over the first")
    for one in story.candidates:
        cells: list[Cell | str] = []
        for batch in BATCHES:
            style = "bold green" if one is fastest(story, batch) else ""
            timing = one.timings[batch]
            cells += [Cell(format_seconds(timing.best), style), Cell(format_seconds(timing.median), "dim")]
            cells.append(Cell(f"{gain(story, one, batch):.1f}×", style))
        table.add(one.name, *cells)
    return table


def losses(story: Story) -> list[str]:
    """Where something else is better, in sentences."""
    ours = [one for one in story.candidates if one.is_ours]
    found = []
    for batch in BATCHES:
        best = min(ours, key=lambda one: one.timings[batch].best)
        for peer in (one for one in story.candidates if not one.is_ours):
            same = next(one for one in ours if one.dtype == peer.dtype and not one.sparsity)
            for rival in dict.fromkeys((same, best)):
                ratio = rival.timings[batch].best / peer.timings[batch].best
                if ratio > _NOTABLE:
                    found.append(f"{_images(batch)}: {peer.name} is {ratio:.2f}× as fast as {rival.name}")
        for sparse in (one for one in ours if one.sparsity):
            dense = next(one for one in ours if one.dtype == sparse.dtype and not one.sparsity)
            ratio = sparse.timings[batch].best / dense.timings[batch].best
            if ratio > 1 / _NOTABLE:
                found.append(
                    f"{_images(batch)}: pruning gains nothing in {sparse.dtype}: {1 / ratio:.2f}× as fast as dense"
                )
    return found + _changed(story) + _dense_layers(story)


def _changed(story: Story) -> list[str]:
    change = smallest(story).answers.against(story.candidates[0].answers)
    if not change.lost and not change.won:
        return ["no held-out image changed between right and wrong"]
    return [f"of the held-out images, {change.lost} went from right to wrong and {change.won} from wrong to right"]


def _dense_layers(story: Story) -> list[str]:
    return [f"{layer.name} stays dense: {layer.reason}" for layer in story.report.layers if layer.reason]


def story_document(story: Story) -> dict[str, object]:
    """Everything as JSON."""
    count = len(story.digits.labels)
    networks = [
        {
            "name": one.name,
            "engine": one.engine,
            "dtype": one.dtype,
            "sparsity": one.sparsity,
            "bytes": one.bytes,
            "right": int(one.answers.correct.sum()),
            "interval": one.answers.interval,
            "seconds": {str(batch): asdict(timing) for batch, timing in one.timings.items()},
        }
        for one in story.candidates
    ]
    return {
        "steps": [asdict(step) for step in story.steps],
        "held_out": count,
        "threads": story.threads,
        "networks": networks,
        "losses": losses(story),
        "bit_identical_levels": story.levels,
        "layers": [asdict(layer) for layer in story.report.layers],
        "notes": list(story.notes),
        "model": None if story.file is None else str(story.file),
    }


def _images(batch: int) -> str:
    return f"{batch} image{'s' * (batch > 1)}"
