"""Small ONNX models for tests, made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import pytest

pytest.importorskip("onnx")

import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]
FLOAT = TensorProto.FLOAT


def value(name: str, shape: Sequence[int | str] | None, kind: int = FLOAT) -> onnx.ValueInfoProto:
    """A float input or output."""
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto] = (),
    outputs: Sequence[onnx.ValueInfoProto] | None = None,
    *,
    opset: int = 17,
    functions: Sequence[onnx.FunctionProto] = (),
    domains: Sequence[str] = (),
    **constants: Array,
) -> onnx.ModelProto:
    """A model of these nodes; x (2 by 3) in and y out if nothing else is said."""
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(
        nodes, "g", inputs or [value("x", [2, 3])], [value("y", None)] if outputs is None else outputs, tensors
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports, functions=functions, ir_version=8)


def node(op: str, inputs: str = "x", outputs: str = "y", **attributes: Any) -> onnx.NodeProto:  # noqa: ANN401
    """A node named ``n``; names of values are separated by spaces, a dash is one left out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op, names, outputs.split(), name=attributes.pop("name", "n"), **attributes)


def tensor(**fields: Any) -> onnx.TensorProto:  # noqa: ANN401
    """A tensor w of exactly these fields."""
    return onnx.TensorProto(**{"name": "w", "data_type": FLOAT, **fields})


def external(shape: Sequence[int], **entries: str) -> onnx.TensorProto:
    """A tensor w whose data is elsewhere."""
    pairs = [onnx.StringStringEntryProto(key=key, value=text) for key, text in entries.items()]
    return tensor(dims=shape, data_location=TensorProto.EXTERNAL, external_data=pairs)


def with_tensor(weight: onnx.TensorProto) -> onnx.ModelProto:
    """x plus the tensor w."""
    made = model([node("Add", "x w")])
    made.graph.initializer.append(weight)
    return made
