"""Means and deviations given back after pruning, branches that make up for what they are added to, wider batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import gristmill as gm
from gristmill import reference
from gristmill.graph import Graph, GraphBuilder
from gristmill.optimizer import pruning
from gristmill.optimizer.batching import wide_batches
from gristmill.optimizer.layers import find_layers, with_constants
from gristmill.optimizer.masks import parse_pattern
from gristmill.optimizer.pruning import Target, prune_calibrated
from gristmill.optimizer.repair import repair
from small_nets import conv_net, images, snr

Array = npt.NDArray[Any]


def _batches(count: int = 4) -> list[dict[str, Array]]:
    return [{"x": images(32, seed=seed)} for seed in range(count)]


def _narrowed(graph: Graph) -> Graph:
    """The network with outputs of one layer narrowed and shifted, one of its channels silent."""
    layer = next(layer for layer in find_layers(graph) if layer.name == "inner")
    weights, bias = layer.matrix(graph.constants) * np.float32(0.6), layer.offsets(graph.constants) + np.float32(0.4)
    weights[3], bias[3] = 0.0, 0.0
    return with_constants(graph, [(layer, weights, bias)])


def _answers(graph: Graph, x: Array) -> Array:
    return reference.run(graph, {"x": x})["logits"]


def test_repair_gives_means_and_deviations_back() -> None:
    graph, fresh = conv_net(), images(32, seed=50)
    changed = _narrowed(graph)
    repaired = repair(graph, changed, _batches())
    exact = _answers(graph, fresh)
    assert snr(exact, _answers(repaired, fresh)) > snr(exact, _answers(changed, fresh)) + 6
    assert np.array_equal(repaired.constants["w3"] == 0, changed.constants["w3"] == 0)
    assert repaired.constants["b3"][3] == 0
    ratio = (repaired.constants["w3"] / graph.constants["w3"])[np.arange(32) != 3]
    np.testing.assert_allclose(ratio, 1.0, rtol=1e-3)


def test_repair_leaves_alone_what_is_right_or_cannot_be_judged() -> None:
    graph = conv_net()
    for name, value in repair(graph, graph, _batches()).constants.items():
        np.testing.assert_allclose(value, graph.constants[name], rtol=1e-3, atol=1e-3)
    changed = _narrowed(graph)
    assert repair(graph, changed, _batches(1)) is changed


def test_branches_make_up_for_what_they_are_added_to(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, fresh = conv_net(), images(64, seed=50)
    target = {"wide": Target(parse_pattern("unstructured"), 0.7)}
    total = next(node.outputs[0] for node in graph.nodes if node.op == "Add")
    exact = reference.run(graph, {"x": fresh}, [total])[total]

    def ratio() -> float:
        changed, _ = prune_calibrated(graph, target, _batches(), method="refit")
        return snr(exact, reference.run(changed, {"x": fresh}, [total])[total])

    ours = ratio()
    monkeypatch.setattr(pruning, "_added_to", lambda _graph, _layer: "")
    assert ours > ratio() + 1.0


def test_sequential_refits_see_what_pruning_left() -> None:
    graph, fresh = conv_net(), images(64, seed=50)
    targets = {name: Target(parse_pattern("unstructured"), 0.8) for name in ("wide", "inner")}
    exact = _answers(graph, fresh)
    alone, together = (
        prune_calibrated(graph, targets, _batches(), method="refit", sequential=sequential)[0]
        for sequential in (False, True)
    )
    assert np.array_equal(alone.constants["w0"], graph.constants["w0"])
    assert snr(exact, _answers(together, fresh)) > snr(exact, _answers(alone, fresh)) + 1.0


def _one_by_one(op: str, **attributes: Any) -> Graph:  # noqa: ANN401
    build = GraphBuilder()
    w = build.constant("w", np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32))
    y = build.add("Gemm", [build.input("x", np.float32, (1, 6)), w], transB=1)
    if op == "Reshape":
        return build.build([build.add("Reshape", [y, build.constant("shape", np.array([1, -1], np.int64))])])
    return build.build([build.add(op, [y], **attributes)])


def test_batches_are_joined_where_that_changes_nothing() -> None:
    x = np.random.default_rng(1).standard_normal((100, 6)).astype(np.float32)
    joined = wide_batches(_one_by_one("Relu"), x, 100)
    assert [len(batch["x"]) for batch in joined] == [64, 36]
    np.testing.assert_array_equal(np.concatenate([batch["x"] for batch in joined]), x)
    for graph in (_one_by_one("Reshape"), _one_by_one("Softmax", axis=0)):
        assert [len(batch["x"]) for batch in wide_batches(graph, x, 9)] == [1] * 9


def test_models_of_one_sample_are_optimized_on_many() -> None:
    model, x = gm.Model(conv_net(batch=1)), images(66)
    made = gm.optimize(model, x, sparsity=0.5)
    wide = gm.optimize(gm.Model(conv_net()), x, sparsity=0.5, measure=False)
    assert gm.InferenceSession(made).run(None, {"x": x[:1]})[0].shape == (1, 10)
    assert made.report.sparsity == wide.report.sparsity
