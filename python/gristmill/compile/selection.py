"""Which kernel runs a layer: chosen by the sparsity of its weights, or by timing those that could.

A layer has a choice only where many of its weights are zero; others are dense, and nothing is measured. Candidates are
timed at the layer's real shape, with its own epilogue and number of threads, in turns, for a few milliseconds; the best
turn of each counts. A sparse format that is not clearly faster than the dense kernels is not used. Timings are kept, in
memory and on disk, by all that they depend on, so that the same model is the same plan the next time.

Formats differ in nothing but time for int8 layers, whose results are the same bits. Those of float32 layers may differ
in the last bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from gristmill import _core
from gristmill.compile.packer import DENSE, HOPELESS, Choice, Layer, Packed, ZeroPattern
from gristmill.compile.program import Value
from gristmill.compile.timings import Timings

Pack: TypeAlias = Callable[[str], Packed]


@dataclass(frozen=True)
class BreakEven:
    """The greatest densities at which sparse formats beat the dense kernels.

    Attributes:
        quads: The part of the weights that is not zero.
        blocks: The part in groups of four that are not all zero.
        singles: The part of float32 weights that is not zero.
        quads_per_block: What a product in a quad costs, in products in a block.
    """

    quads: float
    blocks: float
    singles: float
    quads_per_block: float


_USUAL = BreakEven(0.40, 0.42, 0.35, 1.4)
#: By level and kind of layer, measured on layers of ResNet-50 and perceptrons; other levels take the usual ones.
_BREAK_EVEN = {
    ("amx", "conv"): BreakEven(0.07, 0.11, 0.50, 1.6),
    ("amx", "linear"): BreakEven(0.28, 0.35, 0.35, 1.2),
    ("avx512vnni", "conv"): BreakEven(0.27, 0.50, 0.50, 2.0),
    ("avx512vnni", "linear"): BreakEven(0.28, 0.35, 0.35, 1.2),
    ("avx2", "conv"): BreakEven(0.60, 0.65, 0.50, 1.4),
    ("avx2", "linear"): BreakEven(0.35, 0.30, 0.40, 1.0),
}
#: A sparse format must take less than this part of what the dense kernels take.
_CLEARLY = 0.97
#: Seconds for the candidates of a layer, and for all layers of a plan; beyond that sparsity decides.
_LAYER_SECONDS, _PLAN_SECONDS = 0.01, 3.0
_LEAST_ROUNDS, _MOST_ROUNDS = 3, 40


class Heuristic:
    """Chooses by the sparsity of the weights alone.

    Args:
        isa: The level that layers run at; None for the active one.
    """

    def __init__(self, isa: str | None = None) -> None:
        self._isa = isa

    def choose(self, layer: Layer, zeros: ZeroPattern, _pack: Pack) -> Choice:
        """The format that usually wins at that sparsity."""
        return by_sparsity(layer, zeros, self._isa or _core.get_isa())

    def finish(self) -> None:
        """Nothing is left to do."""


class Measured:
    """Times the candidates of a layer.

    Args:
        timings: What has been measured already.
        threads: Threads of a run.
        isa: The level that layers run at; None for the active one.
    """

    def __init__(self, timings: Timings, threads: int, isa: str | None = None) -> None:
        self._timings, self._threads, self._left = timings, threads, _PLAN_SECONDS
        self._usual = Heuristic(isa)

    def choose(self, layer: Layer, zeros: ZeroPattern, pack: Pack) -> Choice:
        """The fastest format."""
        wanted = candidates(layer, zeros)
        if len(wanted) == 1 or not all(value.size for value in layer.tensors):
            return self._usual.choose(layer, zeros, pack)
        key = _signature(layer, self._threads, zeros)
        found = self._timings.get(key)
        if found is None or set(found) != set(wanted):
            if self._left <= 0:
                return self._usual.choose(layer, zeros, pack)
            start = time.perf_counter()
            found = time_formats(layer, {kind: pack(kind) for kind in wanted}, self._threads)
            self._left -= time.perf_counter() - start
            self._timings.put(key, found)
        return Choice(fastest(found), found)

    def finish(self) -> None:
        """Store what is new, and begin the next plan."""
        self._timings.store()
        self._left = _PLAN_SECONDS


def candidates(layer: Layer, zeros: ZeroPattern) -> list[str]:
    """The formats that may win, the dense one first."""
    depthwise = layer.groups > 1 and layer.weights.shape[1] == 1
    if zeros.density >= HOPELESS or depthwise or not layer.weights.size:
        return [DENSE]
    if layer.weights.dtype == np.float32:
        return [DENSE, "singles"]
    return [DENSE, "quads", *(["blocks"] if zeros.touched < HOPELESS else [])]


def by_sparsity(layer: Layer, zeros: ZeroPattern, isa: str) -> Choice:
    """The format that usually wins at this density."""
    if len(candidates(layer, zeros)) == 1:
        return Choice(DENSE)
    even = _BREAK_EVEN.get((isa, layer.kind), _USUAL)
    if layer.groups > 1:
        found = DENSE
    elif layer.weights.dtype == np.float32:
        found = "singles" if zeros.density < even.singles else DENSE
    elif zeros.touched < min(even.quads_per_block * zeros.density, even.blocks):
        found = "blocks"
    else:
        found = "quads" if zeros.density < even.quads else DENSE
    return Choice(found, heuristic=True)


def fastest(milliseconds: Mapping[str, float]) -> str:
    """The best sparse format if it is clearly faster than the dense one, which else wins.

    Example:
        >>> fastest({"dense": 1.0, "quads": 0.5}), fastest({"dense": 1.0, "quads": 0.99})
        ('quads', 'dense')
    """
    best = min(milliseconds, key=milliseconds.__getitem__)
    return best if milliseconds[best] < _CLEARLY * milliseconds[DENSE] else DENSE


def time_formats(layer: Layer, packed: Mapping[str, Packed], threads: int) -> dict[str, float]:
    """Milliseconds of each format: the best of rounds in which the candidates take turns."""
    plans = {kind: _plan_of(layer, weights) for kind, weights in packed.items()}
    best = {kind: plan.profile([], threads=threads)[0][2] for kind, plan in plans.items()}
    end = time.perf_counter() + _LAYER_SECONDS
    for done in range(_MOST_ROUNDS):
        if done >= _LEAST_ROUNDS and time.perf_counter() > end:
            break
        for kind, plan in plans.items():
            best[kind] = min(best[kind], plan.profile([], threads=threads)[0][2])
    return best


def _plan_of(layer: Layer, packed: Packed) -> _core.Plan:
    """The layer alone, on memory of its own."""
    tensors, end = [], 0
    for value in layer.tensors:
        tensors.append(_core.Tensor.arena(end, value.dtype.name, value.shape))
        end += -(-value.nbytes // 64) * 64
    plan = _core.Plan(end, [], [])
    x, out, *residual = tensors
    zero_point = 0 if isinstance(layer.zero_point, Value) else layer.zero_point
    add = plan.conv if layer.kind == "conv" else plan.linear
    add("layer", x, out, packed, layer.epilogue._core, zero_point, *residual)  # type: ignore[arg-type]
    return plan


def _signature(layer: Layer, threads: int, zeros: ZeroPattern) -> str:
    """All that the time of a layer depends on, beside the machine; a curve in its epilogue may take most of it."""
    tensors = [f"{value.dtype.name}{list(value.shape)}" for value in layer.tensors]
    options = [f"{name}={value}" for name, value in layer.options.items()]
    pattern = f"density={zeros.density:.2f}/{zeros.touched:.2f}"
    weights = f"{layer.weights.dtype.name}{list(layer.weights.shape)}"
    residual = layer.epilogue.residual
    functions = [layer.epilogue.activation.name, *([residual.activation.name] if residual is not None else [])]
    ending = f"activation={'+'.join(functions)}"
    return " ".join([layer.kind, *tensors, weights, *options, ending, pattern, f"threads={threads}"])
