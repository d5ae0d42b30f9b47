"""The plain meaning of a graph: its values computed in numpy, or their types alone.

Slow and simple on purpose. Compiled plans are tested against :func:`run`; :func:`infer` tells what every value of a
graph will be for given inputs, with shape arithmetic carried out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from gristmill.errors import ArgumentError, DTypeError, ModelFormatError, ShapeError
from gristmill.graph import Array, Graph, Node, ValueInfo, dtype_text
from gristmill.operators import Known, TensorType, find

__all__ = ["check_input", "check_outputs", "infer", "run"]

#: Values up to this size are computed by :func:`infer` where all that they depend on is known.
KNOWN_BYTES = 1 << 20


def run(graph: Graph, feeds: Mapping[str, Array], wanted: Iterable[str] | None = None) -> dict[str, Array]:
    """Compute values of a graph, node by node.

    Args:
        graph: A sound graph.
        feeds: An array for each input.
        wanted: Names of the values to return, also ones between nodes; the outputs if left out.

    Returns:
        The wanted values by name.

    Raises:
        ArgumentError: An input is missing, unknown, or a wanted value does not exist.
        GristmillError: As the operators say.

    Example:
        >>> from gristmill.graph import GraphBuilder
        >>> builder = GraphBuilder()
        >>> y = builder.add("Relu", [builder.input("x", np.float32, (2,))])
        >>> run(builder.build([y]), {"x": np.array([-1, 2], np.float32)})
        {'Relu_0': array([0., 2.], dtype=float32)}
    """
    keep = [info.name for info in graph.outputs] if wanted is None else list(wanted)
    _check_names(graph, feeds)
    for info in graph.inputs:
        check_input(info, feeds[info.name])
    values: dict[str, Array] = {**graph.constants, **feeds}
    left = graph.use_counts()
    left.update(keep)
    for node in graph.nodes:
        results = find(node).evaluate(node, [values[name] if name else None for name in node.inputs])
        values.update((name, value) for name, value in zip(node.outputs, results, strict=False) if name)
        for name in filter(None, node.inputs):
            left[name] -= 1
            if not left[name]:
                values.pop(name, None)
    missing = [name for name in keep if name not in values]
    if missing:
        raise ArgumentError(f"there is no value named {missing[0]!r}", node="wanted")
    return {name: values[name] for name in keep}


def infer(graph: Graph, inputs: Mapping[str, Known]) -> dict[str, Known]:
    """What is known of every value before anything runs: its type, or all of it where it follows from shapes.

    Args:
        graph: A sound graph.
        inputs: The type of each input.

    Raises:
        GristmillError: As the operators say.

    Example:
        >>> from gristmill.graph import GraphBuilder
        >>> from gristmill.operators import TensorType
        >>> builder = GraphBuilder()
        >>> x = builder.input("x", np.float32, ("n", 3))
        >>> y = builder.add("Reshape", [x, builder.add("Shape", [x])])
        >>> known = infer(builder.build([y]), {"x": TensorType(np.dtype("f4"), (5, 3))})
        >>> known["Shape_0"], known[y]
        (array([5, 3]), float32[5, 3])
    """
    _check_names(graph, inputs)
    known: dict[str, Known] = {**graph.constants, **inputs}
    for node in graph.nodes:
        results = _infer_node(node, [known[name] if name else None for name in node.inputs])
        known.update((name, value) for name, value in zip(node.outputs, results, strict=False) if name)
    return known


def _infer_node(node: Node, inputs: list[Known | None]) -> list[Known]:
    operator = find(node)
    types = operator.infer(node, inputs)
    if node.op in {"Shape", "Size"}:
        inputs = [None if item is None else np.broadcast_to(np.zeros((), item.dtype), item.shape) for item in inputs]
    arrays = [item for item in inputs if item is None or isinstance(item, np.ndarray)]
    if len(arrays) == len(inputs) and sum(item.nbytes for item in types) <= KNOWN_BYTES:
        return list(operator.evaluate(node, arrays))
    return list(types)


def check_input(info: ValueInfo, value: Array) -> None:
    """Refuse an array that does not fit the declaration of an input.

    Raises:
        DTypeError: Another element type.
        ShapeError: Another rank, or another extent where the declaration names a number.
    """
    if value.dtype != info.dtype:
        remedy = f"convert it with .astype(np.{info.dtype.name})"
        raise DTypeError(f"expected {info.dtype.name}, got {dtype_text(value.dtype)}; {remedy}", node=info.name)
    if info.shape is None:
        return
    fits = len(info.shape) == value.ndim and all(
        isinstance(extent, str) or extent == given for extent, given in zip(info.shape, value.shape, strict=True)
    )
    if not fits:
        raise ShapeError(f"expected shape [{', '.join(map(str, info.shape))}], got {list(value.shape)}", node=info.name)


def check_outputs(graph: Graph, known: Mapping[str, Known]) -> None:
    """Refuse a graph that declares an output otherwise than :func:`infer` or a compiled plan found it to be.

    Outputs of unknown rank declare nothing. Extents count where those of all inputs are numbers: a file whose inputs
    were opened for other batches often keeps the old batch in its outputs.

    Raises:
        ModelFormatError: Naming the output.
    """
    is_fixed = all(isinstance(extent, int) for info in graph.inputs for extent in info.shape or ("",))
    for info in graph.outputs:
        if info.shape is None:
            continue
        found = known[info.name]
        fits = len(info.shape) == found.ndim and all(
            isinstance(extent, str) or extent == actual or not is_fixed
            for extent, actual in zip(info.shape, found.shape, strict=True)
        )
        if info.dtype != found.dtype or not fits:
            declared, computed = ValueInfo("", info.dtype, info.shape), TensorType(found.dtype, found.shape)
            reason = f"is declared as {str(declared)[2:]}, but {computed} is computed; correct the declaration"
            raise ModelFormatError(reason, node=info.name)


def _check_names(graph: Graph, feeds: Mapping[str, object]) -> None:
    names = {info.name for info in graph.inputs}
    for name in sorted(names.symmetric_difference(feeds)):
        problem = "nothing is given for input" if name in names else "there is no input named"
        raise ArgumentError(f"{problem} {name!r}; inputs are: {', '.join(map(str, graph.inputs))}", node=name)
