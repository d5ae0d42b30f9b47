"""What is not finite, out of range or empty: sessions agree with the reference and with given results."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from graphs import Network, run_plan
from gristmill import reference
from gristmill.graph import Array, Graph, Node, ValueInfo

INF, NAN = np.inf, np.nan


def results(graph: Graph, *feeds: npt.ArrayLike) -> list[Array]:
    """What a plan computes, and the reference too."""
    given = {info.name: np.asarray(feed, info.dtype) for info, feed in zip(graph.inputs, feeds, strict=True)}
    found = run_plan(graph, given)
    wanted = reference.run(graph, given)
    for info, value in zip(graph.outputs, found, strict=True):
        assert value.dtype == wanted[info.name].dtype
        np.testing.assert_allclose(value, wanted[info.name], 1e-5, 1e-5)
    return found


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("dtype", "code"), [("uint8", 2), ("int8", 3), ("int32", 6), ("int64", 7)])
def test_casts_of_reals_truncate_and_saturate_in_the_run_and_before(dtype: str, code: int) -> None:
    bounds = np.iinfo(dtype)
    reals = [300.5, -1.7, -0.5, 2147483648.0, -2147483904.0, 9.3e18, -1e19, 1e30, -1e30, NAN, INF, -INF]
    wanted = [0 if np.isnan(x) else min(max(int(np.clip(x, -1e30, 1e30)), bounds.min), bounds.max) for x in reals]
    net = Network()
    x = net.input("n")
    folded = net.add("Cast", net.constant(reals), to=code)
    for value in results(net.graph(net.add("Cast", x, to=code), folded, dtype=dtype), reals):
        np.testing.assert_array_equal(value, np.array(wanted, dtype), strict=True)


def test_casts_of_integers_wrap() -> None:
    net = Network()
    graph = net.graph(net.add("Cast", net.input("n", dtype=np.int64), to=2), dtype=np.uint8)
    (y,) = results(graph, [300, -1, 256, 2**32 + 5])
    assert y.tolist() == [44, 255, 0, 5]


@pytest.mark.parametrize(("alpha", "expected"), [(1.0, [NAN, 0, 2, INF, 0]), (NAN, [NAN, 0, 0, 0, 0])])
def test_thresholded_relu_passes_only_what_is_greater_and_nan(alpha: float, expected: list[float]) -> None:
    net = Network()
    (y,) = results(net.graph(net.add("ThresholdedRelu", net.input("n"), alpha=alpha)), [NAN, 1, 2, INF, -INF])
    np.testing.assert_array_equal(y, np.array(expected, np.float32))


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize("zero", [None, 3])
@pytest.mark.parametrize("scale", [None, 0.5])
def test_qgemm_is_of_bytes_exactly_if_it_has_a_zero_point(
    constant: bool, zero: int | None, scale: float | None
) -> None:
    net = Network()
    feeds = [np.ones((2, 3)), np.full((3, 4), 5)]
    x = net.input(2, 3, dtype=np.uint8)
    w = net.constant(feeds.pop(), np.int8) if constant else net.input(3, 4, dtype=np.int8, name="w")
    rest = [net.constant(item, dtype) if item is not None else "" for item, dtype in ((scale, "f4"), (zero, "u1"))]
    maps = [net.constant(0.5), net.constant(0, np.uint8), w, net.constant(0.25), net.constant(0, np.int8), ""]
    graph = net.graph(net.add("QGemm", x, *maps, *rest), dtype=np.float32 if zero is None else np.uint8)
    real = 15 * 0.125 / (scale or 1)
    expected = np.float32(real) if zero is None else np.uint8(np.rint(real) + zero)
    np.testing.assert_array_equal(results(graph, *feeds)[0], np.full((2, 4), expected), strict=True)


@pytest.mark.parametrize("storage_order", [0, 1])
def test_padding_is_never_the_greatest(storage_order: int) -> None:
    net = Network()
    x = net.input(1, 2, 3, 3)
    attributes: dict[str, Any] = {"kernel_shape": (2, 2), "pads": (1, 1, 1, 1), "storage_order": storage_order}
    net.builder.add_node(Node("MaxPool", (x,), ("y", "places"), attributes, "pool"))
    graph = net.builder.build([ValueInfo("y", np.dtype(np.float32)), ValueInfo("places", np.dtype(np.int64))])
    _, places = results(graph, np.full((1, 2, 3, 3), -INF))
    plane = np.array([[0, 0, 1, 2], [0, 0, 1, 2], [3, 3, 4, 5], [6, 6, 7, 8]])
    if storage_order:
        plane = np.array([[0, 0, 3, 6], [0, 0, 3, 6], [1, 1, 4, 7], [2, 2, 5, 8]])
    np.testing.assert_array_equal(places, [[plane, plane + 9]])


@pytest.mark.parametrize("constant", [True, False])
@pytest.mark.parametrize(
    ("spatial", "attributes"),
    [
        (2, {"strides": (2, 3), "output_padding": (1, 1)}),
        (2, {"pads": (1, 2, 1, 0), "dilations": (2, 1)}),
        (2, {"strides": (2, 2), "output_shape": (40, 40)}),
        (2, {"strides": (2, 2), "output_shape": (3, 3)}),
        (2, {"strides": (2, 2), "group": 2}),
        (1, {"strides": (3,)}),
        (3, {"strides": (2, 1, 2)}),
    ],
)
def test_transposed_convolutions_multiply_no_zeros(constant: bool, spatial: int, attributes: dict[str, Any]) -> None:
    net = Network()
    w = net.random.standard_normal((4, 2, 3, 3, 3)[: spatial + 2]).astype(np.float32)
    w[0, 0].flat[0], w[-1, -1].flat[-1] = INF, NAN
    x = net.input("n", 4, *(5, 4, 3)[:spatial])
    weights = net.constant(w) if constant else net.input(*w.shape, name="w")
    bias = net.normal(2 * attributes.get("group", 1))
    graph = net.graph(net.add("ConvTranspose", x, weights, bias, **attributes))
    for batch in (0, 2):
        image = net.random.standard_normal((batch, 4, *(5, 4, 3)[:spatial]))
        (y,) = results(graph, image, *([] if constant else [w]))
        assert not batch or 0 < np.isfinite(y).sum() < y.size


@pytest.mark.parametrize(
    ("x", "q", "scale", "zero"),
    [
        ([1, NAN, 3], [85, 0, 255], 3 / 255, 0),
        ([NAN, 1, -3], [0, 255, 0], 4 / 255, 191),
        ([NAN, NAN], [0, 0], 1, 0),
        ([-1, INF, 3], [0, 0, 0], INF, 0),
        ([-INF, 2], [0, 255], INF, 255),
        ([-INF, INF, 2, NAN], [0, 0, 255, 0], INF, 255),
        ([3e38, -3e38], [0, 0], INF, 0),
    ],
)
def test_dynamic_ranges_are_those_of_onnx_runtime(
    isa: str, x: list[float], q: list[int], scale: float, zero: int
) -> None:
    net = Network()
    node = Node("DynamicQuantizeLinear", (net.input("n"),), ("q", "s", "z"), {}, "range")
    net.builder.add_node(node)
    kinds = {"q": np.uint8, "s": np.float32, "z": np.uint8}
    graph = net.builder.build([ValueInfo(name, np.dtype(kind)) for name, kind in kinds.items()])
    found = results(graph, x)
    for value, expected in zip(found, (q, np.float32(scale), zero), strict=True):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize(("filters", "channels"), [(2, 0), (0, 2)])
@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_convolutions_without_channels_are_their_bias(filters: int, channels: int, spatial: int) -> None:
    net = Network()
    x = net.input("n", channels, *(3,) * spatial)
    y = net.add("Conv", x, net.normal(filters, channels, *(2,) * spatial), net.constant(np.arange(filters) + 1.0))
    (found,) = results(net.graph(net.add("Relu", y)), np.ones((1, channels, *(3,) * spatial)))
    expected = (np.arange(filters) + 1.0).reshape(1, filters, *(1,) * spatial)
    np.testing.assert_array_equal(found, np.broadcast_to(expected, (1, filters, *(2,) * spatial)))
