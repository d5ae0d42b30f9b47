"""Values of a model whose framework keeps channels last, while it is translated.

Keras and TFLite think in channels-last arrays, gristmill computes in NCHW. A value keeps the framework's shape, and
knows whether the graph holds it as the framework sees it or with the channels moved to the front (*planar*). Layers ask
for the form they compute in; a transposition is added only where the form changes, once for each value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.errors import UnsupportedOpError
from gristmill.graph import Attribute, GraphBuilder

__all__ = ["Builder", "Shape", "Value"]

#: With the batch; None is an extent that inputs decide.
Shape = tuple["int | None", ...]


@dataclass(frozen=True)
class Value:
    """A tensor.

    Attributes:
        name: In the graph.
        shape: As the framework sees it.
        planar: Whether the graph's value has the last axis as its second.
    """

    name: str
    shape: Shape
    planar: bool = False

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def extent(self, axis: int, layer: str) -> int:
        """An extent that must be known."""
        value = self.shape[axis]
        if value is None:
            raise UnsupportedOpError(f"axis {axis} of its input has no fixed extent: {self.shape}", node=layer)
        return value


class Builder:
    """A graph under construction, with the two forms of its values."""

    def __init__(self) -> None:
        """Start empty."""
        self.graph = GraphBuilder()
        self._forms: dict[tuple[str, bool], str] = {}

    def constant(self, name: str, value: Any) -> str:  # noqa: ANN401
        """Add a constant."""
        return self.graph.constant(name, np.asarray(value))

    def add(self, op: str, inputs: list[str], name: str, **attributes: Attribute) -> str:
        """Add a node; returns the name of its output."""
        return self.graph.add(op, inputs, name=name, **attributes)

    def unary(self, op: str, value: Value, name: str, **attributes: Attribute) -> Value:
        """Apply an elementwise operator: shape and form stay."""
        return Value(self.add(op, [value.name], name, **attributes), value.shape, value.planar)

    def binary(self, op: str, value: Value, scalar: float, name: str) -> Value:
        """Combine each element with a number."""
        number = self.constant(f"{name}/{op.lower()}_operand", np.float32(scalar))
        return Value(self.add(op, [value.name, number], f"{name}/{op.lower()}"), value.shape, value.planar)

    def planar(self, value: Value) -> str:
        """The value with its last axis second."""
        return self._form(value, planar=True)

    def plain(self, value: Value) -> str:
        """The value as the framework sees it."""
        return self._form(value, planar=False)

    def _form(self, value: Value, *, planar: bool) -> str:
        if value.planar == planar or value.rank < 3:
            return value.name
        key = value.name, planar
        if key not in self._forms:
            axes = range(1, value.rank)
            order = (0, value.rank - 1, *axes[:-1]) if planar else (0, *axes[1:], 1)
            self._forms[key] = self.add(
                "Transpose", [value.name], f"{value.name}/{'planar' if planar else 'plain'}", perm=order
            )
        return self._forms[key]
