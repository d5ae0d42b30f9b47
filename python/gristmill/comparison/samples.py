"""Inputs for a comparison: the user's, or random ones of the right shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gristmill.errors import ArgumentError
from gristmill.graph import Array, Graph, ValueInfo
from gristmill.optimizer.calibration import CalibrationData, make_batches
from gristmill.optimizer.files import write_arrays

__all__ = ["Samples", "gather", "random_input", "save_arrays"]

_RANDOM_SAMPLES = 64
_FEWEST_TO_SPLIT = 16


@dataclass(frozen=True)
class Samples:
    """Arrays by input name.

    Attributes:
        calibration: What pruning and quantization may see.
        judged: What outputs are compared on.
        random: Whether they were made up.
        note: Where they come from, in a sentence.
    """

    calibration: dict[str, Array]
    judged: dict[str, Array]
    random: bool
    note: str

    @property
    def count(self) -> int:
        """How many samples there are to judge by."""
        return len(next(iter(self.judged.values())))

    def batch(self, size: int) -> dict[str, Array]:
        """That many samples, repeated if there are fewer."""
        return {name: np.ascontiguousarray(value[np.arange(size) % len(value)]) for name, value in self.judged.items()}


def gather(graph: Graph, data: CalibrationData | None, limit: int) -> Samples:
    """At most ``limit`` samples for calibration, and a third as many others to judge by if there are enough.

    Raises:
        GristmillError: The data does not fit the model, or is missing for a model whose shape it has to tell.
    """
    if data is None:
        arrays = {info.name: random_input(info, _RANDOM_SAMPLES) for info in graph.inputs}
        note = (
            "Random inputs, since no calibration data was given: agreement and pruning say nothing about real inputs."
        )
        return Samples(arrays, arrays, True, note)
    batches = make_batches(graph, data, limit + max(limit // 3, 1))
    arrays = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    size, total = len(next(iter(batches[0].values()))), len(next(iter(arrays.values())))
    unit = size if any(info.shape and isinstance(info.shape[0], int) for info in graph.inputs) else 1
    first = total * 3 // 4 // unit * unit
    if total < _FEWEST_TO_SPLIT or first == 0:
        return Samples(arrays, arrays, False, f"Outputs are compared on the {total} calibration inputs.")
    calibration = {name: value[:first] for name, value in arrays.items()}
    judged = {name: value[first:] for name, value in arrays.items()}
    note = f"Calibrated on {first} of the inputs, outputs compared on {total - first} others."
    return Samples(calibration, judged, False, note)


def random_input(info: ValueInfo, count: int) -> Array:
    """Random samples of an input whose first axis is the batch.

    Raises:
        ArgumentError: More than the batch is open.
    """
    if not info.shape or any(not isinstance(extent, int) for extent in info.shape[1:]):
        raise ArgumentError("its shape is open: give typical inputs (--calibration)", node=info.name)
    fixed = [extent for extent in info.shape[1:] if isinstance(extent, int)]
    batch = info.shape[0]
    shape = [count if isinstance(batch, str) else batch * max(count // max(batch, 1), 1), *fixed]
    generator = np.random.default_rng(0)
    if info.dtype.kind == "f":
        return generator.standard_normal(shape).astype(info.dtype)
    return generator.integers(0, 2 if info.dtype.kind == "b" else 128, shape).astype(info.dtype)


def save_arrays(path: Path, arrays: Mapping[str, Array]) -> str:
    """Write arrays for another process; returns the path."""
    write_arrays(path, arrays)
    return str(path)
