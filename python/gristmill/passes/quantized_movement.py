"""Bytes stay bytes: what moves or maps elements works on the integers instead of the reals behind them.

- DequantizeLinear sinks below what only moves elements, until it meets a QuantizeLinear with the same map: both go.
- Between DequantizeLinear and QuantizeLinear a function of one element is a table of 256 entries (``Lookup``).
- Sums, products, means and softmaxes of bytes become the operators that ONNX Runtime has for them.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import numpy as np

from gristmill.graph import Array, Node
from gristmill.operators import find
from gristmill.operators.quantization import dequantize, quantize
from gristmill.operators.registry import Known, TensorType, operator
from gristmill.passes.editor import Editor, make
from gristmill.passes.quantized_values import MOVES, Quantized, map_of, source_of, target_of

LOOKUP = "Lookup"

_FUNCTIONS = (
    "Abs", "Clip", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Neg", "Relu", "Sigmoid",
    "Softplus", "Softsign", "Sqrt", "Swish", "Tanh",
)  # fmt: skip
_PAIRS = {"Add": "QLinearAdd", "Mul": "QLinearMul"}
_SINGLE = {
    "AveragePool": "QLinearAveragePool",
    "GlobalAveragePool": "QLinearGlobalAveragePool",
    "Softmax": "QLinearSoftmax",
}


def _table_type(node: Node, x: Known) -> TensorType:
    table = node.array("table")
    if table.shape != (256,) or table.itemsize != 1 or x.dtype.itemsize != 1:
        raise node.error(f"needs a table of 256 bytes, got {table.dtype}{list(table.shape)} for {x.dtype}")
    return TensorType(table.dtype, x.shape)


@operator(LOOKUP, rule=_table_type)
def lookup(node: Node, x: Array) -> Array:
    """``table[x]``, where int8 indexes as the byte that it is."""
    return np.asarray(node.array("table")[x.view(np.uint8)])


def keep_bytes(editor: Editor) -> None:
    """Apply all of the above."""
    for node in editor.nodes(*MOVES):
        _sink(editor, node)
    for node in editor.nodes(*_PAIRS, *_SINGLE, "Concat"):
        if node.op in _PAIRS:
            _pair(editor, node)
        elif node.op == "Concat":
            _concat(editor, node)
        else:
            _single(editor, node)
    for node in editor.nodes("QuantizeLinear"):
        _function(editor, node)


def _sink(editor: Editor, node: Node) -> None:
    """Let a node move the integers, and dequantize what comes out."""
    x = source_of(editor, node.inputs[0])
    dequantizer = editor.writer(node.inputs[0], "DequantizeLinear")
    if x is None or dequantizer is None or any(node.outputs[1:]):
        return
    inputs = (x.name, *node.inputs[1:])
    if node.op == "Pad":
        if node.text("mode", "constant") == "constant" and node.input(2) and not _is_zero(editor, node.input(2)):
            return
        zero = editor.add_constant(f"{node.name}.zero", np.asarray(x.zero_point, x.dtype))
        inputs = (x.name, node.inputs[1], zero, node.input(3))
    moved = editor.fresh(f"{node.outputs[0]}.bytes")
    move = replace(node, inputs=inputs, outputs=(moved,))
    name = editor.fresh(f"{node.name}.dequantize")
    after = Node("DequantizeLinear", (moved, *dequantizer.inputs[1:]), node.outputs, dequantizer.attributes, name)
    editor.replace(node, move, after)


def _is_zero(editor: Editor, name: str) -> bool:
    """Whether a value is the constant 0, quantized or not."""
    source = source_of(editor, name)
    return editor.number(name) == 0.0 if source is None else editor.number(source.name) == source.zero_point


def _pair(editor: Editor, node: Node) -> None:
    sources = [source_of(editor, name) for name in node.inputs]
    a, b = sources
    last = _clamped_target(editor, node)
    if a is None or b is None or last is None:
        return
    gone, target = last
    inputs = [name for item in (a, b) for name in (item.name, *_map_names(editor, item))]
    editor.replace(tuple(gone), make(_PAIRS[node.op], (*inputs, *_map_names(editor, target)), gone[-1]))


def _clamped_target(editor: Editor, node: Node) -> tuple[list[Node], Quantized] | None:
    """What quantizes a value, with a Relu before it if the integers' own least value stands for zero."""
    found = target_of(editor, node.outputs[0])
    if found is not None:
        return [node, found[0]], found[1]
    relu = editor.only_reader(node.outputs[0], "Relu")
    found = target_of(editor, relu.outputs[0]) if relu is not None else None
    if relu is None or found is None or found[1].zero_point != np.iinfo(found[1].dtype).min:
        return None
    return [node, relu, found[0]], found[1]


