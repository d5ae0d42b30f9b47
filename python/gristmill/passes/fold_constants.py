"""Evaluating what depends on constants alone."""

from __future__ import annotations

from gristmill.errors import LimitError
from gristmill.graph import Array, Graph, Node
from gristmill.operators import OPERATORS
from gristmill.passes.editor import Editor

#: Constants may grow by this many bytes in all; a larger result is computed in each run.
BUDGET = 1 << 30


def fold_constants(graph: Graph, keep: frozenset[str] = frozenset()) -> Graph:
    """Replace nodes that read constants alone by their results, except the operators in ``keep``."""
    editor = Editor(graph)
    budget = BUDGET
    for node in editor.nodes():
        inputs = [editor.constant(name) if name else None for name in node.inputs]
        known = all(value is not None or not name for name, value in zip(node.inputs, inputs, strict=True))
        if not known or node.op in keep or node.op not in OPERATORS:
            continue
        operator = OPERATORS[node.op]
        try:
            size = sum(kind.nbytes for kind in operator.infer(node, inputs))
        except LimitError:
            continue
        growth = size - sum(value.nbytes for value in inputs if value is not None)
        if growth <= budget:
            budget -= max(growth, 0)
            _fold(editor, node, operator.evaluate(node, inputs))
    return editor.graph()


def fold_but_quantized(graph: Graph) -> Graph:
    """Fold constants, but leave weights as the bytes that they are stored in."""
    return fold_constants(graph, frozenset({"DequantizeLinear"}))


def _fold(editor: Editor, node: Node, results: list[Array]) -> None:
    editor.remove(node)
    for name, value in zip(node.outputs, results, strict=False):
        if name:
            editor.set_constant(name, value)
