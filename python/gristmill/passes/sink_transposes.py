"""Transposes move down, behind what works on elements in any order, until they meet their inverse and both vanish.

Models exported from channels-last frameworks transpose before and after each convolution. Nothing of that remains
between convolutions whatever lies there: activations, sums, pools, concatenations, padding, reductions, scales.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from gristmill.graph import Array, Attribute, Node
from gristmill.passes.editor import Editor, with_attributes

_Order = tuple[int, ...]

_ELEMENTWISE = (
    "Abs", "Add", "And", "Cast", "Ceil", "Celu", "Clip", "Cos", "Div", "Dropout", "Elu", "Equal", "Erf", "Exp", "Floor",
    "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Less", "LessOrEqual",
    "Log", "Max", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "QuickGelu", "Reciprocal",
    "Relu", "Round", "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tanh",
    "ThresholdedRelu", "Where", "Xor",
)  # fmt: skip
_REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
    "ReduceSum", "ReduceSumSquare",
)  # fmt: skip


@dataclass(frozen=True)
class _Sunk:
    """A node above the transpose: what it reads instead, and the order of the transpose behind it."""

    inputs: tuple[str, ...]
    order: _Order
    attributes: MappingProxyType[str, Attribute] | None = None


_Sink = Callable[[Editor, Node, _Order], "_Sunk | None"]


def sink_transposes(editor: Editor) -> None:
    """Sink all transposes; the graph is left alone if there are more of them afterwards."""
    before = editor.count("Transpose")
    if before:
        trial = Editor(editor.graph())
        _sink_all(trial)
        trial.sweep()
        if trial.count("Transpose") <= before:
            editor.become(trial)


def _sink_all(editor: Editor) -> None:
    for node in editor.nodes():
        if node.op == "Transpose":
            _merge(editor, node)
            continue
        sink = _SINKS.get(node.op)
        orders = [order for name in node.inputs if (order := _order_of(editor, name)) is not None]
        if sink is not None and orders:
            _apply(editor, node, sink(editor, node, orders[0]))


def _order_of(editor: Editor, name: str) -> _Order | None:
    """The order of the transpose that writes a value."""
    node = editor.writer(name, "Transpose")
    return None if node is None else node.integers("perm")


def _source(editor: Editor, name: str, order: _Order) -> str | None:
    """What a value was before a transpose of this order: its input, or a constant turned back."""
    if not name:
        return name
    writer = editor.writer(name, "Transpose")
    if writer is not None:
        return writer.inputs[0] if writer.integers("perm") == order else None
    value = editor.constant(name)
    if value is None or value.ndim > len(order):
        return None
    if value.size == 1 and value.ndim <= 1:
        return name
    wide = value.reshape((1,) * (len(order) - value.ndim) + value.shape)
    return editor.add_constant(f"{name}.turned", np.ascontiguousarray(wide.transpose(np.argsort(order))))


def _merge(editor: Editor, node: Node) -> None:
    outer, inner = node.integers("perm"), _order_of(editor, node.inputs[0])
    if outer is None or inner is None:
        return
    source = editor.writer(node.inputs[0], "Transpose")
    assert source is not None
    order = tuple(inner[axis] for axis in outer)
    if order == tuple(range(len(order))):
        editor.bypass(node, source.inputs[0])
    else:
        editor.replace(node, with_attributes(replace(node, inputs=source.inputs), perm=order))


def _apply(editor: Editor, node: Node, sunk: _Sunk | None) -> None:
    if sunk is None:
        return
    attributes = node.attributes if sunk.attributes is None else sunk.attributes
    if sunk.order == tuple(range(len(sunk.order))):
        editor.replace(node, replace(node, inputs=sunk.inputs, attributes=attributes))
        return
    before = tuple(editor.fresh(f"{name}.before") if name else "" for name in node.outputs)
    above = replace(node, inputs=sunk.inputs, outputs=before, attributes=attributes)
    perm = MappingProxyType({"perm": sunk.order})
    behind = [
        Node("Transpose", (inner,), (name,), perm, editor.fresh(f"{name}.transpose"))
        for inner, name in zip(before, node.outputs, strict=True)
        if name
    ]
    editor.replace(node, above, *behind)


def _elementwise(editor: Editor, node: Node, order: _Order) -> _Sunk | None:
    sources = [_source(editor, name, order) for name in node.inputs]
    found = tuple(name for name in sources if name is not None)
    return _Sunk(found, order) if len(found) == len(sources) else None


def _first(editor: Editor, node: Node, order: _Order, **changes: Attribute) -> _Sunk | None:
    """Only the first input has axes, and is transposed."""
    source = _source(editor, node.inputs[0], order)
    if source is None or editor.constant(node.inputs[0]) is not None:
        return None
    return _Sunk((source, *node.inputs[1:]), order, MappingProxyType({**node.attributes, **changes}))


def _along_axis(default: int) -> _Sink:
    def sink(editor: Editor, node: Node, order: _Order) -> _Sunk | None:
        return _first(editor, node, order, axis=order[node.integer("axis", default) % len(order)])

    return sink


def _concat(editor: Editor, node: Node, order: _Order) -> _Sunk | None:
    sunk = _elementwise(editor, node, order)
    axis = order[node.integer("axis", 0) % len(order)]
    return None if sunk is None else replace(sunk, attributes=MappingProxyType({**node.attributes, "axis": axis}))


def _quantization(editor: Editor, node: Node, order: _Order) -> _Sunk | None:
    if node.integer("block_size", 0):
        return None
    return _along_axis(1)(editor, node, order)


def _pad(editor: Editor, node: Node, order: _Order) -> _Sunk | None:
    return None if node.input(3) else _per_axis(editor, node, order, 1, 2)


def _resize(editor: Editor, node: Node, order: _Order) -> _Sunk | None:
    index = 3 if node.input(3) else 2
    return None if node.input(1) or "axes" in node.attributes else _per_axis(editor, node, order, index, 1)


def _per_axis(editor: Editor, node: Node, order: _Order, index: int, rows: int) -> _Sunk | None:
    """An input of constant numbers, in rows of one for each axis."""
    numbers, sunk = editor.constant(node.input(index)), _first(editor, node, order)
    if numbers is None or sunk is None or numbers.size != rows * len(order):
        return None
    turned = np.ascontiguousarray(numbers.reshape(rows, -1)[:, np.argsort(order)].reshape(-1))
    name = editor.add_constant(f"{node.input(index)}.turned", turned)
    return replace(sunk, inputs=(*sunk.inputs[:index], name, *sunk.inputs[index + 1 :]))


def _reduce(editor: Editor, node: Node, order: _Order) -> _Sunk | None:
    axes = _axes(editor, node, len(order))
    sunk = _first(editor, node, order)
    if axes is None or sunk is None:
        return None
    inner = sorted(order[axis] for axis in axes)
    name = editor.add_constant(f"{node.name}.axes", np.array(inner, np.int64))
    kept = order if node.op != "Squeeze" and node.integer("keepdims", 1) else _without(order, axes)
    return replace(sunk, inputs=(sunk.inputs[0], name, *sunk.inputs[2:]), order=kept)


def _axes(editor: Editor, node: Node, rank: int) -> list[int] | None:
    """The constant axes of a reduction, counted from the front; none of them are all."""
    if not node.input(1):
        return None if node.integer("noop_with_empty_axes", 0) or node.op == "Squeeze" else list(range(rank))
    given: Array | None = editor.constant(node.input(1))
    return [int(axis) % rank for axis in given.reshape(-1)] if given is not None and given.size else None


def _without(order: _Order, axes: list[int]) -> _Order:
    """The order of the axes that are left, numbered anew."""
    left = [inner for axis, inner in enumerate(order) if axis not in axes]
    ranks = {inner: rank for rank, inner in enumerate(sorted(left))}
    return tuple(ranks[inner] for inner in left)


_SINKS: dict[str, _Sink] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys((*_REDUCTIONS, "Squeeze"), _reduce),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), _along_axis(-1)),
    **dict.fromkeys(("QuantizeLinear", "DequantizeLinear"), _quantization),
    "Split": _along_axis(0),
    "Concat": _concat,
    "Pad": _pad,
    "Resize": _resize,
}
