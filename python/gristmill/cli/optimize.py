"""``gristmill optimize``: prune, refit and quantize a model, to a sparsity or within a budget of lost accuracy."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.cli import options
from gristmill.console import Console, status
from gristmill.errors import ArgumentError
from gristmill.graph import Array
from gristmill.loaders import load
from gristmill.model import Model
from gristmill.optimizer import OptimizedModel, optimize
from gristmill.optimizer.calibration import labels_of, make_batches
from gristmill.session import InferenceSession


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser("optimize", help="prune, refit and quantize a model", description=__doc__)
    parser.add_argument("model", metavar="MODEL", help="a model file")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="a .grist or .onnx file to write")
    parser.add_argument("--calibration", metavar="FILE", required=True, help=".npy or .npz with typical inputs")
    parser.add_argument("--labels", metavar="FILE", help=".npy with the class of each calibration sample")
    parser.add_argument("--sparsity", type=float, metavar="S", help="share of the weights to drop (default: 0.5)")
    parser.add_argument("--max-drop", type=float, metavar="D", help="most accuracy to lose; needs --labels")
    parser.add_argument("--pattern", default="unstructured", metavar="P", help="unstructured, 1x4, N:M or channel")
    parser.add_argument(
        "--quantize", default="static", choices=["static", "dynamic", "weights", "none"], help="(default: static)"
    )
    parser.add_argument("--samples", type=options.positive_int, default=2048, metavar="N", help="samples to use")
    parser.add_argument("--report", metavar="FILE", type=Path, help="write the report to an .html or .json file")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="equal seeds give equal results")
    options.add_json_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    if not arguments.output.endswith((".grist", ".onnx")):
        raise ArgumentError(f"must end in .grist or .onnx, got {arguments.output!r}", node="--output")
    if (arguments.max_drop is None) != (arguments.labels is None):
        raise ArgumentError("a budget takes both --max-drop and --labels", node="--max-drop")
    with status("reading the model"):
        model = load(arguments.model)
    choice: dict[str, Any] = {"sparsity": arguments.sparsity, "pattern": arguments.pattern}
    choice |= {"quantize": None if arguments.quantize == "none" else arguments.quantize}
    if arguments.labels is None:
        made = optimize(model, arguments.calibration, samples=arguments.samples, seed=arguments.seed, **choice)
    else:
        made = _within_budget(model, arguments, choice)
    _write(made, arguments.output)
    if arguments.report is not None:
        page = made.report.json() if arguments.report.suffix == ".json" else made.report.html()
        arguments.report.write_text(page, encoding="utf-8")
    if arguments.json:
        options.print_json(json.loads(made.report.json()))
    else:
        Console().print(str(made.report))
    return 0


def _within_budget(model: Model, arguments: argparse.Namespace, choice: dict[str, Any]) -> OptimizedModel:
    """Calibrate on one half of the samples, select on the other."""
    batches = make_batches(model.graph, arguments.calibration, 1 << 30)
    name = model.inputs[0].name
    x = np.concatenate([batch[name] for batch in batches])
    (answers,) = InferenceSession(model).run([model.outputs[0].name], batches[0])
    classes = labels_of(np.load(arguments.labels, allow_pickle=False), len(x), answers.shape[-1])
    half = len(x) // 2
    if half == 0:
        raise ArgumentError("needs two samples or more to select on some of them", node="--calibration")
    judged = make_batches(model.graph, x[half:], len(x))
    wanted = classes[half : half + sum(len(batch[name]) for batch in judged)]

    def correct(candidate: Model) -> npt.ArrayLike:
        session = InferenceSession(candidate)
        found: list[Array] = [session.run(None, batch)[0].argmax(axis=-1).reshape(-1) for batch in judged]
        return np.asarray(np.concatenate(found) == wanted, np.float64)

    samples, seed = arguments.samples, arguments.seed
    budget = arguments.max_drop
    return optimize(model, x[:half], evaluate=correct, max_drop=budget, samples=samples, seed=seed, **choice)


def _write(made: OptimizedModel, path: str) -> None:
    if path.endswith(".onnx"):
        made.export_onnx(path)
    else:
        made.save(path)
