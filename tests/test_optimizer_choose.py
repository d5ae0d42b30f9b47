"""Patterns and sparsities by harm and measured kernel times."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gristmill as gm
from gristmill import reference
from gristmill.embedded import load_digits
from gristmill.optimizer.allocate import LEVELS, Curve
from gristmill.optimizer.answers import divergence
from gristmill.optimizer.choose import Way, choose
from gristmill.optimizer.kernel_times import KernelTimes, measure_kernel_times, stored_weights
from gristmill.optimizer.layers import Layer, find_layers
from gristmill.optimizer.masks import Pattern
from small_nets import conv_net, images

SINGLE, BLOCKS = Pattern("unstructured"), Pattern("1x4")


def _layers() -> list[Layer]:
    return [layer for layer in find_layers(conv_net()) if layer.name in {"inner", "hidden"}]


def _curves(scales: tuple[float, float], dearer: float) -> dict[Pattern, list[Curve]]:
    """Harm grows with the fourth power of the sparsity, and is more for blocks."""
    return {
        kind: [
            Curve(layer, tuple(factor * scale * level**4 for level in LEVELS), 1.0)
            for layer, scale in zip(_layers(), scales, strict=True)
        ]
        for kind, factor in ((SINGLE, 1.0), (BLOCKS, dearer))
    }


def _times(blocks: float) -> KernelTimes:
    """Times in proportion to density; blocks take a part of what single weights take."""
    found = KernelTimes()
    for layer in _layers():
        found.dense[layer.name] = layer.size / 1e6
        for kind, factor in ((SINGLE, 1.0), (BLOCKS, blocks)):
            found.sparse[(layer.name, kind)] = [(density, factor * density) for density in (0.01, 0.5, 0.99)]
    return found


def _sums(ways: dict[str, Way]) -> tuple[float, float, float]:
    kept = sum(layer.size * (1 - ways[layer.name].sparsity) for layer in _layers())
    return kept, sum(way.harm for way in ways.values()), sum(way.milliseconds for way in ways.values())


@pytest.mark.parametrize("slack", [0.1, 0.5])
def test_the_choice_is_about_the_fastest_of_all_that_harm_little(slack: float) -> None:
    curves, times, layers = _curves((1.0, 0.05), 1.05), _times(0.8), _layers()
    total = float(sum(layer.size for layer in layers))
    kept, harm, time = _sums(choose(curves, times, total, 0.7, slack))
    shares = np.array([0.0, *np.arange(0.3, 0.99, 0.02)])
    options = [
        [
            (layer.size * (1 - shares), curves[kind][at].harm(shares), times.milliseconds(layer, kind, shares))
            for kind in (SINGLE, BLOCKS)
        ]
        for at, layer in enumerate(layers)
    ]
    within, least = [], np.inf
    for first, second in itertools.product(*options):
        w, h, t = (np.add.outer(a, b) for a, b in zip(first, second, strict=True))
        fits = (w <= 0.3 * total) & (w > 0.28 * total)
        least = min(least, h[fits].min())
        within.append((fits, h, t))
    assert kept <= 0.3 * total + 1
    assert harm <= (1 + slack) * least * 1.02
    best = min(t[fits & (h <= (1 + slack) * least)].min(initial=np.inf) for fits, h, t in within)
    assert time <= 1.2 * best
    assert time < 0.95 * _sums(choose(curves, times, total, 0.7, 0.0))[2]


def test_blocks_are_taken_where_they_pay() -> None:
    total = float(sum(layer.size for layer in _layers()))
    cheap = choose(_curves((1.0, 1.0), 1.02), _times(0.5), total, 0.7)
    assert {way.pattern for way in cheap.values()} == {BLOCKS}
    dear = choose(_curves((1.0, 1.0), 3.0), _times(0.5), total, 0.7)
    assert {way.pattern for way in dear.values()} == {SINGLE}
    slow = choose(_curves((1.0, 1.0), 1.02), _times(1.5), total, 0.7)
    assert {way.pattern for way in slow.values()} == {SINGLE}


def test_sparsity_is_met_and_not_overshot() -> None:
    total = float(sum(layer.size for layer in _layers()))
    kept, _, _ = _sums(choose(_curves((1.0, 0.2), 1.1), _times(0.7), total, 0.6))
    assert 0.395 * total < kept <= 0.4 * total
    with pytest.raises(gm.ArgumentError, match="cannot be reached"):
        choose(_curves((1.0, 1.0), 1.1), _times(0.7), 10 * total, 0.6)


def test_kernels_are_timed_at_the_layers_real_shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRISTMILL_CACHE_DIR", str(tmp_path))
    graph = gm.quantize(gm.Model(conv_net()), images(32)).graph
    layers = _layers()
    stored = stored_weights(graph, layers)
    assert all(graph.constants[name].dtype == np.int8 for name in stored.values())
    feeds = {"x": images(1)}
    times = measure_kernel_times(graph, stored, layers, feeds, (SINGLE, BLOCKS))
    for layer in layers:
        for kind in (SINGLE, BLOCKS):
            assert [density for density, _ in times.sparse[(layer.name, kind)]] == [0.05, 0.1, 0.2, 0.35, 0.5]
            shown = times.milliseconds(layer, kind, np.array([0.0, 0.5, 0.95]))
            assert 0 < shown[2] <= shown[0] == times.dense[layer.name]
    again = measure_kernel_times(graph, stored, layers, feeds, (SINGLE, BLOCKS))
    assert again == times
    assert list(tmp_path.iterdir())


def test_noise_is_counted_against_what_is_left_of_the_outputs() -> None:
    curve = Curve(_layers()[0], tuple(min(1.0, level) for level in LEVELS), 0.5)
    np.testing.assert_allclose(curve.harm(np.array([0.0, 0.5, 0.9])), [0.0, 0.5, 4.5])
    assert np.isfinite(curve.harm(np.array([0.99]))).all()


def test_auto_is_as_accurate_as_single_zeros_whatever_the_times(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images, labels, calibration = load_digits()
    name = model.inputs[0].name

    def times(_graph: object, _stored: object, layers: list[Layer], *_: object) -> KernelTimes:
        found = KernelTimes()
        for layer in layers:
            found.dense[layer.name] = layer.size / 1e6
            for kind, factor in ((SINGLE, 1.0), (BLOCKS, 0.1)):
                found.sparse[(layer.name, kind)] = [(density, factor * density) for density in (0.01, 0.5, 0.99)]
        return found

    monkeypatch.setattr("gristmill.optimizer.api.measure_kernel_times", times)
    exact = reference.run(model.graph, {name: images})[model.graph.outputs[0].name]
    lost, far = {}, {}
    for pattern in ("unstructured", "auto"):
        made = gm.optimize(model, calibration, sparsity=0.9, pattern=pattern, samples=256, measure=False)
        answers = gm.InferenceSession(made).run(None, {name: images})[0]
        lost[pattern] = int((exact.argmax(axis=1) == labels).sum() - (answers.argmax(axis=1) == labels).sum())
        far[pattern] = divergence(exact, answers)
    assert lost["auto"] <= lost["unstructured"] + 2
    assert far["auto"] <= 1.15 * far["unstructured"]


def test_auto_says_what_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = gm.Model(conv_net()), images(64)
    wanted: dict[str, Any] = {"sparsity": 0.6, "measure": False, "method": "refit"}
    monkeypatch.setattr("gristmill.optimizer.api.measure_kernel_times", lambda *_: _times(0.1))
    first = gm.optimize(model, x, quantize="dynamic", **wanted)
    rows = {row.name: row for row in first.report.layers}
    assert all(f"{rows[name].reason}".startswith(("1x4: 0", "unstructured: 0")) for name in ("inner", "hidden"))
    second = gm.optimize(model, x, quantize="dynamic", **wanted).graph.constants
    assert all(np.array_equal(first.graph.constants[name], second[name]) for name in second)
    assert "1x4" not in str(gm.optimize(model, x, quantize=None, **wanted).report)
    named = gm.optimize(model, x, quantize="dynamic", pattern="1x4", cost="time", **wanted).report
    assert {row.name: row.reason[:6] for row in named.layers if row.name in {"inner", "hidden"}} == {
        "inner": "1x4: 0",
        "hidden": "1x4: 0",
    }
