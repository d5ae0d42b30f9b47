"""Evaluating what depends on constants alone."""

from __future__ import annotations

from gristmill.errors import LimitError
from gristmill.graph import Array, Node
from gristmill.operators import OPERATORS
from gristmill.passes.editor import Editor

#: Constants may grow by this many bytes in all; a larger result is computed in each run.
BUDGET = 1 << 30


def fold_constants(editor: Editor, keep: frozenset[str] = frozenset()) -> None:
    """Replace nodes that read constants alone by their results, except the operators in ``keep``."""
    budget = BUDGET
    for node in editor.nodes():
        if node.op in keep or node.op not in OPERATORS or not all(map(editor.is_known, node.inputs)):
            continue
        inputs = [editor.constant(name) for name in node.inputs]
        operator = OPERATORS[node.op]
        try:
            size = sum(kind.nbytes for kind in operator.infer(node, inputs))
        except LimitError:
            continue
        growth = size - sum(value.nbytes for value in inputs if value is not None)
        if growth <= budget:
            budget -= max(growth, 0)
            _fold(editor, node, operator.evaluate(node, inputs))


def fold_but_quantized(editor: Editor) -> None:
    """Fold constants, but leave weights as the bytes that they are stored in."""
    fold_constants(editor, frozenset({"DequantizeLinear"}))


def _fold(editor: Editor, node: Node, results: list[Array]) -> None:
    editor.remove(node)
    for name, value in zip(node.outputs, results, strict=False):
        if name:
            editor.set_constant(name, value)
