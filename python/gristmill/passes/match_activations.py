"""Activations that exporters write out in parts become one node again."""

from __future__ import annotations

import math

from gristmill.graph import Node
from gristmill.passes.editor import Editor, make


def match_activations(editor: Editor) -> None:
    """Find Swish, HardSigmoid, HardSwish and Gelu in their parts."""
    for node in editor.nodes("Div", "Mul"):
        _match_hard_sigmoid(editor, node)
    for node in editor.nodes("Mul"):
        _match_gated(editor, node) or _match_gelu(editor, node)


def _match_hard_sigmoid(editor: Editor, node: Node) -> None:
    """``clip(x + 3, 0, 6) / 6``, or times 1/6."""
    split = _constant_factor(editor, node)
    if split is None or not math.isclose(split[1], 1 / 6, rel_tol=1e-6):
        return
    clip = editor.own_writer(split[0], "Clip")
    if clip is None or not _is_relu6(editor, clip):
        return
    add = editor.own_writer(clip.inputs[0], "Add")
    term = _constant_term(editor, add) if add is not None else None
    if add is not None and term is not None and term[1] == 3.0:
        sigmoid = make("HardSigmoid", (term[0],), node, {"alpha": 1 / 6, "beta": 0.5})
        editor.replace((add, clip, node), sigmoid)


def _match_gated(editor: Editor, node: Node) -> bool:
    """``x * sigmoid(x)`` and ``x * hard_sigmoid(x)``, also as ``x * clip(x + 3, 0, 6)`` divided by 6 afterwards."""
    for x, gate_name in (node.inputs, node.inputs[::-1]):
        gate = editor.own_writer(gate_name, "Sigmoid", "HardSigmoid", "Clip")
        if gate is None:
            continue
        if gate.op == "Clip":
            if _match_late_division(editor, node, x, gate):
                return True
        elif gate.inputs[0] == x and (gate.op == "Sigmoid" or _is_six(gate)):
            editor.replace((gate, node), make("Swish" if gate.op == "Sigmoid" else "HardSwish", (x,), node))
            return True
    return False


def _is_six(gate: Node) -> bool:
    return math.isclose(gate.real("alpha", 0.2), 1 / 6, rel_tol=1e-5) and gate.real("beta", 0.5) == 0.5


def _is_relu6(editor: Editor, clip: Node) -> bool:
    return editor.number(clip.input(1)) == 0.0 and editor.number(clip.input(2)) == 6.0


def _match_late_division(editor: Editor, node: Node, x: str, clip: Node) -> bool:
    division = editor.only_reader(node.outputs[0], "Div", "Mul")
    add = editor.own_writer(clip.inputs[0], "Add")
    if division is None or add is None or not _is_relu6(editor, clip):
        return False
    split, term = _constant_factor(editor, division), _constant_term(editor, add)
    if split is None or term != (x, 3.0) or not math.isclose(split[1], 1 / 6, rel_tol=1e-6):
        return False
    editor.replace((add, clip, node, division), make("HardSwish", (x,), division))
    return True


def _match_gelu(editor: Editor, node: Node) -> bool:
    """``0.5 * x * (1 + erf(x / sqrt(2)))`` with its factors in any order; ``node`` is the last multiplication."""
    factors, inner = _factors(editor, node)
    halves = [editor.number(name) for name in factors]
    for name in factors:
        add = editor.own_writer(name, "Add")
        term = _constant_term(editor, add) if add is not None else None
        erf = editor.own_writer(term[0], "Erf") if term is not None and term[1] == 1 else None
        scaled = editor.own_writer(erf.inputs[0], "Div", "Mul") if erf is not None else None
        split = _constant_factor(editor, scaled) if scaled is not None else None
        if add is None or erf is None or scaled is None or split is None:
            continue
        rest = [factor for factor, half in zip(factors, halves, strict=True) if factor != name and half is None]
        half = [value for value in halves if value is not None]
        if rest == [split[0]] and half == [0.5] and math.isclose(split[1], math.sqrt(0.5), rel_tol=1e-5):
            editor.replace((scaled, erf, add, *inner, node), make("Gelu", (split[0],), node))
            return True
    return False


def _factors(editor: Editor, node: Node) -> tuple[list[str], list[Node]]:
    """What a multiplication and those it alone reads multiply, and these."""
    factors: list[str] = []
    inner: list[Node] = []
    for name in node.inputs:
        below = editor.own_writer(name, "Mul")
        if below is None:
            factors.append(name)
        else:
            inner.append(below)
            factors.extend(below.inputs)
    return factors, inner


def _constant_factor(editor: Editor, node: Node) -> tuple[str, float] | None:
    """The value that a node multiplies, and the number by which."""
    a, b = node.inputs
    if node.op == "Div":
        divisor = editor.number(b)
        return (a, 1 / divisor) if divisor else None
    return _constant_term(editor, node)


def _constant_term(editor: Editor, node: Node) -> tuple[str, float] | None:
    """The two inputs of a node, of which one is a constant number."""
    for x, constant in (node.inputs, node.inputs[::-1]):
        number = editor.number(constant)
        if number is not None and editor.number(x) is None:
            return x, number
    return None
