"""Passes: changes to a graph that keep what it computes and make it faster to run."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gristmill.graph import Graph, ValueInfo
from gristmill.operators import Known
from gristmill.passes.dynamic_layers import make_dynamic_layers
from gristmill.passes.editor import edited
from gristmill.passes.fold_affine import fold_affine
from gristmill.passes.fold_constants import fold_but_quantized, fold_constants
from gristmill.passes.fuse_epilogues import fuse_epilogues
from gristmill.passes.fuse_pads import fuse_pads
from gristmill.passes.make_layers import make_layers
from gristmill.passes.match_activations import match_activations
from gristmill.passes.quantized_layers import make_quantized_layers
from gristmill.passes.quantized_movement import keep_bytes
from gristmill.passes.remove_identities import remove_identities
from gristmill.passes.sink_transposes import sink_transposes
from gristmill.reference import infer

__all__ = ["simplify", "specialize"]

#: In the order in which each finds most.
_PASSES = (
    fold_but_quantized,
    remove_identities,
    sink_transposes,
    match_activations,
    keep_bytes,
    make_quantized_layers,
    make_dynamic_layers,
    fold_constants,
    make_layers,
    fold_affine,
    fuse_pads,
)


def simplify(graph: Graph) -> Graph:
    """Apply the passes that need no shapes."""
    return edited(graph, *_PASSES)


def specialize(graph: Graph, inputs: Mapping[str, Known]) -> tuple[Graph, dict[str, Known]]:
    """Apply all passes for inputs of these types or values; return the graph, and what is known of its values."""
    types = infer(graph, inputs)
    folded = _with_known(graph, types)
    if folded is not graph:
        graph = simplify(folded)
        types = infer(graph, inputs)
    graph = edited(graph, lambda editor: fuse_epilogues(editor, types))
    infos = [
        tuple(ValueInfo(info.name, types[info.name].dtype, types[info.name].shape) for info in side)
        for side in (graph.inputs, graph.outputs)
    ]
    return graph.replace(inputs=infos[0], outputs=infos[1]), types


def _with_known(graph: Graph, types: Mapping[str, Known]) -> Graph:
    """Turn values that follow from shapes into constants."""
    known = {
        name: value
        for node in graph.nodes
        for name in node.outputs
        if name and isinstance(value := types[name], np.ndarray)
    }
    if not known:
        return graph
    nodes = [node for node in graph.nodes if not all(name in known or not name for name in node.outputs)]
    clash = [name for node in nodes for name in node.outputs if name in known]
    constants = {**graph.constants, **{name: value for name, value in known.items() if name not in clash}}
    return graph.replace(nodes=nodes, constants=constants).without_dead()
