"""Pipeline: the steps that pruning, quantizing and optimizing share, with progress on a terminal."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import TypeAlias

from gristmill.console import progress, status
from gristmill.graph import Array, Graph
from gristmill.optimizer.equalize import balance_ranges, equalizable_pairs, equalize
from gristmill.optimizer.layers import find_layers
from gristmill.optimizer.plan import Planner
from gristmill.optimizer.prepare import prepare
from gristmill.optimizer.pruning import Fitted, prune_by_magnitude, prune_calibrated
from gristmill.optimizer.qdq import insert_weight_qdq
from gristmill.optimizer.quantizing import Quantization, Quantized, quantize_static
from gristmill.optimizer.repair import repair
from gristmill.optimizer.rules import select_ignored

__all__ = ["MODES", "Batches", "first_samples", "prepared", "pruned", "quantized"]

Batches: TypeAlias = list[dict[str, Array]]

#: How layers can be quantized.
MODES = ("static", "dynamic", "weights")


def prepared(graph: Graph, batches: Iterable[Mapping[str, Array]]) -> Graph:
    """The network in the form that the optimizer works on, as far as inputs are there to tell shapes."""
    first = next(iter(batches), None)
    return graph if first is None else prepare(graph, first)


def pruned(
    graph: Graph, planner: Planner, share: float | Mapping[str, float] | None, method: str, batches: Batches
) -> tuple[Graph, dict[str, Fitted]]:
    """The network pruned to a sparsity, and how each layer came out."""
    targets = planner.targets(share)
    if not targets:
        return graph, {}
    if method == "magnitude":
        with status(f"pruning {len(targets)} layers"):
            return prune_by_magnitude(graph, targets), {}
    with progress("pruning and refitting", len(find_layers(graph))) as begin:
        changed, fitted = prune_calibrated(
            graph, targets, batches, method=method, seed=planner.seed, on_layer=lambda layer: begin(layer.name)
        )
    with status("correcting means and deviations"):
        return repair(graph, changed, batches), fitted


def quantized(
    graph: Graph,
    mode: str,
    batches: Batches,
    how: Quantization,
    ignore: Collection[str] = (),
    balance: str | bool = "auto",
) -> Quantized:
    """The network with its layers in int8."""
    ignored = select_ignored(find_layers(graph), ignore)
    if balance is True or (balance == "auto" and equalizable_pairs(graph)):
        graph = equalize(graph)
    if balance and mode == "static" and how.per_channel:
        graph = balance_ranges(graph, batches, ignored)
    layers = [layer for layer in find_layers(graph) if layer.name not in ignored]
    if mode != "static":
        return Quantized(insert_weight_qdq(graph, layers, dynamic=mode == "dynamic", per_channel=how.per_channel))
    with progress("quantizing", 2 * len(graph.nodes)) as begin:
        return quantize_static(graph, batches, how, layers, on_node=lambda node: begin(node.name))


def first_samples(batches: Batches, samples: int) -> Batches:
    """As many batches from the start as hold that many samples."""
    size = len(next(iter(batches[0].values())))
    return batches[: max(1, math.ceil(samples / max(size, 1)))]
