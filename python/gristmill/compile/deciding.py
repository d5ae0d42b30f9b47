"""Which inputs of a graph decide about shapes by their values."""

from __future__ import annotations

from gristmill.graph import Graph

#: Which inputs of operators decide about shapes by their values; of reductions it is the second.
_DECIDING: dict[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Unsqueeze": (1,),
}
#: Operators that read nothing of a value but its shape.
_READS_SHAPE = frozenset({"Shape", "Size"})


def deciding_inputs(graph: Graph) -> frozenset[str]:
    """The names of inputs whose values, and not their shapes alone, decide about the shape of something.

    Example:
        >>> from gristmill.graph import GraphBuilder
        >>> builder = GraphBuilder()
        >>> x, shape = builder.input("x", "float32", (6,)), builder.input("shape", "int64", (2,))
        >>> deciding_inputs(builder.build([builder.add("Reshape", [x, shape])]))
        frozenset({'shape'})
    """
    deciding: set[str] = set()
    for node in reversed(graph.nodes):
        if node.op in _READS_SHAPE:
            continue
        if any(name in deciding for name in node.outputs if name):
            deciding.update(node.inputs)
            continue
        places = _DECIDING.get(node.op, (1,) if node.op.startswith("Reduce") else ())
        deciding.update(node.input(place) for place in places)
    return frozenset(info.name for info in graph.inputs if info.name in deciding)
