"""Damaged and hostile ONNX files: each gives an error that names file and reason, soon, and nothing else."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gristmill as gm

pytest.importorskip("onnx")

import onnx
from onnx import ModelProto, helper

from hostile_files import check_refused
from onnx_models import FLOAT, external, model, node, tensor, value, with_tensor

W = np.ones((4, 3, 3, 3), np.float32)
IMAGE = [value("x", [1, 3, 8, 8])]
ONES = np.ones((2, 3), np.float32)


def conv(**attributes: Any) -> ModelProto:  # noqa: ANN401
    return model([node("Conv", "x w", **attributes)], IMAGE, w=W)


def i64(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, np.int64)


def changed(change: Callable[[ModelProto], object]) -> ModelProto:
    made = model([node("Add", "x w")], w=ONES)
    change(made)
    return made


def chain(count: int, last: str) -> ModelProto:
    """x, v1, v2, ... of one Relu each, of which the first reads ``last``."""
    names = [last, *(f"v{index}" for index in range(1, count)), "y"]
    return model([node("Relu", a, b, name=b) for a, b in itertools.pairwise(names)])


def nested(depth: int) -> ModelProto:
    """An If in an If, ..., whose conditions are all true."""
    other = helper.make_graph([node("Identity", "x", "y0")], "g", [], [value("y0", None)])
    inner = other
    for level in range(1, depth):
        choice = node("If", "c", f"y{level}", then_branch=inner, else_branch=other, name=f"if{level}")
        inner = helper.make_graph([choice], "g", [], [value(f"y{level}", None)])
    return model([node("If", "c", "y", then_branch=inner, else_branch=other)], c=np.array(True))


def recursive() -> ModelProto:
    call = helper.make_node("F", ["a"], ["b"], domain="mine", name="call")
    function = helper.make_function("mine", "F", ["a"], ["b"], [call], [helper.make_opsetid("mine", 1)])
    start = helper.make_node("F", ["x"], ["y"], domain="mine", name="start")
    return model([start], functions=[function], domains=["mine"])


def ballooning() -> ModelProto:
    """Functions that each call the next one eight times."""
    functions = []
    for level in range(9):
        calls = [
            helper.make_node(f"F{level + 1}", ["a"], ["b" if i == 7 else f"t{i}"], domain="mine") for i in range(8)
        ]
        body = calls if level < 8 else [helper.make_node("Relu", ["a"], ["b"])]
        imports = [helper.make_opsetid("mine", 1), helper.make_opsetid("", 17)]
        functions.append(helper.make_function("mine", f"F{level}", ["a"], ["b"], body, imports))
    start = helper.make_node("F0", ["x"], ["y"], domain="mine", name="start")
    return model([start], functions=functions, domains=["mine"])


def big(*extents: int) -> ModelProto:
    return model([node("ConstantOfShape", "s")], s=i64(*extents))


def computed_condition() -> ModelProto:
    branch = helper.make_graph([node("Identity", "x", "z")], "g", [], [value("z", None)])
    choice = node("If", "c", then_branch=branch, else_branch=branch)
    return model([node("Cast", "x", "c", to=9, name="m"), choice])


def sequence() -> ModelProto:
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, None))
    return model([node("Identity")], [helper.make_value_info("x", kind)])


def twice() -> ModelProto:
    made = conv(strides=[1, 1])
    made.graph.node[0].attribute.append(made.graph.node[0].attribute[0])
    return made


def many_graphs() -> ModelProto:
    return conv(strides=[nested(1).graph])


def short_branch() -> ModelProto:
    branch = helper.make_graph([], "g", [], [])
    return model([node("If", "c", then_branch=branch, else_branch=branch)], c=np.array(True))


MODELS: dict[str, tuple[str, Callable[[], ModelProto]]] = {
    "no graph": ("holds no graph", ModelProto),
    "opset 6": ("opset 6 is not supported", lambda: model([node("Relu")], opset=6)),
    "opset 99": ("opset 99 is not supported", lambda: model([node("Relu")], opset=99)),
    "two opsets": ("both imported", lambda: changed(lambda m: m.opset_import.append(helper.make_opsetid("", 13)))),
    "unknown operator": ("operator Frobnicate is not supported", lambda: model([node("Frobnicate")])),
    "unknown domain": ("operator other.Relu", lambda: model([node("Relu", domain="other")])),
    "unknown runtime op": ("com.microsoft.Attention", lambda: model([node("Attention", domain="com.microsoft")])),
    "newer operator": ("operator Gelu", lambda: model([node("Gelu")], opset=13)),
    "loop": ("only If with a constant condition", lambda: model([node("Loop", "n x", body=nested(1).graph)])),
    "computed condition": ("constant condition", computed_condition),
    "recursive function": ("nested deeper than 32", recursive),
    "ballooning functions": ("more than", ballooning),
    "cycle": ("depends on its own output", lambda: model([node("Add", "x z"), node("Relu", "y", "z", name="m")])),
    "own output": ("depends on its own output", lambda: model([node("Add", "x y")])),
    "long cycle": ("depends on its own output", lambda: chain(20_000, "v19999")),
    "written twice": ("exists already", lambda: model([node("Relu"), node("Abs", name="m")])),
    "writes an input": ("exists already", lambda: model([node("Relu", "w", "x")], outputs=[value("x", None)], w=ONES)),
    "writes a weight": ("exists already", lambda: model([node("Relu", "x", "w"), node("Abs", "w", name="m")], w=ONES)),
    "weight comes twice": (
        "comes twice",
        lambda: changed(lambda m: m.graph.initializer.append(m.graph.initializer[0])),
    ),
    "input comes twice": ("no name of its own", lambda: model([node("Relu")], [value("x", [1]), value("x", [1])])),
    "input without name": ("no name of its own", lambda: model([node("Relu")], [value("x", [1]), value("", [1])])),
    "weight without name": ("no name", lambda: with_tensor(tensor(name="", dims=[1], float_data=[1]))),
    "reads nothing known": ("nothing has written", lambda: model([node("Add", "x z")])),
    "output never written": ("written by no node", lambda: model([node("Relu", "x", "z")])),
    "negative input": ("is negative", lambda: model([node("Relu")], [value("x", [2, -3])])),
    "input of text": ("element type string", lambda: model([node("Relu")], [value("x", [2], onnx.TensorProto.STRING)])),
    "sequence": ("is not a tensor", sequence),
    "sparse weight": ("sparse initializers", lambda: changed(lambda m: m.graph.sparse_initializer.add())),
    "too few inputs": ("has 1 inputs", lambda: model([node("Conv")], IMAGE)),
    "too many inputs": ("has 3 inputs", lambda: model([node("Relu", "x x x")])),
    "too many results": ("has 2 results", lambda: model([node("Relu", "x", "y z")])),
    "input left out": ("input 1 is left out", lambda: model([node("Conv", "x -")], IMAGE)),
    "unknown attribute": ("did you mean strides", lambda: conv(stride=[1, 1])),
    "attribute of another type": ("must be of type INTS", lambda: conv(strides=2)),
    "attribute with text": ("must be of type INT", lambda: conv(group="two")),
    "attribute missing": ("needs the attribute", lambda: model([node("Cast")])),
    "attribute twice": ("comes twice", twice),
    "attribute of graphs": ("of a type that is not supported", many_graphs),
    "strides of 0": ("strides must lie", lambda: conv(strides=[0, 1])),
    "strides of 2^62": ("strides must lie", lambda: conv(strides=[2**62, 1])),
    "dilations of 2^31": ("dilations must lie", lambda: conv(dilations=[2**31, 1])),
    "pads below 0": ("pads must lie", lambda: conv(pads=[-1, 0, 0, 0])),
    "pads of 2^30": ("beyond 16 GiB", lambda: conv(pads=[2**30, 2**30, 2**30, 2**30])),
    "pads too few": ("pads needs 4 numbers", lambda: conv(pads=[1, 1])),
    "groups below 0": ("contradict", lambda: conv(group=-1)),
    "groups of 2^62": ("contradict", lambda: conv(group=2**62)),
    "kernel contradicts": ("contradicts weights", lambda: conv(kernel_shape=[5, 5])),
    "kernel beyond image": ("does not fit", lambda: model([node("Conv", "x w")], [value("x", [1, 3, 2, 2])], w=W)),
    "channels contradict": ("contradict", lambda: model([node("Conv", "x w")], [value("x", [1, 2, 8, 8])], w=W)),
    "no channels": ("contradict", lambda: model([node("Conv", "x w", group=0)], [value("x", [1, 0, 8, 8])], w=W)),
    "matrices contradict": ("do not go together", lambda: model([node("MatMul", "x w")], w=ONES)),
    "pool without kernel": ("needs the attribute kernel_shape", lambda: model([node("MaxPool")], IMAGE)),
    "pool of 2^62": ("must lie", lambda: model([node("MaxPool", kernel_shape=[2**62, 1])], IMAGE)),
    "huge constant": ("beyond 16 GiB", lambda: big(2**62, 2)),
    "overflowing constant": ("beyond 16 GiB", lambda: big(2**32, 2**32)),
    "negative constant": ("below zero", lambda: big(-1)),
    "huge expand": ("beyond 16 GiB", lambda: model([node("Expand", "x s")], s=i64(2**40, 1, 1))),
    "huge tile": ("beyond 16 GiB", lambda: model([node("Tile", "x s")], s=i64(2**60, 2))),
    "huge pad": ("beyond 16 GiB", lambda: model([node("Pad", "x s")], s=i64(2**40, 0, 0, 0))),
    "huge range": ("beyond 16 GiB", lambda: model([node("Range", "a b c")], a=i64(0)[0], b=i64(2**62)[0], c=i64(1)[0])),
    "huge resize": ("beyond 16 GiB", lambda: model([node("Resize", "x - - s")], IMAGE, s=i64(1, 1, 2**31, 2**31))),
    "infinite resize": (
        "scales",
        lambda: model([node("Resize", "x - s")], IMAGE, s=np.array([1, 1, np.inf, 1], np.float32)),
    ),
    "index out of range": ("out of bounds", lambda: model([node("Gather", "w i")], w=ONES, i=i64(7))),
    "reshape contradicts": ("cannot become", lambda: model([node("Reshape", "x s")], s=i64(5))),
    "top of too few": ("k is", lambda: model([node("TopK", "x k", "y z")], k=i64(9))),
    "data too short": ("needs 24 bytes", lambda: with_tensor(tensor(dims=[2, 3], raw_data=b"\0" * 20))),
    "data too long": ("needs 24 bytes", lambda: with_tensor(tensor(dims=[2, 3], raw_data=b"\0" * 28))),
    "items too few": ("needs 6 elements", lambda: with_tensor(tensor(dims=[2, 3], float_data=[1.0]))),
    "no data": ("needs 6 elements", lambda: with_tensor(tensor(dims=[2, 3]))),
    "negative weight": ("is not a shape", lambda: with_tensor(tensor(dims=[-2, -3], raw_data=b"\0" * 24))),
    "huge weight": ("beyond 16 GiB", lambda: with_tensor(tensor(dims=[2**31, 2**31, 4], raw_data=b"\0" * 24))),
    "weight of many axes": ("is not a shape", lambda: with_tensor(tensor(dims=[1] * 100, raw_data=b"\0" * 4))),
    "items out of range": ("out of range", lambda: with_tensor(tensor(dims=[1], data_type=3, int32_data=[300]))),
    "one of many items out of range": (
        "out of range",
        lambda: with_tensor(tensor(dims=[100], data_type=3, int32_data=[*range(99), 128])),
    ),
    "weight of no type": ("number 0", lambda: with_tensor(tensor(dims=[1], data_type=0, raw_data=b""))),
    "weight of float8": ("float8e4m3fn", lambda: with_tensor(tensor(dims=[1], data_type=17, raw_data=b"\0"))),
    "weight in segments": (
        "segments",
        lambda: with_tensor(tensor(dims=[1], segment=onnx.TensorProto.Segment(begin=1))),
    ),
    "data without place": ("needs one location", lambda: with_tensor(external([6]))),
    "data at no number": ("for an offset", lambda: with_tensor(external([6], location="d", offset="-4"))),
    "data at a huge number": ("for an offset", lambda: with_tensor(external([6], location="d", offset="9" * 40))),
    "data of another length": ("its length is 8", lambda: with_tensor(external([6], location="d", length="8"))),
    "branch returns too little": ("results", short_branch),
}


def refused(path: Path) -> gm.GristmillError:
    start = time.process_time()
    with pytest.raises(gm.GristmillError) as caught:
        gm.load(path)
    assert time.process_time() - start < 5
    assert caught.value.file == str(path)
    return caught.value


@pytest.mark.parametrize("name", MODELS)
def test_contradictions_are_refused(name: str, tmp_path: Path) -> None:
    reason, make = MODELS[name]
    path = tmp_path / "model.onnx"
    path.write_bytes(make().SerializeToString())
    assert reason in str(refused(path))


def test_refusals_take_little_time_and_memory(tmp_path: Path) -> None:
    check_refused(tmp_path, ((name, make().SerializeToString()) for name, (_, make) in MODELS.items()), ".onnx")


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    content = b""
    for _ in range(1000):
        for field in (6, 5, 1):  # the graph of an attribute, the attribute of a node, the node of a graph
            content = bytes([field << 3 | 2]) + varint(len(content)) + content
    path = tmp_path / "model.onnx"
    path.write_bytes(bytes([7 << 3 | 2]) + varint(len(content)) + content)
    assert "does not parse" in str(refused(path))
    assert len(gm.load(nested(30)).graph.nodes) == 31


def varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    content = model([node("Add", "x w")], w=ONES).SerializeToString()
    path = tmp_path / "model.onnx"
    for size in range(len(content)):
        path.write_bytes(content[:size])
        refused(path)


def test_changed_bytes_give_an_error_or_a_model() -> None:
    content = bytearray(model([node("Add", "x w")], w=ONES).SerializeToString())
    generator = np.random.default_rng(0)
    for place in range(len(content)):
        changed_bytes = bytearray(content)
        changed_bytes[place] ^= int(generator.integers(1, 256))
        try:
            gm.load(bytes(changed_bytes))
        except gm.GristmillError:
            continue


@pytest.mark.parametrize("content", [b"", b"PK\3\4 something", b"\x08", b"\xff" * 100, b"{}"])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    for name in ("model.onnx", "model", "model.bin"):
        path = tmp_path / name
        path.write_bytes(content)
        refused(path)


def test_names_that_are_not_text_are_refused(tmp_path: Path) -> None:
    content = model([node("Add", "x weight")], weight=ONES).SerializeToString()
    path = tmp_path / "model.onnx"
    path.write_bytes(content.replace(b"weight", b"w\xff\xfe\xfdht"))
    refused(path)


_NAMES = ("operator", "domain", "node", "remark", "input", "output", "overload", "key", "setting")
_NAMES_WITHIN = ("attribute", "reference", "comment", "tensor", "axis")


@pytest.mark.parametrize("name", [*_NAMES, *_NAMES_WITHIN])
def test_each_name_that_is_not_text_is_refused(name: str, tmp_path: Path) -> None:
    made = helper.make_node("the operator", ["the input"], ["the output"], "the node", "the remark", "the domain")
    made.overload = "the overload" if name == "overload" else ""
    if name in {"key", "setting"}:
        made.metadata_props.add(key="the key", value="the setting")
    made.attribute.add(name="the attribute", type="INT", ref_attr_name="the reference", doc_string="the comment")
    made.attribute.add(name="held", type="TENSOR", t=tensor(name="the tensor"))
    content = model([made], [value("x", ["the axis"])]).SerializeToString()
    path = tmp_path / "model.onnx"
    found = f"the {name}".encode()
    assert found in content
    path.write_bytes(content.replace(found, b"\xff" * len(found)))
    assert "is not valid UTF-8" in str(refused(path))


@pytest.mark.parametrize(
    "location", ["/etc/passwd", "../secret", "a/../../secret", "", ".", "sub", "no such file", "a\0b", "C:\\x", "..\\x"]
)
def test_external_data_elsewhere_is_refused(location: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(24))
    (tmp_path / "home" / "sub").mkdir(parents=True)
    path = tmp_path / "home" / "model.onnx"
    path.write_bytes(with_tensor(external([2, 3], location=location)).SerializeToString())
    assert "external data" in str(refused(path))


@pytest.mark.parametrize("trap", ["link", "linked folder", "hard link", "pipe", "device", "short"])
def test_traps_in_place_of_external_data_are_refused(trap: str, tmp_path: Path) -> None:
    outside, home = tmp_path / "outside", tmp_path / "home"
    outside.mkdir()
    home.mkdir()
    (outside / "secret").write_bytes(bytes(24))
    location = {"linked folder": "sub/secret"}.get(trap, "data")
    traps: dict[str, Callable[[], object]] = {
        "link": lambda: (home / "data").symlink_to(outside / "secret"),
        "linked folder": lambda: (home / "sub").symlink_to(outside),
        "hard link": lambda: (home / "data").hardlink_to(outside / "secret"),
        "pipe": lambda: os.mkfifo(home / "data"),
        "device": lambda: (home / "data").symlink_to("/dev/zero"),
        "short": lambda: (home / "data").write_bytes(bytes(23)),
    }
    try:
        traps[trap]()
    except (OSError, AttributeError) as error:
        pytest.skip(f"cannot be made here: {error}")
    path = home / "model.onnx"
    path.write_bytes(with_tensor(external([2, 3], location=location)).SerializeToString())
    reasons = {"pipe": "is not a regular file", "hard link": "has hard links", "short": "has 23 bytes"}
    assert reasons.get(trap, "leads outside") in str(refused(path))


def test_links_in_circles_are_refused(tmp_path: Path) -> None:
    try:
        (tmp_path / "data").symlink_to("data")
    except OSError as error:
        pytest.skip(f"cannot be made here: {error}")
    path = tmp_path / "model.onnx"
    path.write_bytes(with_tensor(external([2, 3], location="data")).SerializeToString())
    assert "external data 'data' cannot be read: " in str(refused(path))


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="links and flags are POSIX's")
@pytest.mark.parametrize("trick", ["swapped for a link", "cut"])
def test_external_data_that_changes_while_it_is_read_is_refused(
    trick: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, secret = tmp_path / "home", tmp_path / "secret"
    home.mkdir()
    secret.write_bytes(bytes(24))
    data, path = home / "data", home / "model.onnx"
    data.write_bytes(bytes(24))
    path.write_bytes(with_tensor(external([2, 3], location="data")).SerializeToString())
    resolve, facts_of = Path.resolve, os.fstat

    def swap(self: Path, strict: bool = False) -> Path:
        found = resolve(self, strict)
        if found == data:
            data.unlink()
            data.symlink_to(secret)
        return found

    def cut(descriptor: int) -> os.stat_result:
        facts = facts_of(descriptor)
        if facts.st_size == 24:
            os.truncate(data, 23)
        return facts

    monkeypatch.setattr(*((Path, "resolve", swap) if trick == "swapped for a link" else (os, "fstat", cut)))
    reason = {"swapped for a link": "cannot be read: ", "cut": "became shorter while it was read"}[trick]
    assert f"w: external data 'data' {reason}" in str(refused(path))


def test_texts_in_attributes_that_are_none_are_refused(tmp_path: Path) -> None:
    path, made = tmp_path / "model.onnx", conv(auto_pad="VALID")
    made.graph.node[0].attribute[0].s = b"\xff\xfe"
    path.write_bytes(made.SerializeToString())
    assert "Conv: attribute auto_pad is not valid UTF-8: " in str(refused(path))


def test_special_files_are_refused(tmp_path: Path) -> None:
    refused(tmp_path)
    with pytest.raises(FileNotFoundError):
        gm.load(tmp_path / "nothing.onnx")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.onnx")
        refused(tmp_path / "pipe.onnx")
