"""Describing: the report of a changed graph, read off the graph itself."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gristmill.artefact import sparse_coding
from gristmill.graph import Array, Graph, Node
from gristmill.optimizer.layers import find_layers
from gristmill.optimizer.pruning import Fitted
from gristmill.optimizer.quantizing import Quantized
from gristmill.report import LayerReport, Report

__all__ = ["describe"]

#: Denser weights are stored as they are.
_SPARSE_ENOUGH = 0.7


def describe(
    before: Graph,
    after: Graph,
    *,
    fitted: Mapping[str, Fitted] | None = None,
    quantized: Quantized | None = None,
    reasons: Mapping[str, str] | None = None,
) -> Report:
    """Compare the layers of a graph with what has become of them."""
    producers = after.producers()
    nodes = {node.name: node for node in after.nodes}
    rows = []
    for layer in find_layers(before):
        weights, others = _stored(nodes[layer.name], after, producers)
        kept = (quantized.kept if quantized else {}).get(layer.name, "")
        rows.append(
            LayerReport(
                name=layer.name,
                op=layer.node.op,
                shape=layer.shape,
                weights=layer.size,
                nonzeros=int(np.count_nonzero(weights)),
                dtype=weights.dtype.name,
                bytes_before=4 * layer.size + 4 * layer.rows * bool(layer.bias),
                bytes_after=_coded_bytes(weights) + sum(item.nbytes for item in others),
                error=fitted[layer.name].error if fitted and layer.name in fitted else None,
                sqnr=quantized.sqnr.get(layer.name) if quantized else None,
                reason="; ".join(filter(None, ((reasons or {}).get(layer.name, ""), kept))),
            )
        )
    return Report(tuple(rows))


def _stored(node: Node, graph: Graph, producers: Mapping[str, Node]) -> tuple[Array, list[Array]]:
    """The constant behind a layer's weights, and the others that it needs: scales and bias."""
    found: list[Array] = []
    for name in filter(None, node.inputs[1:3]):
        if name in graph.constants:
            found.append(graph.constants[name])
        else:
            found.extend(graph.constants[part] for part in producers[name].inputs if part in graph.constants)
    return found[0], found[1:]


def _coded_bytes(weights: Array) -> int:
    """What an artefact takes for them."""
    if np.count_nonzero(weights) > _SPARSE_ENOUGH * weights.size:
        return int(weights.nbytes)
    coded = sparse_coding.encode(weights)
    return int(min(weights.nbytes, coded.nbytes))
