"""An ONNX model to a graph: names made unique, opsets brought to one, constants decoded, what is constant inlined."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gristmill.errors import LimitError, ModelFormatError, UnsupportedOpError
from gristmill.graph import Array, Attribute, Dimension, Graph, GraphBuilder, Node, ValueInfo
from gristmill.loaders.external_data import DataFolder
from gristmill.loaders.onnx_attributes import check_attributes, read_attributes
from gristmill.loaders.onnx_opsets import NEWEST_OPSET, OLDEST_OPSET, REWRITTEN, convert
from gristmill.loaders.onnx_schemas import find_schema
from gristmill.loaders.onnx_tensors import element_type, to_array
from gristmill.loaders.onnx_wire import StoredBytes
from gristmill.operators import OPERATORS

if TYPE_CHECKING:
    from onnx import (
        AttributeProto,
        FunctionProto,
        GraphProto,
        ModelProto,
        NodeProto,
        OperatorSetIdProto,
        TensorShapeProto,
        ValueInfoProto,
    )

_STANDARD = frozenset({"", "ai.onnx"})
_RUNTIME = "com.microsoft"
_RUNTIME_OPS = frozenset({"DequantizeLinear", "Gelu", "QGemm", "QuantizeLinear", "QuickGelu"})
_DEEPEST = 32
_MOST_INLINED = 20_000


@dataclass(frozen=True)
class _Scope:
    """What names mean: in the graph itself, in a branch of an If, or in a function that was called.

    Attributes:
        prefix: What new names begin with; empty in the graph itself.
        names: The value that each name stands for.
        opsets: The version of each operator domain.
        depth: How many calls and branches this is inside of.
        closed: Whether names from outside are unknown here, as in a function.
    """

    prefix: str
    names: dict[str, str]
    opsets: Mapping[str, int]
    depth: int = 0
    closed: bool = False

    def read(self, reader: NodeProto, names: Iterable[str]) -> tuple[str, ...]:
        """The values that names stand for."""
        found = tuple(names)
        if self.closed:
            for name in found:
                if name and name not in self.names:
                    reason = f"{reader.op_type}: reads {name!r}, which nothing has written"
                    raise ModelFormatError(reason, node=reader.name or None)
        return tuple(map(self.names.get, found, found)) if self.names else found


def to_graph(model: ModelProto, folder: DataFolder, stored: Mapping[int, StoredBytes]) -> Graph:
    """Translate a model; ``stored`` is the raw data of initializers, by their number, that is not in the model.

    Raises:
        ModelFormatError: The model contradicts itself.
        UnsupportedOpError: It uses what gristmill does not run.
        LimitError: A tensor or a nesting is beyond what gristmill takes.
    """
    return _Importer(model, folder).run(stored)


class _Importer:
    def __init__(self, model: ModelProto, folder: DataFolder) -> None:
        graph = model.graph
        self._graph = graph
        self._folder = folder
        self._opsets = _opsets(model.opset_import, model.ir_version)
        self._functions = {(item.domain, item.name): item for item in model.functions}
        values = [name for node in graph.node for name in (*node.input[:], *node.output[:])]
        declared = [item.name for item in (*graph.input, *graph.output, *graph.initializer)]
        self._builder = GraphBuilder([*values, *declared, *(node.name for node in graph.node), ""])
        self._node_names: set[str] = set()
        self._ranks = {item.name: _rank(item) for item in (*graph.value_info, *graph.input, *graph.output)}
        self._count = 0
        self._inlined = 0

    def run(self, stored: Mapping[int, StoredBytes]) -> Graph:
        graph = self._graph
        if graph.sparse_initializer:
            raise UnsupportedOpError("sparse initializers are not supported; store them dense")
        scope = _Scope("", {}, self._opsets)
        self._add_initializers(graph, scope, stored)
        for item in graph.input:
            if item.name not in self._builder.constants:
                info = _value_info(item, "input")
                self._builder.input(info.name, info.dtype, info.shape)
        for node in graph.node:
            self._add_node(node, scope)
        found = self._builder.assemble([_value_info(item, "output") for item in graph.output])
        return found.in_order().check().without_dead()

    def _add_initializers(self, graph: GraphProto, scope: _Scope, stored: Mapping[int, StoredBytes]) -> None:
        for number, tensor in enumerate(graph.initializer):
            if not tensor.name:
                raise ModelFormatError("an initializer has no name")
            value = to_array(tensor, self._folder, stored.get(number))
            self._builder.add_constant(self._define(tensor.name, scope), value)

    def _define(self, name: str, scope: _Scope) -> str:
        """The graph's name for a value that this scope writes."""
        if not name or not scope.prefix:
            return name
        scope.names[name] = self._builder.fresh(f"{scope.prefix}/{name}")
        return scope.names[name]

    def _add_node(self, proto: NodeProto, scope: _Scope) -> None:
        self._count += 1
        self._inlined += scope.depth > 0
        if self._inlined > _MOST_INLINED:
            raise LimitError(f"more than {_MOST_INLINED} nodes in branches and functions")
        function = self._functions.get((proto.domain, proto.op_type))
        inputs = scope.read(proto, proto.input[:])
        protos = proto.attribute[:]
        attributes, graphs = read_attributes(proto, protos, self._folder)
        if function is not None:
            self._call(proto, function, inputs, scope)
            return
        op, results = proto.op_type, proto.output[:]
        version = self._check(proto, protos, (len(inputs), len(results)), scope)
        if graphs:
            self._branch(proto, graphs, inputs, scope)
            return
        outputs = tuple([self._define(name, scope) for name in results])
        if op == "Constant":
            self._builder.add_constant(outputs[0], _constant(proto, attributes))
            return
        name = self._name(proto.name or f"{op}_{self._count}", scope)
        node = Node(op, inputs, outputs, attributes, name)
        for part in convert(self._builder, node, version, self._ranks):
            self._require_known(part)
            self._builder.add_node(part)

    def _name(self, wanted: str, scope: _Scope) -> str:
        name = f"{scope.prefix}/{wanted}" if scope.prefix else wanted
        if name in self._node_names:
            name = self._builder.fresh(name)
        self._node_names.add(name)
        return name

    def _check(
        self, proto: NodeProto, attributes: Sequence[AttributeProto], counts: tuple[int, int], scope: _Scope
    ) -> int:
        """Check a node, of which counts are of inputs and results, against its opset's schema; return its version."""
        place, domain, op = proto.name or None, proto.domain, proto.op_type
        if domain == _RUNTIME:
            if not _of_runtime(op):
                raise _unknown(f"{_RUNTIME}.{op}", place)
            return NEWEST_OPSET
        if domain not in _STANDARD:
            raise _unknown(f"{domain}.{op}", place)
        version = scope.opsets.get("")
        if version is None:
            raise ModelFormatError("the model imports no opset of ONNX's own operators", node=place)
        schema = find_schema(op, version)
        if schema is None:
            raise _unknown(op, place)
        if op != "Constant":
            check_attributes(proto, attributes, schema)
        _check_count(proto, "inputs", counts[0], schema.inputs)
        _check_count(proto, "results", counts[1], schema.results)
        return version

    def _require_known(self, node: Node) -> None:
        if node.op not in OPERATORS:
            raise _unknown(node.op, node.name)

    def _branch(
        self, proto: NodeProto, graphs: Mapping[str, GraphProto], inputs: tuple[str, ...], scope: _Scope
    ) -> None:
        """Put the branch of an If with a constant condition in its place."""
        place = proto.name or None
        condition = self._builder.constants.get(inputs[0]) if proto.op_type == "If" else None
        if condition is None or condition.size != 1:
            reason = f"{proto.op_type}: of control flow, only If with a constant condition is supported"
            raise UnsupportedOpError(reason, node=place)
        branch = graphs["then_branch" if condition.item() else "else_branch"]
        inner = self._inner(proto, {**scope.names}, scope.opsets, scope, closed=scope.closed)
        self._add_initializers(branch, inner, {})
        for node in branch.node:
            self._add_node(node, inner)
        self._return(proto, [item.name for item in branch.output], inner, scope)

    def _call(self, proto: NodeProto, function: FunctionProto, inputs: tuple[str, ...], scope: _Scope) -> None:
        """Put the nodes of a function in the place of its call."""
        given = {attribute.name: attribute for attribute in proto.attribute}
        defaults = {attribute.name: attribute for attribute in function.attribute_proto}
        names = dict(zip(function.input, inputs, strict=False))
        names.update((name, "") for name in function.input[len(inputs) :])
        inner = self._inner(proto, names, _opsets(function.opset_import, 8), scope, closed=True)
        for node in function.node:
            self._add_node(_with_attributes(node, {**defaults, **given}), inner)
        self._return(proto, list(function.output), inner, scope)

    def _inner(
        self, proto: NodeProto, names: dict[str, str], opsets: Mapping[str, int], scope: _Scope, *, closed: bool
    ) -> _Scope:
        if scope.depth >= _DEEPEST:
            raise LimitError(f"{proto.op_type}: nested deeper than {_DEEPEST}", node=proto.name or None)
        prefix = self._name(proto.name or f"{proto.op_type}_{self._count}", scope)
        return _Scope(prefix, names, opsets, scope.depth + 1, closed)

    def _return(self, proto: NodeProto, results: list[str], inner: _Scope, outer: _Scope) -> None:
        if len(proto.output) > len(results):
            reason = f"{proto.op_type}: has {len(results)} results, but {len(proto.output)} are wanted"
            raise ModelFormatError(reason, node=proto.name or None)
        for output, result in zip(proto.output, results, strict=False):
            if output:
                (value,) = inner.read(proto, (result,))
                name = self._name(f"{proto.name or proto.op_type}/{output}", outer)
                self._builder.add_node(Node("Identity", (value,), (self._define(output, outer),), {}, name))


