"""Convolutions and products with constant weights become layers."""

from __future__ import annotations

import numpy as np

from gristmill.graph import Array, Attribute, Node
from gristmill.passes.editor import Editor, make
from gristmill.passes.layers import CONV, LINEAR

_GEOMETRY = ("strides", "pads", "dilations", "group", "auto_pad")


def make_layers(editor: Editor) -> None:
    """Turn Conv, Gemm and MatMul of float32 with constant weights into layers."""
    for node in editor.nodes("Conv", "Gemm", "MatMul"):
        layer = _LAYERS[node.op](editor, node)
        if layer is not None:
            editor.replace(node, layer)


def geometry(node: Node) -> dict[str, Attribute]:
    """The attributes of a convolution that say where its kernel goes."""
    return {name: node.attributes[name] for name in _GEOMETRY if name in node.attributes}


def is_plain(node: Node) -> bool:
    """Whether a Gemm is nothing but ``x @ w + bias``."""
    return node.integer("transA", 0) == 0 and node.real("alpha", 1.0) == 1 and node.real("beta", 1.0) == 1


def is_float(value: Array | None) -> bool:
    """Whether it is a known array of float32."""
    return value is not None and value.dtype == np.float32


def _conv(editor: Editor, node: Node) -> Node | None:
    weights = editor.constant(node.inputs[1])
    if weights is None or not is_float(weights) or (node.input(2) and not is_float(editor.constant(node.input(2)))):
        return None
    if not weights.size or weights.shape[2:] != (node.integers("kernel_shape") or weights.shape[2:]):
        return None
    return make(CONV, (node.inputs[0], node.inputs[1], node.input(2), ""), node, geometry(node))


def _gemm(editor: Editor, node: Node) -> Node | None:
    """X @ w, with x as it is and a bias that is the same for every row."""
    weights = editor.constant(node.inputs[1])
    if weights is None or not is_float(weights) or weights.ndim != 2 or node.integer("transA", 0):
        return None
    rows = weights if node.integer("transB", 0) else weights.T
    bias = _row(editor, node.input(2), rows.shape[0])
    if node.input(2) and bias is None:
        return None
    alpha, beta = np.float32(node.real("alpha", 1.0)), np.float32(node.real("beta", 1.0))
    name = node.inputs[1]
    if alpha != 1 or rows is not weights:
        name = editor.add_constant(f"{name}.rows", np.ascontiguousarray(rows * alpha if alpha != 1 else rows))
    if bias is None or beta == 0:
        return make(LINEAR, (node.inputs[0], name, "", ""), node)
    return make(LINEAR, (node.inputs[0], name, editor.add_constant(f"{node.name}.bias", bias * beta), ""), node)


def _matmul(editor: Editor, node: Node) -> Node | None:
    weights = editor.constant(node.inputs[1])
    if weights is None or not is_float(weights) or weights.ndim != 2:
        return None
    name = editor.add_constant(f"{node.inputs[1]}.rows", np.ascontiguousarray(weights.T))
    return make(LINEAR, (node.inputs[0], name, "", ""), node)


def _row(editor: Editor, name: str, channels: int) -> Array | None:
    """A constant that broadcasts to rows of that many channels, alike in each row."""
    value = editor.constant(name)
    if value is None or not is_float(value) or value.ndim > 2 or (value.ndim == 2 and value.shape[0] != 1):
        return None
    return np.ascontiguousarray(np.broadcast_to(value.reshape(-1), (channels,)))


_LAYERS = {"Conv": _conv, "Gemm": _gemm, "MatMul": _matmul}
