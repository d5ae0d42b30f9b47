"""Static quantization: choose ranges on calibration data, correct biases, and leave alone what int8 would spoil."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gristmill.graph import Array, Graph, Node
from gristmill.optimizer.calibrators import choose_range
from gristmill.optimizer.capture import Executor, Lockstep
from gristmill.optimizer.histogram import Histogram
from gristmill.optimizer.layers import Layer, find_layers, with_constants
from gristmill.optimizer.qdq import Activation, insert_qdq, quantize_rows, quantized_values
from gristmill.quantization import dequantize_per_tensor, quantize_per_tensor, range_qparams

__all__ = ["Quantization", "Quantized", "quantize_static"]

Batches = Sequence[Mapping[str, Array]]

#: Batches on which a layer's own error is measured.
_SQNR_BATCHES = 4


@dataclass(frozen=True)
class Quantization:
    """How to quantize.

    Attributes:
        calibrator: ``mse``, ``minmax``, ``percentile`` or ``entropy``.
        percentile: What ``percentile`` keeps, in percent.
        symmetric: int8 activations with zero point 0 instead of uint8 with one of their own.
        bias_correction: Shift biases so that quantization keeps the means of the layers' outputs.
        min_layer_sqnr: A layer whose outputs have a lower ratio of signal to quantization noise, in dB, stays float32.
        per_channel: Whether each output channel's weights have a scale of their own.
    """

    calibrator: str = "mse"
    percentile: float = 99.99
    symmetric: bool = False
    bias_correction: bool = True
    min_layer_sqnr: float = 10.0
    per_channel: bool = True


@dataclass
class Quantized:
    """The quantized graph, and what was measured of each layer.

    Attributes:
        graph: With QuantizeLinear and DequantizeLinear.
        sqnr: Signal to quantization noise of each layer's outputs in dB, its own inputs and weights quantized alone.
        kept: Why a layer stays float32, by name.
    """

    graph: Graph
    sqnr: dict[str, float] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)


def quantize_static(
    graph: Graph,
    batches: Batches,
    how: Quantization,
    layers: Sequence[Layer] | None = None,
    on_node: Callable[[Node], None] = lambda _node: None,
) -> Quantized:
    """Quantize layers (all if left out) and what lies between them, to the ranges that calibration data shows."""
    chosen = find_layers(graph) if layers is None else list(layers)
    activations = _activations(graph, batches, quantized_values(graph, chosen), how, on_node)
    result = Quantized(graph)
    corrected = _walk(graph, batches, chosen, activations, how, result, on_node)
    left = [layer for layer in find_layers(corrected) if any(layer.name == c.name for c in chosen)]
    left = [layer for layer in left if layer.name not in result.kept]
    needed = quantized_values(corrected, left)
    wanted = {name: activations[name] for name in needed}
    result.graph = insert_qdq(corrected, left, wanted, per_channel=how.per_channel)
    return result


def _activations(
    graph: Graph, batches: Batches, owners: Mapping[str, str], how: Quantization, on_node: Callable[[Node], None]
) -> dict[str, Activation]:
    histograms = {owner: Histogram() for owner in owners.values()}
    step = Lockstep(graph, batches)
    for info in graph.inputs:
        _count(step, [info.name], histograms)
    for node in graph.nodes:
        on_node(node)
        step.advance(node)
        _count(step, node.outputs, histograms)
    dtype = np.dtype(np.int8 if how.symmetric else np.uint8)
    chosen = {}
    for name, histogram in histograms.items():
        low, high = choose_range(histogram, how.calibrator, how.percentile)
        scale, zero_point = range_qparams(np.float32(low), np.float32(high), dtype, symmetric=how.symmetric)
        chosen[name] = Activation(np.float32(scale), dtype.type(zero_point))
    return {name: chosen[owner] for name, owner in owners.items()}


def _count(step: Lockstep, names: Sequence[str], histograms: Mapping[str, Histogram]) -> None:
    for name in names:
        if name in histograms:
            for batch in range(len(step)):
                histograms[name].add(step.original(batch, name), name)


def _walk(
    graph: Graph,
    batches: Batches,
    layers: Sequence[Layer],
    activations: Mapping[str, Activation],
    how: Quantization,
    result: Quantized,
    on_node: Callable[[Node], None],
) -> Graph:
    """Run the original and the quantized network side by side; return the original with corrected biases."""
    by_name = {layer.name: layer for layer in layers}
    step, local = Lockstep(graph, batches), Executor()
    changes: list[tuple[Layer, Array, Array | None]] = []
    _round_values(step, [info.name for info in graph.inputs], activations)
    for node in graph.nodes:
        on_node(node)
        layer = by_name.get(node.name)
        if layer is None:
            step.advance(node)
        else:
            matrix = layer.matrix(graph.constants)
            values, scale = quantize_rows(matrix, per_channel=how.per_channel)
            rounded = layer.constant(values.astype(np.float32) * scale[:, None])
            sqnr = _sqnr(graph, layer, rounded, step, activations[layer.source], local)
            result.sqnr[layer.name] = sqnr
            keep = sqnr < how.min_layer_sqnr
            if keep:
                result.kept[layer.name] = f"int8 gives {sqnr:.1f} dB, below the {how.min_layer_sqnr:g} dB asked for"
            step.advance(node, node, {} if keep else {layer.weight: rounded})
            if how.bias_correction:
                shift = _correct_mean(step, layer)
                changes.append((layer, matrix, layer.offsets(graph.constants) + shift))
        _round_values(step, node.outputs, activations)
    return with_constants(graph, changes)


def _sqnr(
    graph: Graph, layer: Layer, rounded: Array, step: Lockstep, activation: Activation, executor: Executor
) -> float:
    """What quantizing this layer's weights and inputs alone does to its outputs."""
    signal = noise = 0.0
    for batch in range(min(len(step), _SQNR_BATCHES)):
        x = step.original(batch, layer.source)
        bias = [graph.constants[layer.bias]] if layer.bias else []
        exact = executor.compute(layer.node, [x, graph.constants[layer.weight], *bias])[0]
        given = executor.compute(layer.node, [_rounded(x, activation), rounded, *bias])[0]
        signal += float(np.square(exact, dtype=np.float64).sum())
        noise += float(np.square(exact - given, dtype=np.float64).sum())
    if noise == 0.0:
        return float("inf")
    return 10.0 * float(np.log10(max(signal, 1e-300) / noise))


