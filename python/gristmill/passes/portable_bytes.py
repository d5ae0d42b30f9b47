"""Quantized networks in the form that ONNX Runtime computes in integers on every processor.

On x86-64 it takes layers of signed bytes for float32 layers between conversions, and everywhere those whose clamp
stands between them and their QuantizeLinear, unless that is a ReLU that the smallest byte implies. Sums of reals then
round differently from sums of bytes, in single steps that the next layers multiply. Both are written otherwise here,
with the same result: one byte type is the other but for 128, and a clamp of a rounded value is a rounded clamp.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gristmill.graph import Node
from gristmill.passes.editor import Editor
from gristmill.passes.quantized_values import source_of, target_of

_CLAMPS = ("Relu", "Clip")
_LAYERS = ("Conv", "Gemm", "MatMul", "Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool")


def make_bytes_portable(editor: Editor) -> None:
    """Quantize before clamps that no byte implies, and make signed bytes unsigned except at inputs and outputs."""
    for node in editor.nodes(*_CLAMPS):
        _quantize_before(editor, node)
    for node in editor.nodes("QuantizeLinear"):
        _make_unsigned(editor, node)
    for node in editor.nodes("DequantizeLinear"):
        _enter_unsigned(editor, node)


def _quantize_before(editor: Editor, clamp: Node) -> None:
    layer, found = editor.own_writer(clamp.inputs[0], *_LAYERS), target_of(editor, clamp.outputs[0])
    if layer is None or found is None or source_of(editor, layer.inputs[0]) is None:
        return
    stored, target = found
    if clamp.op == "Relu" and target.zero_point == np.iinfo(target.dtype).min:
        return
    nodes, restored = _converted(editor, clamp.inputs[0], stored.inputs[1], stored.inputs[2])
    editor.replace(clamp, *nodes, replace(clamp, inputs=(restored, *clamp.inputs[1:])))


def _converted(editor: Editor, name: str, scale: str, zero: str) -> tuple[list[Node], str]:
    """A value quantized and dequantized again: the nodes, and the name of the result."""
    stored, restored = editor.fresh(f"{name}.quantized"), editor.fresh(f"{name}.dequantized")
    nodes = [
        Node("QuantizeLinear", (name, scale, zero), (stored,), {}, editor.fresh(f"{name}.quantize")),
        Node("DequantizeLinear", (stored, scale, zero), (restored,), {}, editor.fresh(f"{name}.dequantize")),
    ]
    return nodes, restored


def _make_unsigned(editor: Editor, node: Node) -> None:
    result = node.outputs[0]
    zero, writer = _signed_zero(editor, node), editor.writer(node.inputs[0])
    if zero is None or (writer is not None and writer.op == "DequantizeLinear"):
        return
    readers = {id(reader): reader for reader in editor.readers(result)}.values()
    unsigned = editor.add_constant(f"{node.inputs[2]}.unsigned", np.asarray(zero + 128, np.uint8))
    if not editor.is_output(result) and all(_signed_zero(editor, reader) == zero for reader in readers):
        for part in (node, *readers):
            editor.replace(part, replace(part, inputs=(*part.inputs[:2], unsigned)))
    elif writer is not None:
        nodes, restored = _converted(editor, node.inputs[0], node.inputs[1], unsigned)
        editor.replace(node, *nodes, replace(node, inputs=(restored, *node.inputs[1:])))


def _enter_unsigned(editor: Editor, node: Node) -> None:
    """Behind bytes that stay signed, go over to unsigned ones."""
    zero = _signed_zero(editor, node)
    readers = editor.readers(node.outputs[0])
    if zero is None or editor.constant(node.inputs[0]) is not None or editor.is_output(node.outputs[0]):
        return
    if not readers or any(reader.op == "QuantizeLinear" for reader in readers):
        return
    plain = editor.fresh(f"{node.inputs[0]}.real")
    unsigned = editor.add_constant(f"{node.inputs[2]}.unsigned", np.asarray(zero + 128, np.uint8))
    nodes, _ = _converted(editor, plain, node.inputs[1], unsigned)
    last = replace(nodes[-1], outputs=node.outputs)
    editor.replace(node, replace(node, outputs=(plain,)), *nodes[:-1], last)


def _signed_zero(editor: Editor, node: Node) -> int | None:
    """The zero point of a conversion from or to signed bytes with one scale."""
    scale, zero = editor.constant(node.input(1)), editor.constant(node.input(2))
    if node.op not in {"QuantizeLinear", "DequantizeLinear"} or scale is None or zero is None:
        return None
    fits = scale.size == 1 and zero.size == 1 and zero.dtype == np.int8 and not node.integer("output_dtype", 0)
    return int(zero.item()) if fits else None
