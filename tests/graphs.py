"""Graphs for tests of passes and plans, and their comparison with the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill import reference
from gristmill.compile import compile_graph
from gristmill.graph import Graph, GraphBuilder
from gristmill.operators import TensorType
from gristmill.passes import simplify

Array = npt.NDArray[Any]


class Network:
    """A builder that draws weights from a seed."""

    def __init__(self, seed: int = 0) -> None:
        self.builder = GraphBuilder()
        self.random = np.random.default_rng(seed)

    def input(self, *shape: int | str, dtype: npt.DTypeLike = np.float32, name: str = "x") -> str:
        """A graph input."""
        return self.builder.input(name, dtype, shape)

    def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        """A constant."""
        return self.builder.constant("c", np.asarray(value, dtype))

    def normal(self, *shape: int, scale: float = 1.0) -> str:
        """A constant of random numbers."""
        return self.constant(self.random.standard_normal(shape) * scale)

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:  # noqa: ANN401
        """A node."""
        return self.builder.add(op, inputs, **attributes)

    def conv(self, x: str, channels: int, filters: int, kernel: int, **attributes: Any) -> str:  # noqa: ANN401
        """A convolution with 'same' padding that keeps the size of values."""
        taps = channels // attributes.get("group", 1)
        weights = self.normal(filters, taps, kernel, kernel, scale=(taps * kernel**2) ** -0.5)
        attributes = {"pads": (kernel // 2,) * 4, **attributes}
        return self.add("Conv", x, weights, self.normal(filters), **attributes)

    def batch_norm(self, x: str, channels: int) -> str:
        """A normalization with random statistics."""
        uniform = self.random.uniform
        values = uniform(0.5, 1.5, channels), uniform(-1, 1, channels), uniform(-1, 1, channels)
        names = [self.constant(value) for value in (*values, uniform(0.5, 1.5, channels))]
        return self.add("BatchNormalization", x, *names)

    def graph(self, *outputs: str, dtype: npt.DTypeLike = np.float32) -> Graph:
        """The graph."""
        return self.builder.build(outputs, dtype)


def ops(graph: Graph) -> list[str]:
    """The operators of a graph in order."""
    return [node.op for node in graph.nodes]


def random_feeds(graph: Graph, seed: int = 0, **extents: int) -> dict[str, Array]:
    """Inputs of a graph, open extents given by name."""
    generator = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for info in graph.inputs:
        shape = [extents[extent] if isinstance(extent, str) else extent for extent in info.shape or ()]
        if info.dtype.kind == "f":
            feeds[info.name] = generator.standard_normal(shape).astype(info.dtype)
        elif info.dtype == np.bool_:
            feeds[info.name] = generator.integers(0, 2, shape).astype(np.bool_)
        else:
            bounds = np.iinfo(info.dtype)
            low, high = max(bounds.min, -100), min(bounds.max, 255)
            feeds[info.name] = generator.integers(low, high + 1, shape).astype(info.dtype)
    return feeds


def small_graph() -> Graph:
    """A convolution and a layer behind it, of any batch and height, with two outputs."""
    net = Network()
    x = net.input("n", 3, "h", 8)
    y = net.add("Relu", net.conv(x, 3, 4, 3))
    pooled = net.add("Flatten", net.add("GlobalAveragePool", y))
    return net.graph(net.add("Gemm", pooled, net.normal(5, 4), transB=1, name="logits"), y)


def assert_same(left: Graph, right: Graph, feeds: dict[str, Array], tolerance: float = 1e-5) -> None:
    """Compare what two graphs compute."""
    expected, actual = reference.run(left, feeds), reference.run(right, feeds)
    assert list(expected) == list(actual)
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=tolerance, atol=tolerance)


def run_plan(graph: Graph, feeds: dict[str, Array], threads: int = 1) -> list[Array]:
    """Simplify, compile and run a graph."""
    types = {name: TensorType(value.dtype, value.shape) for name, value in feeds.items()}
    return compile_graph(simplify(graph), types).plan.run(list(feeds.values()), threads=threads)


def assert_plan_agrees(graph: Graph, feeds: dict[str, Array] | None = None, tolerance: float = 1e-5) -> None:
    """Compare a graph's plan with the reference: integers exactly, floats within the tolerance."""
    feeds = random_feeds(graph) if feeds is None else feeds
    expected = reference.run(graph, feeds)
    for value, info in zip(run_plan(graph, feeds), graph.outputs, strict=True):
        wanted = expected[info.name]
        assert (value.dtype, value.shape) == (wanted.dtype, wanted.shape)
        if wanted.dtype.kind == "f":
            np.testing.assert_allclose(value, wanted, rtol=tolerance, atol=tolerance)
        else:
            np.testing.assert_array_equal(value, wanted)
