"""The command line: ``gristmill COMMAND``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from gristmill import __version__
from gristmill._environment import check_environment
from gristmill.cli import bench, compare, cpu, demo, evaluate, inspect, optimize, prune, quantize, run, sensitivity
from gristmill.errors import GristmillError

_COMMANDS = (optimize, prune, quantize, sensitivity, evaluate, run, inspect, compare, bench, demo, cpu)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with all commands."""
    parser = argparse.ArgumentParser(
        prog="gristmill",
        description="Prune, quantize and run convolution and linear networks on CPUs.",
    )
    parser.add_argument("--version", action="version", version=f"gristmill {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", required=True, metavar="COMMAND")
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code: 0, 2 for a mistake in the input, 130 when interrupted."""
    arguments = build_parser().parse_args(argv)
    try:
        check_environment()
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("gristmill: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone; keep the interpreter from complaining about it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (GristmillError, MemoryError, OSError) as error:
        print(f"gristmill: {' '.join(_text(error).splitlines())}", file=sys.stderr)
        return 2
    return code


def _text(error: GristmillError | MemoryError | OSError) -> str:
    if isinstance(error, GristmillError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"memory does not suffice{f': {error}' if str(error) else ''}"
    if isinstance(error, FileNotFoundError):
        return f"{error.filename}: there is no such file"
    return f"{f'{error.filename}: ' if error.filename else ''}{error.strerror or error}"
