"""Metrics: how much an error in the weights of a layer hurts its outputs.

A row of weights that is off by ``v`` changes the outputs by ``v R v'`` in mean square over the calibration set, where R
is the covariance of the inputs. Inputs are scaled to variance one, so that R is a correlation matrix and a ridge means
the same for each; weights are scaled the other way. R is shrunk toward the identity, ``(1 - a) C + a I``: what few
samples say about correlations is trusted less than what they say about variances.

With fewer samples than inputs the matrix is never formed: :class:`LowRankMetric` holds the samples and works through
them, in memory and time proportional to samples times inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from gristmill.graph import Array

__all__ = ["DenseMetric", "LowRankMetric", "Metric", "Problem"]


class Metric(Protocol):
    """A symmetric positive definite matrix R over the inputs of a layer."""

    def apply(self, rows: Array) -> Array:
        """``rows @ R``."""

    def shifted_inverse(self, shift: float) -> Callable[[Array], Array]:
        """The map from ``rows`` to ``rows @ inverse(R + shift I)``."""

    def block(self, chosen: Array) -> Array:
        """R restricted to some inputs, in float64."""

    def apply_cost(self) -> float:
        """Multiplications of :meth:`apply` per row."""

    def block_cost(self, count: int) -> float:
        """Multiplications of :meth:`block`."""


class DenseMetric:
    """R held as a matrix."""

    def __init__(self, correlation: Array, shrinkage: float) -> None:
        """Shrink a (inputs, inputs) correlation matrix."""
        matrix = (1.0 - shrinkage) * correlation.astype(np.float64)
        matrix[np.diag_indices_from(matrix)] += shrinkage
        self._matrix = matrix
        self._single = matrix.astype(np.float32)

    def apply(self, rows: Array) -> Array:
        """``rows @ R``."""
        return np.asarray(rows @ self._single)

    def shifted_inverse(self, shift: float) -> Callable[[Array], Array]:
        """The map from ``rows`` to ``rows @ inverse(R + shift I)``."""
        inverse = np.linalg.inv(self._matrix + shift * np.eye(len(self._matrix))).astype(np.float32)
        return lambda rows: np.asarray(rows @ inverse)

    def block(self, chosen: Array) -> Array:
        """R restricted to some inputs, in float64."""
        return np.asarray(self._matrix[np.ix_(chosen, chosen)])

    def apply_cost(self) -> float:
        """Multiplications of :meth:`apply` per row."""
        return float(self._matrix.size)

    def block_cost(self, count: int) -> float:
        """Multiplications of :meth:`block`."""
        return float(count * count)


class LowRankMetric:
    """R held as the samples that it is made of."""

    def __init__(self, samples: Array, shrinkage: float | Array) -> None:
        """Take (samples, inputs) of mean zero and variance one; a shrinkage for each row serves :meth:`apply` alone."""
        self._samples = samples * np.float32(1.0 / np.sqrt(len(samples)))
        self._shrinkage = np.asarray(shrinkage, np.float32).reshape(-1, 1)

    def apply(self, rows: Array) -> Array:
        """``rows @ R``."""
        seen = rows @ self._samples.T
        seen *= 1.0 - self._shrinkage
        result = seen @ self._samples
        result += self._shrinkage * rows
        return np.asarray(result)

    def shifted_inverse(self, shift: float) -> Callable[[Array], Array]:
        """The map from ``rows`` to ``rows @ inverse(R + shift I)``, by the Woodbury identity."""
        share = self._shrinkage.item()
        ridge = share + shift
        inner = (self._samples @ self._samples.T).astype(np.float64)
        inner[np.diag_indices_from(inner)] += ridge / (1.0 - share)
        inverse = np.linalg.inv(inner).astype(np.float32)

        def inverted(rows: Array) -> Array:
            result = ((rows @ self._samples.T) @ inverse) @ self._samples
            np.subtract(rows, result, out=result)
            result /= np.float32(ridge)
            return np.asarray(result)

        return inverted

    def block(self, chosen: Array) -> Array:
        """R restricted to some inputs, in float64."""
        share = self._shrinkage.item()
        part = self._samples[:, chosen]
        found = (part.T @ part).astype(np.float64) * (1.0 - share)
        found[np.diag_indices_from(found)] += share
        return np.asarray(found)

    def apply_cost(self) -> float:
        """Multiplications of :meth:`apply` per row."""
        return 2.0 * float(self._samples.size)

    def block_cost(self, count: int) -> float:
        """Multiplications of :meth:`block`."""
        return float(len(self._samples)) * count * count


@dataclass(frozen=True)
class Problem:
    """Least squares for one layer in scaled coordinates, where each input has variance one.

    Attributes:
        metric: Of errors in the scaled weights.
        target: (rows, columns): the metric applied to the best dense weights.
        scale: What a weight is multiplied by to get its scaled form.
        weights: The original weights, scaled.
        power: Mean square of the centred original outputs, per row.
    """

    metric: Metric
    target: Array
    scale: Array
    weights: Array
    power: Array

    def rows(self, chosen: Array) -> Problem:
        """The problem of some rows, by index or as a mask; rows may come more than once."""
        return Problem(self.metric, self.target[chosen], self.scale, self.weights[chosen], self.power[chosen])

    def error(self, weights: Array) -> Array:
        """Mean square error of the outputs of scaled weights, per row, as far as the metric tells."""
        cross = np.einsum("ij,ij->i", weights, self.target, dtype=np.float64)
        square = np.einsum("ij,ij->i", weights, self.metric.apply(weights), dtype=np.float64)
        return np.asarray(np.maximum(self.power - 2.0 * cross + square, 0.0))
