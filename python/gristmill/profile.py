"""What each step of a plan takes: time, kernel, and multiplications per second beside what the processor could do."""

from __future__ import annotations

import functools
import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill import _core
from gristmill.compile import CompiledGraph
from gristmill.console import Table
from gristmill.cpu import calibrate
from gristmill.graph import Node
from gristmill.operators import Known
from gristmill.passes.layers import LAYERS

__all__ = ["Profile", "StepProfile", "profile_plan"]

Array = npt.NDArray[Any]

#: Operators that become layers where their weights are constant.
_INTEGER = ("ConvInteger", "MatMulInteger")


@dataclass(frozen=True)
class StepProfile:
    """One step.

    Attributes:
        name: The node that the step belongs to.
        op: Its operator.
        kernel: What ran.
        shape: The shape of the node's first result.
        milliseconds: The best time.
        macs: Multiplications of a dense layer of that shape; 0 for other operators.
        sparsity: The part of the layer's weights that is zero.
        bound: Multiplications that the threads of the run can do, in 10^9 per second, of that type and with operands in
            registers.
        choice: Why a layer with zeros has that kernel: what each candidate took, in milliseconds.
        weights: The constant that holds them; empty for other operators.
        weight_bytes: What they take in memory, packed.
        nbytes: The least that a layer moves: its inputs, nonzero weights and results; 0 for other operators.
    """

    name: str
    op: str
    kernel: str
    shape: tuple[int, ...]
    milliseconds: float
    macs: int = 0
    sparsity: float = 0.0
    bound: float = 0.0
    choice: str = ""
    weights: str = ""
    weight_bytes: int = 0
    nbytes: int = 0

    @property
    def giga_macs(self) -> float:
        """Dense multiplications in 10^9 per second."""
        return self.macs / self.milliseconds / 1e6 if self.milliseconds else 0.0

    @property
    def of_bound(self) -> float:
        """The share of the bound, above 1 where zeros that are left out gain more than all else costs."""
        return self.giga_macs / self.bound if self.bound else 0.0


@dataclass(frozen=True)
class Profile:
    """The steps of a plan in order; ``str()`` shows them as a table.

    Attributes:
        steps: The steps.
        arena_bytes: The memory that the values between them take.
    """

    steps: tuple[StepProfile, ...]
    arena_bytes: int = 0

    @property
    def milliseconds(self) -> float:
        """The sum of all steps."""
        return sum(step.milliseconds for step in self.steps)

    def table(self) -> Table:
        """The steps, with each one's part of the whole time and, for layers, the share of the processor's bound."""
        chosen = any(step.choice for step in self.steps)
        columns = ["step", "op", "kernel", "output", "zeros", "ms", "share", "GMAC/s", "of bound"]
        table = Table(
            columns + ["candidates, ms"] * chosen,
            title=f"{len(self.steps)} steps, {self.milliseconds:.3f} ms",
            align="<<<<>>>>>" + "<" * chosen,
        )
        total = self.milliseconds or 1.0
        for step in self.steps:
            shape = "×".join(map(str, step.shape))
            share = f"{step.milliseconds / total:.1%}"
            cells = [step.name, step.op, step.kernel, shape, "", f"{step.milliseconds:.4f}", share, "", ""]
            if step.macs:
                cells[4], cells[7:] = f"{step.sparsity:.0%}", [f"{step.giga_macs:.1f}", f"{step.of_bound:.0%}"]
            table.add(*cells, *[step.choice] * chosen)
        return table

    def as_dict(self) -> dict[str, Any]:
        """All figures, for JSON."""
        steps = [
            asdict(step) | {"shape": list(step.shape), "giga_macs": step.giga_macs, "of_bound": step.of_bound}
            for step in self.steps
        ]
        return {"milliseconds": self.milliseconds, "steps": steps}

    def __str__(self) -> str:
        return self.table().render(color=False, unicode=True)


def profile_plan(
    compiled: CompiledGraph, inputs: list[Array], threads: int | None, runs: int, isa: str | None = None
) -> Profile:
    """Run a plan some times and keep the best time of each step; ``isa`` is the level that its layers run at."""
    rounds = [compiled.plan.profile(inputs, threads=threads) for _ in range(max(runs, 1))]
    nodes = {node.name: node for node in compiled.graph.nodes}
    layers = _layer_steps(compiled)
    cores = threads or _core.get_num_threads()
    steps = []
    for index, measured in enumerate(zip(*rounds, strict=True)):
        name, kernel, _ = measured[0]
        milliseconds = min(time for _, _, time in measured)
        node = nodes.get(name)
        shape = compiled.types[node.outputs[0]].shape if node is not None and node.outputs[0] else ()
        step = StepProfile(name, node.op if node else "output", kernel, shape, milliseconds)
        if node is not None and layers.get(name) == index and node.op in (*LAYERS, *_INTEGER):
            step = _with_work(step, node, compiled, isa or _core.get_isa(), cores)
        steps.append(step)
    return Profile(tuple(steps), compiled.plan.arena_bytes)


def _layer_steps(compiled: CompiledGraph) -> dict[str, int]:
    """The step of each layer that multiplies: of those that bear its name, the one that is no copy."""
    found: dict[str, int] = {}
    for index, (name, kernel) in enumerate(compiled.plan.steps):
        if not kernel.startswith(("copy", "fill")):
            found.setdefault(name, index)
    return found


def _with_work(step: StepProfile, node: Node, compiled: CompiledGraph, isa: str, cores: int) -> StepProfile:
    weights, types = compiled.types[node.inputs[1]], compiled.types
    if not isinstance(weights, np.ndarray) or not weights.size or node.name not in compiled.weight_bytes:
        return step
    outputs: Known = types[node.outputs[0]]
    channels = weights.shape[-1] if node.op == "MatMulInteger" else len(weights)
    macs = math.prod(outputs.shape) // channels * weights.size
    zero = types[node.inputs[3]] if node.op in _INTEGER and node.input(3) else 0
    nonzeros = int(np.count_nonzero(weights != zero))
    moved = [types[name] for name in (*node.inputs, *node.outputs) if name and types[name] is not weights]
    return replace(
        step,
        macs=macs,
        sparsity=1 - nonzeros / weights.size,
        bound=cores * _giga_macs(isa)[weights.dtype == np.float32],
        choice=str(compiled.choices.get(node.name, "")),
        weights=node.inputs[1],
        weight_bytes=compiled.weight_bytes.get(node.name, 0),
        nbytes=sum(math.prod(t.shape) * t.dtype.itemsize for t in moved) + nonzeros * weights.itemsize,
    )


@functools.cache
def _giga_macs(isa: str) -> tuple[float, float]:
    """Multiplications of a core in 10^9 per second, of int8 and of float32; measured once."""
    measured = calibrate(isa, seconds=0.2)
    return measured.int8_peak, measured.f32_fmas.best
