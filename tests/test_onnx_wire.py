"""ONNX files read in parts: the same as if a parser had seen the whole."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

import gristmill as gm
from gristmill.loaders.onnx_wire import StoredBytes, split

onnx = pytest.importorskip("onnx")

from onnx import ModelProto, helper, numpy_helper  # noqa: E402

RNG = np.random.default_rng(0)
RAW_DATA = 9


def model(*sizes: int) -> ModelProto:
    """A model with initializers of these sizes."""
    weights = [numpy_helper.from_array(RNG.standard_normal(size, np.float32), f"w{i}") for i, size in enumerate(sizes)]
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def field(number: int, content: bytes) -> bytes:
    """A field of bytes as it is written."""
    size, digits = len(content), bytearray()
    while size >= 0x80:
        digits.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([number << 3 | 2, *digits, size]) + content


def assert_split_is_whole(content: bytes, *, stored: int) -> None:
    """What is left and what is stored are what the parser makes of all."""
    rest, data = split(BytesIO(content))
    whole, parts = ModelProto.FromString(content), ModelProto.FromString(rest)
    assert len(data) == stored
    for number, where in data.items():
        assert parts.graph.initializer[number].HasField("raw_data")
        assert not parts.graph.initializer[number].raw_data
        parts.graph.initializer[number].raw_data = where.read("w").tobytes()
    assert parts == whole


def test_large_data_stays_in_the_file() -> None:
    content = model(3, 2000, 5, 100_000).SerializeToString()
    assert_split_is_whole(content, stored=2)
    assert len(split(BytesIO(content))[0]) < 1000


def test_messages_in_pieces_are_merged_as_the_parser_does() -> None:
    assert_split_is_whole(model(2000, 3).SerializeToString() + model(4, 3000).SerializeToString(), stored=2)
    large, small = RNG.bytes(8000), RNG.bytes(8)
    head = field(8, b"w")
    for data, stored in (((large, small), 0), ((small, large), 1), ((large, large[::-1]), 1)):
        tensor = head + b"".join(field(RAW_DATA, part) for part in data)
        assert_split_is_whole(field(7, field(5, tensor) + field(5, head)), stored=stored)


@pytest.mark.parametrize("flip", [False, True])
def test_damaged_files_are_the_parser_s_to_judge(flip: bool) -> None:
    content = model(3, 1100).SerializeToString()
    for at in {*range(0, 80), *range(len(content) - 80, len(content)), *range(80, len(content) - 80, 97)}:
        damaged = content[:at] + (bytes([content[at] ^ 0x55]) + content[at + 1 :] if flip else b"")
        try:
            whole = ModelProto.FromString(damaged)
        except Exception:
            with pytest.raises(gm.ModelFormatError):
                gm.load(damaged)
            continue
        rest, data = split(BytesIO(damaged))
        parts = ModelProto.FromString(rest)
        for number, where in data.items():
            parts.graph.initializer[number].raw_data = where.read("w").tobytes()
        assert parts.SerializeToString(deterministic=True) == whole.SerializeToString(deterministic=True)


def test_loaded_weights_are_aligned_read_only_and_all_there(tmp_path: Path) -> None:
    made = model(1500, 1501, 7)
    made.graph.name = "a name that moves what follows"
    made.graph.output.extend(helper.make_tensor_value_info(f"w{i}", onnx.TensorProto.FLOAT, None) for i in range(3))
    path = tmp_path / "model.onnx"
    path.write_bytes(made.SerializeToString())
    for given in (path, path.read_bytes(), bytearray(path.read_bytes()), made):
        constants = gm.load(given).graph.constants
        for tensor in made.graph.initializer:
            np.testing.assert_array_equal(constants[tensor.name], numpy_helper.to_array(tensor))
            assert constants[tensor.name].flags.aligned
            assert not constants[tensor.name].flags.writeable


def test_sizes_are_checked_before_data_is_read() -> None:
    made = model(5000)
    made.graph.output.append(helper.make_tensor_value_info("w0", onnx.TensorProto.FLOAT, None))
    made.graph.initializer[0].dims[0] = 5001
    with pytest.raises(gm.ModelFormatError, match="needs 20004 bytes of data, got 20000"):
        gm.load(made.SerializeToString())


def test_a_file_that_shrinks_is_refused() -> None:
    with pytest.raises(gm.ModelFormatError, match="became shorter"):
        StoredBytes(BytesIO(bytes(10)), 8, 4).read("w")
