"""Plan: from what a user asks for to a target per layer, with the reasons for layers that have none."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gristmill.console import progress
from gristmill.errors import ArgumentError
from gristmill.graph import Array, Graph
from gristmill.optimizer.allocate import HIGHEST, Cost, Curve, allocate, measure_curves
from gristmill.optimizer.channels import owners_of_channels
from gristmill.optimizer.choose import Way, choose
from gristmill.optimizer.kernel_times import KernelTimes
from gristmill.optimizer.layers import Layer, find_layers
from gristmill.optimizer.masks import Pattern, global_cut
from gristmill.optimizer.pruning import Target
from gristmill.optimizer.rules import kept_dense, per_layer, select_ignored, without_own_channels
from gristmill.optimizer.schedules import check_sparsity

__all__ = ["SCOPES", "Planner"]

#: ``layer``: the same share everywhere; ``global``: layers compete.
SCOPES = ("layer", "global")


@dataclass
class Planner:
    """Decides targets; what it measures is measured once for all sparsities.

    Attributes:
        graph: The network.
        pattern: Of all pruned layers; None chooses among :attr:`patterns` for each, by kernel times.
        scope: One of :data:`SCOPES`.
        ignore: Names or regular expressions of layers to leave alone.
        batches: Calibration data; without it layers compete by magnitude.
        cost: What saving is counted in, by layer and sparsity; the number of weights by default.
        seed: Of what is random in measurements.
        patterns: What is chosen among, the first where a table decides the sparsity.
        timer: Measures the kernel times of layers; needed for choosing.
    """

    graph: Graph
    pattern: Pattern | None
    scope: str = "global"
    ignore: Collection[str] = ()
    batches: Sequence[Mapping[str, Array]] = ()
    cost: Cost | None = None
    seed: int = 0
    patterns: Sequence[Pattern] = (Pattern("unstructured"), Pattern("1x4"))
    timer: Callable[[Sequence[Layer], Sequence[Pattern]], KernelTimes] | None = None
    reasons: dict[str, str] = field(init=False)
    #: What decided about layers that are pruned, by the last targets.
    decided: dict[str, str] = field(init=False, default_factory=dict)
    _curves: dict[Pattern, list[Curve]] = field(init=False, default_factory=dict)
    _times: KernelTimes | None = field(init=False, default=None)
    _owners: set[str] = field(init=False)

    def __post_init__(self) -> None:
        if self.scope not in SCOPES:
            raise ArgumentError(f"must be one of {', '.join(SCOPES)}, got {self.scope!r}", node="scope")
        layers = find_layers(self.graph)
        if not layers:
            quantized = any(node.op == "DequantizeLinear" for node in self.graph.nodes)
            fix = "; it is quantized already: give the float32 model" if quantized else ""
            raise ArgumentError(f"the model has no convolution or linear layer with constant float32 weights{fix}")
        self.reasons = kept_dense(layers) | select_ignored(layers, self.ignore)
        self._owners = owners_of_channels(self.graph) if self._kind == "channel" else set()
        if self._kind == "channel":
            self.reasons = without_own_channels(layers, self._owners) | self.reasons

    def targets(self, sparsity: float | Mapping[str, float] | None) -> dict[str, Target]:
        """A target for each layer to prune: of an overall sparsity, or of a table by name or regular expression.

        Raises:
            ArgumentError: The sparsity is out of range, cannot be reached, or is missing where the pattern has none.
        """
        layers = find_layers(self.graph)
        if sparsity is None:
            if self.pattern is None or self.pattern.kind != "n:m":
                raise ArgumentError(f"pattern {self.pattern or 'auto'} needs one", node="sparsity")
            sparsity = 1.0 - self.pattern.kept / self.pattern.among
        if isinstance(sparsity, Mapping):
            ignored = select_ignored(layers, self.ignore)
            table = per_layer(layers, sparsity)
            self.reasons = ignored | {n: "not in the table" for n in (x.name for x in layers) if n not in table}
            shares = {name: share for name, share in table.items() if name not in ignored}
        else:
            check_sparsity(sparsity)
            if self.pattern is None:
                return self._chosen(sparsity, layers)
            shares = self._overall(sparsity, layers)
        pattern = self.pattern or self.patterns[0]
        return {
            name: Target(pattern, share, silent=name in self._owners) for name, share in shares.items() if share > 0.0
        }

    def most(self) -> float:
        """The highest overall sparsity that :meth:`targets` can share out."""
        layers = find_layers(self.graph)
        price = self.cost or (lambda layer, share: layer.size * (1.0 - share))
        left = sum(price(layer, 0.0 if layer.name in self.reasons else HIGHEST) for layer in layers)
        return max(0.0, 1.0 - left / self._total(layers))

    def curves(self) -> dict[Pattern, list[Curve]]:
        """Error curves of the layers that may be pruned, in each pattern that may be taken."""
        if not self._curves:
            free = self._free(find_layers(self.graph))
            patterns = self.patterns if self.pattern is None else (self.pattern,)
            with progress("measuring what each layer can lose", len(free)) as begin:
                self._curves = measure_curves(
                    self.graph, free, self.batches, patterns, self.seed, lambda layer: begin(layer.name)
                )
        return self._curves

    @property
    def _kind(self) -> str:
        return "auto" if self.pattern is None else self.pattern.kind

    def _chosen(self, sparsity: float, layers: Sequence[Layer]) -> dict[str, Target]:
        """A pattern and a share for each layer, by harm and measured times."""
        free = self._free(layers)
        if sparsity == 0.0 or not free:
            return {}
        if self.timer is None:
            raise ArgumentError("auto needs a timer", node="pattern")
        if self._times is None:
            self._times = self.timer(free, self.patterns)
        ways = choose(self.curves(), self._times, self._total(layers), sparsity)
        self.decided = {name: _why(way) for name, way in ways.items()}
        return {name: Target(way.pattern, way.sparsity) for name, way in ways.items() if way.pattern is not None}

    def _overall(self, sparsity: float, layers: Sequence[Layer]) -> dict[str, float]:
        free = self._free(layers)
        if sparsity == 0.0 or not free:
            return {}
        if self.scope == "layer" or self._kind == "n:m":
            return {layer.name: sparsity for layer in free}
        if self.batches:
            return allocate(self.curves()[self.pattern or self.patterns[0]], self._total(layers), sparsity, self.cost)
        reach = sum(layer.size for layer in free) / sum(layer.size for layer in layers)
        if sparsity >= reach:
            reason = f"{sparsity:.3g} cannot be reached: the layers that may be pruned hold {reach:.3f} of all weights"
            raise ArgumentError(reason, node="sparsity")
        needed = sparsity / reach
        scores = [np.abs(layer.matrix(self.graph.constants)) for layer in free]
        return {layer.name: share for layer, share in zip(free, global_cut(scores, needed), strict=True)}

    def _total(self, layers: Sequence[Layer]) -> float:
        return float(sum(layer.size if self.cost is None else self.cost(layer, 0.0) for layer in layers))

    def _free(self, layers: Sequence[Layer]) -> list[Layer]:
        return [layer for layer in layers if layer.name not in self.reasons]


def _why(way: Way) -> str:
    if way.pattern is None:
        return "dense: zeros here would cost more accuracy than they save"
    return f"{way.pattern}: {way.milliseconds:.4f} ms, dense {way.dense:.4f} ms"
