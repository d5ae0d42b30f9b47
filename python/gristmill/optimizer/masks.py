"""Masks: which weights of a layer stay, by score and pattern.

A pattern groups the weights of a matrix into units that stay or go together, and says among which units the choice is
free. Scores are squared contributions (weight magnitude, or magnitude times what flows through it), so the score of a
unit is the sum over its weights. Ties fall to the earlier weight, so masks are deterministic.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gristmill.errors import ArgumentError
from gristmill.graph import Array

__all__ = ["Pattern", "global_cut", "keep_best", "mask_of", "parse_pattern"]

Mask = npt.NDArray[np.bool_]

_BLOCK = 4


@dataclass(frozen=True)
class Pattern:
    """What stays or goes together.

    Attributes:
        kind: ``unstructured``; ``1x4``, blocks of four consecutive input channels at one tap; ``n:m``, at most n of m
            consecutive input channels at one tap; ``channel``, whole output channels.
        kept: n of n:m.
        among: m of n:m.
    """

    kind: str
    kept: int = 0
    among: int = 0

    def __str__(self) -> str:
        return f"{self.kept}:{self.among}" if self.kind == "n:m" else self.kind


def parse_pattern(text: str | Pattern) -> Pattern:
    """A pattern by its name.

    Raises:
        ArgumentError: There is no such pattern.

    Example:
        >>> parse_pattern("2:4")
        Pattern(kind='n:m', kept=2, among=4)
    """
    if isinstance(text, Pattern):
        return text
    if text in {"unstructured", "1x4", "channel"}:
        return Pattern(text)
    if match := re.fullmatch(r"(\d+):(\d+)", text):
        kept, among = map(int, match.groups())
        if 0 < kept < among:
            return Pattern("n:m", kept, among)
    raise ArgumentError(f"must be unstructured, 1x4, channel or N:M such as 2:4, got {text!r}", node="pattern")


def mask_of(scores: Array, taps: int, pattern: Pattern, sparsity: float) -> Mask:
    """Keep the units of highest score.

    Args:
        scores: (rows, columns), at least 0; columns run over (channel, tap).
        taps: Taps per channel.
        pattern: What stays together.
        sparsity: Share of the weights to drop; rounded to whole units. n:m has a share of its own and ignores it.

    Returns:
        True for what stays.

    Example:
        >>> mask_of(np.array([[4.0, 1.0, 3.0, 2.0]]), 1, parse_pattern("unstructured"), 0.5)
        array([[ True, False,  True, False]])
    """
    if pattern.kind == "unstructured":
        return keep_best(scores.reshape(-1), scores.size - round(sparsity * scores.size)).reshape(scores.shape)
    units = _units(scores, taps, pattern)
    if pattern.kind == "n:m":
        return _spread(_best_of_each(units, pattern.kept), scores.shape, taps, pattern)
    sums = units.sum(axis=-1)
    kept = keep_best(sums.reshape(-1), sums.size - round(sparsity * sums.size)).reshape(sums.shape)
    return _spread(np.broadcast_to(kept[..., None], units.shape), scores.shape, taps, pattern)


def keep_best(scores: Array, count: int) -> Mask:
    """True for the ``count`` highest of a list of scores; the earlier ones of equals."""
    kept = np.zeros(scores.size, np.bool_)
    if count >= scores.size:
        kept[:] = True
    elif count > 0:
        cut = np.partition(scores, scores.size - count)[scores.size - count]
        np.greater(scores, cut, out=kept)
        level = np.flatnonzero(scores == cut)
        kept[level[: count - int(kept.sum())]] = True
    return kept


def global_cut(scores: list[Array], sparsity: float) -> list[float]:
    """The share that each of several layers loses when all their weights compete.

    Example:
        >>> global_cut([np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]])], 0.5)
        [1.0, 0.0]
    """
    flat = np.concatenate([item.reshape(-1) for item in scores])
    kept = keep_best(flat, flat.size - round(sparsity * flat.size))
    ends = np.cumsum([item.size for item in scores])
    return [1.0 - float(part.mean()) for part in np.split(kept, ends[:-1])]


def _units(scores: Array, taps: int, pattern: Pattern) -> Array:
    """The scores as (rows, units, weights of a unit); incomplete units are filled with zeros."""
    if pattern.kind == "channel":
        return scores[:, None, :]
    rows, columns = scores.shape
    length = _length(pattern)
    channels = columns // taps
    blocks = math.ceil(channels / length)
    padded = np.zeros((rows, blocks * length, taps), scores.dtype)
    padded[:, :channels] = scores.reshape(rows, channels, taps)
    return np.asarray(padded.reshape(rows, blocks, length, taps).swapaxes(2, 3).reshape(rows, blocks * taps, length))


def _spread(kept: Mask, shape: tuple[int, ...], taps: int, pattern: Pattern) -> Mask:
    """The inverse of :func:`_units`, for masks."""
    rows, columns = shape
    if pattern.kind == "channel":
        return np.array(kept.reshape(rows, columns))
    length = _length(pattern)
    planes = kept.reshape(rows, -1, taps, length).swapaxes(2, 3).reshape(rows, -1, taps)
    return np.array(planes[:, : columns // taps].reshape(rows, columns))


def _length(pattern: Pattern) -> int:
    return pattern.among if pattern.kind == "n:m" else _BLOCK


def _best_of_each(units: Array, count: int) -> Mask:
    order = np.argsort(-units, axis=-1, kind="stable")
    kept = np.zeros(units.shape, np.bool_)
    np.put_along_axis(kept, order[..., :count], True, axis=-1)
    return kept
