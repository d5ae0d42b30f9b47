"""Graphs as JSON: everything but the arrays, which stay beside it under names of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.errors import ModelFormatError
from gristmill.graph import Attribute, Graph, Node, ValueInfo

Array = npt.NDArray[Any]
Json = Any

_DTYPES = {np.dtype(name).name for name in ("bool", "f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8")}


def dump_graph(graph: Graph, store: Callable[[Array], str]) -> dict[str, Json]:
    """Return inputs, outputs and nodes; ``store`` keeps an attribute's array and returns its name."""
    return {
        "inputs": [_dump_info(info) for info in graph.inputs],
        "outputs": [_dump_info(info) for info in graph.outputs],
        "nodes": [
            {
                "op": node.op,
                "name": node.name,
                "inputs": list(node.inputs),
                "outputs": list(node.outputs),
                "attributes": {name: _dump_attribute(value, store) for name, value in node.attributes.items()},
            }
            for node in graph.nodes
        ],
    }


def load_graph(document: Mapping[str, Json], constants: Mapping[str, Array], arrays: Mapping[str, Array]) -> Graph:
    """The graph, checked.

    Raises:
        ModelFormatError: If the document describes none.
    """
    try:
        nodes = [
            Node(
                _text(entry["op"]),
                tuple(map(_text, entry["inputs"])),
                tuple(map(_text, entry["outputs"])),
                {_text(name): _load_attribute(value, arrays) for name, value in entry["attributes"].items()},
                _text(entry["name"]),
            )
            for entry in document["nodes"]
        ]
        inputs = tuple(_load_info(entry) for entry in document["inputs"])
        outputs = tuple(_load_info(entry) for entry in document["outputs"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ModelFormatError(f"describes a graph in an unknown way: {error!r:.200}") from None
    return Graph(inputs, outputs, tuple(nodes), constants).check()


def _dump_info(info: ValueInfo) -> Json:
    return {
        "name": info.name,
        "dtype": info.dtype.name,
        "shape": None if info.shape is None else list(info.shape),
    }


def _load_info(entry: Mapping[str, Json]) -> ValueInfo:
    shape = entry["shape"]
    if shape is not None and not all(type(extent) is str or _is_extent(extent) for extent in shape):
        raise ValueError(f"shape {shape!r}")
    if entry["dtype"] not in _DTYPES:
        raise ValueError(f"element type {entry['dtype']!r}")
    return ValueInfo(_text(entry["name"]), np.dtype(entry["dtype"]), None if shape is None else tuple(shape))


def _dump_attribute(value: Attribute, store: Callable[[Array], str]) -> Json:
    """An attribute with its kind, since JSON does not tell 1 from 1.0, nor an empty list of one type from another."""
    if isinstance(value, np.ndarray):
        return ["array", store(value)]
    if isinstance(value, tuple):
        kind = type(value[0]).__name__ if value else "int"
        return [f"{kind}s", [_dump_scalar(item) for item in value]]
    return [type(value).__name__, _dump_scalar(value)]


def _dump_scalar(value: float | str) -> Json:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _load_attribute(value: Json, arrays: Mapping[str, Array]) -> Attribute:
    kind, content = value
    if kind == "array":
        return arrays[content]
    if kind in _SCALARS:
        scalar: int | float | str = _SCALARS[kind](content)
        return scalar
    if isinstance(content, list) and kind[:-1] in _SCALARS and kind[-1] == "s":
        return tuple(map(_SCALARS[kind[:-1]], content))
    raise ValueError(f"attribute {value!r}")


def _is_extent(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, got {value!r}")
    return value


def _integer(value: object) -> int:
    if type(value) is not int:
        raise TypeError(f"expected an integer, got {value!r}")
    return value


_SCALARS: dict[str, Callable[[Any], Any]] = {"int": _integer, "float": float, "str": _text}
