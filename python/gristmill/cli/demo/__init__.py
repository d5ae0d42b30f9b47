"""``gristmill demo``: shrink the network that the package carries, and see what is gained and what is lost."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from gristmill.artefact.atomic_file import replace_file
from gristmill.cli import options
from gristmill.cli.demo.findings import story_document
from gristmill.cli.demo.page import draw_page
from gristmill.cli.demo.story import tell
from gristmill.cli.demo.text import show_start, show_step, show_story
from gristmill.console import Cell, Console
from gristmill.errors import ArgumentError

_PAGE = "gristmill-demo.html"


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "demo", help="shrink a small trained network and show what it gains and loses", description=__doc__
    )
    parser.add_argument("--html", metavar="FILE", type=Path, help=f"where to write the report (default: ./{_PAGE})")
    parser.add_argument("--sparsity", type=float, default=0.9, metavar="S", help="share of zeros (default: 0.9)")
    parser.add_argument(
        "--threads", type=options.positive_int, default=1, metavar="N", help="of every run (default: 1)"
    )
    parser.add_argument("--seconds", type=float, default=8.0, metavar="T", help="to spend on timing (default: 8)")
    options.add_json_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    console = Console()
    page, problem = _place(arguments.html, wanted=not arguments.json)
    if not arguments.json:
        show_start(console)
    story = tell(
        (lambda _: None) if arguments.json else partial(show_step, console),
        sparsity=arguments.sparsity,
        threads=arguments.threads,
        seconds=arguments.seconds,
        file=None if page is None else page.with_suffix(".grist"),
    )
    if page is not None:
        replace_file(page, [draw_page(story).encode()])
    if arguments.json:
        options.print_json(story_document(story) | {"html": None if page is None else str(page)})
    else:
        show_story(console, story)
        if page is not None:
            console.print(Cell(f"Report: {page.absolute()}", "bold"))
            console.print(f"Next:   gristmill run {story.file} --batch 16 --profile")
            console.print("        gristmill compare MODEL --html FILE, with a model of yours")
        else:
            console.print(Cell(problem, "yellow"))
    return 0 if all(story.levels.values()) else 1


def _place(given: Path | None, *, wanted: bool) -> tuple[Path | None, str]:
    """Where the page goes, or why there is none; a place that was asked for has to be writable."""
    if given is None and not wanted:
        return None, ""
    page = Path(_PAGE) if given is None else given
    try:
        options.check_writable(page, page.with_suffix(".grist"))
    except ArgumentError as error:
        if given is not None:
            raise
        return None, f"No report and no model were written. {error}, with --html FILE."
    return page, ""
