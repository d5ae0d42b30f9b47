"""Batches in slices: where a network is cut, and that results stay what they are."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pytest

import gristmill as gm
from graphs import Array, Network, random_feeds
from gristmill.compile import Cache, compile_graph, slicing
from gristmill.compile.levels import Level
from gristmill.compile.slicing import Stretch, batch_of, find_stretches
from gristmill.errors import GristmillError
from gristmill.graph import Graph
from gristmill.operators import TensorType
from gristmill.passes import simplify, specialize

ANY = Cache(1 << 16, 1)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever can be sliced is."""
    monkeypatch.setattr(slicing._Traffic, "of_slice", lambda _self, size, _cache: size * 1e9)


def stretches_of(graph: Graph, cache: Cache, **extents: int) -> list[Stretch]:
    """Where a graph is cut."""
    feeds = random_feeds(graph, **extents)
    types = {name: TensorType(value.dtype, value.shape) for name, value in feeds.items()}
    graph, known = specialize(simplify(graph), types)
    return find_stretches(graph, known, cache, lambda weights: weights.nbytes)


def both(graph: Graph, feeds: dict[str, Array], cache: Cache, threads: int = 1) -> tuple[bool, list[list[Array]]]:
    """Whether a plan has slices, and the outputs with and without."""
    types = {name: TensorType(value.dtype, value.shape) for name, value in feeds.items()}
    plans = [compile_graph(simplify(graph), types, cache=each).plan for each in (cache, None)]
    sliced = any("slices" in kernel for _, kernel in plans[0].steps)
    return sliced, [plan.run(list(feeds.values()), threads=threads) for plan in plans]


def pyramid(*middle: str) -> Graph:
    """Large images, then small ones and large weights; operators in between."""
    net = Network()
    y = net.add("Relu", net.conv(net.input("n", 3, 64, 64), 3, 32, 3))
    y = net.conv(net.add("Add", net.conv(y, 32, 32, 3), y), 32, 64, 3, strides=(4, 4))
    for op in middle:
        y = net.add(op, y)
    y = net.conv(y, 64, 256, 3, strides=(4, 4))
    y = net.add("Flatten", net.conv(y, 256, 256, 3))
    return net.graph(net.add("Gemm", y, net.normal(10, 4096, scale=0.02), net.normal(10), transB=1))


def test_large_images_run_in_small_slices_and_large_weights_in_the_whole_batch() -> None:
    stretches = stretches_of(pyramid(), Cache(1 << 20, 1), n=16)
    sizes = [stretch.size for stretch in stretches]
    assert sizes[0] <= 2
    assert sizes == sorted(sizes)
    assert all(16 % size == 0 and size < 16 for size in sizes)
    assert stretches[-1].end < 6


def test_what_fits_the_cache_is_not_sliced() -> None:
    assert not stretches_of(pyramid(), Cache(1 << 30, 1), n=16)
    assert not stretches_of(pyramid(), ANY, n=1)
    assert not stretches_of(pyramid(), ANY, n=0)


