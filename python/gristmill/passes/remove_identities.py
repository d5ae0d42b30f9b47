"""Leaving out nodes that hand on what they get."""

from __future__ import annotations

from gristmill.graph import Node
from gristmill.passes.editor import Editor

_OF_ONE = ("Concat", "Sum", "Max", "Min", "Mean")


def remove_identities(editor: Editor) -> None:
    """Leave out Identity, and what amounts to them: sums of one term, transposes that keep the order, ..."""
    found = [node for node in editor.nodes() if _hands_on(editor, node)]
    editor.bypass_inner([(node, node.inputs[0]) for node in found if not editor.is_output(node.outputs[0])])
    for node in [node for node in editor.nodes() if editor.is_output(node.outputs[0]) and _hands_on(editor, node)]:
        editor.bypass(node, node.inputs[0])


def _hands_on(editor: Editor, node: Node) -> bool:
    if node.op == "Transpose":
        order = node.integers("perm")
        return order is not None and order == tuple(range(len(order)))
    if node.op == "Pad":
        pads = editor.constant(node.input(1))
        return pads is not None and not pads.any()
    if node.op == "Clip":
        return not any(node.inputs[1:])
    return node.op == "Identity" or (node.op in _OF_ONE and len(node.inputs) == 1)
