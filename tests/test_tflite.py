"""TFLite models: what the interpreter answers is answered, and damaged files are refused."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import gristmill as gm
from gristmill import reference
from gristmill.errors import GristmillError, UnsupportedOpError
from gristmill.graph import Graph
from gristmill.loaders import tflite
from gristmill.loaders.tflite import read_tflite

MODELS = sorted((Path(__file__).parent / "data" / "tflite").glob("*.tflite"))


def _answer(graph: Graph, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """What a session answers, which is what the reference does."""
    (expected,) = reference.run(graph, {graph.inputs[0].name: x}).values()
    got = gm.InferenceSession(gm.Model(graph))(x)
    assert isinstance(got, np.ndarray)
    np.testing.assert_allclose(got.astype(float), expected, rtol=1e-4, atol=1 if expected.dtype.kind in "iu" else 1e-4)
    return got


def _of_kind(kind: str) -> list[Path]:
    found = [path for path in MODELS if path.stem.endswith(kind)]
    assert found
    return found


@pytest.mark.parametrize("path", [*_of_kind("float"), *_of_kind("f16")], ids=lambda path: path.name)
def test_float_models_answer_as_the_interpreter_did(path: Path) -> None:
    expected = np.load(path.with_suffix(".npz"))
    got = _answer(read_tflite(path.read_bytes()), expected["x"]).reshape(expected["y"].shape)
    np.testing.assert_allclose(got, expected["y"], rtol=1e-4, atol=1e-4 * max(1, np.abs(expected["y"]).max()))


@pytest.mark.parametrize("path", [*_of_kind("int8"), *_of_kind("u8")], ids=lambda path: path.name)
def test_integer_models_answer_within_a_step(path: Path) -> None:
    expected = np.load(path.with_suffix(".npz"))
    got = _answer(read_tflite(path.read_bytes()), expected["x"]).reshape(expected["y"].shape)
    assert got.dtype == expected["y"].dtype == (np.int8 if path.stem.endswith("int8") else np.uint8)
    steps = np.abs(got.astype(int) - expected["y"].astype(int))
    assert steps.max() <= 1
    assert (steps > 0).mean() < 0.05


@pytest.mark.parametrize("path", _of_kind("dynamic"), ids=lambda path: path.name)
def test_dynamic_range_models_answer_near_the_original(path: Path) -> None:
    """The interpreter rounds activations as well, and is further off."""
    expected = np.load(path.with_suffix(".npz"))
    real = expected["real"]
    got = _answer(read_tflite(path.read_bytes()), expected["x"]).reshape(real.shape)
    scale = max(1, np.abs(real).max())
    theirs = np.abs(expected["y"].reshape(real.shape) - real).max()
    assert np.abs(got - real).max() <= max(2 * theirs, 0.01 * scale)


def test_models_load_by_content() -> None:
    model = gm.load(MODELS[0].read_bytes())
    assert model.format == "TFLite"
    assert model.graph.inputs[0].shape is not None
    assert model.graph.inputs[0].shape[0] == "n"


def _is_refused(data: bytes) -> bool:
    try:
        read_tflite(data)
    except GristmillError as error:
        return bool(error.reason)
    return False


def test_truncated_files_are_refused() -> None:
    whole = min((path.read_bytes() for path in MODELS), key=len)
    believed = [length for length in range(0, len(whole) - 64, 64) if not _is_refused(whole[:length])]
    # What is cut off the end may be padding, names or metadata.
    assert all(length > len(whole) // 2 for length in believed)


@pytest.mark.parametrize("value", [0x00, 0xFF])
def test_every_byte_may_be_wrong(value: int) -> None:
    whole = min((path.read_bytes() for path in MODELS), key=len)
    refused = 0
    for at in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[at] = value
        refused += _is_refused(bytes(damaged))
    assert refused > len(whole) // 140


def test_every_word_may_be_huge() -> None:
    whole = min((path.read_bytes() for path in MODELS), key=len)
    refused = 0
    for at in range(0, len(whole) - 4, 20):
        for word in (0x7FFFFFFF, 0xFFFFFFFF, len(whole)):
            damaged = bytearray(whole)
            struct.pack_into("<I", damaged, at, word)
            refused += _is_refused(bytes(damaged))
    assert refused > len(whole) // 100


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\0\0\0\0TFL3", b"\xff\xff\xff\xffTFL3", b"hello, world" * 9])
def test_what_is_no_model_is_refused(data: bytes) -> None:
    with pytest.raises(GristmillError):
        read_tflite(data)


def test_unknown_operations_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(tflite._OPERATIONS, "CONV_2D")
    path = next(path for path in MODELS if b"conv2d" in path.read_bytes() and path.stem.endswith("float"))
    with pytest.raises(UnsupportedOpError, match=r"CONV_2D is not known; known are ABS"):
        read_tflite(path.read_bytes())
