"""ONNX models, from files, bytes or protocol buffers in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gristmill.errors import ArgumentError, ModelFormatError
from gristmill.graph import Graph
from gristmill.loaders.external_data import DataFolder
from gristmill.loaders.onnx_graph import to_graph
from gristmill.loaders.onnx_wire import StoredBytes, split
from gristmill.loaders.source import Source

if TYPE_CHECKING:
    from google.protobuf.message import Message
    from onnx import ModelProto, NodeProto

#: The types of attributes that hold nothing but numbers: FLOAT, INT, FLOATS, INTS.
_NUMBERS = frozenset({1, 2, 6, 7})
_TEXT = frozenset({str})


def recognizes(source: Source) -> bool:
    """Tell whether this looks like an ONNX model: a ModelProto in memory, or bytes that begin with its first field."""
    if type(source.given).__name__ == "ModelProto":
        return True
    return source.suffix == ".onnx" or source.head[:1] == b"\x08"


def load(source: Source) -> Graph:
    """The graph of an ONNX model.

    Raises:
        ArgumentError: The package onnx is not installed.
        ModelFormatError: The file is damaged or contradicts itself.
        UnsupportedOpError: It uses what gristmill does not run.
    """
    try:
        import onnx
    except ImportError as error:
        raise ArgumentError('reading ONNX models needs the package onnx: pip install "gristmill[onnx]"') from error
    if isinstance(source.given, onnx.ModelProto):
        return _graph(source.given, source, {})
    if source.stream is None:
        raise ModelFormatError("is not an ONNX model")
    content, weights = split(source.stream)
    return _graph(_parse(content), source, weights)


def _graph(model: ModelProto, source: Source, weights: dict[int, StoredBytes]) -> Graph:
    if not model.HasField("graph"):
        raise ModelFormatError("holds no graph; is it an ONNX model?")
    _require_text(model)
    return to_graph(model, DataFolder(source.path), weights)


def _require_text(model: Message) -> None:
    """Refuse names that are not valid UTF-8, which come out of the parser as bytes; remarks on values are not read."""
    from google.protobuf.descriptor import FieldDescriptor
    from google.protobuf.message import Message

    nested, text = FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_STRING
    left = [model]
    while left:
        for field, content in left.pop().ListFields():
            kind = field.type
            if kind == nested:
                left.extend((content,) if isinstance(content, Message) else _with_text(field.name, content))
            elif kind == text and not isinstance(content, str):
                for item in (content,) if isinstance(content, bytes) else content:
                    if not isinstance(item, str):
                        raise ModelFormatError(f"{field.name} is not valid UTF-8: {item!r:.80}")


def _with_text(field: str, messages: Sequence[Any]) -> Sequence[Any]:
    """The messages in a field of which more text is read than what is looked at here, or not even that is text."""
    if field == "node":
        return [item for node in messages for item in _of_node(node)]
    if field == "initializer":
        return [item for item in messages if not isinstance(item.name, str) or item.data_location]
    return () if field == "value_info" else messages


def _of_node(node: NodeProto) -> Sequence[Any]:
    """Those of its attributes; the node itself if its names are not text, or not all of its text."""
    names = (node.op_type, node.domain, node.name, node.doc_string, *node.input[:], *node.output[:])
    if not _TEXT.issuperset(map(type, names)) or node.overload or node.metadata_props:
        return (node,)
    return [
        item
        for item in node.attribute[:]
        if item.type not in _NUMBERS
        or not _TEXT.issuperset(map(type, (item.name, item.ref_attr_name, item.doc_string)))
    ]


def _parse(content: bytes) -> ModelProto:
    from google.protobuf.message import DecodeError
    from onnx import ModelProto

    model = ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise ModelFormatError("is damaged, or not an ONNX model: it does not parse") from error
    return model
