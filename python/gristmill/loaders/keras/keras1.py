"""Models of Keras 1 in the terms of Keras 2: names of layers and settings, and weights in Keras 2's order of axes.

Keras 1 names variables by their layer (``dense_1_W``), so that its layers find theirs by position. Convolutions whose
data have channels first (``dim_ordering`` th) keep kernels as [out, in, *taps]; kernels of one dimension have a
second one of extent 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy.typing as npt

from gristmill.errors import ModelFormatError, UnsupportedOpError
from gristmill.weights.hdf5 import Hdf5File

__all__ = ["OrderedVariables", "modernized"]

Array: TypeAlias = npt.NDArray[Any]
Config: TypeAlias = Mapping[str, Any]

_CLASSES = {
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "AtrousConvolution1D": "Conv1D",
    "AtrousConvolution2D": "Conv2D",
    "SeparableConvolution2D": "SeparableConv2D",
}
_SETTINGS = {
    "nb_filter": "filters",
    "filter_length": "kernel_size",
    "border_mode": "padding",
    "subsample": "strides",
    "subsample_length": "strides",
    "stride": "strides",
    "atrous_rate": "dilation_rate",
    "pool_length": "pool_size",
    "length": "size",
    "bias": "use_bias",
    "output_dim": "units",
    "p": "rate",
}
_ORDERINGS = {"tf": "channels_last", "th": "channels_first"}
_MERGES = {"sum": "Add", "mul": "Multiply", "ave": "Average", "max": "Maximum", "concat": "Concatenate"}
_MODELS = ("Sequential", "Model")


def modernized(described: Config) -> dict[str, Any]:
    """A model's or layer's description as Keras 2 would write it.

    Raises:
        UnsupportedOpError: For what Keras 2 has no plain layer for.
    """
    kind, config = described.get("class_name"), described.get("config")
    if isinstance(config, list):
        config = {"layers": config}
    if not isinstance(config, Mapping):
        return dict(described)
    if kind in _MODELS:
        layers = config.get("layers")
        inner = [modernized(layer) if isinstance(layer, Mapping) else layer for layer in layers or ()]
        return {**described, "config": {**config, "layers": inner}}
    settings: dict[str, Any] = {_SETTINGS.get(str(key), str(key)): value for key, value in config.items()}
    if "nb_row" in settings:
        settings["kernel_size"] = [settings.pop("nb_row"), settings.pop("nb_col", None)]
    if "dim_ordering" in settings:
        settings["data_format"] = _ORDERINGS.get(settings.pop("dim_ordering"), "channels_last")
    if kind == "Merge":
        kind = _merge(settings)
    elif kind == "BatchNormalization" and settings.get("mode", 0) == 1:
        raise UnsupportedOpError("BatchNormalization of mode 1 depends on the sample", node=settings.get("name"))
    return {**described, "class_name": _CLASSES.get(str(kind), kind), "config": settings}


def _merge(settings: dict[str, Any]) -> str:
    mode = settings.get("mode")
    if mode not in _MERGES or "layers" in settings or settings.get("mode_type", "raw") != "raw":
        known = ", ".join(_MERGES)
        raise UnsupportedOpError(
            f"Merge of mode {mode!r} is not known; known are {known}, of layers of a graph", node=settings.get("name")
        )
    settings["axis"] = settings.get("concat_axis", -1)
    return _MERGES[mode]


@dataclass
class OrderedVariables:
    """The variables of Keras 1, by position.

    Attributes:
        file: The weights file.
        root: The group that lists the layers.
        first: Names of layers whose data have channels first.
        variables: Paths of this model's or layer's variables; None for the outermost model.
        kind: Class of the layer.
        planes: Whether its data have channels first.
    """

    file: Hdf5File
    root: str
    first: frozenset[str]
    variables: list[str] | None = None
    kind: str = ""
    planes: bool = False
    _children: dict[str, OrderedVariables] = field(default_factory=dict)

    @staticmethod
    def of(file: Hdf5File, root: str, model: Config) -> OrderedVariables:
        """Those of a model that has been modernized."""
        return OrderedVariables(file, root, frozenset(_channels_first(model)))

    def layer(self, name: str, kind: str) -> OrderedVariables:
        """The variables of the layer of that name."""
        if name not in self._children:
            own = self._below(name)
            self._children[name] = OrderedVariables(self.file, self.root, self.first, own, kind, name in self.first)
        return self._children[name]

    model = layer

    def get(self, name: str, position: int) -> Array | None:
        """The variable at that position, as Keras 2 would store it."""
        if self.variables is None or position >= len(self.variables):
            return None
        array = self.file.read(self.variables[position])
        if array.ndim == 4 and array.shape[1] == 1 and self.kind == "Conv1D":
            return array[:, 0]
        return array.transpose(2, 3, 1, 0) if array.ndim == 4 and self.planes else array

    def _below(self, layer: str) -> list[str]:
        if self.variables is not None:
            return [path for path in self.variables if path.rsplit("/", 1)[-1].startswith(f"{layer}_")]
        group = f"{self.root}/{layer}"
        names = self.file.attribute(group, "weight_names") if self.file.exists(group) else None
        if names is None:
            return []
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ModelFormatError("weight_names is not a list of names", node=group)
        return [f"{group}/{name}" for name in names]


def _channels_first(described: Config) -> list[str]:
    config = described.get("config")
    if not isinstance(config, Mapping):
        return []
    own = [str(config.get("name"))] if config.get("data_format") == "channels_first" else []
    layers = config.get("layers")
    inner = layers if isinstance(layers, list) else []
    return own + [name for layer in inner if isinstance(layer, Mapping) for name in _channels_first(layer)]
