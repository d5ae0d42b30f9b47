"""Options that several commands share, and how results are written."""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from pathlib import Path

from gristmill.errors import ArgumentError


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``: one JSON document on standard output instead of text."""
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")


def add_threads_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--threads N``."""
    parser.add_argument("--threads", type=positive_int, metavar="N", help="threads to use (default: all usable cores)")


def positive_int(text: str) -> int:
    """Parse a whole number of at least 1, for argparse."""
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def named_shape(text: str) -> tuple[str, tuple[int, ...]]:
    """Parse ``NAME=1x3x224x224``, for argparse."""
    name, separator, extents = text.rpartition("=")
    parts = extents.split("x") if extents else []
    if not separator or not name or not all(part.isascii() and part.isdigit() for part in parts):
        raise argparse.ArgumentTypeError(f"expected NAME=SHAPE such as x=1x3x224x224, got {text!r}")
    return name, tuple(map(int, parts))


def check_writable(*paths: Path | None) -> None:
    """Refuse files that could not be written, before the work whose results they are to hold.

    Raises:
        ArgumentError: A folder does not exist or cannot be written to.
    """
    for path in filter(None, paths):
        try:
            with tempfile.TemporaryFile(dir=path.parent):
                writable = not path.is_dir()
        except OSError:
            writable = False
        if not writable:
            raise ArgumentError("cannot be written: choose a file in a folder that exists and is yours", file=str(path))


def print_json(document: object) -> None:
    """Write a document to standard output, indented; JSON has no NaN and no infinities, which become null."""
    json.dump(_finite(document), sys.stdout, indent=2, allow_nan=False)
    sys.stdout.write("\n")


def _finite(document: object) -> object:
    if isinstance(document, float):
        return document if math.isfinite(document) else None
    if isinstance(document, dict):
        return {key: _finite(value) for key, value in document.items()}
    if isinstance(document, (list, tuple)):
        return [_finite(value) for value in document]
    return document
