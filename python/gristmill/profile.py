"""What each step of a plan takes: time, kernel, and multiplications per second."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.compile import CompiledGraph
from gristmill.console import Table
from gristmill.graph import Node
from gristmill.operators import Known
from gristmill.passes.layers import LAYERS

__all__ = ["Profile", "StepProfile", "profile_plan"]

Array = npt.NDArray[Any]


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
    """

    name: str
    op: str
    kernel: str
    shape: tuple[int, ...]
    milliseconds: float
    macs: int
    sparsity: float

    @property
    def giga_macs(self) -> float:
        """Dense multiplications in 10^9 per second."""
        return self.macs / self.milliseconds / 1e6 if self.milliseconds else 0.0


@dataclass(frozen=True)
class Profile:
    """The steps of a plan in order; ``str()`` shows them as a table."""

    steps: tuple[StepProfile, ...]

    @property
    def milliseconds(self) -> float:
        """The sum of all steps."""
        return sum(step.milliseconds for step in self.steps)

    def table(self) -> Table:
        """The steps, with each one's part of the whole time."""
        table = Table(
            ["step", "op", "kernel", "output", "zeros", "ms", "share", "GMAC/s"],
            title=f"{len(self.steps)} steps, {self.milliseconds:.3f} ms",
            align="<<<<>>>>",
        )
        total = self.milliseconds or 1.0
        for step in self.steps:
            zeros = f"{step.sparsity:.0%}" if step.macs else ""
            rate = f"{step.giga_macs:.1f}" if step.macs else ""
            shape = "×".join(map(str, step.shape))
            share = f"{step.milliseconds / total:.1%}"
            table.add(step.name, step.op, step.kernel, shape, zeros, f"{step.milliseconds:.4f}", share, rate)
        return table

    def __str__(self) -> str:
        return self.table().render(color=False, unicode=True)


def profile_plan(compiled: CompiledGraph, inputs: list[Array], threads: int | None, runs: int) -> Profile:
    """Run a plan some times and keep the best time of each step."""
    rounds = [compiled.plan.profile(inputs, threads=threads) for _ in range(max(runs, 1))]
    nodes = {node.name: node for node in compiled.graph.nodes}
    seen: set[str] = set()
    steps = []
    for measured in zip(*rounds, strict=True):
        name, kernel, _ = measured[0]
        milliseconds = min(time for _, _, time in measured)
        node = nodes.get(name)
        macs, sparsity = _work(node, compiled.types) if node is not None and name not in seen else (0, 0.0)
        seen.add(name)
        shape = compiled.types[node.outputs[0]].shape if node is not None else ()
        steps.append(StepProfile(name, node.op if node else "output", kernel, shape, milliseconds, macs, sparsity))
    return Profile(tuple(steps))


def _work(node: Node, types: dict[str, Known]) -> tuple[int, float]:
    """Multiplications of a layer, and the part of its weights that is zero."""
    weights = types[node.inputs[1]] if node.op in LAYERS else None
    if not isinstance(weights, np.ndarray) or not weights.size:
        return 0, 0.0
    out = types[node.outputs[0]].shape
    pixels = math.prod(out) // max(len(weights), 1)
    return pixels * weights.size, 1 - np.count_nonzero(weights) / weights.size
