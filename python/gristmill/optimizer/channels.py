"""Dead channels: whole channels that nothing depends on leave the network, which computes the same without them.

Values whose channels belong together, because only operators that keep channels apart lie between them, form a
*space*. The channels of a space are rows of the layers that write it and columns of those that read it. One can be
taken out of all of them if every reader multiplies it by zeros, or if it is the same number for every input: an exact
zero, or a constant that the reader's bias takes over, which padding rules out. Spaces that reach an output of the
network, or an operator that mixes channels, stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from gristmill.graph import Array, Graph, Node
from gristmill.model import Model
from gristmill.operators import find
from gristmill.optimizer.layers import Layer, find_layers, with_constants
from gristmill.summary import output_shapes

__all__ = ["drop_dead_channels", "owners_of_channels", "remove_dead_channels"]

#: Operators that work on each element alone, so that a constant stays one.
_ELEMENTWISE = frozenset(
    {
        "Abs",
        "Clip",
        "Dropout",
        "Elu",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "Neg",
        "Relu",
        "Selu",
    }
    | {"Sigmoid", "Softplus", "Swish", "Tanh"}
)
#: Operators that keep channels apart; a constant survives the first, only a zero the second.
_PICKING = frozenset({"GlobalMaxPool", "MaxPool"})
_AVERAGING = frozenset({"AveragePool", "GlobalAveragePool"})
#: Of blocks of four where rows and channels are not all zero: the part that is taken at most, and the part of the
#: weights in those that is not zero at least.
_BLOCKED = 0.9
_FLATTENING = frozenset({"Flatten", "Reshape", "Squeeze"})


def remove_dead_channels(model: Model) -> Model:
    """Take out whole channels that nothing depends on, from the layers that write and that read them.

    Nothing is approximated: a channel goes if its outputs are multiplied by zeros, or are always the same number.

    Returns:
        A model that gives the same answers with smaller layers.

    Example:
        >>> from gristmill.graph import GraphBuilder
        >>> build = GraphBuilder()
        >>> first, second = np.ones((8, 4), np.float32), np.ones((2, 8), np.float32)
        >>> first[3:] = 0
        >>> x = build.add("Gemm", [build.input("x", np.float32, ("n", 4)), build.constant("a", first)], transB=1)
        >>> model = Model(build.build([build.add("Gemm", [x, build.constant("b", second)], transB=1)]))
        >>> {name: weights.shape for name, weights in remove_dead_channels(model).weights().items()}
        {'a': (3, 4), 'b': (2, 3)}
    """
    return Model(drop_dead_channels(model.graph), source=model.source, format=model.format)


def drop_dead_channels(graph: Graph) -> Graph:
    """:func:`remove_dead_channels` for graphs; the same object if there is nothing to remove."""
    while (smaller := _Survey(graph).without_dead()) is not graph:
        graph = smaller
    return graph


def owners_of_channels(graph: Graph) -> set[str]:
    """Names of the layers whose output channels can be removed, because no other layer writes into the same space."""
    survey = _Survey(graph)
    return {space.writers[0].name for space in survey.spaces() if not space.pinned and len(space.writers) == 1}


@dataclass
class _Space:
    """Channels that stay or go together.

    Attributes:
        channels: How many.
        pinned: None may go.
        writers: Layers of which they are rows.
        readers: Layers of which they are columns.
        followers: Nodes with numbers for each of them, and which inputs hold those.
    """

    channels: int
    pinned: bool = False
    writers: list[Layer] = field(default_factory=list)
    readers: list[Layer] = field(default_factory=list)
    followers: list[tuple[Node, tuple[int, ...]]] = field(default_factory=list)

    def take(self, other: _Space) -> None:
        """Take in the members of another space."""
        self.pinned = self.pinned or other.pinned
        self.writers += other.writers
        self.readers += other.readers
        self.followers += other.followers


class _Survey:
    """The spaces of a graph, and which channels of its values are constant."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._layers = {layer.name: layer for layer in find_layers(graph)}
        self._shapes = output_shapes(graph)
        self._space: dict[str, _Space] = {}
        #: By value: a number for each channel that is the same for every input, NaN for the others.
        self._constant: dict[str, Array] = {}
        self._flat: list[Node] = []
        for node in graph.nodes:
            self._visit(node)
        for info in graph.outputs:
            self._pin(info.name)

    def spaces(self) -> list[_Space]:
        """All spaces."""
        return list({id(space): space for space in self._space.values()}.values())

    def without_dead(self) -> Graph:
        """The graph without dead channels; the same object if there are none."""
        kept = {id(space): self._kept(space) for space in self.spaces()}
        cut = [space for space in self.spaces() if not kept[id(space)].all()]
        if not cut:
            return self._graph
        editor = _Cutter(self._fold_constants(cut, kept))
        for space in cut:
            editor.cut(space, kept[id(space)])
        for node in self._flat:
            if any(self._space.get(node.inputs[0]) is space for space in cut):
                editor.flatten(node)
        return editor.graph()

    def _visit(self, node: Node) -> None:
        source = self._space.get(node.input(0))
        layer = self._layers.get(node.name)
        if layer is not None:
            self._visit_layer(layer, source)
        elif node.op == "BatchNormalization" and source and self._normalizes(node, source):
            source.followers.append((node, (1, 2, 3, 4)))
            self._pass(node, source, self._evaluated(node))
        elif node.op in _ELEMENTWISE and source and self._is_plain(node):
            self._pass(node, source, self._evaluated(node))
        elif node.op in _PICKING and source and self._is_plain(node):
            self._pass(node, source, self._constant[node.inputs[0]])
        elif node.op in _AVERAGING and source:
            known = self._constant[node.inputs[0]]
            self._pass(node, source, np.where(known == 0, 0.0, np.nan))
        elif node.op in _FLATTENING and source and self._flattens(node):
            self._flat.append(node)
            self._pass(node, source, self._constant[node.inputs[0]])
        elif node.op == "Add" and source and self._matches(node):
            self._join(source, self._space[node.inputs[1]])
            total = self._constant[node.inputs[0]] + self._constant[node.inputs[1]]
            self._pass(node, source, total)
        else:
            for name in node.inputs:
                self._pin(name)

    def _visit_layer(self, layer: Layer, source: _Space | None) -> None:
        matrix, bias = layer.matrix(self._graph.constants), layer.offsets(self._graph.constants)
        known = np.where(matrix.any(axis=1), np.nan, bias.astype(np.float64))
        if layer.depthwise and source and source.channels == layer.groups == layer.rows:
            source.followers.append((layer.node, (1, 2) if layer.bias else (1,)))
            silent = self._constant[layer.source] == 0
            self._pass(layer.node, source, np.where(silent, bias, known))
            return
        if source and (layer.groups > 1 or layer.columns % source.channels):
            source.pinned = True
        elif source:
            source.readers.append(layer)
        self._pass(layer.node, _Space(layer.rows, layer.groups > 1, [layer]), known)

    def _pass(self, node: Node, space: _Space, known: Array) -> None:
        self._space[node.outputs[0]] = space
        self._constant[node.outputs[0]] = known

    def _join(self, first: _Space, second: _Space) -> None:
        if first is second:
            return
        first.take(second)
        for name, space in self._space.items():
            if space is second:
                self._space[name] = first

    def _pin(self, name: str) -> None:
        if name in self._space:
            self._space[name].pinned = True

    def _evaluated(self, node: Node) -> Array:
        """What a node that works on each channel alone makes of constants."""
        known = self._constant[node.inputs[0]]
        x = np.nan_to_num(known, nan=0.0).astype(np.float32).reshape(1, -1, 1, 1)
        others = [self._graph.constants[name] if name else None for name in node.inputs[1:]]
        y = find(node).evaluate(node, [x, *others])[0]
        return np.where(np.isnan(known), np.nan, y.reshape(-1).astype(np.float64))

    def _is_plain(self, node: Node) -> bool:
        """One value in, constants beside it, one value out."""
        constants = all(not name or name in self._graph.constants for name in node.inputs[1:])
        return constants and not any(node.outputs[1:])

    def _normalizes(self, node: Node, space: _Space) -> bool:
        if not self._is_plain(node) or node.integer("training_mode", 0):
            return False
        return all(self._graph.constants[name].shape == (space.channels,) for name in node.inputs[1:5])

    def _matches(self, node: Node) -> bool:
        other = self._space.get(node.inputs[1])
        shapes = [self._shapes.get(name) for name in node.inputs]
        return other is not None and shapes[0] is not None and shapes[0] == shapes[1]

    def _flattens(self, node: Node) -> bool:
        """Whether (n, channels, ...) becomes (n, all the rest)."""
        before, after = (self._shapes.get(name) for name in (node.inputs[0], node.outputs[0]))
        if before is None or after is None or len(after) != 2 or before[0] != after[0]:
            return False
        inner = [extent for extent in before[1:] if isinstance(extent, int)]
        return len(inner) == len(before) - 1 and after[1] == math.prod(inner)

    def _kept(self, space: _Space) -> Array:
        if space.pinned or not space.readers:
            return np.ones(space.channels, np.bool_)
        dead = np.ones(space.channels, np.bool_)
        for layer in space.readers:
            known = self._constant[layer.source]
            gone = (known == 0) | ~_columns(layer, self._graph, space.channels).any(axis=(0, 2))
            dead &= gone | (np.isfinite(known) & (not _is_padded(layer)))
        if any(_is_blocked(layer, self._graph) for layer in space.readers):
            dead = _whole_blocks(dead)
        if dead.all():
            dead[0] = False
        return ~dead

    def _fold_constants(self, cut: list[_Space], kept: Mapping[int, Array]) -> Graph:
        """Let biases take over what constants that go contribute."""
        changes: list[tuple[Layer, Array, Array | None]] = []
        for space in cut:
            for layer in space.readers:
                known = np.nan_to_num(self._constant[layer.source], nan=0.0) * ~kept[id(space)]
                if not known.any() or _is_padded(layer):
                    continue
                added = _columns(layer, self._graph, space.channels).sum(axis=2, dtype=np.float64) @ known
                offsets = layer.offsets(self._graph.constants) + added
                changes.append((layer, layer.matrix(self._graph.constants), offsets))
        return with_constants(self._graph, changes)


