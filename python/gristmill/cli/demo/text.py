"""The demonstration on a terminal."""

from __future__ import annotations

import numpy as np

import gristmill
from gristmill import kernels
from gristmill.cli.demo.findings import cost_table, losses, mistakes, smallest, speed_table
from gristmill.cli.demo.story import Float32, Step, Story
from gristmill.console import Cell, Console, format_bytes, format_seconds

__all__ = ["machine", "show_start", "show_step", "show_story"]

_SHOWN, _SHOWN_MISTAKES = 8, 3
_DARK = 0.4
_BLOCKS = " ▄▀█"


def machine() -> str:
    """What it runs on, in one line."""
    info = kernels.cpu_info()
    cores = f"{info.usable_cores} usable core{'s' * (info.usable_cores != 1)}"
    return f"{info.model}, level {info.active}, {cores}"


def show_start(console: Console) -> None:
    """Say what this is."""
    console.print(Cell(f"gristmill {gristmill.__version__}", "bold"))
    console.print(Cell(machine(), "dim"))
    console.print()


def show_step(console: Console, step: Step) -> None:
    """Show a step that was done."""
    console.print(f"✓ {step.verb:<9} {step.outcome}  ({format_seconds(step.seconds)})")


def show_story(console: Console, story: Story) -> None:
    """Show the tables, the images, what was lost, and what is missing."""
    console.print()
    console.print(cost_table(story))
    console.print()
    console.print(speed_table(story))
    if console.unicode:
        console.print()
        for line in _gallery(story):
            console.print(line)
    console.print()
    console.print(Cell("What does not win, or was lost", "bold cyan"))
    for line in losses(story):
        console.print(f"· {line}")
    for note in story.notes:
        console.print(Cell(f"! {note}", "yellow"))
    differ = [level for level, same in story.levels.items() if not same]
    if differ:
        console.print(Cell(f"The int8 results DIFFER from those of level scalar on: {', '.join(differ)}.", "red"))
    console.print()


def _gallery(story: Story) -> list[str | Cell]:
    """Some held-out images with the digits that the result reads, its mistakes last."""
    result = smallest(story)
    right, read, labels = result.answers.correct, result.answers.predicted, result.answers.labels
    wrong = mistakes(story)[:_SHOWN_MISTAKES]
    _, first = np.unique(np.where(right, labels, -1), return_index=True)
    shown = [*[index for index in first if right[index]][: _SHOWN - len(wrong)], *wrong]
    drawn = zip(*(_drawn(story.digits.images[index, 0]) for index in shown), strict=True)
    captions = [f"{read[index]}" if right[index] else f"{read[index]} for {labels[index]}" for index in shown]
    title = f"What {format_bytes(result.bytes)} of {result.name}, read in images that it has never seen"
    return [
        Cell(title, "bold cyan"),
        *(f"  {'  '.join(row)}".rstrip() for row in drawn),
        Cell(f"  {'  '.join(f'{caption:^8}' for caption in captions)}".rstrip(), "bold"),
    ]


def _drawn(image: Float32) -> list[str]:
    """Two rows of pixels in one of characters."""
    dark = (image > _DARK).astype(int)
    return [
        "".join(_BLOCKS[2 * top + low] for top, low in zip(*pair, strict=True))
        for pair in zip(dark[::2], dark[1::2], strict=True)
    ]
