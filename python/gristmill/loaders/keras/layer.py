"""One layer of a Keras model at the moment it is translated: its configuration, inputs and weights, all checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from gristmill.errors import ModelFormatError, UnsupportedOpError
from gristmill.loaders.channels_last import Builder, Value

__all__ = ["Layer", "WeightSource"]

Array: TypeAlias = npt.NDArray[Any]


class WeightSource(Protocol):
    """Where a layer's weights come from."""

    def get(self, name: str, position: int) -> Array | None:
        """The variable of that name, the layer's ``position``-th; None if the file has none."""


@dataclass(frozen=True)
class Layer:
    """A layer that is being translated.

    Attributes:
        kind: Class name.
        name: Unique in the graph.
        config: As in the file.
        inputs: What it is called with.
        weights: Its variables.
        build: The graph under construction.
        major: Keras's major version, where meanings changed.
    """

    kind: str
    name: str
    config: Mapping[str, Any]
    inputs: list[Value]
    weights: WeightSource
    build: Builder
    major: int

    @property
    def input(self) -> Value:
        """The only input."""
        if len(self.inputs) != 1:
            raise self.error(f"takes one input, got {len(self.inputs)}")
        return self.inputs[0]

    @property
    def channels_first(self) -> bool:
        """Whether the layer's data has channels before space."""
        return self.text("data_format", "channels_last") == "channels_first"

    def error(self, reason: str) -> ModelFormatError:
        """An error that names the layer."""
        return ModelFormatError(f"{self.kind}: {reason}", node=self.name)

    def unsupported(self, reason: str) -> UnsupportedOpError:
        """An error for what gristmill does not do."""
        return UnsupportedOpError(f"{self.kind}: {reason}", node=self.name)

    def text(self, key: str, default: str) -> str:
        """A text of the configuration."""
        value = self.config.get(key, default)
        if not isinstance(value, str):
            raise self.error(f"{key} must be a text, got {value!r}")
        return value

    def integer(self, key: str, default: int | None = None) -> int:
        """An integer of the configuration."""
        value = self.config.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.error(f"{key} must be an integer, got {value!r}")
        return value

    def real(self, key: str, default: float) -> float:
        """A number of the configuration; Keras writes some as one-element arrays."""
        value = _unwrapped(self.config.get(key, default))
        if not isinstance(value, (int, float)):
            raise self.error(f"{key} must be a number, got {value!r}")
        return float(value)

    def flag(self, key: str, *, default: bool) -> bool:
        """A truth value of the configuration."""
        value = self.config.get(key, default)
        if not isinstance(value, bool):
            raise self.error(f"{key} must be true or false, got {value!r}")
        return value

    def sizes(self, key: str, count: int, default: Any = None) -> tuple[int, ...]:  # noqa: ANN401
        """``count`` positive integers, or one for all."""
        value = self.config.get(key, default)
        items = [value] * count if isinstance(value, int) else value
        if not isinstance(items, list | tuple) or len(items) != count:
            raise self.error(f"{key} must be {count} integers, got {value!r}")
        if not all(isinstance(item, int) and 0 < item < 1 << 31 for item in items):
            raise self.error(f"{key} must be positive integers, got {value!r}")
        return tuple(items)

    def margins(self, key: str, count: int) -> list[tuple[int, int]]:
        """Amounts before and after each of ``count`` axes: one integer, one for each axis, or pairs."""
        value = self.config.get(key, 1)
        if count == 1 and isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[0], int):
            value = [value]
        items = [value] * count if isinstance(value, int) else value
        if not isinstance(items, list | tuple) or len(items) != count:
            raise self.error(f"{key} must be {count} amounts, got {value!r}")
        pairs = [(item, item) if isinstance(item, int) else tuple(item) for item in items]
        if not all(len(pair) == 2 and all(isinstance(n, int) and n >= 0 for n in pair) for pair in pairs):
            raise self.error(f"{key} must not be negative, got {value!r}")
        return [(int(before), int(after)) for before, after in pairs]

    def weight(self, names: str, position: int, shape: tuple[int, ...]) -> Array:
        """A variable of exactly that shape; ``names`` are those that it went by, with spaces between."""
        found = (self.weights.get(name, position) for name in names.split())
        array = next((array for array in found if array is not None), None)
        if array is None:
            raise self.error(f"the file has no weights {names!r} for it")
        if array.shape != shape:
            raise self.error(f"weights {names!r} have shape {array.shape}, expected {shape}")
        return array.astype(np.float32)

    def constant(self, name: str, array: Array) -> str:
        """Add weights to the graph."""
        return self.build.constant(f"{self.name}/{name}", np.ascontiguousarray(array, np.float32))


def _unwrapped(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, Mapping) and "config" in value:
        value = value["config"].get("value") if isinstance(value["config"], Mapping) else None
    if isinstance(value, Mapping) and value.get("type") == "ndarray":
        value = value.get("value")
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value
