"""Models of Keras 1: its names, its orders of axes and its Merge, against the same network written for Keras 2."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import gristmill as gm
from gristmill import reference
from gristmill.errors import UnsupportedOpError
from gristmill.graph import Graph
from gristmill.loaders.keras import read_h5

h5py = pytest.importorskip("h5py")

Weights = dict[str, list[npt.NDArray[Any]]]


def _file(model: dict[str, Any], weights: Weights, version: str) -> Graph:
    """Keras 1 knows variables by position and names them by their layer, Keras 2 by what they are."""
    names = {"conv": ("kernel", "bias"), "dense": ("kernel", "bias"), "line": ("kernel", "bias")}
    names["norm"] = ("gamma", "beta", "moving_mean", "moving_variance")  # type: ignore[assignment]
    old = ("W", "b", "running_mean", "running_std")
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        file.attrs["model_config"] = json.dumps(model)
        file.attrs["keras_version"] = version
        for layer, arrays in weights.items():
            group = file.create_group(f"model_weights/{layer}")
            paths = [
                f"{layer}_{old[i]}:0" if version[0] == "1" else f"{layer}/{names[layer][i]}:0"
                for i in range(len(arrays))
            ]
            group.attrs["weight_names"] = [path.encode() for path in paths]
            for path, array in zip(paths, arrays, strict=True):
                group[path] = array
    out.seek(0)
    return read_h5(out)


def _layer(kind: str, name: str, *inputs: str, **config: Any) -> dict[str, Any]:  # noqa: ANN401
    nodes = [[[source, 0, 0] for source in inputs]] if inputs else []
    return {"class_name": kind, "name": name, "config": {"name": name, **config}, "inbound_nodes": nodes}


def _network(major: int, *, planes: bool) -> dict[str, Any]:
    shape = [None, 2, 6, 7] if planes else [None, 6, 7, 2]
    order = {"dim_ordering": "th" if planes else "tf"}
    data = {"data_format": "channels_first" if planes else "channels_last"}
    axis = 1 if planes else -1
    entry = _layer("InputLayer", "x", batch_input_shape=shape)
    norm = _layer("BatchNormalization", "norm", "conv", epsilon=1e-3, axis=axis, **({"mode": 0} if major == 1 else {}))
    if major == 1:
        window = {"border_mode": "same", **order}
        taps = {"nb_filter": 4, "nb_row": 3, "nb_col": 2, "subsample": [1, 1], "bias": True}
        body = [
            _layer("Convolution2D", "conv", "x", activation="relu", **taps, **window),
            norm,
            _layer("Merge", "both", "conv", "norm", mode="concat", concat_axis=axis, mode_type="raw"),
            _layer("MaxPooling2D", "pool", "both", pool_size=[2, 2], strides=[2, 2], **window),
            _layer("Dropout", "drop", "pool", p=0.5),
            _layer("Flatten", "flat", "drop"),
            _layer("Dense", "dense", "flat", output_dim=5, activation="softmax", bias=True),
        ]
    else:
        window = {"padding": "same", **data}
        taps = {"filters": 4, "kernel_size": [3, 2], "strides": [1, 1]}
        body = [
            _layer("Conv2D", "conv", "x", activation="relu", **taps, **window),
            norm,
            _layer("Concatenate", "both", "conv", "norm", axis=axis),
            _layer("MaxPooling2D", "pool", "both", pool_size=[2, 2], strides=[2, 2], **window),
            _layer("Flatten", "flat", "pool"),
            _layer("Dense", "dense", "flat", units=5, activation="softmax"),
        ]
    config = {"name": "m", "layers": [entry, *body], "input_layers": [["x", 0, 0]], "output_layers": [["dense", 0, 0]]}
    return {"class_name": "Model", "config": config}


@pytest.mark.parametrize("planes", [False, True])
def test_networks_answer_as_those_of_keras_2(planes: bool) -> None:
    rng = np.random.default_rng(0)
    kernel = rng.normal(0, 0.2, (3, 2, 2, 4)).astype(np.float32)
    weights = {
        "norm": [rng.uniform(0.5, 2, 4).astype(np.float32) for _ in range(4)],
        "dense": [rng.normal(0, 0.1, (8 * 3 * 4, 5)).astype(np.float32), rng.normal(size=5).astype(np.float32)],
    }
    bias = rng.normal(size=4).astype(np.float32)
    stored = kernel.transpose(3, 2, 0, 1) if planes else kernel
    old = _file(_network(1, planes=planes), {"conv": [stored, bias], **weights}, "1.2.2")
    new = _file(_network(2, planes=planes), {"conv": [kernel, bias], **weights}, "2.2.4")
    x = rng.normal(size=(3, 2, 6, 7) if planes else (3, 6, 7, 2)).astype(np.float32)
    (expected,) = reference.run(new, {"x": x}).values()
    np.testing.assert_array_equal(gm.InferenceSession(gm.Model(old))(x), gm.InferenceSession(gm.Model(new))(x))
    np.testing.assert_allclose(gm.InferenceSession(gm.Model(old))(x), expected, rtol=1e-4, atol=1e-5)


def test_sequences() -> None:
    rng = np.random.default_rng(1)
    kernel, bias = rng.normal(size=(3, 2, 4)).astype(np.float32), rng.normal(size=4).astype(np.float32)
    taps = {"nb_filter": 4, "filter_length": 3, "border_mode": "valid", "subsample_length": 2, "atrous_rate": 1}
    first = _layer("Convolution1D", "line", activation="tanh", batch_input_shape=[None, 9, 2], **taps)
    old = {"class_name": "Sequential", "config": [first, _layer("MaxPooling1D", "pool", pool_length=2, stride=1)]}
    settings = {"filters": 4, "kernel_size": 3, "strides": 2}
    second = _layer("Conv1D", "line", activation="tanh", batch_input_shape=[None, 9, 2], **settings)
    new = {"class_name": "Sequential", "config": [second, _layer("MaxPooling1D", "pool", pool_size=2, strides=1)]}
    x = rng.normal(size=(2, 9, 2)).astype(np.float32)
    first_answer, second_answer = (
        gm.InferenceSession(gm.Model(_file(model, {"line": [stored, bias]}, version)))(x)
        for model, stored, version in ((old, kernel[:, None], "1.1.0"), (new, kernel, "2.0.0"))
    )
    np.testing.assert_array_equal(first_answer, second_answer)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (_layer("Merge", "both", "x", "x", mode="dot", mode_type="raw"), "Merge of mode 'dot'"),
        (_layer("Merge", "both", "x", "x", mode="sum", mode_type="lambda"), "Merge of mode 'sum'"),
        (_layer("BatchNormalization", "both", "x", mode=1), "mode 1"),
        (_layer("Highway", "both", "x"), "Highway is not known"),
    ],
)
def test_what_keras_2_has_no_layer_for_is_refused(layer: dict[str, Any], reason: str) -> None:
    entry = _layer("InputLayer", "x", batch_input_shape=[None, 4])
    config = {"name": "m", "layers": [entry, layer], "input_layers": [["x", 0, 0]], "output_layers": [["both", 0, 0]]}
    with pytest.raises(UnsupportedOpError, match=reason) as caught:
        _file({"class_name": "Model", "config": config}, {}, "1.2.0")
    assert caught.value.node == "both"
