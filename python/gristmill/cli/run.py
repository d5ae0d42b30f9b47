"""``gristmill run``: a model on arrays from a file or random ones, its time, and with ``--profile`` each step's."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.cli import options
from gristmill.console import Console, Table, format_seconds, status
from gristmill.errors import ArgumentError, GristmillError, LimitError
from gristmill.optimizer.files import ALL_ROWS, read_arrays, write_arrays
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
    parser.add_argument(
        "--shape",
        type=options.named_shape,
        action="append",
        default=[],
        metavar="NAME=1x3x224x224",
        help="the shape of a random input; may be repeated",
    )
    parser.add_argument("--seconds", type=float, default=1.0, metavar="S", help="time to measure for (default: 1)")
    parser.add_argument("--profile", action="store_true", help="show the time of each step")
    options.add_json_option(parser)
    options.add_threads_option(parser)
    parser.set_defaults(run=run)


def _feeds(session: InferenceSession, path: str | None, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    infos = session.get_inputs()
    if path is None:
        return {info.name: _random(info, shapes[info.name]) for info in infos}
    stored = read_arrays(path, ALL_ROWS)
    if isinstance(stored, np.ndarray):
        if len(infos) != 1:
            names = ", ".join(info.name for info in infos)
            raise ArgumentError(f"holds one array, but the model takes {names}: use .npz", file=path)
        return {infos[0].name: stored}
    return stored


def _shapes(session: InferenceSession, arguments: argparse.Namespace) -> dict[str, tuple[int, ...]]:
    """The shape of each random input."""
    infos, given = session.get_inputs(), dict(arguments.shape)
    unknown = [name for name in given if name not in {info.name for info in infos}]
    if arguments.input is not None and given:
        raise ArgumentError("is for random inputs, and --input gives others", node="--shape")
    if unknown:
        raise ArgumentError(
            f"there is no input {unknown[0]}; there are: {', '.join(map(_text, infos))}", node="--shape"
        )
    if arguments.input is not None:
        return {}
    for info in infos:
        if info.shape is None and info.name not in given:
            reason = f"has an open number of axes: give it with --input or --shape {info.name}=1x3x224x224"
            raise ArgumentError(reason, file=arguments.model, node=info.name)
    guessed = {info.name: _closed(info, arguments.batch) for info in infos}
    return guessed | given


def _closed(info: TensorInfo, batch: int) -> tuple[int, ...]:
    return tuple(extent if isinstance(extent, int) else batch for extent in info.shape or ())


def _text(info: TensorInfo) -> str:
    return f"{info.name} {'of any shape' if info.shape is None else '×'.join(map(str, info.shape))}"


def _random(info: TensorInfo, shape: tuple[int, ...]) -> Array:
    generator = np.random.default_rng(0)
    try:
        if info.dtype.kind == "f":
            return generator.standard_normal(shape).astype(info.dtype)
        return generator.integers(0, 2 if info.dtype.kind == "b" else 128, shape).astype(info.dtype)
    except (ValueError, MemoryError):
        reason = f"random values of shape {'×'.join(map(str, shape))} do not fit into memory"
        raise LimitError(reason, node=info.name) from None


def _first_run(session: InferenceSession, feeds: Mapping[str, Array], arguments: argparse.Namespace) -> list[Array]:
    """The results; errors name the file, and the options that say what open extents of random inputs are."""
    try:
        return session.run(None, feeds)
    except GristmillError as error:
        given = dict(arguments.shape)
        guessed = [
            f"{info.name}={'x'.join(map(str, feeds[info.name].shape))}"
            for info in session.get_inputs()
            if arguments.input is None and info.name not in given and info.shape != feeds[info.name].shape
        ]
        error.file = error.file or arguments.model
        if guessed:
            error.reason += f"; random inputs were {', '.join(guessed)}: give others with --batch or --shape"
        raise


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    options.check_writable(arguments.output)
    session = InferenceSession(arguments.model, threads=arguments.threads)
    feeds = _feeds(session, arguments.input, _shapes(session, arguments))
    results = _first_run(session, feeds, arguments)
    names = [info.name for info in session.get_outputs()]
    with status("measuring"):
        timing = interleave({"run": lambda: session.run(None, feeds)}, seconds=max(arguments.seconds, 0.0))["run"]
    profile = session.profile(*feeds.values()) if arguments.profile else None
    if arguments.output is not None:
        write_arrays(arguments.output, dict(zip(names, results, strict=True)))
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
        with np.errstate(all="ignore"):
            figures |= {"least": float(wide.min()), "mean": float(wide.mean()), "greatest": float(wide.max())}
    return figures
