"""Levels of a compilation: the graph for the whole batch, and for each stretch of nodes that runs in slices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gristmill.compile.packer import HOPELESS, Packer
from gristmill.compile.slicing import Cache, Stretch, find_stretches
from gristmill.errors import GristmillError
from gristmill.graph import Array, Graph, ValueInfo
from gristmill.operators import Known, TensorType
from gristmill.passes import specialize

__all__ = ["Level", "find_levels"]


@dataclass(frozen=True)
class Level:
    """Nodes with what is known of their values for slices of one size.

    Attributes:
        graph: The nodes of this level, and of those before it.
        types: What is known of values.
        end: How many nodes these are.
    """

    graph: Graph
    types: dict[str, Known]
    end: int

    @staticmethod
    def of(graph: Graph, inputs: Mapping[str, Known]) -> Level:
        """All nodes, for inputs of these types."""
        graph, types = specialize(graph, inputs)
        return Level(graph, types, len(graph.nodes))

    def first_nodes(self, stretch: Stretch) -> Level:
        """The nodes up to the end of a stretch."""
        nodes = self.graph.nodes[: stretch.end]
        read = {name for node in nodes for name in node.inputs}
        kind = self.types[stretch.value]
        part = self.graph.replace(
            inputs=tuple(info for info in self.graph.inputs if info.name in read),
            outputs=(ValueInfo(stretch.value, kind.dtype, kind.shape),),
            nodes=nodes,
        )
        return Level(part.without_dead(), self.types, stretch.end)

    def is_slice_of(self, whole: Level, size: int) -> bool:
        """Whether the nodes and constants are the same, and values are as many images of those of the whole batch."""
        ours, theirs = self.graph.nodes, whole.graph.nodes[: self.end]
        return len(ours) == len(theirs) and all(
            (a.op, a.name, a.inputs, a.outputs) == (b.op, b.name, b.inputs, b.outputs)
            and all(_is_slice(self.types[name], whole.types[name], size) for name in (*a.inputs, *a.outputs) if name)
            for a, b in zip(ours, theirs, strict=True)
        )


def find_levels(graph: Graph, inputs: Mapping[str, Known], packer: Packer, cache: Cache) -> list[Level]:
    """The levels for runs with these caches, the whole batch last."""
    whole = Level.of(graph, inputs)

    def weight_bytes(weights: Array) -> float:
        density = packer.zeros(weights).density if weights.dtype in (np.int8, np.float32) else 1.0
        entry = 3 if weights.itemsize == 1 else 8
        return min(weights.nbytes, weights.size * density * entry) if density < HOPELESS else weights.nbytes

    levels = []
    for stretch in find_stretches(whole.graph, whole.types, cache, weight_bytes):
        sliced = {name: TensorType(known.dtype, (stretch.size, *known.shape[1:])) for name, known in inputs.items()}
        try:
            level = Level.of(graph, sliced).first_nodes(stretch)
        except GristmillError:  # the graph is written for batches of this size alone
            return [whole]
        if not level.is_slice_of(whole, stretch.size):
            return [whole]
        levels.append(level)
    return [*levels, whole]


def _is_slice(part: Known, whole: Known, size: int) -> bool:
    if isinstance(part, np.ndarray) or isinstance(whole, np.ndarray):
        return part is whole or (
            isinstance(part, np.ndarray) and isinstance(whole, np.ndarray) and np.array_equal(part, whole)
        )
    return part.dtype == whole.dtype and part.shape == (size, *whole.shape[1:])
