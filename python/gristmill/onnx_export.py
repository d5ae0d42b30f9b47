"""Graphs to ONNX files."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gristmill.errors import ArgumentError, LimitError
from gristmill.graph import Attribute, Graph, Node, ValueInfo
from gristmill.operators import ELEMENT_TYPES
from gristmill.passes.dynamic_layers import make_dynamic_layers
from gristmill.passes.editor import edited
from gristmill.passes.portable_bytes import make_bytes_portable
from gristmill.passes.turn_weights import turn_weights

if TYPE_CHECKING:
    from onnx import AttributeProto, NodeProto, ValueInfoProto

__all__ = ["to_onnx"]

_OLDEST_OPSET, _NEWEST_OPSET = 18, 28
_RUNTIME = "com.microsoft"
_LARGEST_FILE = (1 << 31) - 1


def to_onnx(graph: Graph) -> bytes:
    """The content of an ONNX file that holds the graph.

    Raises:
        ArgumentError: The package onnx is not installed.
        LimitError: The file would exceed 2 GiB.
    """
    try:
        from onnx import helper, numpy_helper
    except ImportError as error:
        raise ArgumentError('writing ONNX models needs the package onnx: pip install "gristmill[onnx]"') from error
    graph = edited(graph, make_dynamic_layers, turn_weights, make_bytes_portable)
    size = sum(value.nbytes for value in graph.constants.values())
    if size > _LARGEST_FILE:
        raise LimitError(f"weights of {size} bytes do not fit the 2 GiB of an ONNX file")
    opset = max((_opset(node, graph) for node in graph.nodes), default=_OLDEST_OPSET)
    nodes = [_node(node, opset) for node in graph.nodes]
    constants = [numpy_helper.from_array(np.asarray(v, order="C"), name) for name, v in graph.constants.items()]
    inputs, outputs = map(_value_info, graph.inputs), map(_value_info, graph.outputs)
    proto = helper.make_graph(nodes, "gristmill", list(inputs), list(outputs), constants)
    imports = [helper.make_opsetid("", opset)]
    if any(node.domain for node in nodes):
        imports.append(helper.make_opsetid(_RUNTIME, 1))
    least = helper.find_min_ir_version_for(imports[:1])
    model = helper.make_model(proto, opset_imports=imports, ir_version=least, producer_name="gristmill")
    return bytes(model.SerializeToString())


def _opset(node: Node, graph: Graph) -> int:
    """The first opset, from the oldest that graphs agree with on, that has this form of the operator."""
    from onnx import defs

    if node.op == "Resize" and node.attributes.get("coordinate_transformation_mode") == "half_pixel_symmetric":
        return 19
    zero_point = graph.constants.get(node.input(2)) if node.op in {"QuantizeLinear", "DequantizeLinear"} else None
    if zero_point is not None and zero_point.dtype.itemsize == 2:
        return 21
    for version in range(_OLDEST_OPSET, min(_NEWEST_OPSET, defs.onnx_opset_version()) + 1):
        known = defs.get_schema(node.op, version, "").attributes if defs.has(node.op, version, "") else None
        if known is not None and set(node.attributes) <= set(known):
            return version
    return _OLDEST_OPSET


def _node(node: Node, opset: int) -> NodeProto:
    from onnx import defs, helper

    standard = defs.has(node.op, opset, "")
    known = defs.get_schema(node.op, opset, "").attributes if standard else {}
    proto = helper.make_node(node.op, node.inputs, node.outputs, name=node.name, domain="" if standard else _RUNTIME)
    for name, value in node.attributes.items():
        kind = str(known[name].type).rpartition(".")[2] if name in known else ""
        proto.attribute.append(_attribute(name, value, kind))
    return proto


def _attribute(name: str, value: Attribute, kind: str) -> AttributeProto:
    """An attribute of the type that the schema asks for: whole numbers may stand for reals, empty lists for any."""
    from onnx import AttributeProto, helper, numpy_helper

    if isinstance(value, np.ndarray):
        return helper.make_attribute(name, numpy_helper.from_array(np.asarray(value, order="C")))
    if kind == "FLOAT" and isinstance(value, int):
        value = float(value)
    return helper.make_attribute(name, value, attr_type=AttributeProto.AttributeType.Value(kind) if kind else None)


def _value_info(info: ValueInfo) -> ValueInfoProto:
    from onnx import helper

    number = next(number for number, dtype in ELEMENT_TYPES.items() if dtype == info.dtype)
    return helper.make_tensor_value_info(info.name, number, info.shape)
