"""How an operator is defined: a numpy function, a rule for the types of its results, and the table of all of them.

Rules check shapes, element types and attributes; the functions behind them run on what has passed and check nothing
twice. A function may work in a wider type than its result: :meth:`Operator.evaluate` rounds it to the rule's type.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np

from gristmill.errors import GristmillError, LimitError, UnsupportedOpError, errors_at
from gristmill.graph import Array, Node

#: No tensor takes more bytes than this.
LARGEST_TENSOR = 1 << 34


@dataclass(frozen=True)
class TensorType:
    """Element type and shape of a value that is not known yet."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The number of bytes."""
        return self.size * self.dtype.itemsize

    def __repr__(self) -> str:
        return f"{self.dtype.name}[{', '.join(map(str, self.shape))}]"


#: ONNX's numbers of the element types that graphs hold; 16-bit floats are held in float32.
ELEMENT_TYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype(np.float32),
    2: np.dtype(np.uint8),
    3: np.dtype(np.int8),
    4: np.dtype(np.uint16),
    5: np.dtype(np.int16),
    6: np.dtype(np.int32),
    7: np.dtype(np.int64),
    9: np.dtype(np.bool_),
    10: np.dtype(np.float32),
    11: np.dtype(np.float64),
    12: np.dtype(np.uint32),
    13: np.dtype(np.uint64),
    16: np.dtype(np.float32),
}

#: What is known of a value: its type, or all of it.
Known: TypeAlias = TensorType | Array
Rule: TypeAlias = Callable[..., "TensorType | Sequence[TensorType]"]
Compute: TypeAlias = Callable[..., "Array | Sequence[Array]"]
_Compute = TypeVar("_Compute", bound=Callable[..., Any])


