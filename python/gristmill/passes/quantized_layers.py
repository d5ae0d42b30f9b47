"""Layers between DequantizeLinear and QuantizeLinear, and those of QLinearConv and its kin, become integer layers.

What they compute stays what is written: sums of bytes are exact, one multiplication by ``x_scale * w_scale / y_scale``
brings them to steps of the output, in float32 and in ONNX Runtime's order.
"""

from __future__ import annotations

import numpy as np

from gristmill.dense import Activation
from gristmill.graph import Array, Attribute, Node
from gristmill.operators.quantization import are_steps
from gristmill.passes.editor import Editor, make
from gristmill.passes.fuse_epilogues import activation_from
from gristmill.passes.layers import CLAMPS, CONV, LINEAR, activation_attributes
from gristmill.passes.make_layers import geometry, is_plain
from gristmill.passes.quantized_values import (
    Quantized,
    QuantizedWeights,
    all_equal,
    centred_weights,
    channel_axis,
    layer_weights,
    quantized,
    source_of,
    sums_fit,
    target_of,
)


@np.errstate(over="ignore")
def make_quantized_layers(editor: Editor) -> None:
    """Turn quantized Conv, Gemm, MatMul, QLinearConv, QLinearMatMul and QGemm with constant weights into layers."""
    for node in editor.nodes("Conv", "Gemm", "MatMul"):
        _fuse_surrounded(editor, node)
    for node in editor.nodes("QLinearConv", "QLinearMatMul", "QGemm"):
        _convert(editor, node)


def _fuse_surrounded(editor: Editor, node: Node) -> None:
    x = source_of(editor, node.inputs[0])
    weights = layer_weights(editor, node)
    if x is None or weights is None or not is_plain(node):
        return
    last, activation, target = _output(editor, node)
    factors = _factors(x, weights, target)
    if not are_steps(factors):
        return
    steps = _bias(editor, node.input(2), x, weights) if node.input(2) else np.zeros(1)
    if steps is None or not sums_fit(weights.values, steps):
        return
    bias = editor.add_constant(f"{node.input(2)}.steps", steps.astype(np.int32)) if node.input(2) else ""
    attributes = _attributes(node, x, factors, target, activation)
    op = CONV if node.op == "Conv" else LINEAR
    name = editor.add_constant(f"{node.inputs[1]}.bytes", weights.values)
    editor.replace(tuple(last), make(op, (x.name, name, bias, ""), last[-1], attributes))


def _bias(editor: Editor, name: str, x: Quantized, weights: QuantizedWeights) -> Array | None:
    """The bias in whole steps of the sums."""
    exact = x.scale * weights.scales
    node = editor.writer(name, "DequantizeLinear")
    values = editor.constant(name if node is None else node.inputs[0])
    if values is None or values.size != len(exact):
        return None
    step = exact.astype(np.float64)
    if node is None:
        real = values.astype(np.float64).reshape(-1)
    else:
        scale, zero = editor.constant(node.inputs[1]), editor.constant(node.input(2))
        if scale is None or values.dtype != np.int32 or (zero is not None and zero.any()):
            return None
        given = scale.reshape(-1)
        if (given == exact).all() or (np.abs(given - step) <= 1e-5 * np.abs(step)).all():
            return np.asarray(values.reshape(-1))
        real = values.reshape(-1).astype(np.float64) * given
    return np.asarray(np.rint(real / step))


def _output(editor: Editor, node: Node) -> tuple[list[Node], Activation, Quantized | None]:
    """The nodes that the layer takes in, the activation among them, and what its output is quantized to."""
    found = target_of(editor, node.outputs[0])
    if found is not None:
        return [node, found[0]], Activation(), found[1]
    follower = editor.only_reader(node.outputs[0], "Relu", "Clip")
    activation = activation_from(editor, follower) if follower is not None else None
    if follower is None or activation is None or activation.name not in CLAMPS:
        return [node], Activation(), None
    found = target_of(editor, follower.outputs[0])
    if found is None:
        return [node, follower], activation, None
    return [node, follower, found[0]], activation, found[1]


def _attributes(
    node: Node, x: Quantized, factors: Array, target: Quantized | None, activation: Activation
) -> dict[str, Attribute]:
    scale = _shortest(factors)
    attributes: dict[str, Attribute] = {"x_zero_point": x.zero_point}
    if node.op in {"Conv", "QLinearConv"}:
        attributes |= geometry(node)
    if activation.name != "none":
        attributes |= activation_attributes(activation)
    if target is None:
        return attributes | {"scale": scale, "output": "float32"}
    return attributes | {
        "scale": scale,
        "output": target.dtype.name,
        "output_scale": float(target.scale),
        "zero_point": target.zero_point,
    }


def _factors(x: Quantized, weights: QuantizedWeights, target: Quantized | None) -> Array:
    """What brings the sums of each channel to reals, or to steps of the output."""
    step = np.asarray(x.scale * weights.scales)
    return step if target is None else np.asarray(step / target.scale)


def _shortest(scales: Array) -> Array:
    """One number instead of many equal ones."""
    return scales[:1] if all_equal(scales) else scales


def _convert(editor: Editor, node: Node) -> None:
    """Operators on bytes: x, w and y with their scales and zero points, in an order of their own each."""
    order = [0, 1, 2, 3, 4, 5, 6, 7, 8] if node.op != "QGemm" else [0, 1, 2, 3, 4, 5, 7, 8, 6]
    names = [node.input(index) for index in order]
    x = quantized(names[0], *map(editor.constant, names[1:3]))
    target = quantized(node.outputs[0], *map(editor.constant, names[6:8]))
    values, scale, zero = editor.constant(names[3]), editor.constant(names[4]), editor.constant(names[5])
    if x is None or values is None or scale is None or (target is None and (names[6] or names[7])):
        return
    if not is_plain(node) or (node.op != "QLinearConv" and values.ndim != 2):
        return
    axis = channel_axis(node)
    weights = centred_weights(values if axis == 0 else values.T, scale, zero)
    bias = names[8] if node.op != "QLinearMatMul" else ""
    if weights is None or (bias and editor.constant(bias) is None):
        return
    attributes = _attributes(node, x, _factors(x, weights, target), target, Activation())
    name = editor.add_constant(f"{names[3]}.bytes", weights.values)
    op = CONV if node.op == "QLinearConv" else LINEAR
    editor.replace(node, make(op, (x.name, name, bias, ""), node, attributes))
