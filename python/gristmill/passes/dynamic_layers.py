"""Layers whose inputs are quantized to the range that each run has are summed as bytes.

A sum of products of dequantized reals depends on the order of its terms in the last bits. The next layer's range and
rounding turn these into whole steps, so two engines that both compute correctly differ by hundredths. Sums of bytes are
exact, and what follows is one multiplication and one addition for each result: every engine comes to the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gristmill.graph import Attribute, Node
from gristmill.passes.editor import Editor, make
from gristmill.passes.make_layers import geometry, is_plain
from gristmill.passes.quantized_values import QuantizedWeights, layer_weights, sums_fit

#: Weights are unsigned as their inputs are: pairs of both kinds saturate in engines that use AVX2 without VNNI.
_WEIGHT_ZERO = np.uint8(128)


def make_dynamic_layers(editor: Editor) -> None:
    """Sum the products of dynamically quantized inputs and int8 weights by ConvInteger and MatMulInteger."""
    for node in editor.nodes("Conv", "Gemm", "MatMul"):
        source = _source(editor, node.inputs[0])
        weights = layer_weights(editor, node)
        if source is not None and weights is not None and is_plain(node) and sums_fit(weights.values):
            _replace(editor, node, source, weights)


def _source(editor: Editor, name: str) -> tuple[str, ...] | None:
    """Bytes, scale and zero point that a value was dequantized from, if a run computes them."""
    node = editor.writer(name, "DequantizeLinear")
    writer = None if node is None else editor.writer(node.inputs[0], "DynamicQuantizeLinear")
    return node.inputs if node is not None and writer is not None and node.inputs == writer.outputs else None


def _replace(editor: Editor, node: Node, source: Sequence[str], weights: QuantizedWeights) -> None:
    """The sums as reals, times the product of both scales, plus the bias: the form that others quantize to."""
    convolves = node.op == "Conv"
    stored = (weights.values.astype(np.int16) + _WEIGHT_ZERO).astype(np.uint8)
    across = (-1, *[1] * (stored.ndim - 2)) if convolves else (-1,)
    constants = {
        "bytes": stored if convolves else np.ascontiguousarray(stored.T),
        "bytes_zero": np.asarray(_WEIGHT_ZERO),
        "steps": weights.scales.reshape(across),
    }
    held, zero, steps = (editor.add_constant(f"{node.inputs[1]}.{name}", value) for name, value in constants.items())
    sums, real, scale, product = (editor.fresh(f"{node.name}.{part}") for part in ("sums", "real", "scale", "product"))
    quantized, x_scale, x_zero = source
    operator, attributes = ("ConvInteger", geometry(node)) if convolves else ("MatMulInteger", {})
    bias = _bias(editor, node.input(2), across) if node.input(2) else ""
    nodes = [
        _named(editor, operator, (quantized, held, x_zero, zero), sums, attributes),
        _named(editor, "Cast", (sums,), real, {"to": 1}),
        _named(editor, "Mul", (x_scale, steps), scale),
        make("Mul", (real, scale), node) if not bias else _named(editor, "Mul", (real, scale), product),
    ]
    editor.replace(node, *nodes, *([make("Add", (product, bias), node)] if bias else []))


def _named(
    editor: Editor, op: str, inputs: tuple[str, ...], output: str, attributes: dict[str, Attribute] | None = None
) -> Node:
    return Node(op, inputs, (output,), attributes or {}, editor.fresh(f"{output}.{op}"))


def _bias(editor: Editor, name: str, across: tuple[int, ...]) -> str:
    """The name of the bias as it goes with the products."""
    value = editor.constant(name)
    if value is None or len(across) == 1:
        return name
    return editor.add_constant(f"{name}.channels", value.reshape(across))
