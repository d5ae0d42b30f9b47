"""Labelled data from files: inputs under the model's names, classes under ``y`` or ``labels``."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.graph import Array
from gristmill.model import Model
from gristmill.optimizer.calibration import LABELS, inputs_of
from gristmill.optimizer.files import ALL_ROWS, one_of, read_arrays

#: For the help of commands.
KEYS = (
    "arrays under the names of the model's inputs (for a single input any name will do), classes under "
    f"{' or '.join(LABELS)}"
)


def read_labelled(model: Model, path: str, labels: str | None) -> tuple[dict[str, Array], npt.NDArray[Any]]:
    """Inputs by name, and the classes, from the same file or from one of their own.

    Raises:
        ArgumentError: There is no array for an input, or there are no classes.
        OSError: A file cannot be read.
    """
    stored = read_arrays(path, ALL_ROWS)
    inputs = inputs_of(model.graph, stored)
    named = stored if isinstance(stored, dict) else {}
    source = path
    if labels is not None:
        given, source = read_arrays(labels, ALL_ROWS), os.fspath(labels)
        if isinstance(given, np.ndarray):
            return inputs, given
        named = given
    return inputs, one_of(named, LABELS, source)
