"""Whether the refit of a layer with more inputs than samples holds on samples that it has not seen."""

from __future__ import annotations

import numpy as np

from bars import Bar
from gristmill.graph import Graph
from gristmill.optimizer.admm import search_mask
from gristmill.optimizer.capture import Executor, forward
from gristmill.optimizer.layers import Layer, find_layers
from gristmill.optimizer.masks import parse_pattern
from gristmill.optimizer.pipeline import prepared
from gristmill.optimizer.refit import refit
from gristmill.optimizer.statistics import Statistics
from real_models import Array, RealModel

_SPARSITY, _BATCH = 0.9, 128
#: What is next to no regularization.
_BARE = 1e-3


def bars(model: RealModel) -> list[Bar]:
    """Relative output errors of the linear layer with the most inputs, pruned alone, on old and on fresh samples."""
    name = model.model.inputs[0].name
    graph = prepared(model.model.graph, [{name: model.calibration[:_BATCH]}])
    linear = (layer for layer in find_layers(graph) if not layer.is_conv)
    layer = max(linear, key=lambda one: one.columns)
    old, fresh = (_inputs_of(layer, graph, name, inputs) for inputs in (model.calibration, model.fresh))
    weights = layer.matrix(graph.constants)
    gathered = Statistics(weights)
    gathered.add(old, old)
    problem, bare = gathered.problem(), gathered.problem(shrinkage=_BARE)
    mask, near = search_mask(problem, 1, parse_pattern("unstructured"), _SPARSITY)
    candidates = {
        "ours": refit(problem, mask, near) / problem.scale,
        "no refit": weights * mask,
        "least squares alone": refit(bare, mask) / bare.scale,
    }
    errors = {who: [_error(x, weights, found) for x in (old, fresh)] for who, found in candidates.items()}
    figure, title = "{:.4f} old, {:.4f} fresh".format(*errors["ours"]), f"{model.name}, {layer.columns} inputs"
    return [
        Bar(
            f"{title}, {_SPARSITY:.0%} zeros",
            figure,
            f"{who} {errors[who][0]:.4f} old, {errors[who][1]:.4f} fresh",
            errors["ours"][1] / errors[who][1],
            1.0,
            at_most=True,
        )
        for who in list(errors)[1:]
    ]


def _inputs_of(layer: Layer, graph: Graph, name: str, inputs: Array) -> Array:
    executor, source = Executor(), layer.source
    parts = [
        forward(graph, {name: inputs[start : start + _BATCH]}, executor, [source])[source]
        for start in range(0, len(inputs), _BATCH)
    ]
    return np.concatenate(parts)


def _error(x: Array, weights: Array, found: Array) -> float:
    """Mean square error of the outputs over their variance."""
    gap, whole = (x @ (weights - found).astype(np.float32).T), x @ weights.T
    return float(gap.var(axis=0).sum() / whole.var(axis=0).sum())
