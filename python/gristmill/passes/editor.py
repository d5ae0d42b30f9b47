"""Editing a graph: who writes a value, who reads it, and exchanging nodes without losing their order.

Passes take turns on one editor, which is made once: knowing all readers and writers costs more than most passes do.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from gristmill.graph import Array, Attribute, Graph, Names, Node

#: Numbers in the order of a dictionary's words. Behind place p, and before all that stood there until now, is
#: (*p, -count, index) with a count that grows.
_Place: TypeAlias = tuple[int, ...]


class Editor:
    """A graph while passes change it.

    Nodes that take the place of others stand where the last of those stood: all they read has then been written.
    """

    def __init__(self, graph: Graph) -> None:
        """Start with the nodes of ``graph``."""
        self._graph = graph
        self._constants = dict(graph.constants)
        self._nodes: dict[_Place, Node | None] = {}
        self._order: list[_Place] | None = None
        self._ops: Counter[str] = Counter()
        self._place: dict[int, _Place] = {}
        self._replacements = 0
        self._writer: dict[str, Node] = {}
        self._readers: dict[str, list[Node]] = defaultdict(list)
        self._input_types = {info.name: info.dtype for info in graph.inputs}
        self._outputs = {info.name for info in graph.outputs}
        self._names = Names((*(info.name for info in graph.inputs), *graph.constants))
        self._changed = self._unswept = False
        for place, node in enumerate(graph.nodes):
            self._enter((place,), node)

    def nodes(self, *ops: str) -> Iterator[Node]:
        """The nodes in order, as they are when their turn comes; of these operators if any are named."""
        if ops and not self.count(*ops):
            return
        for place in self._places():
            node = self._nodes[place]
            if node is not None and (not ops or node.op in ops):
                yield node

    def count(self, *ops: str) -> int:
        """How many nodes there are of these operators."""
        return sum(self._ops[op] for op in ops)

    def constant(self, name: str) -> Array | None:
        """The constant of that name."""
        return self._constants.get(name)

    def input_type(self, name: str) -> np.dtype[Any] | None:
        """The element type of a graph input."""
        return self._input_types.get(name)

    def is_known(self, name: str) -> bool:
        """Whether an input is a constant, or left out."""
        return name in self._constants or not name

    def number(self, name: str) -> float | None:
        """The constant of that name, if it is a single number."""
        value = self._constants.get(name)
        return float(value.item()) if value is not None and value.size == 1 and value.dtype.kind in "fiu" else None

    def byte_type(self, name: str) -> str:
        """The element type that a zero point gives to what it belongs to: its own, or uint8 without one."""
        value = self._constants.get(name)
        return "uint8" if value is None else value.dtype.name

    def writer(self, name: str, *ops: str) -> Node | None:
        """The node that writes a value, if it is one of these operators."""
        node = self._writer.get(name)
        return node if node is not None and (not ops or node.op in ops) else None

    def readers(self, name: str) -> list[Node]:
        """The nodes that read a value; one that reads it twice comes twice."""
        return list(self._readers[name])

    def only_reader(self, name: str, *ops: str) -> Node | None:
        """The node that alone reads a value, once, if it is one of these operators; None for outputs."""
        readers = self._readers[name]
        if len(readers) != 1 or name in self._outputs:
            return None
        return readers[0] if not ops or readers[0].op in ops else None

    def own_writer(self, name: str, *ops: str) -> Node | None:
        """The node that writes a value for a single reader, if it is one of these operators."""
        return self.writer(name, *ops) if self.only_reader(name) is not None else None

    def is_output(self, name: str) -> bool:
        """Whether the graph gives the value out."""
        return name in self._outputs

    def fresh(self, wanted: str) -> str:
        """A name that nothing has yet: the wanted one, or that with a number."""
        return self._names.fresh(wanted)

    def add_constant(self, wanted: str, value: Array) -> str:
        """Add a constant under a fresh name, which is returned."""
        name = self.fresh(wanted)
        self.set_constant(name, value)
        return name

    def set_constant(self, name: str, value: Array) -> None:
        """Make a value constant that no node writes any more."""
        value = np.asarray(value)
        if value.flags.writeable:
            value = value.view()
            value.flags.writeable = False
        self._constants[name] = value
        self._changed = self._unswept = True

    def remove(self, node: Node) -> None:
        """Take a node out; who reads its outputs must get them otherwise."""
        self._changed = self._unswept = True
        self._nodes[self._place.pop(id(node))] = None
        self._ops[node.op] -= 1
        for name in node.inputs:
            if name:
                self._readers[name].remove(node)
        for name in node.outputs:
            if name:
                del self._writer[name]

    def replace(self, gone: Node | tuple[Node, ...], *nodes: Node) -> None:
        """Put nodes, one after the other, in the place of others."""
        gone = gone if isinstance(gone, tuple) else (gone,)
        place = max(self._place[id(node)] for node in gone)
        for node in gone:
            self.remove(node)
        self._replacements += 1
        for index, node in enumerate(nodes):
            self._enter((*place, -self._replacements, index) if index else place, node)

    def bypass(self, node: Node, source: str) -> None:
        """Take out a node whose only result is the same as the value ``source``, if the graph's outputs allow it."""
        result = node.outputs[0]
        if result not in self._outputs:
            self.bypass_inner([(node, source)])
            return
        writer = self.writer(source)
        if writer is None or source in self._outputs:
            return
        self.remove(node)
        readers = self.readers(source)
        outputs = tuple(result if name == source else name for name in writer.outputs)
        self.replace(writer, replace(writer, outputs=outputs))
        self._rename(readers, {source: result})

    def bypass_inner(self, pairs: Sequence[tuple[Node, str]]) -> None:
        """Take out nodes, in their order, whose only results are no outputs but the same as the values beside them.

        Every reader is exchanged once, however many of them it reads.
        """
        sources: dict[str, str] = {}
        for node, source in pairs:
            sources[node.outputs[0]] = sources.get(source, source)
            self.remove(node)
        self._rename([reader for result in sources for reader in self._readers[result]], sources)

    def sweep(self) -> None:
        """Take out the nodes and constants that no output depends on."""
        if not self._unswept:
            return
        readers, outputs = self._readers, self._outputs
        for place in reversed(self._places()):
            node = self._nodes[place]
            if node is None:
                continue
            for name in node.outputs:
                if readers[name] or name in outputs:
                    break
            else:
                self.remove(node)
        self._constants = {
            name: value for name, value in self._constants.items() if readers.get(name) or name in outputs
        }
        self._unswept = False

    def become(self, other: Editor) -> None:
        """Go on from the state of another editor."""
        vars(self).update(vars(other))

    def graph(self) -> Graph:
        """The graph as it is now; the same object if nothing has changed."""
        if not self._changed:
            return self._graph
        self.sweep()
        nodes = [node for place in self._places() if (node := self._nodes[place]) is not None]
        return self._graph.replace(nodes=nodes, constants=dict(self._constants))

    def _rename(self, readers: list[Node], names: Mapping[str, str]) -> None:
        for reader in {id(node): node for node in readers}.values():
            self.replace(reader, replace(reader, inputs=tuple(names.get(name, name) for name in reader.inputs)))

    def _places(self) -> list[_Place]:
        """Where nodes stand, in order, and some places that are empty by now."""
        if self._order is None:
            self._order = sorted(self._nodes)
        return self._order

    def _enter(self, place: _Place, node: Node) -> None:
        if place not in self._nodes:
            self._order = None
        self._nodes[place] = node
        self._ops[node.op] += 1
        self._place[id(node)] = place
        self._names.take(node.name, *node.outputs)
        for name in node.inputs:
            if name:
                self._readers[name].append(node)
        for name in node.outputs:
            if name:
                self._writer[name] = node


#: Changes what an editor holds into something that computes the same.
Pass: TypeAlias = Callable[[Editor], None]


def edited(graph: Graph, *passes: Pass) -> Graph:
    """What passes, one after the other, make of a graph; the same object if they change nothing."""
    editor = Editor(graph)
    for apply in passes:
        apply(editor)
        editor.sweep()
    return editor.graph()


def make(op: str, inputs: tuple[str, ...], like: Node, attributes: Mapping[str, Attribute] | None = None) -> Node:
    """A node with the name and outputs of another."""
    return Node(op, inputs, like.outputs, MappingProxyType(dict(attributes or {})), like.name)


def with_attributes(node: Node, **changes: Attribute) -> Node:
    """The node with some attributes exchanged."""
    return replace(node, attributes=MappingProxyType({**node.attributes, **changes}))
