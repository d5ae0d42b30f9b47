"""Keras files that are no plain models are refused, and what files may make up is bounded."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gristmill as gm
from gristmill.errors import LimitError
from gristmill.loaders.keras import read_h5, topology
from hostile_files import check_refused
from keras_files import CONV, ENTRY, KERNEL, conv_weights, functional, h5_bytes, keras_layer, keras_node, sequential

h5py = pytest.importorskip("h5py")

DATA = Path(__file__).parent / "data" / "keras"


WIDE = keras_layer("InputLayer", batch_shape=[None, 9, 2**31 - 1])


def _hostile_models() -> Iterator[tuple[str, object]]:
    lambda_layer = keras_layer("Lambda", function=["4wEAAAA=", None, None])
    entry, relu = keras_node(ENTRY), keras_layer("ReLU")
    yield "lambda", sequential(lambda_layer)
    yield "custom class", sequential({**keras_layer("Evil"), "module": "os", "registered_name": "os>system"})
    yield "module path", sequential({"module": "builtins", "class_name": "eval", "config": {"name": "e"}})
    yield "subclassed model", {"class_name": "MyModel", "config": {}}
    yield "not JSON", "{"
    yield "JSON of depth", "[" * 100_000
    yield "JSON list", "[]"
    yield "no class", {"config": {}}
    yield "no config", {"class_name": "Sequential"}
    yield "layers no list", {"class_name": "Sequential", "config": {"layers": {}}}
    yield "layer no dict", sequential("x")  # type: ignore[arg-type]
    yield "no layers", {"class_name": "Sequential", "config": {"layers": []}}
    yield "no input shape", {"class_name": "Sequential", "config": {"layers": [relu]}}
    for name, shape in {"negative": [None, -1], "huge": [None, 2**70], "text": "abc"}.items():
        layers = [keras_layer("InputLayer", batch_shape=shape)]
        yield f"input shape {name}", {"class_name": "Sequential", "config": {"layers": layers}}
    for key, value in {
        "filters": "3",
        "kernel_size": [3, 3, 3],
        "strides": 0,
        "dilation_rate": -1,
        "padding": "wrap",
        "data_format": 7,
        "groups": 0,
        "use_bias": "yes",
        "activation": "evil",
    }.items():
        yield f"conv {key}", sequential({**CONV, "config": {**CONV["config"], key: value}})
    yield "kernel huge", sequential({**CONV, "config": {**CONV["config"], "kernel_size": [2**31, 2**31]}})
    yield "filters none", sequential({**CONV, "config": {**CONV["config"], "filters": None}})
    yield "wrong rank", sequential(keras_layer("Flatten"), CONV)
    yield "pool huge", sequential(keras_layer("MaxPooling2D", pool_size=[9, 9]))
    yield "crop all", sequential(keras_layer("Cropping2D", cropping=[[3, 3], [0, 0]]))
    yield "pad negative", sequential(keras_layer("ZeroPadding2D", padding=-1))
    yield "permute nonsense", sequential(keras_layer("Permute", dims=[1, 1, 1]))
    yield "reshape nonsense", sequential(keras_layer("Reshape", target_shape=["a"]))
    yield "softmax axis", sequential(keras_layer("Softmax", axis=9))
    yield "batch norm axis", sequential(keras_layer("BatchNormalization", axis=2))
    yield "concatenate axis", sequential(keras_layer("Concatenate", axis=9))
    yield (
        "activation dict",
        sequential(keras_layer("Activation", activation={"class_name": "function", "config": "os.system"})),
    )
    yield "wrapper without layer", sequential(keras_layer("PruneLowMagnitude"))
    yield "cycle", functional([entry, keras_node(relu, ["relu", 0, 0])], [["inputlayer", 0, 0]], [["relu", 0, 0]])
    yield (
        "reference to nothing",
        functional([entry, keras_node(relu, ["gone", 0, 0])], [["inputlayer", 0, 0]], [["relu", 0, 0]]),
    )
    yield (
        "reference to no call",
        functional([entry, keras_node(relu, ["inputlayer", 5, 0])], [["inputlayer", 0, 0]], [["relu", 0, 0]]),
    )
    yield (
        "reference to no result",
        functional([entry, keras_node(relu, ["inputlayer", 0, 5])], [["inputlayer", 0, 0]], [["relu", 0, 0]]),
    )
    yield (
        "negative reference",
        functional([entry, keras_node(relu, ["inputlayer", -1, 0])], [["inputlayer", 0, 0]], [["relu", 0, 0]]),
    )
    yield (
        "two of a name",
        functional([entry, keras_node(relu), keras_node(relu)], [["inputlayer", 0, 0]], [["relu", 0, 0]]),
    )
    yield "output missing", functional([entry], [["inputlayer", 0, 0]], [["relu", 0, 0]])
    yield (
        "input no input",
        functional([entry, keras_node(relu, ["inputlayer", 0, 0])], [["relu", 0, 0]], [["relu", 0, 0]]),
    )
    yield "inputs no list", functional([entry], 5, [["inputlayer", 0, 0]])
    nested: dict[str, Any] = sequential(relu)
    for _ in range(40):
        nested = sequential({**nested, "config": {**nested["config"], "name": "m"}})
    yield "nested deep", nested
    nested = sequential(relu)
    for _ in range(28):
        nested = {**nested, "name": "m", "inbound_nodes": [[["inputlayer", 0, 0, {}]], [["m", 0, 0, {}]]]}
        nested["config"] = {**nested["config"], "name": "m"}
        nested = functional([entry, nested], [["inputlayer", 0, 0]], [["m", 1, 0]])
    yield "twice as many calls on every level", nested
    for name, layer in {
        "channels that the file has not": keras_layer("BatchNormalization", center=False, scale=False),
        "a column for a matrix": keras_layer("Normalization", axis=[1, 2], mean=[[0.0]] * 9, variance=1.0),
    }.items():
        yield name, {"class_name": "Sequential", "config": {"layers": [WIDE, layer]}}


def test_calls_do_not_multiply_weights_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    data = (DATA / "model100.h5").read_bytes()
    weights = sum(array.nbytes for array in read_h5(io.BytesIO(data)).constants.values())
    monkeypatch.setattr(topology, "_MOST_EXPANSION", 0)
    monkeypatch.setattr(topology, "_MOST_BYTES", weights)
    read_h5(io.BytesIO(data))
    monkeypatch.setattr(topology, "_MOST_BYTES", weights - 1)
    with pytest.raises(LimitError, match="many times as large as the file"):
        read_h5(io.BytesIO(data))


def test_one_number_for_many_channels_takes_no_room() -> None:
    layers = [WIDE, keras_layer("Normalization", mean=0.5, variance=4.0)]
    graph = gm.load(h5_bytes({"class_name": "Sequential", "config": {"layers": layers}})).graph
    assert {array.size for array in graph.constants.values()} == {1}


def _external_link(file: Any) -> None:  # noqa: ANN401
    del file["model_weights/conv2d/conv2d/kernel:0"]
    file["model_weights/conv2d/conv2d/kernel:0"] = h5py.ExternalLink("/etc/passwd", "/x")


def _soft_link(file: Any) -> None:  # noqa: ANN401
    file["aside"] = KERNEL
    del file["model_weights/conv2d/conv2d/kernel:0"]
    file["model_weights/conv2d/conv2d/kernel:0"] = h5py.SoftLink("/aside")


def _replace_kernel(**settings: Any) -> Callable[[Any], None]:  # noqa: ANN401
    def replace(file: Any) -> None:  # noqa: ANN401
        del file["model_weights/conv2d/conv2d/kernel:0"]
        file.create_dataset("model_weights/conv2d/conv2d/kernel:0", **settings)

    return replace


def _virtual(file: Any) -> None:  # noqa: ANN401
    del file["model_weights/conv2d/conv2d/kernel:0"]
    layout = h5py.VirtualLayout(KERNEL.shape, np.float32)
    layout[...] = h5py.VirtualSource("/etc/passwd", "x", KERNEL.shape)
    file.create_virtual_dataset("model_weights/conv2d/conv2d/kernel:0", layout)


def _names_elsewhere(file: Any) -> None:  # noqa: ANN401
    file["model_weights/conv2d"].attrs["weight_names"] = [b"../../../kernel:0", b"/etc/passwd"]


def _hostile_files(tmp_path: Path) -> Iterator[tuple[str, bytes]]:
    model, good = sequential(CONV), h5_bytes(sequential(CONV), conv_weights())
    yield from ((f"cut to {share} %", good[: len(good) * share // 100]) for share in (0, 1, 10, 30, 50, 70, 90, 99))
    yield "text", b"hello" * 100
    yield "no weights", h5_bytes(model)
    yield "kernel missing", h5_bytes(model, {"conv2d": {"bias": np.zeros(3, np.float32)}})
    yield "kernel of another shape", h5_bytes(model, conv_weights(KERNEL[:2]))
    yield "kernel of strings", h5_bytes(model, {"conv2d": {"kernel": np.array([b"x"]), "bias": np.zeros(3)}})
    outside = {"external": [(str(tmp_path / "outside"), 0, h5py.h5f.UNLIMITED)]}
    spoilers = {
        "external link": _external_link,
        "soft link": _soft_link,
        "virtual dataset": _virtual,
        "names elsewhere": _names_elsewhere,
        "external storage": _replace_kernel(shape=KERNEL.shape, dtype="f4", **outside),
        "shape bomb": _replace_kernel(shape=(2**20, 2**20, 2**10), dtype="f4", chunks=(1, 1, 1)),
        "bomb that inflates": _replace_kernel(data=np.zeros(24 << 20, np.float32), compression="gzip"),
        "another filter": _replace_kernel(data=KERNEL, compression="lzf"),
        "variable length": _replace_kernel(shape=(3,), dtype=h5py.vlen_dtype(np.float32)),
        "references": _replace_kernel(shape=(3,), dtype=h5py.ref_dtype),
        "compound": _replace_kernel(shape=(3,), dtype=[("a", "f4"), ("b", "f4")]),
    }
    for name, spoil in spoilers.items():
        yield name, h5_bytes(model, conv_weights(), spoil)


def test_hostile_h5_is_refused(tmp_path: Path) -> None:
    models = ((name, h5_bytes(model, conv_weights())) for name, model in _hostile_models())
    check_refused(tmp_path / "files", [*models, *_hostile_files(tmp_path)], ".h5")


def _archive(config: object = None, weights: bytes | None = None, *, metadata: bytes | None = None) -> bytes:
    members = {"config.json": _text(config), "model.weights.h5": weights, "metadata.json": metadata or METADATA}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            if data is not None:
                archive.writestr(name, data)
    return out.getvalue()


def _text(config: object) -> bytes | None:
    if config is None or isinstance(config, bytes):
        return config
    return (config if isinstance(config, str) else json.dumps(config)).encode()


METADATA = b'{"keras_version": "3.0.0"}'


def _hostile_archives() -> Iterator[tuple[str, bytes]]:
    config, empty = sequential(CONV), h5_bytes(None)
    whole = next(path for path in sorted(DATA.iterdir()) if path.suffix == ".keras").read_bytes()
    yield "no weights", _archive(config)
    yield "no configuration", _archive(None, empty)
    yield "configuration no text", _archive(b"\xff\xfe", empty)
    yield "metadata no JSON", _archive(config, empty, metadata=b"{")
    yield "weights no HDF5", _archive(config, b"text")
    yield "weights empty", _archive(config, empty)
    yield "weights of zeros", _archive(config, bytes(80 << 20))
    yield from ((f"cut to {share} %", whole[: len(whole) * share // 100]) for share in range(1, 100, 7))
    yield from ((name, _archive(model, empty)) for name, model in _hostile_models())


def test_hostile_archives_are_refused(tmp_path: Path) -> None:
    check_refused(tmp_path, _hostile_archives(), ".keras")
