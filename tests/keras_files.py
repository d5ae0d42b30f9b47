"""Keras files for tests, written by hand."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

h5py = pytest.importorskip("h5py")


def keras_layer(kind: str, **config: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"class_name": kind, "config": {"name": kind.lower(), **config}}


ENTRY = keras_layer("InputLayer", batch_shape=[None, 5, 5, 2])
CONV = keras_layer("Conv2D", filters=3, kernel_size=[3, 3], strides=[1, 1], padding="same", activation="relu")
KERNEL = np.arange(54, dtype=np.float32).reshape(3, 3, 2, 3)


def sequential(*layers: dict[str, Any]) -> dict[str, Any]:
    return {"class_name": "Sequential", "config": {"name": "model", "layers": [ENTRY, *layers]}}


def h5_bytes(
    model: object,
    weights: dict[str, dict[str, Any]] | None = None,
    spoil: Callable[[Any], None] | None = None,
) -> bytes:
    """A file of Keras 2's layout: weights by layer and variable."""
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        if model is not None:
            file.attrs["model_config"] = model if isinstance(model, str) else json.dumps(model)
        file.attrs["keras_version"] = "2.9.0"
        for layer, variables in (weights or {}).items():
            group = file.create_group(f"model_weights/{layer}")
            group.attrs["weight_names"] = [f"{layer}/{name}:0".encode() for name in variables]
            for name, array in variables.items():
                group[f"{layer}/{name}:0"] = array
        if spoil is not None:
            spoil(file)
    return out.getvalue()


def conv_weights(kernel: npt.NDArray[Any] = KERNEL) -> dict[str, dict[str, Any]]:
    return {"conv2d": {"kernel": kernel, "bias": np.zeros(3, np.float32)}}


def functional(layers: list[dict[str, Any]], inputs: Any, outputs: Any) -> dict[str, Any]:  # noqa: ANN401
    config = {"name": "m", "layers": layers, "input_layers": inputs, "output_layers": outputs}
    return {"class_name": "Functional", "config": config}


def keras_node(layer: dict[str, Any], *references: list[Any]) -> dict[str, Any]:
    return {
        **layer,
        "name": layer["config"]["name"],
        "inbound_nodes": [[[*r, {}] for r in references]] if references else [],
    }
