"""The optimizer's functions as users call them: results, reports, searches and mistakes."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import gristmill as gm
from gristmill import reference
from gristmill.optimizer.allocate import LEVELS, Curve, allocate
from gristmill.optimizer.calibration import labels_of
from gristmill.optimizer.layers import find_layers
from gristmill.optimizer.search import loss_bound, search_sparsity
from small_nets import conv_net, images, snr

Array = npt.NDArray[Any]


def _model(**options: Any) -> gm.Model:  # noqa: ANN401
    return gm.Model(conv_net(**options))


def _answers(model: gm.Model, x: Array) -> Array:
    return reference.run(model.graph, {"x": x})["logits"]


def _zeros(model: gm.Model) -> float:
    layers = find_layers(model.graph)
    weights = [model.graph.constants[layer.weight] for layer in layers]
    return 1 - sum(map(np.count_nonzero, weights)) / sum(w.size for w in weights)


@pytest.mark.parametrize("pattern", ["unstructured", "1x4"])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_calibrated_pruning_beats_magnitude(pattern: str, scope: str) -> None:
    model, x, fresh = _model(), images(128), images(64, seed=8)
    exact = _answers(model, fresh)
    plain = gm.prune(model, 0.6, pattern=pattern, scope="layer")
    ours = {m: gm.prune(model, 0.6, pattern=pattern, scope=scope, method=m, calibration=x) for m in ("refit", "admm")}
    if scope == "global":
        assert all(_zeros(made) == pytest.approx(0.6, abs=0.01) for made in ours.values())
    assert all(snr(exact, _answers(made, fresh)) > snr(exact, _answers(plain, fresh)) + 5 for made in ours.values())
    assert ours["admm"].report.sparsity == pytest.approx(_zeros(ours["admm"]))


def test_greedy_pruning_of_small_layers() -> None:
    model, x = _model(), images(128)
    made = gm.prune(model, {"wide": 0.5}, method="obs", calibration=x)
    plain = gm.prune(model, {"wide": 0.5}, method="refit", calibration=x)
    assert np.count_nonzero(made.graph.constants["w2"]) == 256
    errors = [{row.name: row.error for row in item.report.layers}["wide"] for item in (made, plain)]
    assert errors[0] is not None
    assert errors[1] is not None
    assert errors[0] < errors[1]


def test_equal_seeds_give_equal_results() -> None:
    first, second = (gm.optimize(_model(), images(64), sparsity=0.5, seed=3) for _ in range(2))
    for name, value in first.graph.constants.items():
        np.testing.assert_array_equal(value, second.graph.constants[name])


def test_magnitude_changes_no_weight_that_stays() -> None:
    model = _model()
    made = gm.prune(model, 0.5, pattern="unstructured")
    for name in ("w2", "w3", "w4"):
        kept = made.graph.constants[name] != 0
        np.testing.assert_array_equal(made.graph.constants[name][kept], model.graph.constants[name][kept])
    assert _zeros(made) == pytest.approx(0.5, abs=0.01)


def test_first_depthwise_and_tiny_layers_stay_dense_with_a_reason() -> None:
    made = gm.prune(_model(), 0.5)
    rows = {layer.name: layer for layer in made.report.layers}
    for name, reason in (("stem", "first"), ("depthwise", "depthwise"), ("logits", "tiny"), ("wide", "tiny")):
        assert rows[name].sparsity == 0.0
        assert reason in rows[name].reason


def test_tables_by_name_and_expression() -> None:
    made = gm.prune(_model(), {"stem": 0.5, "h.*": 0.75}, scope="layer", ignore=["stem"])
    rows = {layer.name: layer for layer in made.report.layers}
    assert rows["hidden"].sparsity == 0.75
    assert rows["stem"].sparsity == 0.0
    assert "ignored by 'stem'" in rows["stem"].reason
    assert rows["inner"].sparsity == 0.0


def test_schedules_go_step_by_step_and_masks_survive() -> None:
    seen: list[float] = []

    masks: list[Array] = []

    def train(made: gm.OptimizedModel, share: float) -> gm.Model:
        seen.append(share)
        masks.append(made.masks()["w4"])
        trained = gm.Model(made.graph)
        trained.set_weights({"w4": made.weights()["w4"] * np.float32(1.5) + np.float32(0.01)})
        return trained

    model = _model()
    made = gm.prune(model, gm.PolynomialDecay(0.2, 0.8, steps=3), scope="layer", on_step=train)
    assert seen == pytest.approx([0.2, 0.725, 0.8])
    assert {row.name: row for row in made.report.layers}["hidden"].sparsity == pytest.approx(0.8, abs=1e-3)
    assert all(np.all(before | ~after) for before, after in pairwise(masks))
    np.testing.assert_array_equal(made.weights()["w4"] != 0, masks[-1])
    grown = made.weights()["w4"] / np.where(masks[-1], model.weights()["w4"], 1)
    assert np.median(grown[masks[-1]]) > 3.0


def test_masks_keep_trained_models_sparse() -> None:
    made = gm.prune(_model(), 0.6)
    moved = gm.Model(made.graph)
    moved.set_weights({name: value + np.float32(0.1) for name, value in made.weights().items()})
    kept = gm.apply_masks(moved, made.masks())
    assert set(made.masks()) == {"w3", "w4"}
    for name, mask in made.masks().items():
        np.testing.assert_array_equal(kept.weights()[name], np.where(mask, moved.weights()[name], 0))
    with pytest.raises(gm.ArgumentError, match="no such weight"):
        gm.apply_masks(moved, {"w9": np.ones(3, np.bool_)})
    with pytest.raises(gm.ShapeError, match="mask"):
        gm.apply_masks(moved, {"w3": np.ones(3, np.bool_)})


def test_optimized_models_are_sparse_int8_and_close() -> None:
    model, x, fresh = _model(), images(256), images(128, seed=8)
    made = gm.optimize(model, x, sparsity=0.5)
    exact, given = _answers(model, fresh), _answers(made, fresh)
    assert snr(exact, given) > 12.0
    assert made.report.sparsity >= 0.495
    assert all(layer.dtype == "int8" for layer in made.report.layers)
    assert made.report.bytes_after < 0.25 * made.report.bytes_before


def test_reports_read_as_text_json_and_page() -> None:
    report = gm.optimize(_model(), images(32), sparsity=0.4).report
    text, document, page = str(report), json.loads(report.json()), report.html()
    assert "first layer" in text
    assert [row["name"] for row in document["layers"]] == [layer.name for layer in report.layers]
    assert document["sparsity"] == pytest.approx(report.sparsity)
    assert page.startswith("<!doctype html>")
    assert "http" not in page
    assert all(layer.name in text and layer.name in page for layer in report.layers)


def test_reports_show_what_was_measured() -> None:
    model, x = _model(), images(48)
    made = gm.quantize(model, x)
    assert made.report.whole is None
    report = made.measure(x[:2], seconds=0.01)
    whole = report.whole
    assert whole is not None
    assert whole.inputs == "x: float32[2, 3, 10, 10]"
    assert whole.file_after < 0.5 * whole.file_before
    assert 0 < whole.memory_after < whole.memory_before
    assert all(row.ms_before and row.ms_after and row.kernel for row in report.layers)
    large = [row for row in report.layers if row.name in {"inner", "hidden"}]
    assert all(row.memory_before and row.memory_after and row.memory_after < row.memory_before for row in large)
    assert "times as fast" in str(made.report)
    assert {row.name: row.kernel for row in report.layers}["hidden"].startswith("s8")
    with pytest.raises(gm.ArgumentError, match="x"):
        made.measure()


def test_reports_stay_with_saved_models(tmp_path: Path) -> None:
    model, x = _model(), images(48)
    made = gm.optimize(model, x, sparsity=0.4, measure=False)
    made.save(tmp_path / "small.grist")
    loaded = gm.load(tmp_path / "small.grist")
    assert loaded.report == made.report
    assert loaded.report is not None
    given, exact = (gm.InferenceSession(item).run(None, {"x": x})[0] for item in (tmp_path / "small.grist", made))
    np.testing.assert_array_equal(given, exact)
    model.save(tmp_path / "plain.grist")
    assert gm.load(tmp_path / "plain.grist").report is None


@pytest.mark.parametrize("text", ["{}", "[1]", "{", '{"layers": [{"shape": [1]}], "trials": [], "whole": null}'])
def test_damaged_reports_are_refused(text: str) -> None:
    with pytest.raises(gm.ModelFormatError, match="report"):
        gm.Report.from_json(text)


def test_budgets_are_kept() -> None:
    model, x, fresh = _model(), images(64), images(300, seed=5)
    labels = _answers(model, fresh).argmax(axis=1)

    def correct(candidate: gm.Model) -> Array:
        return np.asarray(_answers(candidate, fresh).argmax(axis=1) == labels)

    made = gm.optimize(model, x, quantize=None, evaluate=correct, max_drop=0.1, holdout=correct, trials=3)
    assert loss_bound(np.ones(300), correct(made)) <= 0.1
    assert made.report.sparsity > 0.2
    assert made.report.trials[0].accepted
    assert len(made.report.trials) == 3
    assert all(trial.ms is not None and trial.bytes > 0 for trial in made.report.trials)
    assert any("not selected on" in note for note in made.report.notes)
    assert "Loss against latency" in made.report.html()


def test_budgets_that_cannot_be_kept_are_refused() -> None:
    with pytest.raises(gm.ArgumentError, match=r"best reachable is 1\.0000 -> 0\.2000"):
        search_sparsity(lambda _share: ("model", 0.2), 1.0, 0.01)


def test_search_finds_the_edge() -> None:
    found = search_sparsity(lambda share: (share, 1.0 - max(0.0, share - 0.7)), 1.0, 0.05, trials=12)
    assert found.sparsity == pytest.approx(0.75, abs=0.002)
    assert found.outcome == found.sparsity


def test_paired_bounds_need_evidence() -> None:
    before, after = np.ones(100), np.ones(100)
    after[:2] = 0
    assert 0.02 < loss_bound(before, after) < 0.06
    assert loss_bound(before, before) == 0.0
    for wrong in (np.ones(99), np.full(100, np.nan)):
        with pytest.raises(gm.ArgumentError, match="evaluate"):
            loss_bound(before, wrong)


def test_allocation_is_the_best_of_all() -> None:
    layers = [layer for layer in find_layers(conv_net()) if layer.name in {"inner", "hidden"}]
    curves = [
        Curve(layer, tuple(scale * level**4 for level in LEVELS), 1.0)
        for layer, scale in zip(layers, (1.0, 0.05), strict=True)
    ]
    total = sum(layer.size for layer in layers)
    found = allocate(curves, total, 0.7)

    def harm(shares: tuple[float, float]) -> float:
        return sum(float(curve.harm(np.array(share))) for curve, share in zip(curves, shares, strict=True))

    best = min(
        harm((a, b))
        for a in np.arange(0, 0.99, 0.01)
        for b in np.arange(0, 0.99, 0.01)
        if a * layers[0].size + b * layers[1].size >= 0.7 * total
    )
    chosen = (found[layers[0].name], found[layers[1].name])
    assert chosen[0] * layers[0].size + chosen[1] * layers[1].size >= 0.7 * total - 1
    assert harm(chosen) <= 1.1 * best
    with pytest.raises(gm.ArgumentError, match="cannot be reached"):
        allocate(curves, 10 * total, 0.7)


def _with(x: Array, value: float) -> Array:
    x = x.copy()
    x[3, 0, 0, 0] = value
    return x


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (np.zeros((0, 3, 10, 10), np.float32), gm.ArgumentError, "no samples"),
        ([], gm.ArgumentError, "no samples"),
        (_with(images(8), np.nan), gm.ArgumentError, "NaN"),
        (_with(images(8), np.inf), gm.ArgumentError, "infinities"),
        (images(8).astype(np.float64), gm.DTypeError, r"astype\(np.float32\)"),
        (images(8)[:, :2], gm.ShapeError, "3, 10, 10"),
        (images(8)[0], gm.ShapeError, "4 axes"),
        ({"a": images(4), "b": images(4)}, gm.ArgumentError, "'x'"),
        (["image.png"], gm.ArgumentError, "str"),
        (3, gm.ArgumentError, "int"),
        (__file__, gm.ArgumentError, r"no \.npy or \.npz file"),
    ],
)
def test_bad_calibration_is_refused(given: Any, error: type[Exception], message: str) -> None:  # noqa: ANN401
    for call in (gm.quantize, lambda model, data: gm.prune(model, 0.5, calibration=data), gm.optimize, gm.sensitivity):
        with pytest.raises(error, match=message):
            call(_model(), given)


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_constant_activations_do_no_harm(value: float) -> None:
    model, x = _model(), np.full((32, 3, 10, 10), value, np.float32)
    exact = _answers(model, x)
    for made in (gm.quantize(model, x), gm.prune(model, 0.5, calibration=x), gm.optimize(model, x, sparsity=0.5)):
        assert snr(exact, _answers(made, x)) > 20.0
    assert all(np.isfinite(list(row.values())).all() for row in gm.sensitivity(model, x, levels=(0.5,)).values())


@pytest.mark.parametrize(
    "call",
    [
        lambda m, x: gm.prune(m, 1.0),
        lambda m, x: gm.prune(m, -0.1),
        lambda m, x: gm.prune(m, float("nan")),
        lambda m, x: gm.prune(m, {"nothing": 0.5}),
        lambda m, x: gm.prune(m, {"(": 0.5}),
        lambda m, x: gm.prune(m, 0.5, method="admm"),
        lambda m, x: gm.prune(m, 0.5, method="best", calibration=x),
        lambda m, x: gm.prune(m, 0.5, pattern="3x3"),
        lambda m, x: gm.prune(m, 0.5, scope="world"),
        lambda m, x: gm.prune(m, 0.99),
        lambda m, x: gm.prune(m, 0.5, calibration=x, samples=0),
        lambda m, x: gm.quantize(m),
        lambda m, x: gm.quantize(m, x, mode="int4"),
        lambda m, x: gm.quantize(m, x, calibrator="max"),
        lambda m, x: gm.quantize(m, x, percentile=3.0),
        lambda m, x: gm.quantize(m, x, equalize="yes"),
        lambda m, x: gm.optimize(m, x, pattern="2:4", cost="time"),
        lambda m, x: gm.optimize(m, x, cost="money"),  # type: ignore[arg-type]
        lambda m, x: gm.optimize(m, x, pattern="2:4", evaluate=lambda _m: 1.0, max_drop=0.1),
        lambda m, x: gm.optimize(m, x, evaluate=lambda _m: 1.0, max_drop=0.1, trials=0),
        lambda m, x: gm.optimize(m, x, sparsity=0.995),
        lambda m, x: gm.prune(m, pattern="channel"),
        lambda m, x: gm.quantize(m, x, ignore=["nothing"]),
        lambda m, x: gm.optimize(m, x, max_drop=0.1),
        lambda m, x: gm.optimize(m, x, evaluate=lambda _m: 1.0, max_drop=0.1, sparsity=0.5),
        lambda m, x: gm.optimize(m, x, evaluate=lambda _m: 1.0, max_drop=-0.1),
        lambda m, x: gm.optimize(m, x, quantize="int4"),
        lambda m, x: gm.optimize(m, x, method="best"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(call: Callable[[gm.Model, Array], object]) -> None:
    with pytest.raises(gm.ArgumentError):
        call(_model(), images(16))


def test_quantized_models_are_not_pruned() -> None:
    made = gm.quantize(_model(), images(16))
    with pytest.raises(gm.ArgumentError, match="quantized already: give the float32 model"):
        gm.optimize(made, images(16), sparsity=0.5)


@pytest.mark.parametrize(
    ("labels", "error"),
    [
        ([0, 1, 10], gm.ArgumentError),
        ([0, -1, 2], gm.ArgumentError),
        ([0, 1], gm.ShapeError),
        ([0.5] * 3, gm.DTypeError),
    ],
)
def test_bad_labels_are_refused(labels: list[float], error: type[Exception]) -> None:
    with pytest.raises(error, match="labels"):
        labels_of(np.array(labels), 3, 10)
    assert labels_of(np.array([[0], [9], [1]], np.uint8), 3, 10).tolist() == [0, 9, 1]


def test_weights_alone() -> None:
    weights: dict[str, Any] = {"a": 0.8, "b": 0.01, "c": np.array([[0.3, -0.02], [0.0, 0.5]], np.float32)}
    kept = gm.prune_weights(weights, threshold=0.05)
    assert set(kept) == {"a", "c"}
    np.testing.assert_array_equal(kept["c"], np.array([[0.3, 0.0], [0.0, 0.5]], np.float32))
    half = gm.prune_weights(weights, sparsity=0.5)
    assert sum(np.count_nonzero(value) for value in half.values()) == 3
    packed = gm.quantize_weights(kept)
    for name, value in kept.items():
        step = np.max(packed[name].scale)
        np.testing.assert_allclose(packed[name].dequantize(), value, atol=step / 2)
    assert packed["c"].values[0, 1] == 0
    for wrong in ({"w": np.nan}, {"w": "text"}):
        with pytest.raises(gm.ArgumentError, match="w"):
            gm.quantize_weights(wrong)
    for options in ({}, {"threshold": -1.0}, {"threshold": 0.1, "sparsity": 0.5}, {"sparsity": 1.0}):
        with pytest.raises(gm.ArgumentError):
            gm.prune_weights(weights, **options)
