"""``gristmill compare``: what a model gains on this machine, beside other engines, with what is lost."""

from __future__ import annotations

import argparse
from pathlib import Path

from gristmill.artefact.atomic_file import replace_file
from gristmill.cli import options
from gristmill.comparison import PEERS, compare
from gristmill.console import Console
from gristmill.optimizer.api import METHODS


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "compare", help="measure a model dense, int8 and sparse, beside other engines", description=__doc__
    )
    parser.add_argument("model", metavar="MODEL", nargs="?", help="a model file (default: the embedded network)")
    parser.add_argument("--calibration", metavar="FILE", help=".npy or .npz with typical inputs (default: random ones)")
    parser.add_argument(
        "--sparsity", type=float, nargs="*", default=[0.7, 0.9], metavar="S", help="shares to drop (default: 0.7 0.9)"
    )
    for name, what in (("batch", "batch sizes"), ("threads", "numbers of threads")):
        parser.add_argument(
            f"--{name}", type=options.positive_int, nargs="+", default=[1], metavar="N", help=f"{what} (default: 1)"
        )
    parser.add_argument(
        "--peers", type=_names, default=list(PEERS), metavar="A,B", help=f"other engines (default: {','.join(PEERS)})"
    )
    parser.add_argument("--torch", metavar="FILE", help="the same network, written by torch.export.save")
    parser.add_argument("--method", choices=METHODS, help="how to prune (default: refit; random inputs: magnitude)")
    parser.add_argument("--samples", type=options.positive_int, default=512, metavar="N", help="inputs to calibrate on")
    parser.add_argument(
        "--seconds", type=float, default=0.5, metavar="S", help="time for each candidate and setting (default: 0.5)"
    )
    parser.add_argument("--cold-starts", type=int, default=2, metavar="N", help="fresh processes for each (default: 2)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write a row for each figure")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with charts; measures more for it")
    options.add_json_option(parser)
    parser.set_defaults(run=run)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    options.check_writable(arguments.csv, arguments.html)
    found = compare(
        arguments.model,
        arguments.calibration,
        sparsity=arguments.sparsity,
        batch=arguments.batch,
        threads=arguments.threads,
        peers=arguments.peers,
        seconds=arguments.seconds,
        samples=arguments.samples,
        method=arguments.method,
        cold_starts=arguments.cold_starts,
        curve=arguments.html is not None,
        torch_program=arguments.torch,
    )
    if arguments.csv is not None:
        replace_file(arguments.csv, [found.csv().encode()])
    if arguments.html is not None:
        replace_file(arguments.html, [found.html().encode()])
    if arguments.json:
        options.print_json(found.document())
        return 0
    console = Console()
    found.show(console)
    if arguments.html is not None:
        console.print(f"The page: {arguments.html}")
    return 0
