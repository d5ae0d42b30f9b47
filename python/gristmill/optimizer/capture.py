"""Capture: run a network and a changed copy of it side by side, node by node, over a calibration set.

:class:`Lockstep` keeps the live values of all batches at one point of the graph and advances both networks by one node
at a time, so each is run once however many layers are looked at. Values of the copy are held only where they differ
from the original's. What exceeds a budget of memory waits in unnamed temporary files, so memory does not grow with the
calibration set.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import numpy as np

from gristmill import dense
from gristmill.graph import Array, Graph, Node
from gristmill.operators import find
from gristmill.operators.spatial import window
from gristmill.optimizer.spill import spilled

__all__ = ["Executor", "Lockstep", "forward"]

#: Bytes of live values that stay in memory.
LIVE_BYTES = 512 << 20


class Executor:
    """Computes nodes in float32: convolutions and linear layers by compiled kernels, the rest by the definitions."""

    def __init__(self, threads: int | None = None) -> None:
        """Use at most ``threads`` threads in kernels."""
        self._threads = threads
        self._packed: dict[str, tuple[Array, dense.PackedConv | dense.PackedLinear]] = {}

    def compute(self, node: Node, inputs: Sequence[Array | None]) -> list[Array]:
        """The results of one node."""
        if node.op == "Conv" and _plain(inputs, ranks=(3, 4)):
            return [self._conv(node, *(item for item in inputs if item is not None))]
        if node.op in {"Gemm", "MatMul"} and _plain(inputs, ranks=(2,)) and _is_linear(node, inputs):
            return [self._linear(node, *(item for item in inputs if item is not None))]
        return find(node).evaluate(node, inputs)

    def _conv(self, node: Node, x: Array, weights: Array, bias: Array | None = None) -> Array:
        find(node).infer(node, [item for item in (x, weights, bias) if item is not None])
        row = x.ndim == 3
        if row:
            x = x[:, :, None]
        found = window(node, x.shape[2 + row :], weights.shape[2:])
        zero, one = (0,) * row, (1,) * row
        packed = self._pack(
            node,
            weights,
            lambda: dense.PackedConv(
                weights[:, :, None] if row else weights,
                stride=one + found.strides,
                padding=zero + found.begins + zero + found.ends,
                dilation=one + found.dilations,
                groups=node.integer("group", 1),
            ),
        )
        assert isinstance(packed, dense.PackedConv)
        y = dense.conv2d(np.ascontiguousarray(x), packed, epilogue=_offset(bias), threads=self._threads)
        return y[:, :, 0] if row else y

    def _linear(self, node: Node, x: Array, weights: Array, bias: Array | None = None) -> Array:
        flipped = node.op == "MatMul" or not node.integer("transB", 0)
        packed = self._pack(
            node, weights, lambda: dense.PackedLinear(np.ascontiguousarray(weights.T if flipped else weights))
        )
        assert isinstance(packed, dense.PackedLinear)
        rows = weights.shape[1 if flipped else 0]
        offsets = None if bias is None else np.broadcast_to(bias.reshape(-1), (rows,)).copy()
        return dense.linear(np.ascontiguousarray(x), packed, epilogue=_offset(offsets), threads=self._threads)

    def _pack(
        self, node: Node, weights: Array, pack: Callable[[], dense.PackedConv | dense.PackedLinear]
    ) -> dense.PackedConv | dense.PackedLinear:
        known = self._packed.get(node.name)
        if known is None or known[0] is not weights:
            known = self._packed[node.name] = (weights, pack())
        return known[1]


def forward(
    graph: Graph, feeds: Mapping[str, Array], executor: Executor, wanted: Iterable[str] = ()
) -> dict[str, Array]:
    """The outputs of a graph, and other wanted values."""
    keep = {*wanted, *(info.name for info in graph.outputs)}
    step = Lockstep(graph, [feeds], executor, keep)
    for node in graph.nodes:
        step.advance(node)
    return {name: step.original(0, name) for name in keep}


class Lockstep:
    """All batches of a calibration set at one point of a network, original and changed."""

    def __init__(
        self,
        graph: Graph,
        batches: Sequence[Mapping[str, Array]],
        executor: Executor | None = None,
        keep: Iterable[str] = (),
    ) -> None:
        """Start before the first node; the values in ``keep`` are never dropped."""
        self._graph = graph
        self._changed_executor = Executor()
        self._executor = executor or Executor()
        self._original: list[dict[str, Array]] = [dict(batch) for batch in batches]
        self._changed: list[dict[str, Array]] = [{} for _ in batches]
        self._uses = graph.use_counts()
        self._uses.update(keep)
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._original)

    def original(self, batch: int, name: str) -> Array:
        """A value of the original network."""
        return self._graph.constants[name] if name in self._graph.constants else self._original[batch][name]

    def changed(self, batch: int, name: str) -> Array:
        """A value of the changed network."""
        found = self._changed[batch].get(name)
        return self.original(batch, name) if found is None else found

    def differs(self, batch: int, name: str) -> bool:
        """Whether a value is there and the changed network has another."""
        return name in self._changed[batch]

    def replace(self, batch: int, name: str, value: Array) -> None:
        """Set a value of the changed network."""
        self._forget(self._changed[batch], name)
        self._changed[batch][name] = self._keep(value)

    def advance(self, node: Node, changed: Node | None = None, constants: Mapping[str, Array] | None = None) -> None:
        """Compute a node in both networks, for all batches, and drop the values that nothing reads any more.

        Args:
            node: The next node of the graph.
            changed: What stands in its place in the changed network.
            constants: The changed network's own constants.
        """
        own = constants or {}
        other = changed or node
        for batch in range(len(self)):
            for name, value in self._run(self._executor, node, partial(self.original, batch)):
                self._original[batch][name] = self._keep(value)
            if changed is not None or any(name in self._changed[batch] or name in own for name in other.inputs):
                for name, value in self._run(self._changed_executor, other, self._reader(batch, own)):
                    self._changed[batch][name] = self._keep(value)
        self._drop(node)

    def _reader(self, batch: int, own: Mapping[str, Array]) -> Callable[[str], Array]:
        return lambda name: own[name] if name in own else self.changed(batch, name)

    def _run(self, executor: Executor, node: Node, read: Callable[[str], Array]) -> list[tuple[str, Array]]:
        results = executor.compute(node, [read(name) if name else None for name in node.inputs])
        return [(name, value) for name, value in zip(node.outputs, results, strict=False) if name]

    def _drop(self, node: Node) -> None:
        for name in filter(None, node.inputs):
            self._uses[name] -= 1
        dead = [name for name in {*node.inputs, *node.outputs} if name and self._uses[name] <= 0]
        for values in (*self._original, *self._changed):
            for name in dead:
                self._forget(values, name)

    def _keep(self, value: Array) -> Array:
        if self._bytes + value.nbytes <= LIVE_BYTES or not value.nbytes:
            self._bytes += value.nbytes
            return value
        return spilled(value)

    def _forget(self, values: dict[str, Array], name: str) -> None:
        value = values.pop(name, None)
        if value is not None and not isinstance(value, np.memmap):
            self._bytes -= value.nbytes


def _plain(inputs: Sequence[Array | None], ranks: tuple[int, ...]) -> bool:
    arrays = [item for item in inputs if item is not None]
    floats = all(item.dtype == np.float32 and item.size for item in arrays)
    return floats and len(arrays) >= 2 and arrays[0].ndim in ranks and arrays[1].ndim == arrays[0].ndim


def _is_linear(node: Node, inputs: Sequence[Array | None]) -> bool:
    if node.op == "MatMul":
        return len(inputs) == 2
    scaled = node.real("alpha", 1.0) != 1.0 or node.real("beta", 1.0) != 1.0
    bias = inputs[2] if len(inputs) > 2 else None
    return not scaled and not node.integer("transA", 0) and (bias is None or bias.ndim <= 1)


def _offset(bias: Array | None) -> dense.Epilogue | None:
    return None if bias is None else dense.Epilogue(output="float32", bias=np.ascontiguousarray(bias))
