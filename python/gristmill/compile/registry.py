"""The table of lowerings: how each operator becomes steps of a plan."""

from __future__ import annotations

from collections.abc import Callable

from gristmill.compile.program import Program
from gristmill.errors import UnsupportedOpError
from gristmill.graph import Node

Lowering = Callable[[Program, Node], None]

LOWERINGS: dict[str, Lowering] = {}


def lowers(*names: str) -> Callable[[Lowering], Lowering]:
    """Enter the decorated function into the table."""

    def register(lowering: Lowering) -> Lowering:
        for name in names:
            LOWERINGS[name] = lowering
        return lowering

    return register


def find_lowering(node: Node) -> Lowering:
    """The lowering of a node.

    Raises:
        UnsupportedOpError: There is none; it names what there is.
    """
    if node.op not in LOWERINGS:
        known = ", ".join(sorted(LOWERINGS))
        raise UnsupportedOpError(f"operator {node.op} cannot be run; these can: {known}", node=node.name)
    return LOWERINGS[node.op]
