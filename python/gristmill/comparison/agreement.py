"""How far the outputs of a model agree with those of the original."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Agreement", "agreement"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Agreement:
    """Outputs against those of the original in float32.

    Attributes:
        snr: Signal to noise in dB, of the output that has least; None if the outputs are equal to the bit.
        top1: Share of samples whose greatest score is the same; None if the first output is no row of scores.
        samples: How many samples were compared.
    """

    snr: float | None
    top1: float | None
    samples: int

    def __str__(self) -> str:
        snr = "equal" if self.snr is None else f"{self.snr:.0f} dB"
        return snr if self.top1 is None else f"{self.top1:.1%}, {snr}"


def agreement(exact: Sequence[Array], given: Sequence[Array]) -> Agreement:
    """Compare outputs.

    Example:
        >>> exact, given = np.eye(3), np.eye(3) + 0.01
        >>> print(agreement([exact], [given]))
        100.0%, 35 dB
    """
    ratios = [_snr(a, b) for a, b in zip(exact, given, strict=True)]
    known = [ratio for ratio in ratios if ratio is not None]
    first, other = exact[0], given[0]
    top1 = None
    if first.ndim >= 2 and first[0].size == first.shape[-1] > 1:
        rows = len(first)
        top1 = float(np.mean(first.reshape(rows, -1).argmax(1) == other.reshape(rows, -1).argmax(1)))
    return Agreement(min(known) if known else None, top1, len(first) if first.ndim else 1)


def _snr(exact: Array, given: Array) -> float | None:
    signal = np.square(exact, dtype=np.float64).sum()
    noise = np.square(exact.astype(np.float64) - given).sum()
    if noise == 0:
        return None
    return float(10 * np.log10(max(signal, 1e-300) / noise))
