"""Answers: how far those of a changed network are from the original's.

Answers are taken as logits over the last axis, and their distance is the Kullback-Leibler divergence. With a common
scale for all answers of the changed network, the one that brings them closest, the divergence ignores how confident
that network is in general and tells what it prefers. The divergence is convex in this scale: Newton's method finds it,
in steps of at most a factor of two.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gristmill.graph import Array, Graph

__all__ = ["answers_of", "distances", "divergence"]

_NEWTON_STEPS = 12
#: Answers that are looked at: images have one for each line of pixels.
_MOST = 1 << 14


def answers_of(graph: Graph) -> str:
    """The value that holds a network's answers: its first output, or what a final softmax reads."""
    name = graph.outputs[0].name
    node = graph.producers().get(name)
    return node.inputs[0] if node is not None and node.op in {"Softmax", "LogSoftmax"} else name


def divergence(reference: Array, given: Array) -> float:
    """Mean divergence of answers."""
    return float(np.mean(_divergences(_rows(reference), _rows(given))))


def distances(reference: Sequence[Array], given: Sequence[Array]) -> Array:
    """Divergence of each answer in some batches, at the common scale of the given ones that brings them closest."""
    wanted, found = (_thinned(np.concatenate([_rows(batch) for batch in side])) for side in (reference, given))
    return _divergences(wanted, _closest_scale(wanted, found) * found)


def _closest_scale(reference: Array, given: Array) -> float:
    given = given - given.mean(axis=1, keepdims=True)
    spread = float(given.std())
    scale = 1.0 / spread if spread > 0.0 else 1.0
    wanted = np.mean(np.sum(np.exp(_log_softmax(reference)) * given, axis=1))
    for _ in range(_NEWTON_STEPS):
        likely = np.exp(_log_softmax(scale * given))
        mean = np.sum(likely * given, axis=1)
        curvature = float(np.mean(np.sum(likely * given**2, axis=1) - mean**2))
        if curvature <= 0.0:
            break
        step = float(wanted - np.mean(mean)) / curvature
        scale = float(np.clip(scale + step, scale / 2.0, 2.0 * scale))
    return scale


def _divergences(reference: Array, given: Array) -> Array:
    p, q = _log_softmax(reference), _log_softmax(given)
    return np.asarray(np.sum(np.exp(p) * (p - q), axis=1))


def _rows(answers: Array) -> Array:
    return answers.reshape(-1, answers.shape[-1]).astype(np.float64)


def _thinned(rows: Array) -> Array:
    return rows[:: -(-len(rows) // _MOST)]


def _log_softmax(x: Array) -> Array:
    shifted = x - x.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))