@dataclass(frozen=True)
class Operator:
    """One operator: what it computes and what comes out.

    Attributes:
        name: As in :attr:`gristmill.graph.Node.op`.
        compute: Takes the node and its inputs, ``None`` for those left out; returns one array or several.
        rule: Takes the same, with types in place of unknown values; returns one type or several.
        arity: The least and the greatest number of inputs.
        needed: Which inputs may not be left out.
    """

    name: str
    compute: Compute
    rule: Rule
    arity: tuple[int, float]
    needed: tuple[int, ...]

    def infer(self, node: Node, inputs: Sequence[Known | None]) -> list[TensorType]:
        """The types of the results.

        Raises:
            ModelFormatError: The node contradicts itself or its inputs.
            UnsupportedOpError: The node has a form that gristmill does not run.
            LimitError: A result is too large.
        """
        least, greatest = self.arity
        if not least <= len(inputs) <= greatest:
            raise node.error(f"takes {_count(least, greatest)} inputs, got {len(inputs)}")
        for index, item in enumerate(inputs):
            if item is None and (index in self.needed or greatest == math.inf):
                raise node.error(f"input {index} is left out")
        with _errors_of(node):
            found = self.rule(node, *inputs)
        types = [found] if isinstance(found, TensorType) else list(found)
        if len(node.outputs) > len(types) and any(node.outputs[len(types) :]):
            raise node.error(f"has {len(types)} results, but {len(node.outputs)} are wanted")
        for item in types:
            if min(item.shape, default=0) < 0:
                raise node.error(f"gives an extent below zero: {list(item.shape)}")
            require_size(item.shape, item.dtype.itemsize, node.name, f"{node.op}: a result of shape")
        return types

    def evaluate(self, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        """The results, in plain numpy; never shares memory that the caller could not share.

        Raises:
            GristmillError: As :meth:`infer` does.
        """
        types = self.infer(node, inputs)
        with _errors_of(node), np.errstate(all="ignore"):
            found = self.compute(node, *inputs)
            results = [found] if isinstance(found, (np.ndarray, np.generic)) else list(found)
            return [np.asarray(result, kind.dtype) for result, kind in zip(results, types, strict=True)]


#: Every operator of a graph by name.
OPERATORS: dict[str, Operator] = {}


def operator(*names: str, rule: Rule) -> Callable[[_Compute], _Compute]:
    """Enter the decorated function into the table, as :func:`enter` does."""

    def register(compute: _Compute) -> _Compute:
        for name in names:
            enter(name, compute, rule)
        return compute

    return register


def enter(name: str, compute: Compute, rule: Rule) -> None:
    """Enter a function into the table; its signature tells how many inputs there may be and which may be left out."""
    parameters = list(inspect.signature(compute).parameters.values())[1:]
    many = any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters)
    single = [parameter for parameter in parameters if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    least = sum(parameter.default is inspect.Parameter.empty for parameter in single)
    needed = tuple(index for index, parameter in enumerate(single) if "None" not in str(parameter.annotation))
    OPERATORS[name] = Operator(name, compute, rule, (least, math.inf if many else len(single)), needed)


def find(node: Node) -> Operator:
    """The operator of a node.

    Raises:
        UnsupportedOpError: There is none; it names what there is.
    """
    if node.op not in OPERATORS:
        known = ", ".join(sorted(OPERATORS))
        raise UnsupportedOpError(f"operator {node.op} is not supported; these are: {known}", node=node.name or None)
    return OPERATORS[node.op]


def require_size(shape: Sequence[int], itemsize: int, name: str = "", what: str = "shape") -> None:
    """Refuse shapes of tensors that are too large, or would be if extents of 0 were 1.

    Raises:
        LimitError: With ``name`` as the node.
    """
    extents = [max(extent, 1) for extent in shape] if 0 in shape else shape
    if math.prod(extents) * itemsize > LARGEST_TENSOR:
        raise LimitError(f"{what} {list(shape)} is beyond {LARGEST_TENSOR >> 30} GiB", node=name or None)


def unsupported(node: Node, reason: str) -> UnsupportedOpError:
    """An error about a form of an operator that gristmill does not run."""
    return UnsupportedOpError(f"{node.op}: {reason}", node=node.name or None)


def element_type(node: Node, name: str, default: int) -> np.dtype[Any]:
    """The element type that an attribute names by ONNX's number."""
    number = node.integer(name, default)
    if number not in ELEMENT_TYPES:
        raise unsupported(node, f"element type {number} in attribute {name}")
    return ELEMENT_TYPES[number]


def fixed(node: Node, value: Known | None, what: str) -> Array:
    """An input that decides about shapes, which must be known."""
    if isinstance(value, np.ndarray):
        return value
    raise unsupported(node, f"{what} must be known from constants and shapes, not computed from values")


def fixed_integers(node: Node, value: Known | None, what: str) -> list[int]:
    """The integers in such an input."""
    array = fixed(node, value, what)
    if array.dtype.kind not in "iu" or array.ndim > 1:
        raise node.error(f"{what} must be a list of integers, got {array.dtype}{list(array.shape)}")
    return [int(item) for item in array.ravel()]


def normal_axis(node: Node, axis: int, rank: int) -> int:
    """An axis counted from the front."""
    if not -rank <= axis < rank:
        raise node.error(f"axis {axis} is out of range for {rank} axes")
    return axis % rank


def normal_axes(node: Node, axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Distinct axes counted from the front."""
    found = tuple(normal_axis(node, axis, rank) for axis in axes)
    if len(set(found)) != len(found):
        raise node.error(f"axes {list(axes)} name one twice")
    return found


def same(_node: Node, x: Known, *_rest: Known | None) -> TensorType:
    """Rule: the type of the first input."""
    return TensorType(x.dtype, x.shape)


def common_dtype(node: Node, inputs: Sequence[Known | None]) -> np.dtype[Any]:
    """The element type that all inputs share."""
    kinds = {item.dtype for item in inputs if item is not None}
    if len(kinds) != 1:
        raise node.error(f"element types differ: {', '.join(sorted(kind.name for kind in kinds))}")
    return kinds.pop()


def broadcast(node: Node, *inputs: Known | None) -> TensorType:
    """Rule: inputs of one element type, broadcast against each other."""
    shapes = [item.shape for item in inputs if item is not None]
    return TensorType(common_dtype(node, inputs), broadcast_shapes(node, *shapes))


def broadcast_shapes(node: Node, *shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that these give together."""
    rank = max(map(len, shapes))
    result = []
    for extents in zip(*((1,) * (rank - len(shape)) + shape for shape in shapes), strict=True):
        wide = {extent for extent in extents if extent != 1}
        if len(wide) > 1:
            raise node.error(f"shapes {', '.join(str(list(shape)) for shape in shapes)} do not go together")
        result.append(wide.pop() if wide else 1)
    return tuple(result)


def require_float(node: Node, *inputs: Known | None) -> None:
    """Refuse what is not floating-point."""
    for item in inputs:
        if item is not None and item.dtype.kind != "f":
            raise node.error(f"needs floating-point values, got {item.dtype.name}")


def _count(least: int, greatest: float) -> str:
    if greatest == math.inf:
        return f"{least} or more"
    return str(least) if least == greatest else f"{least} to {int(greatest)}"


@contextmanager
def _errors_of(node: Node) -> Iterator[None]:
    try:
        with errors_at(node=node.name or None):
            yield
    except GristmillError:
        raise
    except (ValueError, TypeError, IndexError, ArithmeticError) as error:
        raise node.error(str(error)) from error
