"""Graph: the form in which every model is held between its file and its plan.

A graph is a list of nodes in execution order. Nodes name the values they read and write, as in ONNX; a value is a graph
input, a constant, or the output of one node. Operators have ONNX's names and meaning at opset 21 whatever the file had,
in plain NCHW; loaders translate, so that everything behind them knows one form:

- what an older opset writes as an attribute (``axes`` of Squeeze, bounds of Clip, ``pads`` of Pad) is an input;
- float16 weights and values are float32; nothing else changes its element type;
- operators of ONNX Runtime's own domain (QLinearAdd, QLinearGlobalAveragePool, QGemm) go by their bare names.

Graphs are immutable. A pass takes one and returns another, with :meth:`Graph.replace` and :class:`GraphBuilder`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from gristmill.errors import ModelFormatError

__all__ = ["Attribute", "Dimension", "Graph", "GraphBuilder", "Names", "Node", "ValueInfo", "dtype_text"]

Array: TypeAlias = npt.NDArray[Any]
Attribute: TypeAlias = int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | Array
_INTEGER = frozenset({int})
#: A fixed extent, or the name of one that inputs decide.
Dimension: TypeAlias = int | str


def dtype_text(dtype: np.dtype[Any]) -> str:
    """The name of an element type, with its byte order if that is not the machine's.

    Example:
        >>> dtype_text(np.dtype("f4")), dtype_text(np.dtype("f4").newbyteorder("S"))
        ('float32', 'byte-swapped float32')
    """
    return dtype.name if dtype.isnative else f"byte-swapped {dtype.name}"


@dataclass(frozen=True)
class ValueInfo:
    """Name, element type and shape of a graph input or output.

    Example:
        >>> ValueInfo("image", np.dtype(np.float32), ("n", 3, 224, 224))
        image: float32[n, 3, 224, 224]
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[Dimension, ...] | None = None

    def __repr__(self) -> str:
        shape = "[...]" if self.shape is None else f"[{', '.join(map(str, self.shape))}]"
        return f"{self.name}: {self.dtype.name}{shape}"


