"""The weights of Keras models in HDF5, by layer and variable."""

from __future__ import annotations

from typing import Any, BinaryIO, TypeAlias

import numpy.typing as npt

from gristmill.errors import ModelFormatError
from gristmill.weights.hdf5 import Hdf5File

__all__ = ["read_keras_weights"]

Array: TypeAlias = npt.NDArray[Any]


def read_keras_weights(stream: BinaryIO) -> dict[str, Array]:
    """Read the variables that the layers list, named as in the file without the number of the tensor.

    Raises:
        ModelFormatError: If the file is damaged or lists no layers.
    """
    file = Hdf5File(stream.read())
    root = "/model_weights" if file.exists("/model_weights") else ""
    layers = _names(file, root, "layer_names")
    if layers is None:
        raise ModelFormatError("lists no layers: not the weights of a Keras model")
    weights: dict[str, Array] = {}
    for layer in layers:
        for name in _names(file, f"{root}/{layer}", "weight_names") or []:
            weights[name.split(":", maxsplit=1)[0]] = file.read(f"{root}/{layer}/{name}")
    return weights


def _names(file: Hdf5File, group: str, attribute: str) -> list[str] | None:
    names = file.attribute(group, attribute)
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ModelFormatError(f"{attribute} is not a list of names", node=group or "/")
    return names
