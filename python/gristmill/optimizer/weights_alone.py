"""Pruning and quantizing weights that come without a model: a dictionary of arrays, or of plain numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gristmill.errors import ArgumentError
from gristmill.graph import Array
from gristmill.optimizer.qdq import quantize_rows
from gristmill.optimizer.schedules import check_sparsity

__all__ = ["QuantizedWeights", "prune_weights", "quantize_weights"]


@dataclass(frozen=True)
class QuantizedWeights:
    """int8 values and their scale: one, or one for each index of the first axis.

    Example:
        >>> quantize_weights({"w": 0.5})["w"]
        QuantizedWeights(values=array(127, dtype=int8), scale=array(0.00393701, dtype=float32))
    """

    values: npt.NDArray[np.int8]
    scale: npt.NDArray[np.float32]

    def dequantize(self) -> npt.NDArray[np.float32]:
        """The reals that the values stand for."""
        shape = self.scale.shape + (1,) * (self.values.ndim - self.scale.ndim)
        return np.asarray(self.values.astype(np.float32) * self.scale.reshape(shape))


def prune_weights(
    weights: Mapping[str, npt.ArrayLike], threshold: float | None = None, *, sparsity: float | None = None
) -> dict[str, Array]:
    """Drop small weights: below a threshold, or a share of all of them.

    Args:
        weights: Arrays or numbers by name.
        threshold: Weights of less than this magnitude are dropped.
        sparsity: The share of all weights to drop instead; those of least magnitude over all entries.

    Returns:
        The entries that still hold anything, with zeros where arrays lost weights.

    Raises:
        ArgumentError: Not exactly one of ``threshold`` and ``sparsity`` is given, one is out of range, or a weight is
            NaN or infinite.

    Example:
        >>> prune_weights({"layer1": 0.8, "layer2": 0.01, "layer3": np.array([0.3, -0.02])}, threshold=0.05)
        {'layer1': array(0.8), 'layer3': array([0.3, 0. ])}
    """
    arrays = _arrays(weights)
    if (threshold is None) == (sparsity is None):
        raise ArgumentError("give either a threshold or a sparsity", node="threshold")
    if sparsity is not None:
        check_sparsity(sparsity)
        flat = np.sort(np.concatenate([_sizes(array).reshape(-1) for array in arrays.values()] or [np.zeros(0)]))
        count = round(sparsity * flat.size)
        threshold = float(np.nextafter(flat[count - 1], np.inf)) if count else 0.0
    if threshold is None or not 0.0 <= threshold < np.inf:
        raise ArgumentError(f"must be a finite number of at least 0, got {threshold!r}", node="threshold")
    kept = {name: np.where(_sizes(array) < threshold, 0, array).astype(array.dtype) for name, array in arrays.items()}
    return {name: array for name, array in kept.items() if np.any(array)}


def quantize_weights(weights: Mapping[str, npt.ArrayLike], *, per_channel: bool = True) -> dict[str, QuantizedWeights]:
    """Quantize weights to symmetric int8.

    Args:
        weights: Arrays or numbers by name.
        per_channel: One scale for each index of the first axis of arrays of two axes or more, instead of one in all.

    Raises:
        ArgumentError: A weight is NaN or infinite.

    Example:
        >>> quantize_weights({"w": np.array([[1.0, -0.5], [0.0, 0.1]])})["w"].values
        array([[127, -64],
               [  0, 127]], dtype=int8)
    """
    return {name: _quantized(array, per_channel) for name, array in _arrays(weights).items()}


def _sizes(array: Array) -> Array:
    return np.abs(array.astype(np.float64))


def _quantized(array: Array, per_channel: bool) -> QuantizedWeights:
    rows = len(array) if per_channel and array.ndim >= 2 else 1
    if not array.size:
        return QuantizedWeights(array.astype(np.int8), np.ones(rows if rows > 1 else (), np.float32))
    values, scale = quantize_rows(array.reshape(rows, -1).astype(np.float32))
    single = not (per_channel and array.ndim >= 2)
    return QuantizedWeights(values.reshape(array.shape), scale.reshape(()) if single else scale)


def _arrays(weights: Mapping[str, npt.ArrayLike]) -> dict[str, Array]:
    arrays = {name: np.asarray(value) for name, value in weights.items()}
    for name, array in arrays.items():
        if array.dtype.kind not in "fiu":
            raise ArgumentError(f"holds no numbers but {array.dtype.name}", node=name)
        if not np.isfinite(array).all():
            raise ArgumentError("holds NaN or infinities", node=name)
    return arrays
