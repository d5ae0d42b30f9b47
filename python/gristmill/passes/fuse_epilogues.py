"""Activations and residual sums become part of the layer whose output they take."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from gristmill.dense import Activation
from gristmill.graph import Attribute, Node
from gristmill.operators import Known
from gristmill.operators.quantization import are_steps
from gristmill.passes.editor import Editor, make
from gristmill.passes.layers import CLAMPS, LAYERS, activation_attributes, activation_of, is_integer

_ACTIVATIONS = ("Relu", "Clip", "LeakyRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Swish")


def fuse_epilogues(editor: Editor, types: Mapping[str, Known]) -> None:
    """Fuse activations behind float32 layers, sums with a residual, and what clamps those."""
    for node in editor.nodes(*_ACTIVATIONS, "Add", "QLinearAdd"):
        if node.op == "QLinearAdd":
            if types[node.inputs[0]].shape == types[node.inputs[3]].shape:
                _fuse_integer_residual(editor, node)
        elif node.op == "Add":
            if len({types[name].shape for name in node.inputs}) == 1:
                _fuse_residual(editor, node)
        else:
            _fuse_activation(editor, node)


def activation_from(editor: Editor, node: Node) -> Activation | None:
    """The activation that a node computes, if layers know it."""
    if node.op == "Clip":
        low = editor.number(node.input(1)) if node.input(1) else -math.inf
        high = editor.number(node.input(2)) if node.input(2) else math.inf
        return Activation("clip", low, high) if low is not None and high is not None and low <= high else None
    if node.op == "LeakyRelu":
        return Activation("leaky_relu", alpha=float(np.float32(node.real("alpha", 0.01))))
    if node.op == "HardSigmoid":
        six = math.isclose(node.real("alpha", 0.2), 1 / 6, rel_tol=1e-5) and node.real("beta", 0.5) == 0.5
        return Activation("hardsigmoid") if six else None
    if node.op == "Swish":
        return Activation("silu") if node.real("alpha", 1.0) == 1.0 else None
    names = {"Relu": "relu", "Sigmoid": "sigmoid", "HardSwish": "hardswish"}
    return Activation(names[node.op])  # type: ignore[arg-type]


def _fuse_activation(editor: Editor, node: Node) -> None:
    layer = editor.own_writer(node.inputs[0], *LAYERS)
    activation = activation_from(editor, node)
    if layer is None or activation is None or is_integer(layer):
        return
    prefix = "sum_" if layer.input(3) else ""
    if activation_of(layer, prefix).name != "none" or (prefix and activation.name not in CLAMPS):
        return
    attributes = {**layer.attributes, **activation_attributes(activation, prefix)}
    editor.replace((layer, node), make(layer.op, layer.inputs, node, attributes))


def _fuse_residual(editor: Editor, node: Node) -> None:
    """A layer takes the sum, the second operand's for choice, since what is written last is still in the cache."""
    layers = [editor.own_writer(name, *LAYERS) for name in node.inputs]
    for layer, other in zip(reversed(layers), node.inputs, strict=True):
        if layer is None or layer.input(3) or is_integer(layer) or editor.constant(other) is not None:
            continue
        inputs = (*layer.inputs[:3], other)
        editor.replace((layer, node), make(layer.op, inputs, node, layer.attributes))
        return


def _fuse_integer_residual(editor: Editor, node: Node) -> None:
    """The same for bytes, if the layer's output means to the sum what it means to the layer."""
    sides = [(node.inputs[index], *_map_at(editor, node, index + 1)) for index in (0, 3)]
    sum_scale, sum_zero_point = _map_at(editor, node, 6)
    for (name, scale, zero_point), (other, other_scale, other_zero_point) in (sides[::-1], sides):
        layer = editor.own_writer(name, *LAYERS)
        if layer is None or layer.input(3) or scale is None or other_scale is None or sum_scale is None:
            continue
        if (layer.attributes.get("output_scale"), layer.attributes.get("zero_point")) != (scale, zero_point):
            continue
        if editor.constant(other) is not None or editor.byte_type(node.inputs[7]) != layer.text("output", ""):
            continue
        sums: dict[str, Attribute] = {
            "residual_type": editor.byte_type(node.inputs[5] if other == node.inputs[3] else node.inputs[2]),
            "residual_scale": other_scale,
            "residual_zero_point": other_zero_point,
            "residual_first": int(other == node.inputs[0]),
            "sum_scale": sum_scale,
            "sum_zero_point": sum_zero_point,
        }
        inputs = (*layer.inputs[:3], other)
        editor.replace((layer, node), make(layer.op, inputs, node, {**layer.attributes, **sums}))
        return


def _map_at(editor: Editor, node: Node, index: int) -> tuple[float | None, int]:
    """A scale and its zero point; no scale if it is no step."""
    scale, zero_point = editor.number(node.input(index)), editor.number(node.input(index + 1))
    return scale if scale is not None and are_steps(scale) else None, int(zero_point or 0)
