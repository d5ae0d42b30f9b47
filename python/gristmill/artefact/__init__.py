"""Artefacts: a model in one ``.grist`` file, sparse and int8 as it runs, with nothing in it that could be executed.

The file is a safetensors container (:mod:`gristmill.artefact.container`): weights as tensors under their own names, the
graph as JSON in the metadata. Arrays of mostly zeros are stored as gaps and nonzeros
(:mod:`gristmill.artefact.sparse_coding`). What a processor likes best is decided when a session is made, never stored.

``format_version`` is MAJOR.MINOR. A reader takes every minor version of its major one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill._core import __version__
from gristmill.artefact import sparse_coding
from gristmill.artefact.atomic_file import replace_file
from gristmill.artefact.container import (
    Container,
    pack,
    parse_json,
    read_metadata,
    starts_like_container,
    unpack,
)
from gristmill.artefact.graph_json import dump_graph, load_graph
from gristmill.errors import ModelFormatError, errors_at
from gristmill.graph import Graph

__all__ = [
    "FORMAT_VERSION",
    "is_artefact",
    "load_artefact",
    "pack_artefact",
    "save_artefact",
    "stored_report",
    "unpack_artefact",
]

Array = npt.NDArray[Any]

FORMAT_VERSION = "1.0"
_SPARSE_DTYPES = (np.dtype(np.int8), np.dtype(np.uint8), np.dtype(np.float32))
_PARTS = ("gaps", "values", "order")
_WORTHWHILE = 0.9
_LONGEST_VERSION = 32


def is_artefact(head: bytes) -> bool:
    """Tell by the first 64 bytes whether a file is an artefact."""
    return starts_like_container(head)


def save_artefact(graph: Graph, path: str | os.PathLike[str], report: str | None = None) -> None:
    """Write a graph to a file, which is replaced in one step, and a text on how it was made.

    Raises:
        OSError: If it cannot be written; an existing file is then as it was.
    """
    replace_file(path, pack_artefact(graph, report))


def load_artefact(path: str | os.PathLike[str]) -> Graph:
    """Read a graph.

    Raises:
        ModelFormatError: If the file is damaged, is no artefact, or needs a newer gristmill.
        LimitError: If a tensor is too large.
    """
    with errors_at(file=os.fspath(path)):
        with open(path, "rb") as file:
            data = file.read()
        return unpack_artefact(data)


def pack_artefact(graph: Graph, report: str | None = None) -> list[bytes | memoryview]:
    """Return the parts of a graph's file, which are to be written one after the other."""
    tensors: dict[str, Array] = {}

    def store(array: Array, wanted: str) -> str:
        name, count = wanted, 0
        while name in tensors or name == "__metadata__":
            count += 1
            name = f"{wanted}.{count}"
        tensors[name] = array
        return name

    constants = {name: _store_constant(value, name, store) for name, value in graph.constants.items()}
    document = dump_graph(graph, lambda array: store(array, "attribute"))
    metadata = {
        "format": "gristmill",
        "format_version": FORMAT_VERSION,
        "needs": __version__,
        "graph": json.dumps(document, separators=(",", ":")),
        "constants": json.dumps(constants, separators=(",", ":")),
    }
    return pack(metadata if report is None else {**metadata, "report": report}, tensors)


def unpack_artefact(data: bytes | memoryview) -> Graph:
    """Read a graph from a file's bytes.

    Example:
        >>> from gristmill.graph import GraphBuilder
        >>> builder = GraphBuilder()
        >>> x = builder.input("x", "float32", ("n", 4))
        >>> data = b"".join(pack_artefact(builder.build([builder.add("Relu", [x])])))
        >>> unpack_artefact(data).nodes[0].op
        'Relu'
        >>> unpack_artefact(data[:-1])
        Traceback (most recent call last):
        gristmill.errors.ModelFormatError: is damaged: its checksum does not match its content
    """
    container = unpack(data)
    _require_readable(container.metadata)
    document = parse_json(container.metadata.get("graph", ""))
    entries = parse_json(container.metadata.get("constants", ""))
    constants = {name: _load_constant(name, entry, container) for name, entry in entries.items()}
    return load_graph(document, constants, container.tensors)


def stored_report(data: bytes | memoryview) -> str | None:
    """The text on how a graph was made, of bytes that :func:`unpack_artefact` has read."""
    return read_metadata(data).get("report")


def _require_readable(metadata: Mapping[str, str]) -> None:
    version = metadata.get("format_version", "")
    major = version.partition(".")[0]
    numbered = major.isascii() and major.isdigit() and len(version) <= _LONGEST_VERSION
    if metadata.get("format") != "gristmill" or not numbered:
        raise ModelFormatError("is not a gristmill artefact")
    if int(major) > int(FORMAT_VERSION.partition(".")[0]):
        needs = metadata.get("needs", "a newer version")
        raise ModelFormatError(f"has format {version}: needs gristmill >= {needs}, this is {__version__}")


def _store_constant(value: Array, name: str, store: Callable[[Array, str], str]) -> dict[str, object]:
    if value.ndim and value.dtype in _SPARSE_DTYPES and 2 * np.count_nonzero(value) < value.size:
        coded = sparse_coding.encode(value)
        if coded.nbytes < _WORTHWHILE * value.nbytes:
            parts = {part: store(getattr(coded, part), f"{name}.{part}") for part in _PARTS}
            return {"dtype": value.dtype.name, "shape": list(value.shape), "nonzeros": coded.nonzeros, **parts}
    return {"dense": store(value, name)}


def _load_constant(name: str, entry: dict[str, Any], container: Container) -> Array:
    try:
        if "dense" in entry:
            return container.tensors[entry["dense"]]
        gaps, values, order = (container.tensors[entry[part]] for part in _PARTS)
        dtype, shape, nonzeros = entry["dtype"], tuple(entry["shape"]), entry["nonzeros"]
        sound = all(type(extent) is int and 0 <= extent < 2**63 for extent in (*shape, nonzeros))
        if not sound or len(shape) > 32 or dtype not in {item.name for item in _SPARSE_DTYPES}:
            raise ValueError(f"{dtype} {shape}, {nonzeros} nonzeros")
        if [part.dtype.name for part in (gaps, values, order)] != ["uint8", "uint8", "uint32"]:
            raise ValueError(f"{gaps.dtype} gaps, {values.dtype} values")
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFormatError(f"is stored in an unknown way: {error!r:.200}", node=name) from None
    coded = sparse_coding.Coded(gaps.reshape(-1), values.reshape(-1), order.reshape(-1), nonzeros)
    with errors_at(node=name):
        return sparse_coding.decode(coded, np.dtype(dtype), shape)