def _correct_mean(step: Lockstep, layer: Layer) -> Array:
    """Shift the changed network's outputs of a layer to the original's means; return the shift per channel."""
    axis = 1 if layer.is_conv else -1
    total, count = np.zeros(layer.rows), 0
    for batch in range(len(step)):
        gap = step.original(batch, layer.output) - step.changed(batch, layer.output)
        gap = np.moveaxis(gap, axis, -1).reshape(-1, layer.rows)
        total += gap.sum(axis=0, dtype=np.float64)
        count += len(gap)
    shift = (total / max(count, 1)).astype(np.float32)
    for batch in range(len(step)):
        y = step.changed(batch, layer.output)
        shape = [-1] + [1] * (y.ndim - 2) if axis == 1 else [-1]
        step.replace(batch, layer.output, y + shift.reshape(shape))
    return shift


def _round_values(step: Lockstep, names: Sequence[str], activations: Mapping[str, Activation]) -> None:
    for name in names:
        if name in activations:
            for batch in range(len(step)):
                step.replace(batch, name, _rounded(step.changed(batch, name), activations[name]))


def _rounded(x: Array, activation: Activation) -> Array:
    scale, zero = float(activation.scale), int(activation.zero_point)
    return dequantize_per_tensor(
        quantize_per_tensor(np.ascontiguousarray(x), scale, zero, activation.zero_point.dtype), scale, zero
    )
