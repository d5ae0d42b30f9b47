"""Nodes of any opset from 7 on, rewritten as opset 21 would write them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from gristmill.errors import UnsupportedOpError
from gristmill.graph import Array, Attribute, GraphBuilder, Node

OLDEST_OPSET = 7
NEWEST_OPSET = 28

_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
#: Attributes that are inputs from an opset on, in the order of the inputs that follow the data.
_INPUTS_SINCE: dict[str, tuple[int, tuple[str, ...]]] = {
    "Clip": (11, ("min", "max")),
    "Pad": (11, ("pads", "value")),
    "ReduceSum": (13, ("axes",)),
    "Slice": (10, ("starts", "ends", "axes")),
    "Split": (13, ("split",)),
    "Squeeze": (13, ("axes",)),
    "TopK": (10, ("k",)),
    "Unsqueeze": (13, ("axes",)),
    "Upsample": (9, ("scales",)),
    **{f"Reduce{name}": (18, ("axes",)) for name in _REDUCTIONS},
}
#: Attributes that say nothing about inference.
_IDLE: dict[str, frozenset[str]] = {
    "BatchNormalization": frozenset({"momentum", "spatial"}),
    "Cast": frozenset({"round_mode", "saturate"}),
    "Dropout": frozenset({"ratio", "seed"}),
    "LayerNormalization": frozenset({"stash_type"}),
    "QuantizeLinear": frozenset({"precision", "saturate"}),
    "TopK": frozenset({"sorted"}),
}


@dataclass(frozen=True)
class Step:
    """A node on its way into a graph.

    Attributes:
        builder: Where it goes.
        node: The node as the file has it, with names that are unique in the graph.
        opset: The version of the operators' domain.
        ranks: The number of axes of values, where the file states it.
    """

    builder: GraphBuilder
    node: Node
    opset: int
    ranks: Mapping[str, int]

    def constant(self, what: str, value: Array) -> str:
        """A new constant that belongs to this node."""
        return self.builder.constant(f"{self.node.name}/{what}", value)

    def value(self, what: str) -> str:
        """A name for a value between the nodes that this one becomes."""
        return self.builder.fresh(f"{self.node.name}/{what}")

    def known(self, index: int) -> Array | None:
        """An input, if it is a constant."""
        return self.builder.constants.get(self.node.input(index))


def convert(builder: GraphBuilder, node: Node, opset: int, ranks: Mapping[str, int]) -> list[Node]:
    """The nodes of opset 21 that do what this one does; the last write what it writes. The rest is as in a step.

    Raises:
        UnsupportedOpError: The node has a form that graphs do not hold.
    """
    if node.op not in _CHANGED or (node.op in _ONLY_IDLE and _IDLE[node.op].isdisjoint(node.attributes)):
        return [node]
    step = Step(builder, node, opset, ranks)
    node = _with_inputs(step)
    idle, rewrite = _IDLE.get(node.op, frozenset()), _REWRITES.get(node.op)
    kept = {name: value for name, value in node.attributes.items() if name not in idle}
    plain = replace(step, node=replace(node, attributes=kept))
    return [plain.node] if rewrite is None else rewrite(plain, node.attributes)


def _with_inputs(step: Step) -> Node:
    """The node with attributes that became inputs as such."""
    node = step.node
    since, names = _INPUTS_SINCE.get(node.op, (0, ()))
    if step.opset >= since:
        return node
    inputs = list(node.inputs[:1])
    for name in names:
        value = node.attributes.get(name)
        inputs.append("" if value is None else step.constant(name, _as_input(value)))
    while inputs and not inputs[-1]:
        inputs.pop()
    kept = {name: value for name, value in node.attributes.items() if name not in names}
    return replace(node, inputs=tuple(inputs), attributes=kept)


def _as_input(value: Attribute) -> Array:
    if isinstance(value, float):
        return np.array(value, np.float32)
    if isinstance(value, tuple) and all(isinstance(item, float) for item in value) and value:
        return np.array(value, np.float32)
    return np.array(value if isinstance(value, tuple) else [value], np.int64)


def _batch_normalization(step: Step, attributes: Mapping[str, Attribute]) -> list[Node]:
    node = step.node
    if not attributes.get("spatial", 1):
        raise _unsupported(node, "statistics per activation (spatial=0)")
    if attributes.get("training_mode", 0):
        raise _unsupported(node, "training mode, which is for training,")
    return [replace(node, outputs=node.outputs[:1])]


def _layer_normalization(step: Step, _attributes: Mapping[str, Attribute]) -> list[Node]:
    return [replace(step.node, outputs=step.node.outputs[:1])]


def _dropout(step: Step, _attributes: Mapping[str, Attribute]) -> list[Node]:
    node = step.node
    training = step.known(2)
    if node.input(2) and (training is None or training.any()):
        raise _unsupported(node, "training mode, which is for training,")
    nodes = [Node("Identity", node.inputs[:1], node.outputs[:1], {}, node.name)]
    if len(node.outputs) > 1 and node.outputs[1]:
        shape, kept = step.value("shape"), np.ones(1, np.bool_ if step.opset >= 10 else np.float32)
        nodes.append(Node("Shape", node.inputs[:1], (shape,), {}, shape))
        mask = step.value("mask")
        nodes.append(Node("ConstantOfShape", (shape,), node.outputs[1:2], {"value": kept}, mask))
    return nodes


def _softmax(step: Step, attributes: Mapping[str, Attribute]) -> list[Node]:
    """Before opset 13: over all axes from ``axis`` on, as if they were one."""
    node = step.node
    if step.opset >= 13:
        return [node]
    axis, rank = node.integer("axis", 1), step.ranks.get(node.input(0))
    last = {**attributes, "axis": -1}
    if axis == -1 or axis + 1 == rank:
        return [replace(node, attributes=last)]
    flat, done, shape = step.value("flat"), step.value("done"), step.value("shape")
    return [
        Node("Flatten", node.inputs[:1], (flat,), {"axis": axis}, flat),
        Node("Shape", node.inputs[:1], (shape,), {}, shape),
        Node(node.op, (flat, *node.inputs[1:]), (done,), last, node.name),
        Node("Reshape", (done, shape), node.outputs, {}, step.value("reshaped")),
    ]


def _upsample(step: Step, attributes: Mapping[str, Attribute]) -> list[Node]:
    node = step.node
    mode = {"bilinear": "linear", "trilinear": "linear"}.get(node.text("mode", "nearest"), node.text("mode", "nearest"))
    kept: dict[str, Attribute] = {
        "mode": mode,
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    }
    return [Node("Resize", (node.input(0), "", node.input(1)), node.outputs, kept, node.name)]


def _resize(step: Step, attributes: Mapping[str, Attribute]) -> list[Node]:
    """Opset 10 has scales alone, and takes the next element rather than the last where it shrinks."""
    node = step.node
    if step.opset >= 11:
        return [node]
    (resized,) = _upsample(step, attributes)
    if node.text("mode", "nearest") != "nearest":
        return [resized]
    scales = step.known(1)
    if scales is None or (scales.min() < 1 < scales.max()):
        raise _unsupported(node, "opset 10 with scales that are computed, or that shrink and grow at once")
    rounding = "ceil" if scales.min() < 1 else "floor"
    return [replace(resized, attributes={**resized.attributes, "nearest_mode": rounding})]


def _qlinear_softmax(step: Step, _attributes: Mapping[str, Attribute]) -> list[Node]:
    """Of the opset that it names."""
    opset = step.node.integer("opset", 13)
    axis = step.node.integer("axis", -1 if opset >= 13 else 1)
    node = replace(step.node, attributes={"axis": axis, "opset": 13})
    return _softmax(replace(step, node=node, opset=opset), node.attributes)


_REWRITES: dict[str, Callable[[Step, Mapping[str, Attribute]], list[Node]]] = {
    "BatchNormalization": _batch_normalization,
    "Dropout": _dropout,
    "Hardmax": _softmax,
    "LayerNormalization": _layer_normalization,
    "LogSoftmax": _softmax,
    "QLinearSoftmax": _qlinear_softmax,
    "Resize": _resize,
    "Softmax": _softmax,
    "Upsample": _upsample,
}
_CHANGED = frozenset({*_INPUTS_SINCE, *_IDLE, *_REWRITES})
#: Operators that differ by nothing but attributes that are left out.
_ONLY_IDLE = frozenset(_IDLE) - frozenset({*_INPUTS_SINCE, *_REWRITES})
#: Operators of older opsets that become others.
REWRITTEN = frozenset(_REWRITES)


def _unsupported(node: Node, reason: str) -> UnsupportedOpError:
    return UnsupportedOpError(f"{node.op}: {reason} is not supported", node=node.name or None)