def _with_attributes(node: NodeProto, given: Mapping[str, AttributeProto]) -> NodeProto:
    """A node of a function with the attributes that the call gives."""
    if not any(attribute.ref_attr_name for attribute in node.attribute):
        return node
    copy = type(node)()
    copy.CopyFrom(node)
    del copy.attribute[:]
    for attribute in node.attribute:
        if not attribute.ref_attr_name:
            copy.attribute.append(attribute)
        elif attribute.ref_attr_name in given:
            copy.attribute.append(given[attribute.ref_attr_name])
            copy.attribute[-1].name = attribute.name
    return copy


def _opsets(imports: Iterable[OperatorSetIdProto], ir_version: int) -> dict[str, int]:
    """The version of each domain; an import without a version means the newest."""
    found: dict[str, int] = {}
    for item in imports:
        domain = "" if item.domain in _STANDARD else item.domain
        version = item.version or NEWEST_OPSET
        if found.setdefault(domain, version) != version:
            raise ModelFormatError(f"opset {found[domain]} and opset {version} are both imported")
    version = found.get("", NEWEST_OPSET if ir_version >= 3 else 1)
    if not OLDEST_OPSET <= version <= NEWEST_OPSET:
        reason = f"opset {version} is not supported; opsets {OLDEST_OPSET} to {NEWEST_OPSET} are"
        raise UnsupportedOpError(f"{reason}; convert the model with onnx.version_converter")
    return found