@dataclass(frozen=True, eq=False)
class Node:
    """One operation.

    Attributes:
        op: Operator name, such as ``Conv``.
        inputs: Names of the values it reads; an empty name is an optional input left out.
        outputs: Names of the values it writes; an empty name is a result that nobody wants.
        attributes: Attributes that differ from the operator's defaults.
        name: For messages and reports; unique in a graph.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    name: str = ""

    def __reduce__(self) -> tuple[type[Node], tuple[object, ...]]:
        return Node, (self.op, self.inputs, self.outputs, dict(self.attributes), self.name)

    def input(self, index: int) -> str:
        """The name of that input, or an empty name if it was left out."""
        return self.inputs[index] if index < len(self.inputs) else ""

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        value = self.attributes.get(name, default)
        if not isinstance(value, int):
            raise self.error(f"attribute {name} must be an integer, got {value!r}")
        return value

    def real(self, name: str, default: float) -> float:
        """A float attribute."""
        value = self.attributes.get(name, default)
        if not isinstance(value, (int, float)):
            raise self.error(f"attribute {name} must be a number, got {value!r}")
        return float(value)

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        value = self.attributes.get(name, default)
        if not isinstance(value, str):
            raise self.error(f"attribute {name} must be a string, got {value!r}")
        return value

    def integers(self, name: str, default: tuple[int, ...] | None = None) -> tuple[int, ...] | None:
        """An attribute that is a list of integers."""
        value = self.attributes.get(name, default)
        if value is None:
            return None
        if not isinstance(value, tuple):
            raise self.error(f"attribute {name} must be a list of integers, got {value!r}")
        if not _INTEGER.issuperset(map(type, value)) and not all(isinstance(item, int) for item in value):
            raise self.error(f"attribute {name} must be a list of integers, got {value!r}")
        return cast("tuple[int, ...]", value)

    def array(self, name: str) -> Array:
        """An attribute that is an array."""
        value = self.attributes.get(name)
        if not isinstance(value, np.ndarray):
            raise self.error(f"attribute {name} must be an array, got {value!r}")
        return value

    def error(self, reason: str) -> ModelFormatError:
        """An error that names this node."""
        return ModelFormatError(f"{self.op}: {reason}", node=self.name or None)


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in execution order, with the constants they read.

    Attributes:
        inputs: What a caller gives.
        outputs: What a caller gets; also inputs and constants may be outputs.
        nodes: In an order in which every value is written before it is read.
        constants: Weights and other fixed values, never modified.
    """

    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, Array] = field(default_factory=dict)

    def replace(
        self,
        *,
        inputs: tuple[ValueInfo, ...] | None = None,
        outputs: tuple[ValueInfo, ...] | None = None,
        nodes: Iterable[Node] | None = None,
        constants: Mapping[str, Array] | None = None,
    ) -> Graph:
        """A copy with some fields exchanged."""
        return Graph(
            self.inputs if inputs is None else inputs,
            self.outputs if outputs is None else outputs,
            self.nodes if nodes is None else tuple(nodes),
            self.constants if constants is None else constants,
        )

    def __reduce__(self) -> tuple[Callable[..., Graph], tuple[object, ...]]:
        return _unpickled, (self.inputs, self.outputs, self.nodes, dict(self.constants))

    def producers(self) -> dict[str, Node]:
        """The node that writes each value."""
        return {output: node for node in self.nodes for output in node.outputs if output}

    def use_counts(self) -> Counter[str]:
        """How often each value is read, by nodes and as an output."""
        uses = Counter(name for node in self.nodes for name in node.inputs if name)
        uses.update(info.name for info in self.outputs)
        return uses

    def check(self) -> Graph:
        """Return the graph itself if it is sound: names unique, every value written once and before it is read.

        Raises:
            ModelFormatError: Naming the node and the value.
        """
        names = Counter(node.name for node in self.nodes)
        known = set(self.constants)
        for info in self.inputs:
            if info.name in known or not info.name:
                raise ModelFormatError(f"input {info.name!r} has no name of its own")
            known.add(info.name)
        for node in self.nodes:
            if names[node.name] > 1 or not node.name:
                raise node.error("needs a name of its own")
            for name in node.inputs:
                if name and name not in known:
                    raise node.error(f"reads {name!r}, which nothing has written")
            for name in filter(None, node.outputs):
                if name in known:
                    raise node.error(f"writes {name!r}, which exists already")
                known.add(name)
        for info in self.outputs:
            if info.name not in known:
                raise ModelFormatError(f"output {info.name!r} is written by no node")
        return self

    def in_order(self) -> Graph:
        """Sort the nodes so that values are written before they are read.

        Raises:
            ModelFormatError: If there is a cycle; it names a node on it.
        """
        writer = self.producers()
        if self._is_in_order(writer):
            return self
        done: set[int] = set()
        ordered: list[Node] = []
        for root in self.nodes:
            pending: list[tuple[Node, Iterator[str]]] = [(root, iter(root.inputs))]
            open_nodes = {id(root)}
            if id(root) in done:
                continue
            while pending:
                node, inputs = pending[-1]
                needed = next(
                    (writer[name] for name in inputs if name in writer and id(writer[name]) not in done), None
                )
                if needed is None:
                    pending.pop()
                    open_nodes.discard(id(node))
                    done.add(id(node))
                    ordered.append(node)
                elif id(needed) in open_nodes:
                    raise needed.error("depends on its own output")
                else:
                    open_nodes.add(id(needed))
                    pending.append((needed, iter(needed.inputs)))
        return self.replace(nodes=ordered)

    def _is_in_order(self, writer: Mapping[str, Node]) -> bool:
        left = set(writer)
        for node in self.nodes:
            if not left.isdisjoint(node.inputs):
                return False
            left.difference_update(node.outputs)
        return True

    def without_dead(self) -> Graph:
        """Leave out the nodes and constants that no output depends on."""
        needed = {info.name for info in self.outputs}
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if needed.intersection(filter(None, node.outputs)):
                kept.append(node)
                needed.update(filter(None, node.inputs))
        constants = {name: value for name, value in self.constants.items() if name in needed}
        return self.replace(nodes=reversed(kept), constants=constants)


