"""ONNX attributes to those of graphs, checked against the operator's schema."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from gristmill.errors import ModelFormatError, UnsupportedOpError
from gristmill.graph import Attribute
from gristmill.loaders.external_data import DataFolder
from gristmill.loaders.onnx_schemas import Schema
from gristmill.loaders.onnx_tensors import to_array

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, NodeProto

_FLOAT, _INT, _STRING, _TENSOR, _GRAPH, _FLOATS, _INTS, _STRINGS, _GRAPHS = 1, 2, 3, 4, 5, 6, 7, 8, 10
#: What schemas call them.
_KINDS = {
    _FLOAT: "FLOAT",
    _INT: "INT",
    _STRING: "STRING",
    _TENSOR: "TENSOR",
    _GRAPH: "GRAPH",
    _FLOATS: "FLOATS",
    _INTS: "INTS",
    _STRINGS: "STRINGS",
    _GRAPHS: "GRAPHS",
}


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("utf-8")


_READERS: dict[int, Callable[[AttributeProto, DataFolder], Attribute]] = {
    _FLOAT: lambda proto, folder: float(proto.f),
    _INT: lambda proto, folder: int(proto.i),
    _STRING: lambda proto, folder: _text(proto.s),
    _TENSOR: lambda proto, folder: to_array(proto.t, folder),
    _FLOATS: lambda proto, folder: tuple(proto.floats[:]),
    _INTS: lambda proto, folder: tuple(proto.ints[:]),
    _STRINGS: lambda proto, folder: tuple(map(_text, proto.strings[:])),
}


def read_attributes(
    node: NodeProto, protos: Sequence[AttributeProto], folder: DataFolder
) -> tuple[dict[str, Attribute], dict[str, GraphProto]]:
    """The attributes of a node, which are ``protos``, by name, and the graphs among them.

    Raises:
        ModelFormatError: One comes twice, or is not of the type that it claims.
        UnsupportedOpError: One has a type that graphs do not hold.
    """
    attributes: dict[str, Attribute] = {}
    graphs: dict[str, GraphProto] = {}
    for proto in protos:
        name = proto.name
        if name in attributes or name in graphs:
            raise ModelFormatError(f"{node.op_type}: attribute {name} comes twice", node=node.name or None)
        kind = proto.type or _guessed_type(proto)
        if kind == _GRAPH:
            graphs[name] = proto.g
        elif kind in _READERS:
            try:
                attributes[name] = _READERS[kind](proto, folder)
            except UnicodeDecodeError as error:
                reason = f"{node.op_type}: attribute {name} is not valid UTF-8: {error.object!r:.80}"
                raise ModelFormatError(reason, node=node.name or None) from None
        else:
            reason = f"{node.op_type}: attribute {name} is of a type that is not supported"
            raise UnsupportedOpError(reason, node=node.name or None)
    return attributes, graphs


def _guessed_type(proto: AttributeProto) -> int:
    """The type of an attribute that does not state it, as files of the first version do."""
    fields = {"f": _FLOAT, "i": _INT, "s": _STRING, "t": _TENSOR, "g": _GRAPH}
    lists = {"floats": _FLOATS, "ints": _INTS, "strings": _STRINGS}
    for name, kind in fields.items():
        if proto.HasField(name):
            return kind
    return next((kind for name, kind in lists.items() if getattr(proto, name)), 0)


def check_attributes(node: NodeProto, protos: Sequence[AttributeProto], schema: Schema) -> None:
    """Refuse attributes, ``protos``, that the operator's schema does not have or has with another type.

    Raises:
        ModelFormatError: Naming the node and the attribute.
    """
    names = set()
    for proto in protos:
        name = proto.name
        names.add(name)
        wanted = schema.kinds.get(name)
        if wanted is None:
            near = difflib.get_close_matches(name, schema.kinds, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            reason = f"{node.op_type}: there is no attribute {name!r} at opset {schema.since}{hint}"
            raise ModelFormatError(reason, node=node.name or None)
        kind = proto.type or _guessed_type(proto)
        if kind and wanted != _KINDS.get(kind):
            reason = f"{node.op_type}: attribute {name} must be of type {wanted}"
            raise ModelFormatError(reason, node=node.name or None)
    for name in schema.required:
        if name not in names:
            raise ModelFormatError(f"{node.op_type}: needs the attribute {name}", node=node.name or None)
