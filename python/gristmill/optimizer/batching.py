"""Batching: networks exported for one sample at a time are calibrated on many at once, where that gives the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gristmill.errors import GristmillError
from gristmill.graph import Array, Graph
from gristmill.optimizer.calibration import CalibrationData, make_batches
from gristmill.optimizer.capture import Executor, forward
from gristmill.optimizer.spill import spilled

__all__ = ["wide_batches"]

_BATCH = 64
_TRIED = 3


def wide_batches(graph: Graph, data: CalibrationData, samples: int) -> list[dict[str, Array]]:
    """As :func:`~gristmill.optimizer.calibration.make_batches`, joined if the network gives the same answers then.

    A declared batch size is often only what the exporter saw. Whether the network depends on it is tried: a few batches
    are run one by one and as one. Sessions still insist on it, so this is for what the optimizer runs itself.

    Raises:
        ArgumentError: As there; so are the other two.
        DTypeError: See there.
        ShapeError: See there.
    """
    batches = make_batches(graph, data, samples)
    size = len(next(iter(batches[0].values())))
    count = max(_BATCH // max(size, 1), 1)
    if count == 1 or len(batches) < 2 or not _indifferent(graph, batches[:_TRIED]):
        return batches
    return [_concatenated(batches[start : start + count]) for start in range(0, len(batches), count)]


def _indifferent(graph: Graph, few: Sequence[Mapping[str, Array]]) -> bool:
    executor = Executor()
    single = [forward(graph, batch, executor) for batch in few]
    try:
        together = forward(graph, _concatenated(few), executor)
    except GristmillError:
        return False
    for name, given in together.items():
        wanted = [one[name] for one in single]
        if any(value.ndim == 0 for value in wanted):
            return False
        expected = np.concatenate(wanted)
        close = float(np.abs(expected).max(initial=0.0)) * 1e-4
        if given.shape != expected.shape or not np.allclose(given, expected, rtol=0.0, atol=close):
            return False
    return True


def _concatenated(batches: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    result = {}
    for name in batches[0]:
        parts = [batch[name] for batch in batches]
        whole = np.concatenate(parts)
        result[name] = spilled(whole) if isinstance(parts[-1], np.memmap) else whole
    return result
