"""Models from weights alone: a chain of layers, written down.

Example:
    >>> import gristmill as gm
    >>> kernel, head = np.ones((4, 1, 3, 3), np.float32), np.ones((2, 4), np.float32)
    >>> model = gm.Sequential(
    ...     (1, 8, 8),
    ...     [Conv2d(kernel, stride=2, padding=1), Op("Relu"), Op("GlobalAveragePool"), Op("Flatten"), Linear(head)],
    ... )
    >>> gm.InferenceSession(model)(np.ones((3, 1, 8, 8), np.float32)).shape
    (3, 2)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from gristmill.errors import ArgumentError, ShapeError, UnsupportedOpError
from gristmill.graph import Attribute, GraphBuilder, ValueInfo
from gristmill.model import Model
from gristmill.operators import OPERATORS, TensorType
from gristmill.reference import infer

__all__ = ["Conv2d", "Layer", "Linear", "Op", "Sequential"]

Array: TypeAlias = npt.NDArray[Any]
Pair: TypeAlias = int | tuple[int, int]


class Layer(Protocol):
    """What a chain is made of."""

    def add(self, build: GraphBuilder, x: str, name: str) -> str:
        """Add the layer behind the value ``x``; returns the name of its output."""


@dataclass(frozen=True, eq=False)
class Conv2d:
    """A convolution.

    Attributes:
        weight: (output channels, input channels / groups, rows, columns).
        bias: One value for each output channel.
        stride: For rows and columns, as all that follow.
        padding: Zeros on each side.
        dilation: Distance of taps.
        groups: Groups of channels.
    """

    weight: Array
    bias: Array | None = None
    stride: Pair = 1
    padding: Pair = 0
    dilation: Pair = 1
    groups: int = 1

    def add(self, build: GraphBuilder, x: str, name: str) -> str:
        """Add the layer."""
        padding = _pair(self.padding)
        return build.add(
            "Conv",
            [x, *_weights(build, name, self.weight, 4, self.bias)],
            name=name,
            strides=_pair(self.stride),
            pads=padding + padding,
            dilations=_pair(self.dilation),
            group=self.groups,
        )


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear layer.

    Attributes:
        weight: (output features, input features).
        bias: One value for each output feature.
    """

    weight: Array
    bias: Array | None = None

    def add(self, build: GraphBuilder, x: str, name: str) -> str:
        """Add the layer."""
        return build.add("Gemm", [x, *_weights(build, name, self.weight, 2, self.bias)], name=name, transB=1)


@dataclass(frozen=True, eq=False)
class Op:
    """Any other operator by its ONNX name.

    Attributes:
        name: Such as ``Relu``, ``MaxPool``, ``Flatten`` or ``BatchNormalization``.
        constants: Inputs behind the first.
        attributes: As ONNX has them.

    Example:
        >>> Op("MaxPool", attributes={"kernel_shape": (2, 2), "strides": (2, 2)}).name
        'MaxPool'
    """

    name: str
    constants: Sequence[npt.ArrayLike] = ()
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    def add(self, build: GraphBuilder, x: str, name: str) -> str:
        """Add the layer."""
        if self.name not in OPERATORS:
            known = ", ".join(sorted(OPERATORS))
            raise UnsupportedOpError(f"operator {self.name!r} is not known; known are {known}", node=name)
        extra = [build.constant(f"{name}.{index + 1}", value) for index, value in enumerate(self.constants)]
        return build.add(self.name, [x, *extra], name=name, **self.attributes)


def Sequential(  # noqa: N802
    input_shape: Sequence[int], layers: Sequence[Layer], dtype: npt.DTypeLike = np.float32
) -> Model:
    """Make a model of layers, each of which takes what the one before gives.

    Args:
        input_shape: Of one sample, as in (channels, rows, columns); the batch is open.
        layers: At least one.
        dtype: Of the input.

    Raises:
        ShapeError: A layer does not fit the one before it.
        UnsupportedOpError: An operator is not known.
    """
    if not layers:
        raise ArgumentError("expected at least one layer", node="layers")
    build = GraphBuilder()
    x = build.input("input", dtype, ("n", *input_shape))
    for index, layer in enumerate(layers):
        x = layer.add(build, x, f"layer{index}")
    graph = build.build([x])
    known = infer(graph, {"input": TensorType(np.dtype(dtype), (1, *input_shape))})[x]
    return Model(graph.replace(outputs=(ValueInfo(x, known.dtype, ("n", *known.shape[1:])),)), format="layers")


def _pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _weights(build: GraphBuilder, name: str, weight: Array, rank: int, bias: Array | None) -> list[str]:
    if weight.ndim != rank:
        raise ShapeError(f"expected weights of rank {rank}, got shape {weight.shape}", node=name)
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(f"expected a bias of shape {weight.shape[:1]}, got {bias.shape}", node=name)
    names = [build.constant(f"{name}.weight", weight)]
    return names if bias is None else [*names, build.constant(f"{name}.bias", bias)]
