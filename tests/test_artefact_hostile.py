"""Artefacts with a right digest that were not written by gristmill: each is refused by an error that names the file."""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gristmill as gm
from gristmill.artefact import pack_artefact, sparse_coding
from gristmill.graph import GraphBuilder
from gristmill.operators import registry

Header = dict[str, Any]


def parts() -> tuple[Header, bytes]:
    builder = GraphBuilder()
    scaled = builder.add("Mul", [builder.input("x", np.float32, ("n", 6)), builder.constant("w", np.ones(6, "f4"))])
    data = b"".join(pack_artefact(builder.build([builder.add("LeakyRelu", [scaled], name="curve", alpha=0.5)])))
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def sealed(header: Header, body: bytes, length: int | None = None) -> bytes:
    """A file of this content, whose digest is right."""
    text = json.dumps(header, separators=(",", ":")).encode()
    data = (len(text) if length is None else length).to_bytes(8, "little") + text + body
    start = data.index(b'"sha256":"') + 10
    digest = hashlib.sha256(data[:start] + b"0" * 64 + data[start + 64 :]).hexdigest().encode()
    return data[:start] + digest + data[start + 64 :]


def refused(path: Path, data: bytes) -> gm.GristmillError:
    path.write_bytes(data)
    with pytest.raises(gm.GristmillError) as caught:
        gm.load(path)
    assert caught.value.file == str(path)
    return caught.value


def set_text(name: str, text: object) -> Callable[[Header], None]:
    return lambda header: header["__metadata__"].update({name: text})


def set_node(**entries: object) -> Callable[[Header], None]:
    def change(header: Header) -> None:
        document = json.loads(header["__metadata__"]["graph"])
        document["nodes"][1].update(entries)
        header["__metadata__"]["graph"] = json.dumps(document)

    return change


def add_empty(*shape: int) -> Callable[[Header], None]:
    entry = {"dtype": "F32", "shape": list(shape), "data_offsets": [24, 24]}
    return lambda header: header.update(empty=entry)


CHANGES: dict[str, tuple[Callable[[Header], None], str]] = {
    "version of many digits": (set_text("format_version", "9" * 5000), "is not a gristmill artefact"),
    "endless real": (set_node(attributes={"alpha": ["float", 10**400]}), "unknown way: OverflowError"),
    "metadata that is no text": (set_text("report", 7), "metadata that is no text"),
    "huge empty tensor": (add_empty(2**62, 0), r"empty: shape \[4611686018427387904, 0\] is beyond 16 GiB"),
    "too many axes": (add_empty(*[0] * 33), "empty: has the shape"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_headers_are_checked(name: str, tmp_path: Path) -> None:
    change, reason = CHANGES[name]
    header, body = parts()
    change(header)
    assert re.search(reason, str(refused(tmp_path / "m.grist", sealed(header, body))))


def test_as_many_axes_as_fit_are_read() -> None:
    header, body = parts()
    add_empty(*[0] * 32)(header)
    gm.load(sealed(header, body))


@pytest.mark.parametrize("beyond", [1, 2**62])
def test_headers_longer_than_the_file_are_refused(beyond: int, tmp_path: Path) -> None:
    header, body = parts()
    length = len(sealed(header, body)) - 8 + beyond
    assert "more than fits" in str(refused(tmp_path / "m.grist", sealed(header, body, length)))


def test_bytes_of_no_tensor_are_refused(tmp_path: Path) -> None:
    header, body = parts()
    assert "has 3 bytes that belong to no tensor" in str(refused(tmp_path / "m.grist", sealed(header, body + bytes(3))))


def test_tables_that_are_missing_or_short_are_refused() -> None:
    header, body = parts()
    x = np.ones((1, 6), np.float32)
    for attributes in ({}, {"table": ["array", "w"]}):
        set_node(op="Lookup", attributes=attributes)(header)
        with pytest.raises(gm.ModelFormatError, match=r"curve: Lookup: .* table"):
            gm.InferenceSession(sealed(header, body))(x)


def bomb(count: int) -> bytes:
    """A tensor of many zeros in few bytes."""

    def coded(plain: bytes) -> bytes:
        coder = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
        return coder.compress(plain) + coder.flush()

    gaps = coded(b"\xff" * (count // 255) + bytes([count % 255]))
    body = bytes(4) + gaps + coded(b"")
    places = {"o": ("U32", 1, 0, 4), "g": ("U8", len(gaps), 4, 4 + len(gaps)), "v": ("U8", 2, 4 + len(gaps), len(body))}
    header, _ = parts()
    entry = {"dtype": "int8", "shape": [1, count], "nonzeros": 0, "gaps": "g", "values": "v", "order": "o"}
    outputs = [{"name": "w", "dtype": "int8", "shape": None}]
    header["__metadata__"]["constants"] = json.dumps({"w": entry})
    header["__metadata__"]["graph"] = json.dumps({"inputs": [], "nodes": [], "outputs": outputs})
    tensors = {
        name: {"dtype": dtype, "shape": [size], "data_offsets": [start, end]}
        for name, (dtype, size, start, end) in places.items()
    }
    return sealed({"__metadata__": header["__metadata__"], **tensors}, body)


def test_sparse_tensors_have_the_limits_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gm.load(bomb(1000)).weights()["w"].shape == (1, 1000)
    monkeypatch.setattr(registry, "LARGEST_TENSOR", 999)
    error = refused(tmp_path / "m.grist", bomb(1000))
    assert isinstance(error, gm.LimitError)
    assert str(error).startswith(f"{tmp_path / 'm.grist'}: w: shape [1, 1000] is beyond")


def test_lack_of_memory_names_file_and_tensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lack(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(sparse_coding, "decode", lack)
    error = refused(tmp_path / "m.grist", bomb(1000))
    assert isinstance(error, gm.OutOfMemoryError)
    assert (error.node, error.reason) == ("w", "memory does not suffice")


def test_empty_files_are_named(tmp_path: Path) -> None:
    assert str(refused(tmp_path / "m.grist", b"")) == f"{tmp_path / 'm.grist'}: is empty"
    with pytest.raises(gm.ModelFormatError, match="int is not of a format"):
        gm.load(7)


def test_files_open_for_text_are_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "m.grist"
    path.write_bytes(sealed(*parts()) + b"\xff")
    with (
        path.open(encoding="utf-8") as file,
        pytest.raises(gm.ArgumentError, match="open the file in binary mode") as caught,
    ):
        gm.load(file)
    assert caught.value.file == str(path)
