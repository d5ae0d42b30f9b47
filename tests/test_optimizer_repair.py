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
from gristmill.optimizer.answers import distances, divergence
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


def test_repair_that_does_not_bring_fresh_answers_closer_is_not_taken() -> None:
    graph, rng = conv_net(), np.random.default_rng(0)
    layer = next(layer for layer in find_layers(graph) if layer.name == "inner")
    weights = layer.matrix(graph.constants).reshape(32, 32, 9)
    blind = (weights - 0.6 * weights.mean(axis=2, keepdims=True)).reshape(32, -1)
    changed = with_constants(graph, [(layer, blind, None)])
    even, other = (np.ones((32, 3, 10, 10), np.float32) * rng.standard_normal((32, 3, 1, 1), np.float32) for _ in "ab")
    noise = rng.standard_normal((32, 3, 10, 10), np.float32)
    assert repair(graph, changed, [{"x": even}, {"x": other}]) is not changed
    assert repair(graph, changed, [{"x": even}, {"x": noise}]) is changed


@pytest.mark.parametrize(("errors", "taken"), [(0.3, False), (3.0, True)])
def test_repair_needs_more_than_noise(monkeypatch: pytest.MonkeyPatch, errors: float, taken: bool) -> None:
    noise = np.random.default_rng(0).standard_normal(400)
    noise = (noise - noise.mean()) / noise.std()
    given = iter([noise + errors / 20.0, *[np.zeros(400)] * 10])
    monkeypatch.setattr("gristmill.optimizer.repair.distances", lambda *_: next(given))
    graph = conv_net()
    changed = _narrowed(graph)
    assert (repair(graph, changed, _batches(2)) is not changed) == taken


def test_answers_get_their_deviations_back_by_one_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gristmill.optimizer.repair._STRENGTHS", (0.5,))
    graph = conv_net()
    last = next(layer for layer in find_layers(graph) if layer.name == "logits")
    shares = np.linspace(0.5, 0.7, 10, dtype=np.float32)[:, None]
    narrowed = with_constants(graph, [(last, shares * last.matrix(graph.constants), None)])
    given = iter([np.ones(4), np.zeros(4)])
    monkeypatch.setattr("gristmill.optimizer.repair.distances", lambda *_: next(given))
    repaired, batches = repair(graph, narrowed, _batches(2)), _batches(1)
    ratio = repaired.constants["w5"] / narrowed.constants["w5"]
    np.testing.assert_allclose(ratio, ratio.flat[0], rtol=1e-5)
    exact, found = (_answers(one, batches[0]["x"]) for one in (graph, repaired))
    assert found.std(axis=0) @ found.std(axis=0) == pytest.approx(exact.std(axis=0) @ exact.std(axis=0), rel=1e-3)
    np.testing.assert_allclose(found.mean(axis=0), exact.mean(axis=0), atol=1e-3)


def test_repaired_branches_still_make_up_for_what_they_are_added_to(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, fresh = conv_net(), images(256, seed=50)
    wide = next(layer for layer in find_layers(graph) if layer.name == "wide")
    weights, bias = wide.matrix(graph.constants).copy(), wide.offsets(graph.constants).copy()
    weights[:8], bias[:8] = 0.0, 0.0
    changed = with_constants(_narrowed(graph), [(wide, weights, bias)])
    total = next(node.outputs[0] for node in graph.nodes if node.op == "Add")

    def gap() -> float:
        repaired = repair(graph, changed, _batches(8))
        exact, given = (reference.run(one, {"x": fresh}, [total])[total] for one in (graph, repaired))
        away = (exact - given).mean(axis=(0, 2, 3)) / exact.std(axis=(0, 2, 3))
        return float(np.abs(away[[0, 1, 2, 4, 5, 6, 7]]).max())

    ours = gap()
    monkeypatch.setattr("gristmill.optimizer.repair.added_to", lambda _graph, _layer: "")
    assert ours < 0.05 < gap()


def test_answers_are_compared_up_to_a_scale() -> None:
    rng = np.random.default_rng(0)
    reference_answers = 3.0 * rng.standard_normal((64, 10))
    given = reference_answers + rng.standard_normal((64, 10))
    found = distances([reference_answers[:32], reference_answers[32:]], [given[:32], given[32:]])
    assert found.shape == (64,)
    for scale in (1e-4, 0.3, 1e4):
        np.testing.assert_allclose(distances([reference_answers], [scale * given]), found, rtol=1e-6)
    tried = [divergence(reference_answers, scale * given) for scale in np.linspace(0.1, 3.0, 300)]
    assert min(tried) - 1e-4 < found.mean() <= min(tried) + 1e-9
    assert distances([reference_answers], [np.ones((64, 10))]).mean() > found.mean()


def test_branches_make_up_for_what_they_are_added_to(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, fresh = conv_net(), images(64, seed=50)
    target = {"wide": Target(parse_pattern("unstructured"), 0.7)}
    total = next(node.outputs[0] for node in graph.nodes if node.op == "Add")
    exact = reference.run(graph, {"x": fresh}, [total])[total]

    def ratio() -> float:
        changed, _ = prune_calibrated(graph, target, _batches(), method="refit")
        return snr(exact, reference.run(changed, {"x": fresh}, [total])[total])

    ours = ratio()
    monkeypatch.setattr(pruning, "added_to", lambda _graph, _layer: "")
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


def test_refits_that_nothing_makes_up_for_keep_deviations() -> None:
    graph, targets = conv_net(), {"wide": Target(parse_pattern("unstructured"), 0.8)}
    (output,) = (layer.output for layer in find_layers(graph) if layer.name == "wide")
    x = np.concatenate([batch["x"] for batch in _batches()])

    def deviations(one: Graph) -> Array:
        return np.asarray(reference.run(one, {"x": x}, [output])[output].std(axis=(0, 2, 3)))

    together, alone = (
        deviations(prune_calibrated(graph, targets, _batches(), method="refit", sequential=sequential)[0])
        / deviations(graph)
        for sequential in (True, False)
    )
    assert np.median(together) < 0.95
    np.testing.assert_allclose(alone, 1.0, atol=0.05)


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