def _single(editor: Editor, node: Node) -> None:
    x, found = source_of(editor, node.inputs[0]), target_of(editor, node.outputs[0])
    if x is not None and found is not None and x.dtype == found[1].dtype:
        inputs = (x.name, *_map_names(editor, x), *_map_names(editor, found[1]))
        attributes = {**node.attributes, "opset": 13} if node.op == "Softmax" else node.attributes
        editor.replace((node, found[0]), make(_SINGLE[node.op], inputs, found[0], attributes))


def _concat(editor: Editor, node: Node) -> None:
    """Parts are brought to the map of the whole, one by one."""
    sources = [source_of(editor, name) for name in node.inputs]
    found = target_of(editor, node.outputs[0])
    parts = [item for item in sources if item is not None]
    if found is None or len(parts) < len(sources):
        return
    quantizer, target = found
    names, nodes = [], []
    for part in parts:
        if part.same_map(target):
            names.append(part.name)
            continue
        names.append(editor.fresh(f"{part.name}.mapped"))
        nodes.append(_lookup((part.name,), Node("", (), (names[-1],), {}, names[-1]), _table(part, [], target)))
    whole = Node("Concat", tuple(names), quantizer.outputs, node.attributes, quantizer.name)
    editor.replace((node, quantizer), *nodes, whole)


def _function(editor: Editor, quantizer: Node) -> None:
    """Follow functions back from a QuantizeLinear to the bytes that they start from."""
    value, chain = quantizer.inputs[0], list[Node]()
    while (node := editor.writer(value, *_FUNCTIONS)) is not None and editor.only_reader(value) is not None:
        if any(editor.constant(name) is None for name in filter(None, node.inputs[1:])):
            return
        chain.insert(0, node)
        value = node.inputs[0]
    x = source_of(editor, value)
    found = map_of(editor, quantizer, quantizer.outputs[0])
    if x is None or found is None:
        return
    if not chain and x.same_map(found):
        if not editor.is_output(quantizer.outputs[0]) or editor.writer(x.name) is not None:
            editor.bypass(quantizer, x.name)
        return
    steps = [(node, [editor.constant(name) if name else None for name in node.inputs[1:]]) for node in chain]
    editor.replace((*chain, quantizer), _lookup((x.name,), quantizer, _table(x, steps, found)))


def _table(x: Quantized, steps: list[tuple[Node, list[Array | None]]], target: Quantized) -> Array:
    """What becomes of each byte of x."""
    integers = np.arange(256, dtype=np.uint8).view(x.dtype)
    values = dequantize(integers, np.asarray(x.scale), x.zero_point)
    for node, constants in steps:
        (values,) = find(node).evaluate(node, [values, *constants])
    return quantize(values, np.asarray(target.scale), np.asarray(target.zero_point, target.dtype))


def _lookup(inputs: tuple[str, ...], like: Node, table: Array) -> Node:
    return replace(make(LOOKUP, inputs, like), attributes=MappingProxyType({"table": table}))


def _map_names(editor: Editor, item: Quantized) -> tuple[str, str]:
    """Constants with a value's scale and zero point."""
    scale = editor.add_constant(f"{item.name}.scale", np.asarray(item.scale))
    return scale, editor.add_constant(f"{item.name}.zero_point", np.asarray(item.zero_point, item.dtype))
