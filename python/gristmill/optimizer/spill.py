"""Spilling: arrays that wait in unnamed temporary files, so that memory does not grow with their number."""

from __future__ import annotations

import tempfile

import numpy as np

from gristmill.graph import Array

__all__ = ["spilled"]


def spilled(value: Array) -> Array:
    """A copy in a file that is gone with the array.

    Example:
        >>> spilled(np.arange(3))
        memmap([0, 1, 2])
    """
    if not value.size:
        return value
    with tempfile.TemporaryFile(prefix="gristmill-") as file:
        waiting = np.memmap(file, value.dtype, "w+", shape=value.shape)
    waiting[...] = value
    return waiting
