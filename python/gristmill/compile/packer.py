"""Packed weights, made once for all plans of a session, in the format that its sparsity asks for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from gristmill import _core
from gristmill.graph import Array

Packed: TypeAlias = _core.PackedConv | _core.PackedLinear

#: One lock for all: packing at another level than the active one changes a setting of the process.
_level_lock = threading.Lock()

#: The greatest density at which a sparse format beats the dense kernels.
_QUADS_BELOW, _BLOCKS_BELOW, _SINGLES_BELOW = 0.40, 0.42, 0.35


class Packer:
    """Packs weights for one level and keeps the results.

    Args:
        isa: The level; None for the active one.
    """

    def __init__(self, isa: str | None = None) -> None:
        self.isa = isa
        self._packed: dict[tuple[object, ...], Packed] = {}
        self._derived: dict[tuple[int, str], Array] = {}
        self._alive: dict[int, Array] = {}

    def conv(
        self,
        weights: Array,
        *,
        stride: tuple[int, int],
        padding: tuple[int, int, int, int],
        dilation: tuple[int, int],
        groups: int,
    ) -> _core.PackedConv:
        """Weights (out channels, in channels / groups, rows, columns), or without rows."""
        kind = heuristic_format(weights) if groups == 1 else None
        key = (id(weights), stride, padding, dilation, groups, kind)

        def pack() -> _core.PackedConv:
            images = weights.reshape(*weights.shape[:2], -1, weights.shape[-1])
            return _core.PackedConv(
                images, stride=stride, padding=padding, dilation=dilation, groups=groups, format=kind
            )

        packed: _core.PackedConv = self._cached(key, weights, pack)
        return packed

    def linear(self, weights: Array) -> _core.PackedLinear:
        """Weights (out channels, in channels)."""
        kind = heuristic_format(weights)
        key = (id(weights), kind)
        packed: _core.PackedLinear = self._cached(key, weights, lambda: _core.PackedLinear(weights, format=kind))
        return packed

    def derived(self, weights: Array, how: str, make: Callable[[Array], Array]) -> Array:
        """What ``make`` makes of weights, once for all plans; ``how`` tells different functions apart."""
        key = (id(weights), how)
        if key not in self._derived:
            self._derived[key] = make(weights)
            self._alive[id(weights)] = weights
        return self._derived[key]

    def _cached(self, key: tuple[object, ...], weights: Array, pack: Callable[[], Any]) -> Any:  # noqa: ANN401
        if key not in self._packed:
            with _level_lock:
                before = _core.get_isa()
                _core.set_isa(self.isa or before)
                try:
                    self._packed[key] = pack()
                finally:
                    _core.set_isa(before)
            self._alive[id(weights)] = weights
        return self._packed[key]


def heuristic_format(weights: Array) -> str | None:
    """The sparse format that wins at this density, or None where the dense kernels do."""
    density = np.count_nonzero(weights) / max(weights.size, 1)
    if weights.dtype == np.float32:
        return "singles" if density < _SINGLES_BELOW else None
    if density >= _BLOCKS_BELOW:
        return None
    rows = weights.reshape(len(weights), -1)
    whole = rows.shape[1] // 4 * 4
    touched = np.count_nonzero(rows[:, :whole].reshape(len(rows), -1, 4).any(axis=2)) * 4 / max(rows.size, 1)
    # A block costs about two thirds of a quad per executed product.
    if touched < 1.4 * density and touched < _BLOCKS_BELOW:
        return "blocks"
    return "quads" if density < _QUADS_BELOW else None