def _check_count(proto: NodeProto, what: str, count: int, bounds: tuple[int, int]) -> None:
    if not bounds[0] <= count <= bounds[1]:
        reason = f"{proto.op_type}: has {count} {what}, which must be {bounds[0]} to {bounds[1]}"
        raise ModelFormatError(reason, node=proto.name or None)


def _of_runtime(op: str) -> bool:
    return op in _RUNTIME_OPS or op.startswith("QLinear")


def _unknown(op: str, place: str | None) -> UnsupportedOpError:
    from onnx import defs

    known = ", ".join(sorted(name for name in {*OPERATORS, *REWRITTEN, "If"} if defs.has(name) or _of_runtime(name)))
    return UnsupportedOpError(f"operator {op} is not supported; these are: {known}", node=place)


def _constant(proto: NodeProto, attributes: Mapping[str, Attribute]) -> Array:
    place = proto.name or None
    if len(attributes) != 1 or len(proto.output) != 1:
        raise ModelFormatError("Constant: needs one value and one result", node=place)
    ((name, value),) = attributes.items()
    if name == "value" and isinstance(value, np.ndarray):
        return value
    dtype = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if name not in dtype or isinstance(value, (str, np.ndarray)):
        raise UnsupportedOpError(f"Constant: attribute {name} is not supported", node=place)
    return np.array(value, dtype[name])


def _rank(item: ValueInfoProto) -> int:
    shaped = item.type.tensor_type
    return len(shaped.shape.dim) if shaped.HasField("shape") else -1


def _value_info(item: ValueInfoProto, what: str) -> ValueInfo:
    if item.type.HasField("tensor_type"):
        tensor = item.type.tensor_type
        dtype = element_type(tensor.elem_type, item.name)
        shape = tuple(_dimension(item.name, axis, dim) for axis, dim in enumerate(tensor.shape.dim))
        return ValueInfo(item.name, dtype, shape if tensor.HasField("shape") else None)
    if what == "output" and item.type.WhichOneof("value") is None:
        return ValueInfo(item.name, np.dtype(np.float32), None)
    raise UnsupportedOpError(f"{what} is not a tensor", node=item.name or None)


def _dimension(name: str, axis: int, dim: TensorShapeProto.Dimension) -> Dimension:
    if dim.HasField("dim_value"):
        if dim.dim_value < 0:
            raise ModelFormatError(f"extent {dim.dim_value} of axis {axis} is negative", node=name or None)
        return int(dim.dim_value)
    return str(dim.dim_param) or f"{name}_{axis}"
