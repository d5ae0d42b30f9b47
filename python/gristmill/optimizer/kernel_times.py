"""Kernel times: what a run of each layer takes at its real shape, dense and with zeros of a pattern, measured here.

A network like the one that will come out (same shapes, element types and epilogues, weights pruned by magnitude) is
compiled at a few densities, and the compiler's own timings of the kernels that could run each layer are taken over.
They are kept on disk by all that they depend on (:mod:`gristmill.compile.timings`), so that the same question has the
same answer the next time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gristmill.compile import Packer, compile_graph
from gristmill.compile.packer import DENSE
from gristmill.compile.selection import Measured
from gristmill.compile.timings import Timings
from gristmill.console import progress
from gristmill.graph import Array, Graph, Node
from gristmill.kernels import get_num_threads
from gristmill.operators import TensorType
from gristmill.optimizer.layers import Layer, owner_of
from gristmill.optimizer.masks import Pattern, mask_of
from gristmill.passes import simplify

__all__ = ["KernelTimes", "measure_kernel_times", "stored_weights"]

#: Densities at which kernels are timed.
DENSITIES = (0.05, 0.1, 0.2, 0.35, 0.5)


@dataclass
class KernelTimes:
    """Milliseconds of layers.

    Attributes:
        dense: Of the dense kernel, by layer.
        sparse: What part of that the best kernel takes, by layer and pattern, at some densities in rising order: both
            are timed in turns, so their ratio bears a machine that drifts.
    """

    dense: dict[str, float] = field(default_factory=dict)
    sparse: dict[tuple[str, Pattern], list[tuple[float, float]]] = field(default_factory=dict)

    def milliseconds(self, layer: Layer, pattern: Pattern, sparsity: Array) -> Array:
        """What the layer takes at some sparsities: never more than dense or denser, and 0 if nothing is known of it.

        Example:
            >>> from gristmill.graph import Node
            >>> fc, pattern = Layer(Node("Gemm", ("x", "w"), ("y",), {}, "fc"), (8, 8)), Pattern("1x4")
            >>> times = KernelTimes({"fc": 2.0}, {("fc", pattern): [(0.1, 0.2), (0.5, 1.2)]})
            >>> times.milliseconds(fc, pattern, np.array([0.0, 0.7, 0.9, 0.99]))
            array([2. , 1.2, 0.4, 0.4])
        """
        density, parts = np.array([*self.sparse.get((layer.name, pattern), []), (1.0, 1.0)]).T
        sinking = np.minimum.accumulate(parts[::-1])[::-1]
        return np.asarray(self.dense.get(layer.name, 0.0) * np.interp(1.0 - np.asarray(sparsity), density, sinking))


def measure_kernel_times(
    graph: Graph,
    stored: Mapping[str, str],
    layers: Sequence[Layer],
    feeds: Mapping[str, Array],
    patterns: Iterable[Pattern],
) -> KernelTimes:
    """Time layers at some densities.

    Args:
        graph: The network as it will run, with all its weights.
        stored: The constant that holds the weights, by layer.
        layers: Those to time.
        feeds: Inputs that tell the shapes of a run.
        patterns: Where zeros may be.
    """
    found = KernelTimes()
    threads = get_num_threads()
    wanted = list(patterns)
    with progress("timing kernels", len(wanted) * len(DENSITIES)) as begin:
        for pattern in wanted:
            for density in DENSITIES:
                begin(f"{pattern} at {1 - density:.0%}")
                masked = _masked(graph, stored, layers, pattern, density)
                times = _compiled_times(masked, layers, feeds, threads)
                for layer in layers:
                    if given := times.get(layer.name):
                        _add(found, layer.name, pattern, density, given)
    return found


def stored_weights(graph: Graph, layers: Iterable[Layer]) -> dict[str, str]:
    """The constant that holds the weights of each layer, also where a DequantizeLinear stands between."""
    producers, nodes = graph.producers(), {node.name: node for node in graph.nodes}
    found = {}
    for layer in layers:
        name = nodes[layer.name].inputs[1]
        found[layer.name] = name if name in graph.constants else _origin(producers[name], graph)
    return found


def _origin(node: Node, graph: Graph) -> str:
    return next(name for name in node.inputs if name in graph.constants)


def _add(found: KernelTimes, name: str, pattern: Pattern, density: float, times: Mapping[str, float]) -> None:
    found.dense[name] = min(found.dense.get(name, np.inf), times[DENSE])
    found.sparse.setdefault((name, pattern), []).append((density, min(times.values()) / times[DENSE]))


def _masked(
    graph: Graph, stored: Mapping[str, str], layers: Sequence[Layer], pattern: Pattern, density: float
) -> Graph:
    constants = dict(graph.constants)
    for layer in layers:
        values = constants[stored[layer.name]]
        matrix = values.T if layer.transposed else values.reshape(layer.rows, -1)
        taps = layer.columns // layer.shape[1]
        mask = mask_of(np.square(matrix, dtype=np.float64), taps, pattern, 1.0 - density)
        constants[stored[layer.name]] = layer.constant(matrix * mask.astype(values.dtype))
    return graph.replace(constants=constants)


def _compiled_times(
    graph: Graph, layers: Sequence[Layer], feeds: Mapping[str, Array], threads: int
) -> dict[str, Mapping[str, float]]:
    """What each candidate took for each layer, by the layer's name."""
    types = {name: TensorType(value.dtype, value.shape) for name, value in feeds.items()}
    compiled = compile_graph(simplify(graph), types, Packer(Measured(Timings.of_machine(), threads)))
    read = {node.name: node.input(1) for node in compiled.graph.nodes}
    owners = {step: owner_of(read[step], layers) for step in compiled.choices}
    return {owners[step]: choice.milliseconds for step, choice in compiled.choices.items() if choice.milliseconds}
