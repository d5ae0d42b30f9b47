"""Where a Keras file keeps the weights of each layer.

Two layouts exist. The old one (``.h5`` of Keras 1 to 3) has a group for each layer of the outermost model, with a list
of variable names such as ``conv1/kernel:0``; the weights of a model within the model are all in its one group. The new
one (``.keras``) mirrors the nesting, names groups by the class of the layer and numbers its variables.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy.typing as npt

from gristmill.errors import ModelFormatError
from gristmill.loaders.keras.layer import WeightSource
from gristmill.weights.hdf5 import Hdf5File

__all__ = ["NamedVariables", "NumberedVariables", "WeightScope"]

Array: TypeAlias = npt.NDArray[Any]


class WeightScope(Protocol):
    """The weights of a model: asked for its layers once each, in the model's order."""

    def layer(self, name: str, kind: str) -> WeightSource:
        """The weights of a layer."""

    def model(self, name: str, kind: str) -> WeightScope:
        """The weights of a model within the model."""


@dataclass
class NumberedVariables:
    """The layout of ``.keras``: a group with ``vars`` of its own and ``layers`` below.

    Attributes:
        folders: Where groups of layers are looked for.
        file: The weights file.
        path: This layer's or model's group.
    """

    file: Hdf5File
    folders: ClassVar[Sequence[str]] = ("layers", "_layer_checkpoint_dependencies")
    path: str = ""
    _seen: Counter[str] = field(default_factory=Counter)
    _children: dict[str, NumberedVariables] = field(default_factory=dict)

    def layer(self, name: str, kind: str) -> NumberedVariables:
        """The group of that layer, below its wrappers: at its first mention, the next one of its class."""
        if name not in self._children:
            self._children[name] = self._next(kind)
        return self._children[name]

    def _next(self, kind: str) -> NumberedVariables:
        stem = _snake_case(kind)
        index = self._seen[stem]
        self._seen[stem] += 1
        folders = [f"{self.path}/{folder}" for folder in self.folders]
        folder = next((folder for folder in folders if self.file.exists(folder)), folders[0])
        path = f"{folder}/{stem}_{index}" if index else f"{folder}/{stem}"
        while self.file.exists(f"{path}/layer"):
            path += "/layer"
        return NumberedVariables(self.file, path)

    model = layer

    def get(self, name: str, position: int) -> Array | None:
        """The variable with that number."""
        path = f"{self.path}/vars/{position}"
        return self.file.read(path) if self.file.exists(path) else None


@dataclass
class NamedVariables:
    """The layout of ``.h5``: names of variables within the groups of the outermost layers.

    Attributes:
        file: The weights file.
        root: The group that lists the layers.
        variables: Paths of this model's or layer's variables; None for the outermost model.
    """

    file: Hdf5File
    root: str = ""
    variables: list[str] | None = None
    _taken: set[str] = field(default_factory=set)
    _found: dict[str, str] = field(default_factory=dict)
    _children: dict[str, NamedVariables] = field(default_factory=dict)

    def layer(self, name: str, kind: str) -> NamedVariables:
        """The variables of the layer of that name."""
        if name not in self._children:
            self._children[name] = NamedVariables(self.file, self.root, self._below(name), self._taken)
        return self._children[name]

    model = layer

    def get(self, name: str, position: int) -> Array | None:
        """The variable of that name: at its first mention, the next one that no layer has taken yet."""
        if name not in self._found:
            paths = (path for path in self.variables or () if path not in self._taken and _last_part(path) == name)
            path = next(paths, None)
            if path is None:
                return None
            self._taken.add(path)
            self._found[name] = path
        return self.file.read(self._found[name])

    def _below(self, layer: str) -> list[str]:
        if self.variables is not None:
            own = [path for path in self.variables if layer in path.split("/")[1:-1]]
            return own or self.variables
        group = f"{self.root}/{layer}"
        names = self.file.attribute(group, "weight_names")
        if names is None:
            return []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ModelFormatError("weight_names is not a list of names", node=group)
        return [f"{group}/{name}" for name in names]


def _last_part(path: str) -> str:
    return path.rsplit("/", 1)[-1].split(":", maxsplit=1)[0]


def _snake_case(kind: str) -> str:
    """As Keras names the groups of layers."""
    name = re.sub(r"\W+", "", kind)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
