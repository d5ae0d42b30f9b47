"""What commands that make a model from a model share: options, files to write, and what is shown at the end."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from gristmill.artefact.atomic_file import replace_file
from gristmill.cli import options
from gristmill.console import Console, status
from gristmill.errors import ArgumentError
from gristmill.loaders import load
from gristmill.model import Model
from gristmill.optimizer import OptimizedModel


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the model, where to write its successor, and how to report on it."""
    parser.add_argument("model", metavar="MODEL", help="a model file")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="a .grist or .onnx file to write")
    parser.add_argument("--report", metavar="FILE", type=Path, help="write the report to an .html, .json or .txt file")
    parser.add_argument(
        "--ignore", metavar="LAYER", action="append", default=[], help="a name or regular expression; may be repeated"
    )
    options.add_json_option(parser)


def add_pruning_options(parser: argparse.ArgumentParser, pattern: str, patterns: str) -> None:
    """Add what decides how weights are pruned."""
    parser.add_argument("--pattern", default=pattern, metavar="P", help=f"{patterns} (default: {pattern})")
    parser.add_argument(
        "--layer",
        metavar="NAME=S",
        action="append",
        default=[],
        help="the sparsity of layers by name or regular expression, instead of --sparsity; may be repeated",
    )
    timed = " and kernel times, kept on disk," if pattern == "auto" else ""
    seed_help = f"equal seeds{timed} give equal results (default: 0)"
    parser.add_argument("--seed", type=int, default=0, metavar="N", help=seed_help)


def add_calibration_options(parser: argparse.ArgumentParser, samples: int, *, required: bool) -> None:
    """Add the calibration data, and how much of it is used."""
    parser.add_argument(
        "--calibration", metavar="FILE", required=required, help="typical inputs: .npy, or .npz with an array for each"
    )
    parser.add_argument(
        "--samples",
        type=options.positive_int,
        default=samples,
        metavar="N",
        help=f"samples to use at most, from the start: shuffle what is sorted by class (default: {samples})",
    )


def sparsity_of(arguments: argparse.Namespace) -> float | dict[str, float] | None:
    """The sparsity asked for: of the whole, or a table by layer.

    Raises:
        ArgumentError: Both are given, or an entry of the table is none.
    """
    if not arguments.layer:
        asked: float | None = arguments.sparsity
        return asked
    if arguments.sparsity is not None:
        raise ArgumentError("give either --sparsity or --layer", node="--layer")
    table = {}
    for entry in arguments.layer:
        name, separator, share = entry.rpartition("=")
        try:
            table[name] = float(share)
        except ValueError:
            separator = ""
        if not separator or not name:
            raise ArgumentError(f"expected NAME=SPARSITY such as fc1=0.9, got {entry!r}", node="--layer")
    return table


def read_model(arguments: argparse.Namespace) -> Model:
    """The model to start from, after a look at where the result goes.

    Raises:
        GristmillError: The model cannot be read, or a file to write has an unknown suffix.
        OSError: The model cannot be read, or a folder to write into does not exist.
    """
    if not arguments.output.endswith((".grist", ".onnx")):
        raise ArgumentError(f"must end in .grist or .onnx, got {arguments.output!r}", node="--output")
    if arguments.report is not None and arguments.report.suffix not in _FORMS:
        raise ArgumentError(f"must end in {', '.join(_FORMS)}, got {str(arguments.report)!r}", node="--report")
    for path in filter(None, (Path(arguments.output), arguments.report)):
        path.absolute().parent.stat()
    with status("reading the model"):
        return load(arguments.model)


def write(made: OptimizedModel, arguments: argparse.Namespace) -> int:
    """Write the model and its report, and show the report; returns the exit code."""
    with status("writing"):
        if arguments.output.endswith(".onnx"):
            made.export_onnx(arguments.output)
        else:
            made.save(arguments.output)
        if arguments.report is not None:
            text = {".html": made.report.html, ".json": made.report.json, ".txt": made.report.__str__}
            replace_file(arguments.report, [text[arguments.report.suffix]().encode()])
    if arguments.json:
        options.print_json(json.loads(made.report.json()))
        return 0
    console = Console()
    for line in made.report.summary():
        console.print(line)
    console.print(made.report.table())
    for note in made.report.notes:
        console.print(note)
    return 0


_FORMS = (".html", ".json", ".txt")
