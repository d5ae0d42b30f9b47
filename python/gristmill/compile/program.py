"""A plan while it is being made: steps on values whose places are not chosen yet.

A :class:`Storage` is a piece of memory: a graph input, an output, a constant, or a part of the arena. A
:class:`Value` is a contiguous tensor in a storage. Several values may share one: a reshape is another value in the same
storage, and so is a slice that happens to be contiguous.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gristmill import _core
from gristmill.compile.packer import Choice, Layer, Packer
from gristmill.errors import UnsupportedOpError
from gristmill.graph import Array, Graph, Node
from gristmill.operators import Known, TensorType

#: Element types that steps work on.
DTYPES = frozenset(map(np.dtype, ("uint8", "int8", "int32", "float32", "int64", "bool")))


@dataclass(eq=False)
class Storage:
    """A piece of memory.

    Attributes:
        nbytes: Its size.
        place: arena, input, output or constant.
        index: Which input or output.
        array: The constant's elements.
        parent: A storage of the arena or an output that this one is a part of, from byte ``offset`` on. Without a
            parent ``offset`` is the place in the arena.
    """

    nbytes: int
    place: str = "arena"
    index: int = 0
    array: Array | None = None
    parent: Storage | None = None
    offset: int = 0

    def root(self) -> tuple[Storage, int]:
        """The storage that this one is a part of in the end, and where it begins there.

        All on the way become parts of that storage directly, so that long chains are walked once.
        """
        way, storage = list[Storage](), self
        while storage.parent is not None:
            way.append(storage)
            storage = storage.parent
        offset = 0
        for part in reversed(way):
            offset += part.offset
            part.parent, part.offset = storage, offset
        return storage, offset


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor: elements in C order, from a byte of a storage on."""

    storage: Storage
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int = 0

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The number of bytes."""
        return self.size * self.dtype.itemsize

    @property
    def fills_storage(self) -> bool:
        """Whether nothing else is in the storage."""
        return self.offset == 0 and self.nbytes == self.storage.nbytes

    def reshaped(self, shape: Sequence[int], offset: int = 0) -> Value:
        """The same elements, or some of them that follow each other from element ``offset`` on, in another shape."""
        return Value(self.storage, self.dtype, tuple(shape), self.offset + offset * self.dtype.itemsize)

    def view(self) -> View:
        """All elements."""
        return View(self, self.shape, dense_strides(self.shape))

    def tensor(self) -> _core.Tensor:
        """The tensor of the plan, once places are chosen."""
        root, offset = self.storage.root()
        offset += self.offset
        name = _name(self.dtype)
        if root.place == "constant":
            assert root.array is not None
            flat = root.array.reshape(-1).view(np.uint8)[offset : offset + self.nbytes]
            return _core.Tensor.constant(flat.view(self.dtype).reshape(self.shape))
        if root.place == "arena":
            return _core.Tensor.arena(root.offset + offset, name, self.shape)
        make = _core.Tensor.input if root.place == "input" else _core.Tensor.output
        return make(root.index, name, self.shape, offset)


@dataclass(frozen=True, eq=False)
class View:
    """Any elements of a value: strides and offset count elements."""

    value: Value
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    def view(self) -> View:
        """Itself."""
        return self

    def permuted(self, order: Sequence[int]) -> View:
        """The axes in another order."""
        strides = tuple(self.strides[axis] for axis in order)
        return View(self.value, tuple(self.shape[axis] for axis in order), strides, self.offset)

    def slices(self, starts: Sequence[int], shape: Sequence[int], steps: Sequence[int]) -> View:
        """Every ``steps``-th element from ``starts`` on, ``shape`` of them."""
        offset = self.offset + sum(start * stride for start, stride in zip(starts, self.strides, strict=True))
        strides = tuple(step * stride for step, stride in zip(steps, self.strides, strict=True))
        return View(self.value, tuple(shape), strides, offset)

    def part(self, axis: int, start: int, extent: int) -> View:
        """A range of one axis."""
        shape = (*self.shape[:axis], extent, *self.shape[axis + 1 :])
        return View(self.value, shape, self.strides, self.offset + start * self.strides[axis])

    def contiguous(self) -> Value | None:
        """The elements as a value, if they lie in C order without gaps."""
        expected = dense_strides(self.shape)
        fits = all(
            extent == 1 or stride == dense
            for extent, stride, dense in zip(self.shape, self.strides, expected, strict=True)
        )
        return self.value.reshaped(self.shape, self.offset) if fits else None

    def tensor(self) -> _core.TensorView:
        """The view of a plan's tensor that reaches no further than its elements, once places are chosen."""
        if not math.prod(self.shape):
            return self.value.reshaped((0,)).tensor().view(self.shape, (0,) * len(self.shape), 0)
        reach = [(extent - 1) * stride for extent, stride in zip(self.shape, self.strides, strict=True)]
        first = self.offset + sum(step for step in reach if step < 0)
        count = 1 + sum(map(abs, reach))
        return self.value.reshaped((count,), first).tensor().view(self.shape, self.strides, self.offset - first)


