"""``gristmill run``: a model on arrays from a file or random ones, its time, and with ``--profile`` each step's."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.cli import options
from gristmill.console import Console, Table, format_seconds, status
from gristmill.errors import ArgumentError
from gristmill.session import InferenceSession, TensorInfo
from gristmill.timing import interleave

Array = npt.NDArray[Any]


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser("run", help="run a model and show its outputs and its time", description=__doc__)
    parser.add_argument("model", metavar="MODEL", help="a model file")
    parser.add_argument("--input", metavar="FILE", help=".npy for a model of one input, .npz with an array for each")
    parser.add_argument("--output", metavar="FILE", type=Path, help="write the outputs to an .npz file")
    parser.add_argument(
        "--batch", type=options.positive_int, default=1, metavar="N", help="open extents of random inputs"
    )
    parser.add_argument("--seconds", type=float, default=1.0, metavar="S", help="time to measure for (default: 1)")
    parser.add_argument("--profile", action="store_true", help="show the time of each step")
    options.add_json_option(parser)
    options.add_threads_option(parser)
    parser.set_defaults(run=run)


def _feeds(session: InferenceSession, path: str | None, batch: int) -> dict[str, Array]:
    infos = session.get_inputs()
    if path is None:
        return {info.name: _random(info, batch) for info in infos}
    try:
        stored = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ArgumentError(f"is no .npy or .npz file: {error}", file=path) from None
    if isinstance(stored, np.ndarray):
        if len(infos) != 1:
            names = ", ".join(info.name for info in infos)
            raise ArgumentError(f"holds one array, but the model takes {names}: use .npz", file=path)
        return {infos[0].name: stored}
    with stored:
        return {name: stored[name] for name in stored.files}


def _random(info: TensorInfo, batch: int) -> Array:
    if info.shape is None:
        raise ArgumentError("has an open number of axes: give it with --input", node=info.name)
    shape = [extent if isinstance(extent, int) else batch for extent in info.shape]
    generator = np.random.default_rng(0)
    if info.dtype.kind == "f":
        return generator.standard_normal(shape).astype(info.dtype)
    return generator.integers(0, 2 if info.dtype.kind == "b" else 128, shape).astype(info.dtype)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    session = InferenceSession(arguments.model, threads=arguments.threads)
    feeds = _feeds(session, arguments.input, arguments.batch)
    results = session.run(None, feeds)
    names = [info.name for info in session.get_outputs()]
    with status("measuring"):
        timing = interleave({"run": lambda: session.run(None, feeds)}, seconds=max(arguments.seconds, 0.0))["run"]
    profile = session.profile(*feeds.values()) if arguments.profile else None
    if arguments.output is not None:
        named: dict[str, Any] = dict(zip(names, results, strict=True))
        np.savez(arguments.output, **named)
    if arguments.json:
        document: dict[str, object] = {
            "outputs": {name: _summary(value) for name, value in zip(names, results, strict=True)},
            "seconds": asdict(timing),
        }
        if profile is not None:
            document["steps"] = [asdict(step) for step in profile.steps]
        options.print_json(document)
        return 0
    console = Console()
    table = Table(["output", "type", "shape", "least", "mean", "greatest"], align="<<<>>>")
    for name, value in zip(names, results, strict=True):
        figures = [f"{_summary(value)[key]:.6g}" if value.size else "" for key in ("least", "mean", "greatest")]
        table.add(name, value.dtype.name, "×".join(map(str, value.shape)), *figures)
    console.print(table)
    console.print()
    best, median = format_seconds(timing.best), format_seconds(timing.median)
    console.print(f"best of {timing.rounds} runs {best}, median {median}")
    if profile is not None:
        console.print()
        console.print(profile.table())
    return 0


def _summary(value: Array) -> dict[str, Any]:
    figures: dict[str, Any] = {"dtype": value.dtype.name, "shape": list(value.shape)}
    if value.size:
        wide = value.astype(np.float64)
        figures |= {"least": float(wide.min()), "mean": float(wide.mean()), "greatest": float(wide.max())}
    return figures