class _Cutter:
    """Exchanges nodes and constants of a graph for shorter ones."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._nodes = {node.name: node for node in graph.nodes}
        self._constants = dict(graph.constants)
        self._uses = graph.use_counts()

    def cut(self, space: _Space, kept: Array) -> None:
        """Leave out channels from all members of a space."""
        for layer in space.writers:
            self._slice(layer.name, 1, int(layer.transposed), kept)
            self._slice(layer.name, 2, -1, kept)
        for layer in space.readers:
            self._slice(layer.name, 1, int(not layer.transposed), kept)
        for node, indices in space.followers:
            for index in indices:
                self._slice(node.name, index, 0, kept)
            if node.op == "Conv":
                attributes = {**node.attributes, "group": int(kept.sum())}
                self._nodes[node.name] = replace(self._nodes[node.name], attributes=attributes)

    def flatten(self, node: Node) -> None:
        """Let a reshape, which names a number of features, follow its input."""
        if node.op == "Reshape":
            self._nodes[node.name] = Node("Flatten", node.inputs[:1], node.outputs, {}, node.name)

    def graph(self) -> Graph:
        """The graph as it is now."""
        nodes = [self._nodes[node.name] for node in self._graph.nodes]
        return self._graph.replace(nodes=nodes, constants=self._constants).without_dead().check()

    def _slice(self, name: str, index: int, axis: int, kept: Array) -> None:
        node = self._nodes[name]
        source = node.input(index)
        if not source or self._constants[source].shape[axis] == 1 != kept.size:
            return
        values = self._constants[source]
        chosen = np.repeat(kept, values.shape[axis] // kept.size)
        target = source
        if self._uses[source] > 1:
            target = f"{source}.{name}"
            inputs = (*node.inputs[:index], target, *node.inputs[index + 1 :])
            self._nodes[name] = replace(node, inputs=inputs)
        self._constants[target] = np.ascontiguousarray(np.compress(chosen, values, axis=axis))


def _columns(layer: Layer, graph: Graph, channels: int) -> Array:
    """The weights as (rows, channels, weights of a channel)."""
    return layer.matrix(graph.constants).reshape(layer.rows, channels, -1)


def _is_blocked(layer: Layer, graph: Graph) -> bool:
    """Whether the layer's zeros come in blocks of four input channels, which have to stay side by side."""
    taps = layer.columns // layer.shape[1]
    blocks = _grouped(layer.matrix(graph.constants).reshape(layer.rows, layer.shape[1], taps) != 0, 1)
    taken = np.asarray(blocks.any(axis=2))
    rows, channels = (np.flatnonzero(taken.any(axis=axes)) for axes in ((1, 2), (0, 2)))
    alive = taken[np.ix_(rows, channels)]
    return bool(alive.size and alive.mean() < _BLOCKED and blocks.sum() > _BLOCKED * 4 * taken.sum())


def _whole_blocks(dead: Array) -> Array:
    """The channels whose whole block of four is dead."""
    return np.repeat(_grouped(dead, 0, fill=True).all(axis=1), 4)[: dead.size]


def _grouped(flags: Array, axis: int, *, fill: bool = False) -> Array:
    """An axis split into fours, the last filled up."""
    missing = -flags.shape[axis] % 4
    width = [(0, missing if index == axis else 0) for index in range(flags.ndim)]
    shape = (*flags.shape[:axis], -1, 4, *flags.shape[axis + 1 :])
    return np.pad(flags, width, constant_values=fill).reshape(shape)


def _is_padded(layer: Layer) -> bool:
    return layer.is_conv and (
        any(layer.node.integers("pads") or ()) or layer.node.text("auto_pad", "NOTSET") not in {"NOTSET", "VALID"}
    )
