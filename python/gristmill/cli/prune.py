"""``gristmill prune``: set weights of a model to zero, and refit the others if there is calibration data."""

from __future__ import annotations

import argparse

from gristmill.cli import making
from gristmill.errors import ArgumentError
from gristmill.optimizer import prune
from gristmill.optimizer.plan import SCOPES
from gristmill.optimizer.pruning import METHODS


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser("prune", help="set weights to zero, and refit the others", description=__doc__)
    making.add_options(parser)
    parser.add_argument("--sparsity", type=float, metavar="S", help="share of all weights to drop, such as 0.8")
    making.add_pruning_options(parser, "unstructured", "unstructured, 1x4, N:M or channel")
    parser.add_argument("--scope", default="global", choices=SCOPES, help="whether layers compete (default: global)")
    parser.add_argument(
        "--method", choices=METHODS, help="how weights are chosen (default: admm with calibration, else magnitude)"
    )
    making.add_calibration_options(parser, 2048, required=False)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    share = making.sparsity_of(arguments)
    if share is None and ":" not in arguments.pattern:
        raise ArgumentError("give a share of the weights to drop, such as --sparsity 0.8", node="--sparsity")
    made = prune(
        making.read_model(arguments),
        share,
        pattern=arguments.pattern,
        scope=arguments.scope,
        method=arguments.method,
        ignore=arguments.ignore,
        calibration=arguments.calibration,
        samples=arguments.samples,
        seed=arguments.seed,
    )
    return making.write(made, arguments)
