"""Calibration data: what users give, checked once and cut into batches."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gristmill.errors import ArgumentError, DTypeError, ShapeError
from gristmill.graph import Array, Graph, dtype_text
from gristmill.optimizer.files import read_arrays
from gristmill.optimizer.spill import spilled
from gristmill.reference import check_input

__all__ = ["LABELS", "CalibrationData", "inputs_of", "labels_of", "make_batches"]

Batch: TypeAlias = npt.NDArray[Any] | Mapping[str, npt.NDArray[Any]]
#: An array or arrays by input name, an iterable of such batches, or the path of a ``.npy`` or ``.npz`` file.
CalibrationData: TypeAlias = Batch | Iterable[Batch] | str | os.PathLike[str]

#: Names that arrays of inputs and of labels are known to have.
_USUAL = ("x", "image", "images", "input", "inputs", "data")
LABELS = ("y", "labels", "label", "targets")

_BATCH = 64
#: Bytes of batches that stay in memory.
HELD_BYTES = 256 << 20


def make_batches(graph: Graph, data: CalibrationData, samples: int) -> list[dict[str, Array]]:
    """The first ``samples`` samples, or all if there are fewer, in batches that the network takes.

    Nothing more is read. Of what does not lie in memory already, such as the batches of a generator, a budget is held
    there and the rest waits in temporary files.

    Raises:
        ArgumentError: There is nothing, an input is missing or unknown, or a value is NaN or infinite.
        DTypeError: An array has another element type than the input.
        ShapeError: A shape does not fit the input, or arrays differ in their number of samples.
    """
    if samples < 1:
        raise ArgumentError(f"must be at least 1, got {samples!r}", node="samples")
    size = _batch_size(graph)
    fresh = not isinstance(data, (np.ndarray, Mapping))
    batches: list[dict[str, Array]] = []
    left, held = samples, 0
    for given in _given(data, samples):
        feeds = inputs_of(graph, given)
        count = min(_samples(graph, feeds), left)
        for start in range(0, count // size * size if size else count, size or _BATCH):
            stop = min(start + (size or _BATCH), count)
            batch = {name: np.ascontiguousarray(value[start:stop]) for name, value in feeds.items()}
            _require_sound(graph, batch)
            held += sum(value.nbytes for value in batch.values()) if fresh else 0
            batches.append({name: spilled(value) if held > HELD_BYTES else value for name, value in batch.items()})
            left -= stop - start
        if left <= 0 or (size and left < size):
            break
    if not batches:
        least = f"; the model takes {size} at a time" if size > 1 else ""
        raise ArgumentError(f"holds no samples; give a few hundred typical inputs{least}", node="calibration")
    return batches


def _require_sound(graph: Graph, batch: Mapping[str, Array]) -> None:
    for info in graph.inputs:
        check_input(info, batch[info.name])
        if batch[info.name].dtype.kind == "f" and not np.isfinite(batch[info.name]).all():
            raise ArgumentError("holds NaN or infinities; remove those samples", node=f"calibration: {info.name}")


def labels_of(labels: npt.ArrayLike, samples: int, classes: int) -> npt.NDArray[np.int64]:
    """Class labels, checked.

    Raises:
        DTypeError: They are no integers.
        ShapeError: There is not one for each sample.
        ArgumentError: One is no class.
    """
    array = np.asarray(labels)
    if array.dtype.kind not in "iu":
        raise DTypeError(f"expected integers, got {array.dtype.name}", node="labels")
    array = array.reshape(-1) if array.ndim == 2 and array.shape[1] == 1 else array
    if array.shape != (samples,):
        raise ShapeError(f"expected one for each of {samples} samples, got shape {list(array.shape)}", node="labels")
    wrong = array[(array < 0) | (array >= classes)]
    if wrong.size:
        raise ArgumentError(f"must lie between 0 and {classes - 1}, got {int(wrong[0])}", node="labels")
    return array.astype(np.int64)


def _given(data: CalibrationData, samples: int) -> Iterator[Batch]:
    if isinstance(data, (str, os.PathLike)):
        yield read_arrays(data, samples)
    elif isinstance(data, (np.ndarray, Mapping)):
        yield data
    elif isinstance(data, Iterable):
        yield from data
    else:
        raise ArgumentError(
            f"expected arrays, batches of them or a file, got {type(data).__name__}", node="calibration"
        )


def inputs_of(graph: Graph, given: object) -> dict[str, Array]:
    """The array for each input of a network, out of one array or arrays by name.

    A single input is found under its own name, a usual one, or as the only array that holds no labels.

    Raises:
        ArgumentError: There is none for an input.
    """
    names = [info.name for info in graph.inputs]
    if not isinstance(given, Mapping):
        if not isinstance(given, np.ndarray):
            reason = f"expected arrays or arrays by name, got {type(given).__name__}"
            raise ArgumentError(reason, node="calibration")
        if len(names) != 1:
            raise ArgumentError(f"give arrays by name: {', '.join(names)}", node="calibration")
        return {names[0]: given}
    if len(names) == 1 and names[0] not in given:
        known = [name for name in _USUAL if name in given]
        single = known[:1] if known else [name for name in given if name not in LABELS]
        if len(single) == 1:
            return {names[0]: np.asarray(given[single[0]])}
    for name in names:
        if name not in given:
            raise ArgumentError(
                f"nothing is given for input {name!r}; there is: {', '.join(given)}", node="calibration"
            )
    return {name: np.asarray(given[name]) for name in names}


def _samples(graph: Graph, feeds: Mapping[str, Array]) -> int:
    counts = set()
    for info in graph.inputs:
        value = feeds[info.name]
        if value.dtype != info.dtype:
            fix = f"convert it with .astype(np.{info.dtype.name})"
            reason = f"expected {info.dtype.name}, got {dtype_text(value.dtype)}; {fix}"
            raise DTypeError(reason, node=f"calibration: {info.name}")
        if value.ndim == 0 or (info.shape is not None and value.ndim != len(info.shape)):
            expected = "one axis or more" if info.shape is None else f"{len(info.shape)} axes"
            raise ShapeError(f"expected {expected}, got shape {list(value.shape)}", node=f"calibration: {info.name}")
        counts.add(len(value))
    if len(counts) != 1:
        raise ShapeError(f"inputs differ in their number of samples: {sorted(counts)}", node="calibration")
    return counts.pop()


def _batch_size(graph: Graph) -> int:
    """The batch size that the network insists on, or 0."""
    fixed = {info.shape[0] for info in graph.inputs if info.shape and isinstance(info.shape[0], int)}
    return max(fixed) if fixed else 0