def _unpickled(
    inputs: tuple[ValueInfo, ...],
    outputs: tuple[ValueInfo, ...],
    nodes: tuple[Node, ...],
    constants: dict[str, Array],
) -> Graph:
    """A graph again; pickles of arrays do not say that nobody may write to them."""
    for value in constants.values():
        value.flags.writeable = False
    return Graph(inputs, outputs, nodes, constants)


class Names:
    """Names that are taken; those given out afresh never ask again for a number that was taken once."""

    def __init__(self, taken: Iterable[str] = ()) -> None:
        """Start with these names taken."""
        self._taken = set(taken)
        self._counts: dict[str, int] = {}

    def take(self, *names: str) -> None:
        """Give these names out to nobody."""
        self._taken.update(names)

    def fresh(self, wanted: str, *, numbered: bool = False) -> str:
        """A name that is not taken yet: the wanted one, or that with a number."""
        name = f"{wanted}_0" if numbered else wanted
        count = self._counts.get(wanted, 0)
        while name in self._taken:
            count += 1
            name = f"{wanted}_{count}"
        self._taken.add(name)
        self._counts[wanted] = count
        return name


class GraphBuilder:
    """Collects nodes and constants for a new graph, naming what has no name.

    Example:
        >>> builder = GraphBuilder()
        >>> x = builder.input("x", np.float32, ("n", 4))
        >>> w = builder.constant("w", np.ones((3, 4), np.float32))
        >>> y = builder.add("Gemm", [x, w], transB=1)
        >>> builder.build([y]).outputs
        (Gemm_0: float32[...],)
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        """Start empty; ``taken`` are names that may not be given out."""
        self._names = Names(taken)
        self._inputs: list[ValueInfo] = []
        self._nodes: list[Node] = []
        self._constants: dict[str, Array] = {}

    def input(self, name: str, dtype: npt.DTypeLike, shape: tuple[Dimension, ...] | None) -> str:
        """Declare a graph input."""
        self._inputs.append(ValueInfo(name, np.dtype(dtype), shape))
        self._names.take(name)
        return name

    @property
    def constants(self) -> Mapping[str, Array]:
        """The constants so far."""
        return MappingProxyType(self._constants)

    def constant(self, name: str, value: npt.ArrayLike) -> str:
        """Add a constant; returns its name, which gets a number if it is taken."""
        name = self.fresh(name)
        self.add_constant(name, np.asarray(value))
        return name

    def add_constant(self, name: str, value: Array) -> None:
        """Add a constant under exactly this name.

        Raises:
            ModelFormatError: There is one already.
        """
        if name in self._constants:
            raise ModelFormatError("comes twice", node=name)
        self._names.take(name)
        if value.flags.writeable:
            value = value.view()
            value.flags.writeable = False
        self._constants[name] = value

    def add(self, op: str, inputs: Iterable[str], *, name: str | None = None, **attributes: Attribute) -> str:
        """Add a node with one output, which bears the node's name; returns it."""
        name = self.fresh(op if name is None else name, numbered=name is None)
        self._nodes.append(Node(op, tuple(inputs), (name,), MappingProxyType(attributes), name))
        return name

    def add_node(self, node: Node) -> None:
        """Add a node as it is."""
        self._names.take(*filter(None, (*node.outputs, node.name)))
        self._nodes.append(node)

    def fresh(self, wanted: str, *, numbered: bool = False) -> str:
        """A name that is not taken yet: the wanted one, or that with a number."""
        return self._names.fresh(wanted, numbered=numbered)

    def build(self, outputs: Iterable[str | ValueInfo], dtype: npt.DTypeLike = np.float32) -> Graph:
        """The graph, checked. Outputs given by name alone are of ``dtype`` and any shape."""
        infos = [item if isinstance(item, ValueInfo) else ValueInfo(item, np.dtype(dtype)) for item in outputs]
        return self.assemble(infos).check()

    def assemble(self, outputs: Iterable[ValueInfo]) -> Graph:
        """The graph as it is, neither checked nor in order."""
        return Graph(tuple(self._inputs), tuple(outputs), tuple(self._nodes), dict(self._constants))
