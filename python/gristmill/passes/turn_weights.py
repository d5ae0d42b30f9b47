"""Weights of bytes behind products of reals are stored with output channels first.

ONNX Runtime takes a MatMul or plain Gemm whose weights are dequantized for one that may round its other factor to bytes
too, and answers differently in the second digit. Weights that lie the other way it multiplies as what they are.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gristmill.graph import Node
from gristmill.passes.editor import Editor, with_attributes


def turn_weights(editor: Editor) -> None:
    """Exchange the axes of dequantized weights of Gemm and MatMul, unless what they multiply is quantized as well."""
    for node in editor.nodes("Gemm", "MatMul"):
        stored = editor.writer(node.inputs[1], "DequantizeLinear")
        if stored is None or node.integer("transB", 0) or stored.integer("block_size", 0):
            continue
        values = editor.constant(stored.inputs[0])
        if values is not None and values.ndim == 2 and editor.writer(node.inputs[0], "DequantizeLinear") is None:
            _turn(editor, node, stored)


def _turn(editor: Editor, node: Node, stored: Node) -> None:
    values = editor.constant(stored.inputs[0])
    assert values is not None
    name = editor.add_constant(f"{stored.inputs[0]}.rows", np.ascontiguousarray(values.T))
    rows, axis = editor.fresh(f"{stored.outputs[0]}.rows"), 1 - stored.integer("axis", 1) % 2
    inputs = (name, *stored.inputs[1:])
    turned = [with_attributes(replace(stored, inputs=inputs, outputs=(rows,), name=editor.fresh(rows)), axis=axis)]
    if node.op == "MatMul":
        columns = editor.fresh(f"{rows}.columns")
        turned.append(Node("Transpose", (rows,), (columns,), {"perm": (1, 0)}, editor.fresh(f"{columns}.turn")))
        node_now = replace(node, inputs=(node.inputs[0], columns))
    else:
        node_now = with_attributes(replace(node, inputs=(node.inputs[0], rows, *node.inputs[2:])), transB=1)
    editor.replace(node, *turned, node_now)
