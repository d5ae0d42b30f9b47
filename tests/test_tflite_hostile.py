"""TFLite files that contradict themselves are refused by name, in little time and memory."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gristmill as gm
from flatbuffer_writer import Scalar, Table, write
from hostile_files import check_refused

MARK = b"TFL3"
BIG = 2**31 - 1
FLOAT, INT32, UINT8, INT8 = 0, 2, 3, 9
CONV, DEPTHWISE, FULLY, RESHAPE, PAD, CONCAT, MEAN, TRANSPOSE, TILE, POOL = 3, 4, 9, 22, 34, 2, 40, 39, 69, 17


def integer(value: int) -> Scalar:
    return Scalar("<i", value)


def byte(value: int) -> Scalar:
    return Scalar("<b", value)


def tensor(name: str, shape: list[int], kind: int = FLOAT, buffer: int = 0, quantization: Table | None = None) -> Table:
    table = {0: np.array(shape, np.int32), 1: byte(kind), 2: Scalar("<I", buffer), 3: name}
    return table if quantization is None else {**table, 4: quantization}


def scales(*values: float, zero: tuple[int, ...] = (0,), axis: int = 0) -> Table:
    return {2: np.array(values, np.float32), 3: np.array(zero, np.int64), 6: integer(axis)}


def model(operator: int, options: Table | None, constants: list[tuple[str, Any]], x: list[int], y: list[int]) -> Table:
    """One operation on ``x`` and constants."""
    kinds = {np.dtype(np.float32): FLOAT, np.dtype(np.int32): INT32}
    held = [tensor(n, list(v.shape), kinds[v.dtype], i + 1) for i, (n, v) in enumerate(constants)]
    step: Table = {1: np.arange(len(held) + 1, dtype=np.int32), 2: np.array([len(held) + 1], np.int32)}
    if options is not None:
        step[4] = options
    graph = {
        0: [tensor("x", x), *held, tensor("y", y)],
        1: np.array([0], np.int32),
        2: np.array([len(held) + 1], np.int32),
        3: [step],
    }
    buffers = [{}, *({0: np.frombuffer(v.tobytes(), np.uint8)} for _, v in constants)]
    code = {0: byte(operator), 3: integer(operator)}
    return {0: Scalar("<I", 3), 1: [code], 2: [graph], 4: buffers}


CONV_OPTIONS: Table = {0: byte(1), 1: integer(1), 2: integer(1)}
KERNEL = ("w", np.ones((3, 2, 2, 2), np.float32))


def conv() -> Table:
    return model(CONV, dict(CONV_OPTIONS), [KERNEL, ("b", np.zeros(3, np.float32))], [1, 4, 4, 2], [1, 3, 3, 3])


def changed(path: tuple[int, ...], value: object) -> bytes:
    """The convolution with one part exchanged."""
    root: Any = copy.deepcopy(conv())
    place = root
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return write(root, MARK)


GRAPH, TENSORS, STEP = (2, 0), (2, 0, 0), (2, 0, 3, 0)
CHANGES: dict[str, tuple[tuple[int, ...], object]] = {
    "no graph": ((2,), []),
    "two graphs": ((2,), [conv()[2][0]] * 2),
    "no operator codes": ((1,), []),
    "unknown operator": ((1, 0), {0: byte(120), 3: integer(120)}),
    "operator of no sense": ((1, 0), {0: byte(-5), 3: integer(-5)}),
    "custom operator": ((1, 0), {0: byte(32), 1: "Evil"}),
    "operator beyond the list": ((*STEP, 0), Scalar("<I", 9)),
    "input beyond the tensors": ((*STEP, 1), np.array([0, 1, 99], np.int32)),
    "negative input": ((*STEP, 1), np.array([0, -7], np.int32)),
    "weights left out": ((*STEP, 1), np.array([0, -1], np.int32)),
    "no inputs": ((*STEP, 1), np.array([], np.int32)),
    "no outputs": ((*STEP, 2), np.array([], np.int32)),
    "output left out": ((*STEP, 2), np.array([-1], np.int32)),
    "reads itself": ((*STEP, 1), np.array([3, 1, 2], np.int32)),
    "graph input beyond": ((*GRAPH, 1), np.array([50], np.int32)),
    "graph output beyond": ((*GRAPH, 2), np.array([50], np.int32)),
    "graph output never written": ((*GRAPH, 3), []),
    "no options": ((*STEP, 4), {}),
    "stride of zero": ((*STEP, 4), {**CONV_OPTIONS, 1: integer(0)}),
    "stride negative": ((*STEP, 4), {**CONV_OPTIONS, 2: integer(-1)}),
    "dilation of zero": ((*STEP, 4), {**CONV_OPTIONS, 4: integer(0)}),
    "padding unknown": ((*STEP, 4), {**CONV_OPTIONS, 0: byte(5)}),
    "activation unknown": ((*STEP, 4), {**CONV_OPTIONS, 3: byte(99)}),
    "type unknown": ((*TENSORS, 1, 1), byte(77)),
    "type of texts": ((*TENSORS, 1, 1), byte(5)),
    "shape negative": ((*TENSORS, 1, 0), np.array([3, -2, 2, 2], np.int32)),
    "shape huge": ((*TENSORS, 1, 0), np.array([BIG] * 4, np.int32)),
    "shape of another size": ((*TENSORS, 1, 0), np.array([3, 2, 2, 3], np.int32)),
    "weights of rank 3": ((*TENSORS, 1, 0), np.array([3, 4, 2], np.int32)),
    "kernel beyond the image": ((*TENSORS, 0, 0), np.array([1, 1, 1, 2], np.int32)),
    "channels differ": ((*TENSORS, 0, 0), np.array([1, 4, 4, 3], np.int32)),
    "image of rank 2": ((*TENSORS, 0, 0), np.array([4, 4], np.int32)),
    "image without channels": ((*TENSORS, 0, 0), np.array([1, 4, 4, 0], np.int32)),
    "bias of another size": ((*TENSORS, 2), tensor("b", [2], FLOAT, 2)),
    "buffer beyond": ((*TENSORS, 1, 2), Scalar("<I", 77)),
    "buffer outside": ((4, 1), {1: Scalar("<Q", 1 << 20), 2: Scalar("<Q", 96)}),
    "buffer too short": ((4, 1), {0: np.zeros(95, np.uint8)}),
    "buffer empty": ((4, 1), {}),
    "no buffers": ((4,), []),
    "sparse weights": ((*TENSORS, 1, 6), {}),
    "scale of zero": ((*TENSORS, 0), tensor("x", [1, 4, 4, 2], INT8, 0, scales(0.0))),
    "scale not a number": ((*TENSORS, 0), tensor("x", [1, 4, 4, 2], INT8, 0, scales(float("nan")))),
    "scale infinite": ((*TENSORS, 0), tensor("x", [1, 4, 4, 2], INT8, 0, scales(float("inf")))),
    "scales too many": ((*TENSORS, 0), tensor("x", [1, 4, 4, 2], INT8, 0, scales(1.0, 1.0, 1.0))),
    "scales of no axis": ((*TENSORS, 0), tensor("x", [1, 4, 4, 2], INT8, 0, scales(1.0, 1.0, axis=9))),
    "zero point beyond": ((*TENSORS, 0), tensor("x", [1, 4, 4, 2], UINT8, 0, scales(1.0, zero=(300,)))),
    "zero points too many": ((*TENSORS, 0), tensor("x", [1, 4, 4, 2], INT8, 0, scales(1.0, zero=(0, 0, 0)))),
}
NUMBERS = ("n", np.array([[0, 0]] * 4, np.int32))
OTHERS: dict[str, Table] = {
    "reshape to another size": model(RESHAPE, {}, [("n", np.array([5, 5], np.int32))], [2, 4], [5, 5]),
    "pad by less than nothing": model(PAD, {}, [("n", np.full((4, 2), -9, np.int32))], [1, 4, 4, 2], [1, 4, 4, 2]),
    "pad of another rank": model(PAD, {}, [NUMBERS], [4, 2], [4, 2]),
    "concatenation over no axis": model(CONCAT, {0: integer(7)}, [], [2, 4], [2, 4]),
    "mean over no axis": model(MEAN, {}, [("n", np.array([9], np.int32))], [2, 4], [2]),
    "transposition twice": model(TRANSPOSE, {}, [("n", np.array([0, 0], np.int32))], [2, 4], [4, 2]),
    "tiles without number": model(TILE, {}, [("n", np.array([-1, 1], np.int32))], [2, 4], [2, 4]),
    "window of nothing": model(POOL, {0: byte(1), 1: integer(1), 2: integer(1)}, [], [1, 4, 4, 2], [1, 4, 4, 2]),
    "linear of rank 3": model(FULLY, {}, [("w", np.ones((3, 4, 1), np.float32))], [2, 4], [2, 3]),
    "linear that does not fit": model(FULLY, {}, [("w", np.ones((3, 7), np.float32))], [2, 4], [2, 3]),
    "depthwise of several": model(DEPTHWISE, dict(CONV_OPTIONS), [KERNEL], [1, 4, 4, 2], [1, 3, 3, 2]),
}


def _hostile() -> Iterator[tuple[str, bytes]]:
    whole = write(conv(), MARK)
    yield from ((name, changed(*change)) for name, change in CHANGES.items())
    yield from ((name, write(root, MARK)) for name, root in OTHERS.items())
    yield from ((f"cut to {size}", whole[:size]) for size in range(8, len(whole) * 3 // 4, 24))
    yield "root beyond", b"\xff\xff\xff\x7f" + whole[4:]
    yield "vtable beyond", whole[:100] + b"\xff" * 40 + whole[140:]


def test_hostile_models_are_refused(tmp_path: Path) -> None:
    check_refused(tmp_path, _hostile(), ".tflite")


def test_the_sound_model_is_read() -> None:
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 2)).astype(np.float32)
    got = gm.InferenceSession(write(conv(), MARK))(x)
    expected = sum(x[:, i : i + 3, j : j + 3].sum(-1) for i in range(2) for j in range(2))
    np.testing.assert_allclose(got, np.repeat(expected[..., np.newaxis], 3, axis=-1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 3])
def test_other_sound_models_are_read(batch: int) -> None:
    x = np.arange(4 * batch, dtype=np.float32).reshape(batch, 4)
    linear = model(FULLY, {}, [("w", np.eye(4, dtype=np.float32)[:3])], [1, 4], [1, 3])
    np.testing.assert_array_equal(gm.InferenceSession(write(linear, MARK))(x), x[:, :3])
