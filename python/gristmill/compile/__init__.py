"""Compiling: a graph, for inputs of concrete shapes, becomes a plan.

Shapes are inferred, what follows from them is folded, each node becomes steps by the table of lowerings, and the values
between the steps get their places in memory. What runs in slices of the batch is a plan of its own, which is a step of
the whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gristmill import _core
from gristmill.compile import (
    lower_convolution,
    lower_elementwise,
    lower_layers,
    lower_matmul,
    lower_movement,
    lower_pooling,
    lower_quantized,
    lower_reduction,
    lower_resize,
)
from gristmill.compile.levels import Level, find_levels
from gristmill.compile.memory import bind_outputs, drop_copies, place, work_in_place
from gristmill.compile.packer import Choice, Packer
from gristmill.compile.program import Program, Step, Value, View, require_dtype
from gristmill.compile.registry import LOWERINGS, find_lowering
from gristmill.compile.selection import Heuristic
from gristmill.compile.slicing import Cache
from gristmill.errors import DTypeError, GristmillError, OutOfMemoryError, UnsupportedOpError, errors_at
from gristmill.graph import Graph, Node
from gristmill.operators import Known

__all__ = ["LOWERINGS", "Cache", "CompiledGraph", "Packer", "compile_graph"]

_FAMILIES = (
    lower_convolution,
    lower_elementwise,
    lower_layers,
    lower_matmul,
    lower_movement,
    lower_pooling,
    lower_quantized,
    lower_reduction,
    lower_resize,
)


@dataclass(frozen=True)
class CompiledGraph:
    """A plan with the graph it runs.

    Attributes:
        plan: What runs.
        graph: The graph after all passes; its nodes name the plan's steps.
        types: What is known of the graph's values.
        choices: The formats of layers' weights, by node.
        weight_bytes: What the packed weights of each layer take, by node.
    """

    plan: _core.Plan
    graph: Graph
    types: dict[str, Known]
    choices: dict[str, Choice]
    weight_bytes: dict[str, int]

    def lack_of_memory(self, file: str | None = None) -> OutOfMemoryError:
        """The error of a run for which memory does not suffice: what it needs, and the node that needs the most."""
        results = [(node, self.types[name]) for node in self.graph.nodes for name in node.outputs if name]
        node, largest = max(results, key=lambda item: item[1].nbytes, default=(None, None))
        outputs = sum(self.types[info.name].nbytes for info in self.graph.outputs)
        reason = f"a run takes {outputs} bytes of outputs and {self.plan.arena_bytes} between steps"
        if node is not None and largest is not None:
            reason += f", the result {largest.dtype.name}{list(largest.shape)} of this {node.op} {largest.nbytes}"
        reason = f"memory does not suffice: {reason}; run smaller inputs"
        return OutOfMemoryError(reason, node=node.name if node else None, file=file)


def compile_graph(
    graph: Graph, inputs: Mapping[str, Known], packer: Packer | None = None, cache: Cache | None = None
) -> CompiledGraph:
    """Compile a graph that :func:`gristmill.passes.simplify` has returned, for inputs of these types.

    Inputs given as arrays are known: the plan takes them too, but is right for these values alone. With ``cache``, that
    of the plan's runs, a batch may be run in slices.

    Raises:
        GristmillError: The graph contradicts itself or these inputs.
        UnsupportedOpError: It has an operator that plans do not run.
    """
    packer = packer or Packer(Heuristic())
    levels = find_levels(graph, inputs, packer, cache) if cache else [Level.of(graph, inputs)]
    compiled = _compiled(levels, packer)
    packer.selector.finish()
    return compiled


def _compiled(levels: Sequence[Level], packer: Packer) -> CompiledGraph:
    """The plan of the last level, which runs those before as a part."""
    *inner, level = levels
    program = Program(level.graph, level.types, packer)
    part = _compiled(inner, packer) if inner else None
    if part is not None:
        _add_part(program, part)
    for node in level.graph.nodes[inner[-1].end if inner else 0 :]:
        if any(name and program.known(name) is None for name in node.outputs):
            _lower(program, node)
    bind_outputs(program)
    drop_copies(program)
    work_in_place(program)
    packed = {
        step.name: item.nbytes
        for step in program.steps
        for item in step.arguments
        if isinstance(item, (_core.PackedConv, _core.PackedLinear, _core.PackedGemm))
    }
    if part is not None:
        packed, program.choices = part.weight_bytes | packed, part.choices | program.choices
    return CompiledGraph(_emit(program, place(program)), level.graph, level.types, program.choices, packed)


def _lower(program: Program, node: Node) -> None:
    """Append a node's steps; errors about one of its values or weights name the node first."""
    try:
        with errors_at(node=node.name):
            find_lowering(node)(program, node)
    except GristmillError as error:
        if error.node != node.name:
            error.reason, error.node = f"{node.op}: {error.node}: {error.reason}", node.name
        raise


def _add_part(program: Program, part: CompiledGraph) -> None:
    reads = tuple(program.value(info.name) for info in part.graph.inputs)
    writes = tuple(program.result(info.name) for info in part.graph.outputs)
    name = part.graph.nodes[-1].name
    program.steps.append(Step("slices", name, (reads, writes, part.plan), reads, writes))


def _emit(program: Program, arena: int) -> _core.Plan:
    kinds = [
        [(require_dtype(program.type(info.name).dtype, info.name).name, program.type(info.name).shape) for info in side]
        for side in (program.graph.inputs, program.graph.outputs)
    ]
    plan = _core.Plan(arena, kinds[0], kinds[1])
    for step in program.steps:
        _add(plan, step, program)
    return plan


def _add(plan: _core.Plan, step: Step, program: Program) -> None:
    try:
        getattr(plan, step.method)(step.name, *map(_resolved, step.arguments))
    except DTypeError as error:
        ops = {node.name: node.op for node in program.graph.nodes}
        raise UnsupportedOpError(f"{ops.get(step.name, 'output')}: {error.reason}", node=error.node) from None


def _resolved(argument: Any) -> Any:  # noqa: ANN401
    if isinstance(argument, tuple):
        return tuple(map(_resolved, argument))
    return argument.tensor() if isinstance(argument, (Value, View)) else argument
