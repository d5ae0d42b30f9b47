"""``gristmill eval``: how often a classifier is right on labelled samples, and whether another one is better."""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path
from typing import Any

from gristmill.artefact.atomic_file import replace_file
from gristmill.cli import options
from gristmill.cli.labelled import KEYS, read_labelled
from gristmill.console import Console
from gristmill.evaluation import Comparison, Evaluation, evaluate
from gristmill.loaders import load


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser("eval", help="measure the accuracy of a classifier", description=__doc__)
    parser.add_argument("model", metavar="MODEL", help="a model file")
    parser.add_argument(
        "--data", metavar="FILE", required=True, help=f".npz of samples as the model takes them: {KEYS}"
    )
    parser.add_argument("--labels", metavar="FILE", help=".npy or .npz with the classes, if they are not in --data")
    parser.add_argument("--against", metavar="MODEL", help="another model, compared on the same samples")
    parser.add_argument("--csv", metavar="FILE", type=Path, help="write the answer to each sample")
    options.add_json_option(parser)
    options.add_threads_option(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    model = load(arguments.model)
    inputs, classes = read_labelled(model, arguments.data, arguments.labels)
    found = evaluate(model, inputs, classes, threads=arguments.threads)
    other = None
    if arguments.against is not None:
        rival = load(arguments.against)
        theirs, _ = read_labelled(rival, arguments.data, arguments.labels)
        other = evaluate(rival, theirs, classes, threads=arguments.threads)
    compared = None if other is None else found.against(other)
    if arguments.csv is not None:
        replace_file(arguments.csv, [_rows(found, other).encode()])
    if arguments.json:
        options.print_json(_document(arguments.model, found) | _compared(arguments.against, other, compared))
        return 0
    console = Console()
    console.print(f"{arguments.model}: {found}")
    if other is not None and compared is not None:
        console.print(f"{arguments.against}: {other}")
        console.print()
        console.print(str(compared))
    return 0


def _document(path: str, found: Evaluation) -> dict[str, Any]:
    return {
        "model": path,
        "samples": len(found.labels),
        "correct": int(found.correct.sum()),
        "accuracy": found.accuracy,
        "interval": list(found.interval),
    }


def _compared(path: str | None, other: Evaluation | None, compared: Comparison | None) -> dict[str, Any]:
    if path is None or other is None or compared is None:
        return {}
    return {
        "against": _document(path, other),
        "gain": compared.gain,
        "gain_interval": list(compared.interval),
        "won": compared.won,
        "lost": compared.lost,
        "p_value": compared.p_value,
    }


def _rows(found: Evaluation, other: Evaluation | None) -> str:
    """A line for each sample: its class, the model's answer and how sure it is, and the other model's."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    sides = [found] if other is None else [found, other]
    heads = ["predicted", "confidence", "correct"]
    writer.writerow(["sample", "label", *heads, *(f"other_{head}" for head in heads if other is not None)])
    for index, label in enumerate(found.labels):
        cells: list[object] = [index, int(label)]
        for side in sides:
            cells += [int(side.predicted[index]), f"{side.confidence[index]:.6g}", int(side.correct[index])]
        writer.writerow(cells)
    return text.getvalue()
