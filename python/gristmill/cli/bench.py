"""``gristmill bench``: what the kernels reach on this processor, beside bounds measured in the same run."""

from __future__ import annotations

import argparse
from pathlib import Path

from gristmill.artefact.atomic_file import replace_file
from gristmill.benchmark import TABLES, bench
from gristmill.cli import options
from gristmill.console import Console


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser("bench", help="measure the kernels against what the core can do", description=__doc__)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"{', '.join(TABLES)} (default: all)")
    parser.add_argument("--full", action="store_true", help="every shape instead of some: minutes instead of seconds")
    parser.add_argument(
        "--seconds", type=float, default=0.1, metavar="S", help="time for each group of candidates (default: 0.1)"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with charts")
    options.add_json_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    options.check_writable(arguments.html)
    found = bench(arguments.tables, seconds=arguments.seconds, full=arguments.full)
    if arguments.html is not None:
        replace_file(arguments.html, [found.html().encode()])
    if arguments.json:
        options.print_json(found.document())
        return 0
    console = Console()
    found.show(console)
    if arguments.html is not None:
        console.print()
        console.print(f"The page: {arguments.html}")
    return 0
