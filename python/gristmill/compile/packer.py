"""Packed weights, made once for all plans of a session, each layer's in the format that a selector chooses."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np

from gristmill import _core
from gristmill.graph import Array

if TYPE_CHECKING:
    from gristmill.compile.program import Value
    from gristmill.dense import Epilogue

Packed: TypeAlias = _core.PackedConv | _core.PackedLinear

#: The name of the format without zeros left out.
DENSE = "dense"
#: Above this density no sparse format wins, of whatever layer.
HOPELESS = 0.75

#: One lock for all: packing at another level than the active one changes a setting of the process.
_level_lock = threading.Lock()


@dataclass(frozen=True, eq=False)
class Layer:
    """A convolution or linear layer whose weights are to be packed.

    Attributes:
        kind: conv or linear, as the step is called.
        weights: int8 or float32, output channels first, as images for a convolution.
        options: Keyword arguments of ``PackedConv``.
        tensors: x, the output and, if there is one, the residual.
        epilogue: What becomes of the sums.
        zero_point: Of x; the run may compute it.
    """

    kind: str
    weights: Array
    options: Mapping[str, Any]
    tensors: tuple[Value, ...]
    epilogue: Epilogue
    zero_point: Value | int

    @property
    def groups(self) -> int:
        """Groups of channels."""
        return int(self.options.get("groups", 1))

    @property
    def rows(self) -> int:
        """Rows that a linear layer multiplies."""
        return math.prod(self.tensors[0].shape[:-1])

    def pack(self, kind: str) -> Packed:
        """The weights in a format."""
        form = None if kind == DENSE else kind
        if self.kind == "linear":
            return _core.PackedLinear(self.weights, format=form, rows=self.rows)
        return _core.PackedConv(self.weights, format=form, **self.options)


@dataclass(frozen=True)
class ZeroPattern:
    """Where the zeros of weights are.

    Attributes:
        density: The part that is not zero.
        touched: The part of int8 weights in groups of four input channels at one tap that are not all zero; 1 for
            float32.
    """

    density: float
    touched: float

    @staticmethod
    def of(weights: Array) -> ZeroPattern:
        """That of weights with output channels first."""
        if weights.itemsize > 1:
            return ZeroPattern(np.count_nonzero(weights != 0) / max(weights.size, 1), 1.0)
        density = _core.count_nonzero(weights) / max(weights.size, 1)
        if density >= HOPELESS:
            return ZeroPattern(density, 1.0)
        taps_first = (
            weights.reshape(*weights.shape[:2], math.prod(weights.shape[2:])).swapaxes(1, 2)
            if weights.shape[1] % 4 == 0
            else weights
        )
        rows = taps_first.reshape(len(weights), math.prod(weights.shape[1:]))
        groups = np.ascontiguousarray(rows[:, : rows.shape[1] // 4 * 4]).view(np.uint32)
        return ZeroPattern(density, 4 * np.count_nonzero(groups) / max(weights.size, 1))


@dataclass(frozen=True)
class Choice:
    """The format of a layer's weights.

    Attributes:
        format: dense, quads, blocks or singles.
        milliseconds: What each candidate took, where they were measured.
        heuristic: Whether the sparsity alone decided between several.
    """

    format: str
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    heuristic: bool = False

    def __str__(self) -> str:
        if self.milliseconds:
            order = sorted(self.milliseconds, key=self.milliseconds.__getitem__)
            return ", ".join(f"{name} {self.milliseconds[name]:.3f}" for name in order)
        return "by sparsity" if self.heuristic else ""


class Selector(Protocol):
    """Chooses formats of weights."""

    def choose(self, layer: Layer, zeros: ZeroPattern, pack: Callable[[str], Packed]) -> Choice:
        """The format of a layer; ``pack`` gives its weights in one, kept if it is chosen."""

    def finish(self) -> None:
        """All layers of a plan have been chosen."""


class Packer:
    """Packs weights for one level and keeps the results.

    Args:
        selector: What chooses the format of each layer.
        isa: The level; None for the active one.
    """

    def __init__(self, selector: Selector, isa: str | None = None) -> None:
        self.selector, self.isa = selector, isa
        self._packed: dict[tuple[object, ...], Packed] = {}
        self._derived: dict[tuple[int, str], Array] = {}
        self._patterns: dict[int, ZeroPattern] = {}
        self._alive: dict[int, Array] = {}

    def pack(self, layer: Layer) -> tuple[Packed, Choice]:
        """The weights of a layer, and why they have their format."""
        zeros, batched = self.zeros(layer.weights), self._batched(layer)
        tried: dict[str, Packed] = {}

        def key(kind: str, form: bool) -> tuple[object, ...]:
            return id(layer.weights), *layer.options.values(), kind, form

        def pack(kind: str) -> Packed:
            if kind not in tried:
                wanted = batched and kind == DENSE
                packed = self._packed.get(key(kind, wanted)) or self._at_level(lambda: layer.pack(kind))
                if wanted and not _is_batched(packed):  # it would not be faster with these weights
                    packed = self._packed.get(key(kind, False), packed)
                tried[kind] = packed
            return tried[kind]

        choice = self.selector.choose(layer, zeros, pack)
        packed = pack(choice.format)
        self._packed[key(choice.format, _is_batched(packed))] = packed
        return packed, choice

    def zeros(self, weights: Array) -> ZeroPattern:
        """Where the zeros of weights are, looked for once."""
        identity = id(weights)
        if identity not in self._patterns:
            self._patterns[identity], self._alive[identity] = ZeroPattern.of(weights), weights
        return self._patterns[identity]

    def derived(self, weights: Array, how: str, make: Callable[[Array], Array]) -> Array:
        """What ``make`` makes of weights, once for all plans; ``how`` tells different functions apart."""
        key = (id(weights), how)
        if key not in self._derived:
            self._derived[key] = make(weights)
            self._alive[id(weights)] = weights
        return self._derived[key]

    def _batched(self, layer: Layer) -> bool:
        """Whether dense weights may have a form of their own for the layer's batch."""
        if layer.kind != "linear" or layer.weights.dtype != np.int8:
            return False
        return _core.batch_pays(layer.rows, self.isa or _core.get_isa())

    def _at_level(self, pack: Callable[[], Packed]) -> Packed:
        with _level_lock:
            before = _core.get_isa()
            _core.set_isa(self.isa or before)
            try:
                return pack()
            finally:
                _core.set_isa(before)


def _is_batched(packed: Packed) -> bool:
    return isinstance(packed, _core.PackedLinear) and packed.batched
