"""Keras models: what Keras answers is answered, and a file that is not a plain model is refused."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pytest

import gristmill as gm
from gristmill import reference
from gristmill.errors import LimitError, ModelFormatError, UnsupportedOpError
from gristmill.graph import Graph
from gristmill.loaders.keras import read_h5, read_keras, topology
from hostile_files import check_refused

h5py = pytest.importorskip("h5py")

DATA = Path(__file__).parent / "data" / "keras"
MODELS = sorted(path for path in DATA.iterdir() if path.suffix in (".h5", ".keras"))


def _read(stream: BinaryIO, suffix: str) -> Graph:
    return read_h5(stream) if suffix == ".h5" else read_keras(stream)


def _answer(graph: Graph, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """What a session answers, which is what the reference does."""
    (expected,) = reference.run(graph, {graph.inputs[0].name: x}).values()
    got = gm.InferenceSession(gm.Model(graph))(x)
    assert isinstance(got, np.ndarray)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * max(1, np.abs(expected).max()))
    return got


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.name)
def test_models_answer_as_keras_did(path: Path) -> None:
    expected = np.load(path.with_suffix(".npz"))
    with path.open("rb") as stream:
        got = _answer(_read(stream, path.suffix), expected["x"])
    assert got.shape == expected["y"].shape
    np.testing.assert_allclose(got, expected["y"], rtol=1e-5, atol=1e-5 * max(1, np.abs(expected["y"]).max()))


@pytest.mark.filterwarnings("ignore")  # Keras's about NumPy and HDF5
@pytest.mark.parametrize("block", range(8))
def test_random_models_answer_as_keras_does(block: int, tmp_path: Path) -> None:
    pytest.importorskip("keras")
    from keras_models import random_model

    for seed in range(1000 + 50 * block, 1050 + 50 * block):
        model, x = random_model(seed)
        path = tmp_path / ("model.h5" if seed % 2 else "model.keras")
        model.save(path)
        expected = model(x, training=False).numpy()
        with path.open("rb") as stream:
            got = _answer(_read(stream, path.suffix), x)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * max(1, np.abs(expected).max()))


def _layer(kind: str, **config: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"class_name": kind, "config": {"name": kind.lower(), **config}}


ENTRY = _layer("InputLayer", batch_shape=[None, 5, 5, 2])
CONV = _layer("Conv2D", filters=3, kernel_size=[3, 3], strides=[1, 1], padding="same", activation="relu")
KERNEL = np.arange(54, dtype=np.float32).reshape(3, 3, 2, 3)


def _sequential(*layers: dict[str, Any]) -> dict[str, Any]:
    return {"class_name": "Sequential", "config": {"name": "model", "layers": [ENTRY, *layers]}}


def _h5(
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


def _conv_weights(kernel: npt.NDArray[Any] = KERNEL) -> dict[str, dict[str, Any]]:
    return {"conv2d": {"kernel": kernel, "bias": np.zeros(3, np.float32)}}


def test_wrappers_of_pruning_are_taken_off_and_zeros_kept() -> None:
    wrapped = {"class_name": "PruneLowMagnitude", "config": {"name": "prune_conv", "layer": CONV}}
    kernel = np.where(KERNEL % 3 == 0, 0, KERNEL)
    weights = {"prune_conv": {**_conv_weights(kernel)["conv2d"], "mask": kernel != 0, "threshold": np.float32(1)}}
    graph = read_h5(io.BytesIO(_h5(_sequential(wrapped), weights)))
    plain = read_h5(io.BytesIO(_h5(_sequential(CONV), _conv_weights(kernel))))
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 2)).astype(np.float32)
    np.testing.assert_array_equal(_answer(graph, x), _answer(plain, x))
    stored = next(array for array in graph.constants.values() if array.ndim == 4)
    assert (stored == 0).sum() == (kernel == 0).sum()


def test_wrappers_of_quantization_are_taken_off() -> None:
    activation = {"class_name": "QuantizeAwareActivation", "config": {"activation": "relu"}}
    inner = {**CONV, "config": {**CONV["config"], "activation": activation}}
    wrapped = {"class_name": "QuantizeWrapperV2", "config": {"name": "quant_conv2d", "layer": inner}}
    weights = {"quant_conv2d": {**_conv_weights()["conv2d"], "kernel_min": np.zeros(3), "post_activation_max": 1.0}}
    entry = {"class_name": "QuantizeLayer", "config": {"name": "quantize_layer"}}
    graph = read_h5(io.BytesIO(_h5(_sequential(entry, wrapped), weights)))
    plain = read_h5(io.BytesIO(_h5(_sequential(CONV), _conv_weights())))
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 2)).astype(np.float32)
    np.testing.assert_array_equal(_answer(graph, x), _answer(plain, x))


def test_functions_of_keras_are_told_from_layers() -> None:
    def called(name: str, *arguments: object) -> dict[str, Any]:
        nodes = [{"args": list(arguments), "kwargs": {}}]
        return {"module": "keras.src.ops.numpy", "class_name": name, "name": "f", "config": {"name": "f"}} | {
            "inbound_nodes": nodes
        }

    def answer(layer: dict[str, Any]) -> npt.NDArray[Any]:
        model = _functional([_node(ENTRY), layer], [["inputlayer", 0, 0]], [["f", 0, 0]])
        return _answer(read_h5(io.BytesIO(_h5(model))), np.ones((1, 5, 5, 2), np.float32))

    x = {"class_name": "__keras_tensor__", "config": {"keras_history": ["inputlayer", 0, 0]}}
    np.testing.assert_array_equal(answer(called("Add", x, x)), np.full((1, 5, 5, 2), 2))
    np.testing.assert_array_equal(answer(called("Subtract", 4.0, x)), np.full((1, 5, 5, 2), 3))
    with pytest.raises(UnsupportedOpError, match="called with a number"):
        answer({**called("ReLU", x, 2.0), "module": "keras.layers"})
    with pytest.raises(UnsupportedOpError, match=r"Average is an operation of keras\.ops"):
        answer(called("Average", x))


@pytest.mark.parametrize("major", [2, 3])
def test_calls_of_models_within_models_are_counted_as_keras_does(major: int) -> None:
    """The model within is called twice; the outer one gives the first of the results."""
    relu = _functional([_node(ENTRY), _node(CONV, ["inputlayer", 0, 0])], [["inputlayer", 0, 0]], [["conv2d", 0, 0]])
    relu["config"]["name"] = "inner"
    head = _node(_layer("Conv2D", filters=2, kernel_size=[1, 1]), ["inner", 3 - major, 0])
    head = {**head, "name": "head", "config": {**head["config"], "name": "head"}}
    inner = {**relu, "name": "inner", "inbound_nodes": [[[*r, {}]] for r in (["inputlayer", 0, 0], ["head", 0, 0])]}
    model = _functional([_node(ENTRY), inner, head], [["inputlayer", 0, 0]], [["inner", 1, 0], ["inner", 2, 0]])
    pointwise = {"kernel": np.ones((1, 1, 3, 2), np.float32), "bias": np.zeros(2, np.float32)}
    data = _h5(
        {**model, "keras_version": f"{major}.0.0"},
        {"inner": _conv_weights()["conv2d"], "head": pointwise},
        lambda file: file.attrs.__setitem__("keras_version", f"{major}.0.0"),
    )
    graph = read_h5(io.BytesIO(data))
    x = np.random.default_rng(0).normal(size=(1, 5, 5, 2)).astype(np.float32)
    first, second = reference.run(graph, {graph.inputs[0].name: x}).values()
    plain = read_h5(io.BytesIO(_h5(_sequential(CONV), _conv_weights())))
    np.testing.assert_allclose(first, _answer(plain, x), rtol=1e-5)
    np.testing.assert_allclose(second, _answer(plain, np.repeat(first.sum(-1, keepdims=True), 2, -1)), rtol=1e-4)


def test_weights_alone_need_the_architecture() -> None:
    weights = _h5(None, _conv_weights())
    with pytest.raises(ModelFormatError, match="architecture="):
        read_h5(io.BytesIO(weights))
    graph = read_h5(io.BytesIO(weights), json.dumps(_sequential(CONV)))
    assert [node.op for node in graph.nodes].count("Conv") == 1


def test_channels_first() -> None:
    entry = _layer("InputLayer", batch_shape=[None, 2, 5, 5])
    conv = {**CONV, "config": {**CONV["config"], "data_format": "channels_first"}}
    flatten = _layer("Flatten", data_format="channels_first")
    first = {"class_name": "Sequential", "config": {"layers": [entry, conv, flatten]}}
    x = np.random.default_rng(0).normal(size=(2, 5, 5, 2)).astype(np.float32)
    last = read_h5(io.BytesIO(_h5(_sequential(CONV, _layer("Flatten")), _conv_weights())))
    graph = read_h5(io.BytesIO(_h5(first, _conv_weights())))
    np.testing.assert_allclose(_answer(graph, x.transpose(0, 3, 1, 2)), _answer(last, x), rtol=1e-6)


def test_unknown_layers_are_named() -> None:
    with pytest.raises(UnsupportedOpError, match=r"LSTM is not known; known are .*Conv2D") as caught:
        read_h5(io.BytesIO(_h5(_sequential(_layer("LSTM")))))
    assert caught.value.node == "lstm"


def _functional(layers: list[dict[str, Any]], inputs: Any, outputs: Any) -> dict[str, Any]:  # noqa: ANN401
    config = {"name": "m", "layers": layers, "input_layers": inputs, "output_layers": outputs}
    return {"class_name": "Functional", "config": config}


def _node(layer: dict[str, Any], *references: list[Any]) -> dict[str, Any]:
    return {
        **layer,
        "name": layer["config"]["name"],
        "inbound_nodes": [[[*r, {}] for r in references]] if references else [],
    }


WIDE = _layer("InputLayer", batch_shape=[None, 9, 2**31 - 1])


def _hostile_models() -> Iterator[tuple[str, object]]:
    lambda_layer = _layer("Lambda", function=["4wEAAAA=", None, None])
    entry, relu = _node(ENTRY), _layer("ReLU")
    yield "lambda", _sequential(lambda_layer)
    yield "custom class", _sequential({**_layer("Evil"), "module": "os", "registered_name": "os>system"})
    yield "module path", _sequential({"module": "builtins", "class_name": "eval", "config": {"name": "e"}})
    yield "subclassed model", {"class_name": "MyModel", "config": {}}
    yield "not JSON", "{"
    yield "JSON of depth", "[" * 100_000
    yield "JSON list", "[]"
    yield "no class", {"config": {}}
    yield "no config", {"class_name": "Sequential"}
    yield "layers no list", {"class_name": "Sequential", "config": {"layers": {}}}
    yield "layer no dict", _sequential("x")  # type: ignore[arg-type]
    yield "no layers", {"class_name": "Sequential", "config": {"layers": []}}
    yield "no input shape", {"class_name": "Sequential", "config": {"layers": [relu]}}
    for name, shape in {"negative": [None, -1], "huge": [None, 2**70], "text": "abc"}.items():
        layers = [_layer("InputLayer", batch_shape=shape)]
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
        yield f"conv {key}", _sequential({**CONV, "config": {**CONV["config"], key: value}})
    yield "kernel huge", _sequential({**CONV, "config": {**CONV["config"], "kernel_size": [2**31, 2**31]}})
    yield "filters none", _sequential({**CONV, "config": {**CONV["config"], "filters": None}})
    yield "wrong rank", _sequential(_layer("Flatten"), CONV)
    yield "pool huge", _sequential(_layer("MaxPooling2D", pool_size=[9, 9]))
    yield "crop all", _sequential(_layer("Cropping2D", cropping=[[3, 3], [0, 0]]))
    yield "pad negative", _sequential(_layer("ZeroPadding2D", padding=-1))
    yield "permute nonsense", _sequential(_layer("Permute", dims=[1, 1, 1]))
    yield "reshape nonsense", _sequential(_layer("Reshape", target_shape=["a"]))
    yield "softmax axis", _sequential(_layer("Softmax", axis=9))
    yield "batch norm axis", _sequential(_layer("BatchNormalization", axis=2))
    yield "concatenate axis", _sequential(_layer("Concatenate", axis=9))
    yield (
        "activation dict",
        _sequential(_layer("Activation", activation={"class_name": "function", "config": "os.system"})),
    )
    yield "wrapper without layer", _sequential(_layer("PruneLowMagnitude"))
    yield "cycle", _functional([entry, _node(relu, ["relu", 0, 0])], [["inputlayer", 0, 0]], [["relu", 0, 0]])
    yield (
        "reference to nothing",
        _functional([entry, _node(relu, ["gone", 0, 0])], [["inputlayer", 0, 0]], [["relu", 0, 0]]),
    )
    yield (
        "reference to no call",
        _functional([entry, _node(relu, ["inputlayer", 5, 0])], [["inputlayer", 0, 0]], [["relu", 0, 0]]),
    )
    yield (
        "reference to no result",
        _functional([entry, _node(relu, ["inputlayer", 0, 5])], [["inputlayer", 0, 0]], [["relu", 0, 0]]),
    )
    yield (
        "negative reference",
        _functional([entry, _node(relu, ["inputlayer", -1, 0])], [["inputlayer", 0, 0]], [["relu", 0, 0]]),
    )
    yield "two of a name", _functional([entry, _node(relu), _node(relu)], [["inputlayer", 0, 0]], [["relu", 0, 0]])
    yield "output missing", _functional([entry], [["inputlayer", 0, 0]], [["relu", 0, 0]])
    yield "input no input", _functional([entry, _node(relu, ["inputlayer", 0, 0])], [["relu", 0, 0]], [["relu", 0, 0]])
    yield "inputs no list", _functional([entry], 5, [["inputlayer", 0, 0]])
    nested: dict[str, Any] = _sequential(relu)
    for _ in range(40):
        nested = _sequential({**nested, "config": {**nested["config"], "name": "m"}})
    yield "nested deep", nested
    nested = _sequential(relu)
    for _ in range(28):
        nested = {**nested, "name": "m", "inbound_nodes": [[["inputlayer", 0, 0, {}]], [["m", 0, 0, {}]]]}
        nested["config"] = {**nested["config"], "name": "m"}
        nested = _functional([entry, nested], [["inputlayer", 0, 0]], [["m", 1, 0]])
    yield "twice as many calls on every level", nested
    for name, layer in {
        "channels that the file has not": _layer("BatchNormalization", center=False, scale=False),
        "a column for a matrix": _layer("Normalization", axis=[1, 2], mean=[[0.0]] * 9, variance=1.0),
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
    layers = [WIDE, _layer("Normalization", mean=0.5, variance=4.0)]
    graph = gm.load(_h5({"class_name": "Sequential", "config": {"layers": layers}})).graph
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
    model, good = _sequential(CONV), _h5(_sequential(CONV), _conv_weights())
    yield from ((f"cut to {share} %", good[: len(good) * share // 100]) for share in (0, 1, 10, 30, 50, 70, 90, 99))
    yield "text", b"hello" * 100
    yield "no weights", _h5(model)
    yield "kernel missing", _h5(model, {"conv2d": {"bias": np.zeros(3, np.float32)}})
    yield "kernel of another shape", _h5(model, _conv_weights(KERNEL[:2]))
    yield "kernel of strings", _h5(model, {"conv2d": {"kernel": np.array([b"x"]), "bias": np.zeros(3)}})
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
        yield name, _h5(model, _conv_weights(), spoil)


def test_hostile_h5_is_refused(tmp_path: Path) -> None:
    models = ((name, _h5(model, _conv_weights())) for name, model in _hostile_models())
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
    config, empty = _sequential(CONV), _h5(None)
    whole = next(path for path in MODELS if path.suffix == ".keras").read_bytes()
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
