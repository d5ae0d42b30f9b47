"""Keras models: ``.h5`` of Keras 1 to 3 and ``.keras``, without TensorFlow or Keras.

The container is read with suspicion (:mod:`gristmill.weights.hdf5`); ``sources`` finds each layer's weights,
``topology`` walks the configuration, and the tables of layers (``convolutions``, ``shapes``, ``activations``) translate
each into ONNX's operators in NCHW, with the help of ``layer`` and of :mod:`gristmill.loaders.channels_last`. ``keras1``
puts models of Keras 1 into the words of Keras 2.
"""

from __future__ import annotations

import json
from typing import Any, BinaryIO

from gristmill.errors import ModelFormatError
from gristmill.graph import Graph
from gristmill.loaders.keras.keras1 import OrderedVariables, modernized
from gristmill.loaders.keras.sources import NamedVariables, NumberedVariables
from gristmill.loaders.keras.topology import translate
from gristmill.weights.archive import Archive
from gristmill.weights.hdf5 import Hdf5File

__all__ = ["read_h5", "read_keras"]


def read_h5(stream: BinaryIO, architecture: str | None = None) -> Graph:
    """Read a model in HDF5, or weights in HDF5 with the architecture that ``model.to_json()`` gives.

    Raises:
        ModelFormatError: If the file is damaged, contradicts itself, or has no architecture and none is given.
        UnsupportedOpError: If it has a layer that is not known.
    """
    data = stream.read()
    file = Hdf5File(data)
    config = architecture if architecture is not None else file.attribute("", "model_config")
    if not isinstance(config, str):
        raise ModelFormatError("holds weights without a model: pass architecture=, the text of model.to_json()")
    root = "/model_weights" if file.exists("/model_weights") else ""
    model = _json(config, "model_config")
    version = file.attribute("", "keras_version") or file.attribute(root, "keras_version")
    numbered = any(file.exists(folder) for folder in NumberedVariables.folders)
    version = version or model.get("keras_version") or ("3" if numbered else "2")
    major = _major(version)
    if major == 1:
        model = modernized(model)
        return translate(model, OrderedVariables.of(file, root, model), major, len(data))
    return translate(model, NumberedVariables(file) if numbered else NamedVariables(file, root), major, len(data))


def read_keras(stream: BinaryIO) -> Graph:
    """Read a model in the ``.keras`` archive.

    Raises:
        ModelFormatError: If the file is damaged or contradicts itself.
        UnsupportedOpError: If it has a layer that is not known.
    """
    archive = Archive(stream)
    model = _json(archive.read("config.json").decode(errors="replace"), "config.json")
    metadata = _json(archive.read("metadata.json").decode(errors="replace"), "metadata.json")
    data = archive.read("model.weights.h5")
    return translate(model, NumberedVariables(Hdf5File(data)), _major(metadata.get("keras_version")), len(data))


def _json(text: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"not JSON: {error}", node=name) from error
    if not isinstance(value, dict):
        raise ModelFormatError("not a JSON object", node=name)
    return value


def _major(version: object) -> int:
    digits = str(version or "2").split(".")[0]
    return int(digits) if digits.isascii() and digits.isdigit() else 2