@pytest.mark.parametrize("threads", [2, 3, 4])
@pytest.mark.parametrize("batch", [7, 12, 16])
def test_there_are_slices_for_all_threads(batch: int, threads: int) -> None:
    sizes = [stretch.size for stretch in stretches_of(pyramid(), Cache(1 << 18, threads), n=batch)]
    assert sizes
    assert all(batch // size >= threads for size in sizes)
    assert not stretches_of(pyramid(), Cache(1 << 18, threads), n=threads - 1)


def test_a_machine_has_a_second_level_cache() -> None:
    one, four = Cache.of_machine(1), Cache.of_machine(4)
    assert 1 << 16 <= four.nbytes <= one.nbytes <= 1 << 26
    assert (one.threads, four.threads) == (1, 4)


@pytest.mark.parametrize("batch", [0, 1, 2, 6, 7])
@pytest.mark.parametrize("threads", [1, 2])
def test_results_stay_the_same(batch: int, threads: int) -> None:
    graph = pyramid()
    sliced, (ours, whole) = both(graph, random_feeds(graph, n=batch), Cache(1 << 20, threads), threads)
    assert sliced == (batch > threads)
    np.testing.assert_array_equal(ours[0], whole[0])


def image_net(change: Callable[[Network, str], str]) -> Graph:
    """Something between two layers; images have as many channels as the batch has images."""
    net = Network()
    y = net.conv(net.input("n", 4, 4, 4), 4, 4, 3)
    y = net.conv(net.add("Relu", y), 4, 4, 3)
    return net.graph(net.conv(change(net, y), 4, 4, 3))


MIXING: dict[str, Callable[[Network, str], str]] = {
    "softmax over images": lambda net, y: net.add("Softmax", y, axis=0),
    "images and channels exchanged": lambda net, y: net.add("Transpose", y, perm=(1, 0, 2, 3)),
    "all axes turned": lambda net, y: net.add("Transpose", y),
    "mean over images": lambda net, y: net.add(
        "Add", y, net.add("ReduceMean", y, net.constant([0], np.int64), keepdims=1)
    ),
    "an image of its own for each": lambda net, y: net.add("Add", y, net.normal(4, 4, 4, 4)),
    "images in reverse": lambda net, y: net.add(
        "Slice", y, *(net.constant([value], np.int64) for value in (-1, -5, 0, -1))
    ),
    "images side by side": lambda net, y: net.add(
        "Slice", net.add("Concat", y, y, axis=0), *(net.constant([value], np.int64) for value in (0, 4, 0, 1))
    ),
}


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("change", MIXING.values(), ids=MIXING)
def test_what_mixes_images_is_never_in_a_slice(change: Callable[[Network, str], str]) -> None:
    graph = image_net(change)
    feeds = random_feeds(graph, n=4)
    stretches = stretches_of(graph, ANY, n=4)
    assert all(stretch.end <= 2 for stretch in stretches)
    _, (ours, whole) = both(graph, feeds, ANY)
    np.testing.assert_array_equal(ours[0], whole[0])


KEEPING: dict[str, Callable[[Network, str], str]] = {
    "softmax over channels": lambda net, y: net.add("Softmax", y, axis=1),
    "rows and columns exchanged": lambda net, y: net.add("Transpose", y, perm=(0, 1, 3, 2)),
    "a constant for all": lambda net, y: net.add("Add", y, net.normal(1, 4, 4, 4)),
    "channels side by side": lambda net, y: net.add("MaxPool", net.add("Concat", y, y, axis=2), kernel_shape=(2, 1)),
    "another shape": lambda net, y: net.add("Reshape", y, net.constant([0, 4, 2, 8], np.int64)),
}


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("change", KEEPING.values(), ids=KEEPING)
def test_what_treats_each_image_alone_is_sliced(change: Callable[[Network, str], str]) -> None:
    graph = image_net(change)
    assert stretches_of(graph, ANY, n=8)[-1].end >= 3
    sliced, (ours, whole) = both(graph, random_feeds(graph, n=8), ANY)
    assert sliced
    np.testing.assert_array_equal(ours[0], whole[0])


def by_number_of_images(net: Network, y: str) -> str:
    """Divided by how many images there are."""
    count = net.add("Gather", net.add("Shape", y), net.constant(0, np.int64))
    return net.add("Div", y, net.add("Cast", count, to=1))


WHOLE: dict[str, Callable[[Network, str], str]] = {
    "a shape for one size": lambda net, y: net.add("Reshape", y, net.constant([8, 4, 2, 8], np.int64)),
    "an extent for one size": lambda net, y: net.add(
        "Reshape", net.add("Reshape", y, net.constant([8, -1], np.int64)), net.constant([-1, 4, 4, 4], np.int64)
    ),
    "a constant for one size": by_number_of_images,
}


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("change", WHOLE.values(), ids=WHOLE)
def test_what_holds_for_one_size_of_batch_is_not_sliced(change: Callable[[Network, str], str]) -> None:
    graph = image_net(change)
    sliced, (ours, whole) = both(graph, random_feeds(graph, n=8), ANY)
    assert not sliced
    np.testing.assert_array_equal(ours[0], whole[0])


@pytest.mark.parametrize("other", [1.0, 2.0])
def test_a_slice_has_the_constants_of_the_whole(other: float) -> None:
    def level(batch: int, constant: float) -> Level:
        net = Network()
        graph = net.graph(net.add("Add", net.input("n", 4), net.constant(constant)))
        return Level.of(graph, {"x": TensorType(np.dtype(np.float32), (batch, 4))})

    assert level(2, other).is_slice_of(level(6, 1.0), 2) == (other == 1.0)
    assert not level(3, other).is_slice_of(level(6, 1.0), 2)


def test_inputs_of_different_extents_are_no_batch() -> None:
    net = Network()
    graph = net.graph(net.add("Add", net.input("n", 4), net.input(1, 4, name="other")))
    types = {info.name: TensorType(info.dtype, (3 if info.name == "x" else 1, 4)) for info in graph.inputs}
    assert batch_of(*specialize(graph, types)) == 1


@pytest.mark.usefixtures("eager")
def test_an_input_that_only_the_end_needs_keeps_the_network_whole() -> None:
    net = Network()
    y = net.conv(net.conv(net.input("n", 4, 8, 8), 4, 4, 3), 4, 4, 3)
    graph = net.graph(net.add("Add", net.add("Relu", y), net.input("n", 4, 8, 8, name="late")))
    sliced, (ours, whole) = both(graph, random_feeds(graph, n=4), ANY)
    assert not sliced
    np.testing.assert_array_equal(ours[0], whole[0])


@pytest.mark.usefixtures("eager")
def test_random_models_stay_the_same() -> None:
    pytest.importorskip("onnx")
    from random_models import RandomModel

    count = 0
    for seed in range(120):
        for int8 in (False, True):
            graph = gm.load(RandomModel(seed, int8=int8).model().SerializeToString()).graph
            sliced, (ours, whole) = both(graph, random_feeds(graph, seed), ANY)
            count += sliced
            for left, right in zip(ours, whole, strict=True):
                np.testing.assert_array_equal(left, right, err_msg=f"seed {seed}, int8 {int8}")
    assert count > 40


def test_a_session_slices_and_its_profile_shows_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = pyramid("Tanh")
    x = random_feeds(graph, n=8)["x"]
    whole = gm.InferenceSession(graph, threads=1)
    monkeypatch.setattr(Cache, "of_machine", staticmethod(lambda _threads: None))
    plain = whole.profile(x, runs=1)
    monkeypatch.setattr(Cache, "of_machine", staticmethod(lambda threads: Cache(1 << 16, threads)))
    session = pickle.loads(pickle.dumps(whole))
    np.testing.assert_array_equal(session(x), whole(x))
    profile = session.profile(x, runs=1)
    assert [step.name for step in profile.steps] == [step.name for step in plain.steps]
    assert [step.macs for step in profile.steps] == [step.macs for step in plain.steps]
    assert [step.weight_bytes for step in profile.steps] == [step.weight_bytes for step in plain.steps]
    assert all(step.milliseconds > 0 for step in profile.steps)
    assert "8 slices" in profile.steps[0].kernel
    # The least is an image's values between two of the first layers.
    assert 4 * 2 * 32 * 64 * 64 <= profile.arena_bytes < plain.arena_bytes
    assert "slices" not in profile.steps[-1].kernel


@pytest.mark.usefixtures("eager")
def test_errors_in_slices_name_their_node() -> None:
    net = Network()
    x = net.input("n", 2, 8, dtype=np.int64)
    y = net.add("Gather", net.constant(np.arange(3.0)), x)
    graph = net.graph(net.add("Sqrt", net.add("Neg", net.add("Exp", y))))
    x0 = np.full((4, 2, 8), 5)
    types = {"x": TensorType(x0.dtype, x0.shape)}
    with pytest.raises(GristmillError, match="Gather"):
        compile_graph(simplify(graph), types, cache=ANY).plan.run([x0])


@pytest.mark.usefixtures("eager")
def test_empty_constants_are_no_weights() -> None:
    net = Network()
    y = net.add("Relu", net.input("n", 2, 3, dtype=np.float32))
    y = net.add("Concat", y, net.constant(np.zeros((4, 0, 3))), axis=1)
    graph = net.graph(net.add("Neg", net.add("Exp", y)))
    _, (ours, whole) = both(graph, random_feeds(graph, n=4), ANY)
    np.testing.assert_array_equal(ours[0], whole[0])


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("count", [16, 17])
def test_any_number_of_inputs_runs(count: int) -> None:
    net = Network()
    y = net.add("Sum", *(net.input("n", 4, name=f"x{i}") for i in range(count)))
    graph = net.graph(net.add("Neg", net.add("Exp", y)))
    sliced, (ours, whole) = both(graph, random_feeds(graph, n=3), ANY)
    assert sliced == (count == 16)
    np.testing.assert_array_equal(ours[0], whole[0])
