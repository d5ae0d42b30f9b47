"""``gristmill sensitivity``: what a model's answers lose when one layer alone is pruned."""

from __future__ import annotations

import argparse
import json

from gristmill.cli import making, options
from gristmill.cli.labelled import read_labelled
from gristmill.console import Console, status
from gristmill.loaders import load
from gristmill.optimizer import sensitivity
from gristmill.optimizer.pruning import METHODS
from gristmill.optimizer.sensitivity import require_plottable


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser("sensitivity", help="show which layers can be pruned", description=__doc__)
    parser.add_argument("model", metavar="MODEL", help="a model file")
    making.add_calibration_options(parser, 512, required=True)
    parser.add_argument("--labels", metavar="FILE", help=".npy or .npz with classes: shows accuracy instead of SNR")
    parser.add_argument(
        "--levels", type=_shares, default=(0.5, 0.7, 0.8, 0.9, 0.95), metavar="S,S", help="sparsities to try"
    )
    parser.add_argument("--pattern", default="unstructured", metavar="P", help="unstructured, 1x4, N:M or channel")
    parser.add_argument("--method", default="refit", choices=METHODS, help="how weights are chosen (default: refit)")
    parser.add_argument("--ignore", metavar="LAYER", action="append", default=[], help="layers to leave out")
    parser.add_argument(
        "--plot", "--report", metavar="FILE", action="append", default=[], help="an .html, .png, .svg or .pdf file"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="equal seeds give equal results")
    options.add_json_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    for path in arguments.plot:
        require_plottable(path)
    with status("reading the model"):
        model = load(arguments.model)
    labels = None
    if arguments.labels is not None:
        _, labels = read_labelled(model, arguments.calibration, arguments.labels)
    found = sensitivity(
        model,
        arguments.calibration,
        labels=labels,
        levels=arguments.levels,
        pattern=arguments.pattern,
        method=arguments.method,
        ignore=arguments.ignore,
        samples=arguments.samples,
        seed=arguments.seed,
    )
    for path in arguments.plot:
        found.plot(path)
    if arguments.json:
        options.print_json(json.loads(found.json()))
    else:
        Console().print(found.table())
    return 0


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(map(float, text.split(",")))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected numbers such as 0.5,0.8, got {text!r}") from None
