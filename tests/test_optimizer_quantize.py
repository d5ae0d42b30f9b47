"""Static quantization: ranges, QDQ graphs, corrections, and what is left in float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

import gristmill as gm
from gristmill import reference
from gristmill.graph import Graph, GraphBuilder
from gristmill.optimizer.calibrators import CALIBRATORS, choose_range
from gristmill.optimizer.equalize import balance_ranges, equalizable_pairs, equalize
from gristmill.optimizer.histogram import Histogram
from gristmill.optimizer.layers import find_layers
from gristmill.optimizer.qdq import quantize_rows, quantized_values
from onnxruntime_peer import exact_session
from small_nets import conv_net, images, snr

Array = npt.NDArray[Any]


def _histogram(*parts: Array) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.add(part.astype(np.float32))
    return histogram


def _onnx_session(graph: Graph) -> Any:  # noqa: ANN401
    helper = onnx.helper
    nodes = []
    for node in graph.nodes:
        attributes: dict[str, Any] = dict(node.attributes)
        nodes.append(helper.make_node(node.op, list(node.inputs), list(node.outputs), name=node.name, **attributes))
    inputs, outputs = (
        [helper.make_tensor_value_info(i.name, onnx.TensorProto.FLOAT, i.shape and list(i.shape)) for i in infos]
        for infos in (graph.inputs, graph.outputs)
    )
    constants = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in graph.constants.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "graph", inputs, outputs, constants),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    return exact_session(model)


def test_histograms_do_not_depend_on_the_order() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal(1000) * scale for scale in (0.01, 30.0, 1.0, 500.0)] + [np.zeros(10)]
    one, other = _histogram(*parts), _histogram(*parts[::-1])
    assert one.width == other.width
    assert one.counts.sum() == other.counts.sum() == 4010
    assert one.zeros == other.zeros == 10
    assert np.abs(np.cumsum(one.counts - other.counts)).max() <= 1000
    assert (one.low, one.high) == (other.low, other.high)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_histograms_refuse_what_is_not_finite(bad: float) -> None:
    with pytest.raises(gm.ArgumentError, match=r"conv.*NaN"):
        Histogram().add(np.array([1.0, bad], np.float32), "conv")


@pytest.mark.parametrize("calibrator", CALIBRATORS)
@pytest.mark.parametrize("value", [0.0, -3.0, 5.0, 1e-30])
def test_constant_values_have_a_range_with_zero(calibrator: str, value: float) -> None:
    low, high = choose_range(_histogram(np.full(100, value)), calibrator)
    assert low <= 0.0 <= high
    assert low <= value * 0.7 if value < 0 else high >= value * 0.7


@pytest.mark.parametrize("calibrator", ["percentile", "entropy"])
def test_outliers_are_cut_off_where_that_pays(calibrator: str) -> None:
    values = np.random.default_rng(1).standard_normal(200_000)
    values[:4] = 90.0
    low, high = choose_range(_histogram(values), calibrator)
    assert -5.5 < low <= -0.9
    assert 2.0 < high < 40.0
    assert choose_range(_histogram(values), "minmax")[1] == 90.0


def test_mse_calibration_has_the_least_error() -> None:
    values = (np.random.default_rng(2).standard_t(3, 100_000)).astype(np.float32)
    errors = {}
    for calibrator in CALIBRATORS:
        scale, zero = gm.kernels.range_qparams(*choose_range(_histogram(values), calibrator))
        restored = gm.kernels.dequantize_per_tensor(gm.kernels.quantize_per_tensor(values, scale, zero), scale, zero)
        errors[calibrator] = float(np.square(restored - values).mean())
    assert errors["mse"] <= 1.02 * min(errors.values())
    assert errors["mse"] < 0.9 * errors["minmax"]


def test_unknown_calibrators_are_refused() -> None:
    with pytest.raises(gm.ArgumentError, match="mse, minmax"):
        choose_range(_histogram(np.ones(3)), "best")


def test_weights_keep_their_zeros_and_extremes() -> None:
    rows = np.array([[0.0, 1.0, -2.0], [0.0, 0.0, 0.0], [-3e-39, 0.0, 1e-39]], np.float32)
    values, scale = quantize_rows(rows)
    assert values[0].tolist() == [0, 64, -127]
    assert not values[1].any()
    assert np.all((values == 0) >= (rows == 0))
    assert np.all(np.isfinite(scale) & (scale > 0))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("calibrator", CALIBRATORS)
def test_quantized_networks_stay_close(calibrator: str, symmetric: bool) -> None:
    graph, x, fresh = conv_net(), images(64), images(32, seed=9)
    made = gm.quantize(gm.Model(graph), x, calibrator=calibrator, symmetric=symmetric)
    exact, given = (reference.run(item, {"x": fresh})["logits"] for item in (graph, made.graph))
    assert snr(exact, given) > (15.0 if symmetric else 20.0)
    assert [layer.dtype for layer in made.report.layers] == ["int8"] * 6


def test_onnxruntime_runs_the_same_network() -> None:
    graph, x = conv_net(), images(32)
    made = gm.quantize(gm.Model(graph), x)
    ours = reference.run(made.graph, {"x": x})["logits"]
    (theirs,) = _onnx_session(made.graph).run(None, {"x": x})
    assert snr(ours, theirs) > 30.0


def test_no_float_comes_between_integer_layers() -> None:
    graph = gm.quantize(gm.Model(conv_net()), images(16)).graph
    producers, uses = graph.producers(), graph.use_counts()
    for node in graph.nodes:
        if node.op in {"Conv", "Gemm"}:
            assert all(producers[name].op == "DequantizeLinear" for name in node.inputs)
    assert quantized_values(conv_net(), find_layers(conv_net()))["Flatten_0"] == "Relu_3"
    relus = [node for node in graph.nodes if node.op == "Relu"]
    assert all(producers[relu.inputs[0]].op in {"Conv", "Gemm", "Add"} for relu in relus)
    assert all(uses[relu.inputs[0]] == 1 for relu in relus)


def test_bias_correction_restores_means() -> None:
    graph, x = conv_net(seed=4), images(64)
    gaps = []
    for corrected in (False, True):
        made = gm.quantize(gm.Model(graph), x, bias_correction=corrected, equalize=False)
        difference = reference.run(made.graph, {"x": x})["logits"] - reference.run(graph, {"x": x})["logits"]
        gaps.append(float(np.abs(difference.mean(axis=0)).max()))
    assert gaps[1] < 0.5 * gaps[0]


def test_layers_that_int8_would_spoil_stay_float() -> None:
    graph, x = conv_net(), images(32)
    weights = graph.constants["w3"].copy()
    weights[:, 0] *= 3e4
    spoiled = graph.replace(constants={**graph.constants, "w3": weights})
    stem = spoiled.constants["w2"].copy()
    stem[0] /= 3e4
    spoiled = spoiled.replace(constants={**spoiled.constants, "w2": stem})
    made = gm.quantize(gm.Model(spoiled), x, equalize=False, min_layer_sqnr=20.0)
    kept = {layer.name: layer for layer in made.report.layers}["inner"]
    assert kept.dtype == "float32"
    assert "below the 20 dB" in kept.reason
    assert kept.sqnr is not None
    assert kept.sqnr < 20.0
    assert {layer.dtype for layer in made.report.layers if layer.name in {"stem", "hidden"}} == {"int8"}


@pytest.mark.parametrize("mode", ["static", "dynamic", "weights"])
def test_one_scale_for_a_layer_is_coarser(mode: str) -> None:
    graph, x = conv_net(), images(32)
    spread = np.logspace(-2.5, 0.0, 32, dtype=np.float32).reshape(32, 1, 1, 1)
    graph = graph.replace(constants={**graph.constants, "w3": graph.constants["w3"] * spread})
    exact = reference.run(graph, {"x": x})["logits"]
    snrs = []
    for per_channel in (True, False):
        made = gm.quantize(gm.Model(graph), x, mode=mode, per_channel=per_channel)
        assert (np.ptp(made.graph.constants["w3.scale"]) > 0) == per_channel
        snrs.append(snr(exact, reference.run(made.graph, {"x": x})["logits"]))
    assert snrs[0] > snrs[1] + 0.3


@pytest.mark.parametrize("mode", ["dynamic", "weights"])
def test_other_modes_need_no_calibration(mode: str) -> None:
    graph, x = conv_net(), images(16)
    made = gm.quantize(gm.Model(graph), mode=mode)
    exact, given = (reference.run(item, {"x": x})["logits"] for item in (graph, made.graph))
    assert snr(exact, given) > 25.0
    assert {layer.dtype for layer in made.report.layers} == {"int8"}
    dynamic = [node for node in made.graph.nodes if node.op == "DynamicQuantizeLinear"]
    assert bool(dynamic) == (mode == "dynamic")


def test_equalization_keeps_the_function_and_balances_channels() -> None:
    graph, x = conv_net(), images(8)
    spread = np.logspace(-2, 2, 16, dtype=np.float32)
    uneven = {"w1": spread.reshape(16, 1, 1, 1), "b1": spread, "w2": 1 / spread.reshape(1, 16, 1, 1)}
    changed = {name: graph.constants[name] * factor for name, factor in uneven.items()}
    graph = graph.replace(constants={**graph.constants, **changed})
    assert [(a.name, b.name) for a, b in equalizable_pairs(graph)] == [("stem", "depthwise"), ("depthwise", "wide")]
    balanced = equalize(graph)
    exact, given = (reference.run(item, {"x": x})["logits"] for item in (graph, balanced))
    assert snr(exact, given) > 90.0
    first, second = balanced.constants["w1"].reshape(16, -1), balanced.constants["w2"].reshape(32, 16)
    np.testing.assert_allclose(np.abs(first).max(axis=1), np.abs(second).max(axis=0), rtol=0.2)
    snrs = [
        snr(exact, reference.run(gm.quantize(gm.Model(graph), x, equalize=on).graph, {"x": x})["logits"])
        for on in (False, True)
    ]
    assert snrs[1] > snrs[0] + 10.0


def test_relu6_is_no_equalizable_pair() -> None:
    builder = GraphBuilder()
    x = builder.input("x", np.float32, ("n", 2, 4, 4))
    y = builder.add("Conv", [x, builder.constant("a", np.ones((2, 2, 1, 1), np.float32))])
    bounds = [builder.constant("low", np.float32(0)), builder.constant("high", np.float32(6))]
    y = builder.add("Clip", [y, *bounds])
    y = builder.add("Conv", [y, builder.constant("b", np.ones((2, 1, 1, 1), np.float32))], group=2)
    assert not equalizable_pairs(builder.build([y]))


def _with_channels(graph: Graph, name: str, factors: Array, following: str) -> Graph:
    """The same function with the channels of one layer's outputs scaled, and the next layer's weights for them."""
    old = {f"{kind}{name}": graph.constants[f"{kind}{name}"] for kind in "wb"}
    changed = {key: value * factors.reshape(-1, *[1] * (value.ndim - 1)) for key, value in old.items()}
    weights = graph.constants[following].copy()
    weights /= factors.reshape(-1, 1) if weights.ndim == 2 else factors.reshape(1, -1, 1, 1)
    return graph.replace(constants={**graph.constants, **changed, following: weights})


def _quiet_net() -> Graph:
    """Two convolutions in a row, and channels between them of which most are very quiet."""
    rng = np.random.default_rng(3)
    builder = GraphBuilder()
    x = builder.input("x", np.float32, ("n", 3, 10, 10))
    for index, (rows, columns) in enumerate(((16, 3), (24, 16), (10, 24))):
        w = builder.constant(f"w{index}", rng.standard_normal((rows, columns, 3, 3)).astype(np.float32) / 5)
        b = builder.constant(f"b{index}", rng.standard_normal(rows).astype(np.float32) / 10)
        x = builder.add("Conv", [x, w, b], name=f"conv{index}", pads=(1, 1, 1, 1))
        x = builder.add("Relu", [x]) if index < 2 else x
    graph = builder.build([builder.add("GlobalAveragePool", [x])])
    return _with_channels(graph, "0", np.where(np.arange(16) < 13, 2.0**-10, 1.0).astype(np.float32), "w1")


def test_quiet_channels_are_raised_without_changing_the_function() -> None:
    graph, x = _quiet_net(), images(32)
    balanced = balance_ranges(graph, [{"x": x}])
    (exact,), (given,) = (list(reference.run(item, {"x": x}).values()) for item in (graph, balanced))
    np.testing.assert_array_equal(exact, given)
    ratio = balanced.constants["w0"].reshape(16, -1)[:, 0] / graph.constants["w0"].reshape(16, -1)[:, 0]
    assert np.all(ratio[:13] >= 2**7)
    assert np.all(ratio[13:] < 2**3)
    snrs = [
        snr(exact, next(iter(reference.run(gm.quantize(gm.Model(graph), x, equalize=on).graph, {"x": x}).values())))
        for on in (False, "auto")
    ]
    assert snrs[1] > snrs[0] + 15.0


def test_channels_that_fit_are_left_as_they_are() -> None:
    graph, x = conv_net(depthwise=False), images(16)
    balanced = balance_ranges(graph, [{"x": x}])
    assert all(np.array_equal(value, balanced.constants[name]) for name, value in graph.constants.items())


def test_layers_that_stay_float_are_not_balanced() -> None:
    graph, x = _quiet_net(), images(16)
    balanced = balance_ranges(graph, [{"x": x}], {"conv1"})
    np.testing.assert_array_equal(balanced.constants["w1"], graph.constants["w1"])


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("size", [0.0, 1e-20, 1e-38])
def test_channels_of_next_to_no_weights_keep_their_bias(size: float, per_channel: bool) -> None:
    rng = np.random.default_rng(5)
    builder = GraphBuilder()
    weights = rng.standard_normal((4, 8)).astype(np.float32) * (1.0 if per_channel else np.float32(size))
    weights[1] = size
    bias = np.array([0.1, -0.3, 2.0, 0.0], np.float32)
    value = builder.input("x", np.float32, ("n", 8))
    y = builder.add("Gemm", [value, builder.constant("w", weights), builder.constant("b", bias)], name="fc", transB=1)
    graph = builder.build([y])
    x = rng.standard_normal((64, 8)).astype(np.float32)
    made = gm.quantize(gm.Model(graph), x, per_channel=per_channel, min_layer_sqnr=-np.inf)
    given = next(iter(reference.run(made.graph, {"x": x}).values()))
    np.testing.assert_allclose(given[:, 1], -0.3, atol=1e-4)
