"""Settings read from environment variables when gristmill is imported."""

from __future__ import annotations

import os
import sys

from gristmill import _core
from gristmill.errors import ArgumentError, GristmillError

_mistakes: list[GristmillError] = []


def apply_environment() -> None:
    """Apply ``GRISTMILL_ISA`` and ``GRISTMILL_NUM_THREADS``; a value that makes no sense is an error, never ignored.

    The command line imports the package before it can say anything: there the error waits for
    :func:`check_environment`.
    """
    try:
        _apply()
    except GristmillError as error:
        if not _is_command_line():
            raise
        _mistakes.append(error)


def check_environment() -> None:
    """Raise what was wrong at import.

    Raises:
        GristmillError: A variable has a value that makes no sense.
    """
    if _mistakes:
        raise _mistakes[0]


def _is_command_line() -> bool:
    """Whether this process runs the script ``gristmill``, or ``python -m gristmill``, which is called -m at import."""
    program = os.path.basename(sys.argv[0]) if sys.argv else ""
    return program in {"gristmill", "gristmill.exe"} or (program == "-m" and "gristmill" in sys.orig_argv)


def _apply() -> None:
    if isa := os.environ.get("GRISTMILL_ISA"):
        try:
            _core.set_isa(isa)
        except GristmillError as error:
            raise type(error)(error.reason, node="GRISTMILL_ISA") from None
    if threads := os.environ.get("GRISTMILL_NUM_THREADS"):
        if not threads.isascii() or not threads.isdigit():
            raise ArgumentError(f"expected a positive whole number, got {threads!r}", node="GRISTMILL_NUM_THREADS")
        try:
            _core.set_num_threads(int(threads))
        except ArgumentError as error:
            raise ArgumentError(error.reason, node="GRISTMILL_NUM_THREADS") from None