@functools.cache
def _name(dtype: np.dtype[Any]) -> str:
    """A type's name, which numpy spells out each time."""
    return str(dtype.name)


def dense_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of C order, in elements."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


@dataclass(frozen=True, eq=False)
class Step:
    """A call of a method of ``_core.Plan``, with values in place of tensors.

    Attributes:
        method: The method.
        name: The node that the step belongs to.
        arguments: What follows the name.
        reads: Values it reads.
        writes: Values it writes.
        in_place: A value that it may overwrite with what it writes.
        movable: Whether it is a copy that what is copied may forestall by being written to its target.
    """

    method: str
    name: str
    arguments: tuple[Any, ...]
    reads: tuple[Value, ...]
    writes: tuple[Value, ...]
    in_place: Value | None = None
    movable: bool = False


@dataclass
class Program:
    """Values by name, the steps so far and the formats of layers' weights, for a graph whose types are known."""

    graph: Graph
    types: dict[str, Known]
    packer: Packer
    values: dict[str, Value] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    choices: dict[str, Choice] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for index, info in enumerate(self.graph.inputs):
            kind = self.types[info.name]
            storage = Storage(kind.nbytes, "input", index)
            self.values[info.name] = Value(storage, require_dtype(kind.dtype, info.name), kind.shape)

    def type(self, name: str) -> TensorType:
        """Element type and shape of a value."""
        known = self.types[name]
        return TensorType(known.dtype, known.shape)

    def known(self, name: str) -> Array | None:
        """The value itself, if it follows from constants and shapes."""
        known = self.types.get(name) if name else None
        return known if isinstance(known, np.ndarray) else None

    def value(self, name: str) -> Value:
        """A value that exists: written by a step, an input, or a constant."""
        if name not in self.values:
            array = self.known(name)
            assert array is not None, name
            self.values[name] = self.constant(array, name)
        return self.values[name]

    def constant(self, array: Array, name: str = "") -> Value:
        """Elements that the plan keeps."""
        array = np.ascontiguousarray(array).reshape(np.shape(array))
        storage = Storage(array.nbytes, "constant", array=array)
        return Value(storage, require_dtype(array.dtype, name), array.shape)

    def result(self, name: str) -> Value:
        """New memory for a value that a node writes."""
        kind = self.type(name)
        self.values[name] = self.scratch(kind.dtype, kind.shape, name)
        return self.values[name]

    def scratch(self, dtype: np.dtype[Any], shape: Sequence[int], name: str = "") -> Value:
        """New memory that bears no name."""
        size = math.prod(shape) * dtype.itemsize
        return Value(Storage(size), require_dtype(dtype, name), tuple(shape))

    def alias(self, name: str, value: Value) -> None:
        """Let a name mean the memory of another value, in the name's own shape."""
        self.values[name] = value.reshaped(self.type(name).shape)

    def step(
        self,
        method: str,
        node: Node | str,
        reads: Iterable[Value | View],
        writes: Iterable[Value | View],
        *parameters: object,
        function: str = "",
        in_place: Value | None = None,
        movable: bool = False,
    ) -> None:
        """Append a step whose arguments are a function's name, what it reads, what it writes, and the parameters."""
        reads, writes = tuple(reads), tuple(writes)
        values = [tuple(item.value if isinstance(item, View) else item for item in side) for side in (reads, writes)]
        name = node if isinstance(node, str) else node.name
        arguments = (*([function] if function else []), *reads, *writes, *parameters)
        self.steps.append(Step(method, name, arguments, values[0], values[1], in_place, movable))

    def layer(self, node: Node, layer: Layer) -> None:
        """Append a layer, its weights packed."""
        packed, self.choices[node.name] = self.packer.pack(layer)
        x, out, *residual = layer.tensors
        arguments = (x, out, packed, layer.epilogue._core, layer.zero_point, *residual)
        zero_point = [layer.zero_point] if isinstance(layer.zero_point, Value) else []
        self.steps.append(Step(layer.kind, node.name, arguments, (x, *zero_point, *residual), (out,)))

    def copy(self, node: Node, source: Value | View, target: Value | View, *, movable: bool = False) -> None:
        """Append a copy."""
        self.step("copy", node, [source.view()], [target.view()], movable=movable)


def require_dtype(dtype: np.dtype[Any], name: str) -> np.dtype[Any]:
    """Refuse element types that no step works on."""
    if dtype not in DTYPES:
        names = ", ".join(sorted(item.name for item in DTYPES))
        remedy = "; export the model in float32 (of PyTorch: model.float() before)" if dtype == np.float64 else ""
        reason = f"values of {dtype.name} cannot be run; these can: {names}{remedy}"
        raise UnsupportedOpError(reason, node=name or None)
    return dtype


def unsupported(node: Node, reason: str) -> UnsupportedOpError:
    """An error about a form of an operator that plans do not run."""
    return UnsupportedOpError(f"{node.op}: {reason}", node=node.name)
