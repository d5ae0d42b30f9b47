"""Statistics: what a layer's inputs look like over the calibration set, gathered batch by batch.

For the original network's inputs x and the changed network's inputs z of the same layer (and its original weights W)
the sums give the means, the covariance of z, and its covariance with the original outputs y = W x. That is all that
the least-squares weights for z need: they minimize ``|y - V z|^2`` with both centred, and the bias takes up the means.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gristmill.graph import Array
from gristmill.operators.spatial import taps, window
from gristmill.optimizer.layers import Layer
from gristmill.optimizer.masks import Pattern, mask_of
from gristmill.optimizer.metric import DenseMetric, LowRankMetric, Metric, Problem
from gristmill.optimizer.refit import solve_iteratively

__all__ = ["Sampler", "Statistics", "best_shrinkage"]

#: Samples wanted per input, and bounds of their number; from the wide bound on, a layer keeps samples, not a matrix.
_PER_INPUT, _LEAST_SAMPLES, _MOST_SAMPLES, _WIDE = 8, 8192, 32768, 4096

#: Floor of an input's deviation relative to the typical one. Below it large weights would cost nothing, but make the
#: steps of their row's int8 weights coarse.
_LEAST_DEVIATION = 0.1

#: Keeps systems with dead inputs solvable.
_LEAST_SHRINKAGE = 1e-6

#: How strong a shrinkage may be chosen for a wide layer, and on how many of its rows it is tried.
_SHRINKAGES, _TRIED_ROWS, _TRIED_SPARSITY = (0.03, 0.1, 0.2, 0.4, 0.7), 24, 0.9
_PROGRESS = 0.01


class Sampler:
    """Picks positions of a layer's outputs and gathers what the layer reads there."""

    def __init__(self, layer: Layer, images: int, seed: int) -> None:
        """Decide for ``images`` images in all how many positions of each are worth taking."""
        self._layer = layer
        wanted = min(max(_PER_INPUT * layer.columns, _LEAST_SAMPLES), _MOST_SAMPLES)
        self._per_image = -(-wanted // max(images, 1))
        self._seed = seed

    def shape(self, x: Array) -> tuple[int, ...]:
        """Shape of the layer's outputs for inputs ``x``."""
        layer = self._layer
        if not layer.is_conv:
            return (*x.shape[:-1], layer.rows)
        return (len(x), layer.rows, *window(layer.node, x.shape[2:], layer.shape[2:]).output)

    def positions(self, x: Array, batch: int) -> Array | None:
        """The positions of one batch as (images, count) of flat indices; None takes everything."""
        layer = self._layer
        if not layer.is_conv:
            return None
        total = int(np.prod(self.shape(x)[2:]))
        count = min(self._per_image, total)
        generator = np.random.default_rng((self._seed, batch))
        return np.argpartition(generator.random((len(x), total)), count - 1, axis=1)[:, :count]

    def outputs(self, y: Array, chosen: Array | None) -> Array:
        """The layer's outputs there, as (samples, rows)."""
        if chosen is None:
            return y.reshape(-1, self._layer.rows)
        planes = y.reshape(len(y), self._layer.rows, -1)
        return planes[np.arange(len(y))[:, None], :, chosen].reshape(-1, self._layer.rows)

    def inputs(self, x: Array, chosen: Array | None, group: int) -> Array:
        """What a group of the layer reads there, as (samples, columns)."""
        layer = self._layer
        if chosen is None:
            return x.reshape(-1, layer.columns)
        each = layer.shape[1]
        found = window(layer.node, x.shape[2:], layer.shape[2:])
        view = taps(x[:, group * each : (group + 1) * each], found, np.float32(0))
        index = np.unravel_index(chosen, found.output)
        place: tuple[Any, ...] = (np.arange(len(x))[:, None], slice(None), *index)
        picked = view[place]
        return np.ascontiguousarray(picked).reshape(-1, layer.columns)


class Statistics:
    """Sums over samples of one group of a layer."""

    def __init__(self, weights: Array) -> None:
        """Start empty; ``weights`` are the original ones, (rows, columns)."""
        self.weights = weights
        rows, columns = weights.shape
        self._wide = columns > _WIDE
        self.count = 0
        self._shift: tuple[Array, Array] | None = None
        self._sum_z = np.zeros(columns)
        self._sum_y, self._square_y = np.zeros(rows), np.zeros(rows)
        self._kept: list[tuple[Array, Array]] = []
        size = 0 if self._wide else columns
        self._gram, self._cross = np.zeros((size, size)), np.zeros((rows, size))

    def add(self, x: Array, z: Array, debt: Array | None = None) -> None:
        """Add samples (samples, columns) as the original and the changed network see them.

        ``debt`` (samples, rows) is what the outputs should make up for besides.
        """
        if self._shift is None:
            self._shift = (x.mean(axis=0), z.mean(axis=0))
        x, z = x - self._shift[0], z - self._shift[1]
        y = x @ self.weights.T
        if debt is not None:
            y += debt
        self.count += len(x)
        self._sum_z += z.sum(axis=0, dtype=np.float64)
        self._sum_y += y.sum(axis=0, dtype=np.float64)
        self._square_y += np.einsum("ij,ij->j", y, y, dtype=np.float64)
        if self._wide:
            self._kept.append((z, y))
        else:
            self._gram += z.T @ z
            self._cross += y.T @ z

    def mean_z(self) -> Array:
        """Mean of the changed inputs."""
        assert self._shift is not None
        return np.asarray(self._shift[1] + self._sum_z / self.count)

    def bias_shift(self, weights: Array) -> Array:
        """What has to be added to the bias so that new weights on the changed inputs keep the mean of the outputs."""
        assert self._shift is not None
        before = self.weights.astype(np.float64) @ self._shift[0] + self._sum_y / self.count
        return np.asarray(before - weights.astype(np.float64) @ self.mean_z())

    def problem(self, shrinkage: float | None = None) -> Problem:
        """The least-squares problem; the shrinkage is chosen from the samples if it is left out, and never quite 0."""
        n = self.count
        if shrinkage is not None:
            shrinkage = max(shrinkage, _LEAST_SHRINKAGE)
        power = np.maximum(self._square_y / n - (self._sum_y / n) ** 2, 0.0)
        if self._wide:
            z = np.concatenate([item[0] for item in self._kept])
            y = np.concatenate([item[1] for item in self._kept])
            z -= z.mean(axis=0)
            y -= y.mean(axis=0)
            scale = _scale(np.einsum("ij,ij->j", z, z, dtype=np.float64) / n)
            z /= scale
            weights = self.weights * scale
            share = best_shrinkage(z, y, weights) if shrinkage is None else shrinkage
            cross = (y.T @ z) / np.float32(n)
            metric: Metric = LowRankMetric(z, share)
        else:
            mean = self._sum_z / n
            gram = self._gram / n - np.outer(mean, mean)
            scale = _scale(np.diag(gram))
            weights = self.weights * scale
            share = min(0.5, 0.01 + 0.5 * len(gram) / n) if shrinkage is None else shrinkage
            cross = ((self._cross / n - np.outer(self._sum_y / n, mean)) / scale).astype(np.float32)
            metric = DenseMetric(gram / np.outer(scale, scale), share)
        target = (1.0 - share) * cross + share * weights
        energy = np.einsum("ij,ij->i", weights, weights, dtype=np.float64)
        return Problem(
            metric, target.astype(np.float32), scale, weights.astype(np.float32), (1 - share) * power + share * energy
        )


def _scale(variance: Array) -> Array:
    """Standard deviations, those of (nearly) constant inputs raised to a floor."""
    deviation = np.sqrt(np.maximum(variance, 0.0))
    typical = float(np.sqrt(np.mean(variance))) if variance.size else 0.0
    return np.maximum(deviation, _LEAST_DEVIATION * typical if typical > 0 else 1.0).astype(np.float32)


def best_shrinkage(z: Array, y: Array, weights: Array) -> float:
    """The shrinkage whose refit errs least on samples that it has not seen.

    A few rows are pruned by magnitude and refitted on three quarters of the samples, once for each candidate.
    """
    rows = np.linspace(0, len(weights) - 1, min(_TRIED_ROWS, len(weights))).astype(int)
    weights, y = weights[rows], y[:, rows]
    mask = mask_of(weights * weights, 1, Pattern("unstructured"), _TRIED_SPARSITY)
    seen = np.arange(len(z)) % 4 != 3
    old, fresh = z[seen], z[~seen]
    cross = (y[seen].T @ old) / np.float32(len(old))
    power, energy = np.square(y[seen]).mean(axis=0), np.square(weights).sum(axis=1)
    # All at once: a few rows at a time would wait for memory.
    count, shares = len(rows), np.repeat(np.array(_SHRINKAGES, np.float32), len(rows))[:, None]
    cross, many = np.tile(cross, (len(_SHRINKAGES), 1)), np.tile(weights, (len(_SHRINKAGES), 1))
    power, energy = (np.tile(item, len(_SHRINKAGES)) for item in (power, energy))
    whole = (1.0 - shares[:, 0]) * power + shares[:, 0] * energy
    target = (1.0 - shares) * cross + shares * many
    problem = Problem(LowRankMetric(old, shares), target, np.ones(1, np.float32), many, whole)
    found = solve_iteratively(problem, np.tile(mask, (len(_SHRINKAGES), 1)), progress=_PROGRESS)
    gaps = (fresh @ found.T).reshape(len(fresh), len(_SHRINKAGES), count) - y[~seen][:, None]
    return _SHRINKAGES[int(np.argmin(np.square(gaps).mean(axis=(0, 2))))]
