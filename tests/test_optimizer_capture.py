"""The executor and the side-by-side walk, against the plain meaning of the graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gristmill import reference
from gristmill.graph import GraphBuilder
from gristmill.optimizer import capture
from gristmill.optimizer.capture import Executor, Lockstep, forward
from gristmill.optimizer.layers import find_layers, with_constants
from gristmill.optimizer.prepare import prepare
from gristmill.optimizer.statistics import Sampler
from small_nets import conv_net, images


def test_forward_is_what_the_graph_means() -> None:
    graph, x = conv_net(), images(5)
    expected = reference.run(graph, {"x": x}, ["logits", "inner"])
    found = forward(graph, {"x": x}, Executor(), ["inner"])
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "attributes", [{"auto_pad": "SAME_LOWER", "strides": (2,)}, {"pads": (2, 1), "dilations": (2,)}]
)
def test_sequences_run_as_images_of_one_row(attributes: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    builder = GraphBuilder()
    w = builder.constant("w", rng.standard_normal((6, 4, 3)).astype(np.float32))
    y = builder.add("Conv", [builder.input("x", np.float32, ("n", 4, 11)), w], **attributes)
    graph, x = builder.build([y]), rng.standard_normal((2, 4, 11)).astype(np.float32)
    np.testing.assert_allclose(
        forward(graph, {"x": x}, Executor())[y], reference.run(graph, {"x": x})[y], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("live_bytes", [1 << 30, 0])
def test_lockstep_runs_both_networks(monkeypatch: pytest.MonkeyPatch, live_bytes: int) -> None:
    monkeypatch.setattr(capture, "LIVE_BYTES", live_bytes)
    graph, x = conv_net(), images(6)
    layer = find_layers(graph)[2]
    rng = np.random.default_rng(1)
    change = (layer, rng.standard_normal((32, 16)).astype(np.float32), rng.standard_normal(32).astype(np.float32))
    other = with_constants(graph, [change])
    step = Lockstep(graph, [{"x": x[:4]}, {"x": x[4:]}], keep=["logits"])
    for node in graph.nodes:
        if node.name == layer.name:
            step.advance(node, node, {name: other.constants[name] for name in ("w2", "b2")})
        else:
            step.advance(node)
    for at, part in enumerate((x[:4], x[4:])):
        original, changed = (reference.run(item, {"x": part})["logits"] for item in (graph, other))
        np.testing.assert_allclose(step.original(at, "logits"), original, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(step.changed(at, "logits"), changed, rtol=1e-3, atol=1e-3)
        assert not np.allclose(original, changed, atol=0.1)
        with pytest.raises(KeyError):
            step.original(at, "stem")


def test_sampled_inputs_give_the_layers_outputs() -> None:
    graph, x = conv_net(), images(7)
    values = reference.run(graph, {"x": x}, ["Relu_0", "depthwise", "stem"])
    for layer in find_layers(graph)[:2]:
        sampler = Sampler(layer, 4000, seed=3)
        source = x if layer.source == "x" else values[layer.source]
        chosen = sampler.positions(source, 0)
        assert chosen is not None
        assert chosen.shape[1] < 100
        each = layer.rows // layer.groups
        matrix, bias = layer.matrix(graph.constants), layer.offsets(graph.constants)
        wanted = values[layer.output].reshape(7, layer.rows, -1)
        for group in range(layer.groups):
            rows = slice(group * each, (group + 1) * each)
            given = sampler.inputs(source, chosen, group) @ matrix[rows].T + bias[rows]
            expected = np.take_along_axis(wanted[:, rows], chosen[:, None], axis=2).swapaxes(1, 2)
            np.testing.assert_allclose(given.reshape(expected.shape), expected, rtol=1e-4, atol=1e-4)


def test_preparing_changes_the_form_alone() -> None:
    rng = np.random.default_rng(2)
    builder = GraphBuilder()

    def constant(name: str, *shape: int) -> str:
        return builder.constant(name, rng.random(shape, np.float32) + np.float32(0.5))

    x = builder.input("x", np.float32, ("n", 3, 6, 6))
    y = builder.add("Conv", [x, constant("w", 4, 3, 3, 3)], name="conv")
    y = builder.add("Add", [constant("offset", 4, 1, 1), y])
    y = builder.add("BatchNormalization", [y, *(constant(name, 4) for name in ("gamma", "beta", "mean", "variance"))])
    y = builder.add("MatMul", [builder.add("Flatten", [y]), constant("v", 64, 5)], name="linear")
    y = builder.add("Add", [y, constant("c", 5)])
    graph, feeds = builder.build([y]), {"x": rng.standard_normal((4, 3, 6, 6)).astype(np.float32)}
    prepared = prepare(graph, feeds)
    assert [node.op for node in prepared.nodes] == ["Conv", "Flatten", "Gemm"]
    np.testing.assert_allclose(reference.run(prepared, feeds)[y], reference.run(graph, feeds)[y], rtol=1e-4)


def test_preparing_leaves_offsets_of_images_alone() -> None:
    builder = GraphBuilder()
    x = builder.input("x", np.float32, ("n", 1, 4, 4))
    y = builder.add("Conv", [x, builder.constant("w", np.ones((2, 1, 1, 1), np.float32))])
    y = builder.add("Add", [y, builder.constant("map", np.ones((4, 4), np.float32))])
    graph = builder.build([y])
    assert [node.op for node in prepare(graph, {"x": np.zeros((1, 1, 4, 4), np.float32)}).nodes] == ["Conv", "Add"]
