"""Settings read from environment variables when gristmill is imported."""

from __future__ import annotations

import os

from gristmill import _core
from gristmill.errors import ArgumentError


def apply_environment() -> None:
    """Apply ``GRISTMILL_ISA`` and ``GRISTMILL_NUM_THREADS``; a value that makes no sense is an error, never ignored."""
    if isa := os.environ.get("GRISTMILL_ISA"):
        _core.set_isa(isa)
    if threads := os.environ.get("GRISTMILL_NUM_THREADS"):
        if not threads.isascii() or not threads.isdigit():
            raise ArgumentError(f"expected a positive whole number, got {threads!r}", node="GRISTMILL_NUM_THREADS")
        try:
            _core.set_num_threads(int(threads))
        except ArgumentError as error:
            raise ArgumentError(error.reason, node="GRISTMILL_NUM_THREADS") from None
