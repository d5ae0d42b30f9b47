"""``gristmill optimize``: prune, refit and quantize a model, to a sparsity or within a budget of lost accuracy.

With a budget every second calibration sample is used to calibrate, and the others to select; --holdout judges the
result on samples that neither has seen.
"""

from __future__ import annotations

import argparse
from typing import Any

from gristmill.cli import making, options
from gristmill.cli.labelled import KEYS, read_labelled
from gristmill.errors import ArgumentError
from gristmill.evaluation import Accuracy
from gristmill.model import Model
from gristmill.optimizer import OptimizedModel, optimize
from gristmill.optimizer.pipeline import MODES
from gristmill.optimizer.pruning import METHODS


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser("optimize", help="prune, refit and quantize a model", description=__doc__)
    making.add_options(parser)
    making.add_calibration_options(parser, 2048, required=True)
    parser.add_argument("--labels", metavar="FILE", help=".npy with the class of each sample, if not in --calibration")
    parser.add_argument("--holdout", metavar="FILE", help=f".npz of other samples to judge by: {KEYS}")
    parser.add_argument("--sparsity", type=float, metavar="S", help="share of all weights to drop (default: 0.5)")
    parser.add_argument("--max-drop", type=float, metavar="D", help="most accuracy to lose; needs classes of samples")
    making.add_pruning_options(parser, "auto", "auto, unstructured, 1x4, N:M or channel")
    parser.add_argument(
        "--trials", type=options.positive_int, default=7, metavar="N", help="models to make with a budget (default: 7)"
    )
    parser.add_argument("--method", default="admm", choices=METHODS, help="how weights are chosen (default: admm)")
    parser.add_argument(
        "--quantize", default="static", choices=[*MODES, "none"], help="how layers are quantized (default: static)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    share = making.sparsity_of(arguments)
    if arguments.labels is not None and arguments.max_drop is None:
        raise ArgumentError("classes are for a budget: give --max-drop as well", node="--labels")
    model = making.read_model(arguments)
    choice: dict[str, Any] = {
        "sparsity": share,
        "pattern": arguments.pattern,
        "method": arguments.method,
        "quantize": None if arguments.quantize == "none" else arguments.quantize,
        "ignore": arguments.ignore,
        "samples": arguments.samples,
        "trials": arguments.trials,
        "seed": arguments.seed,
    }
    if arguments.holdout is not None:
        choice["holdout"] = Accuracy(*read_labelled(model, arguments.holdout, None))
    if arguments.max_drop is None:
        made = optimize(model, arguments.calibration, **choice)
    else:
        made = _within_budget(model, arguments, choice)
    return making.write(made, arguments)


def _within_budget(model: Model, arguments: argparse.Namespace, choice: dict[str, Any]) -> OptimizedModel:
    """Calibrate on every second sample, select on the others."""
    inputs, classes = read_labelled(model, arguments.calibration, arguments.labels)
    samples = min(map(len, inputs.values()))
    if samples < 2:
        raise ArgumentError("needs two samples or more to select on some of them", node="--calibration")
    if len(classes) != samples:
        raise ArgumentError(f"there are {len(classes)} labels for {samples} samples", node="--labels")
    seen, judged = ({name: value[start::2] for name, value in inputs.items()} for start in (0, 1))
    score = Accuracy(judged, classes[1::2])
    return optimize(model, seen, evaluate=score, max_drop=arguments.max_drop, **choice)
