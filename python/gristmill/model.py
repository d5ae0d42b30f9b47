"""Model: a graph with where it came from, what is in it, and its weights by name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.artefact import save_artefact
from gristmill.artefact.atomic_file import replace_file
from gristmill.console import Table, format_bytes
from gristmill.errors import ArgumentError, DTypeError, GristmillError, ShapeError
from gristmill.graph import Array, Graph, Node, ValueInfo
from gristmill.onnx_export import to_onnx
from gristmill.operators import Known, TensorType
from gristmill.reference import infer
from gristmill.report import Report

__all__ = ["LayerSummary", "Model"]

#: Summaries longer than this leave out layers without weights.
_LONG_SUMMARY = 40


@dataclass(frozen=True)
class LayerSummary:
    """One node of a model.

    Attributes:
        name: The node.
        op: Its operator.
        shape: The shape of its first result, as far as it is known.
        parameters: How many weights it reads.
        nbytes: The bytes that they take.
        zeros: How many of them are zero.
    """

    name: str
    op: str
    shape: tuple[int | str, ...] | None
    parameters: int
    nbytes: int
    zeros: int

    @property
    def sparsity(self) -> float:
        """The part of the weights that is zero."""
        return self.zeros / self.parameters if self.parameters else 0.0


class Model:
    """A network that can be inspected, changed, saved and run.

    Attributes:
        graph: The network; never modified, but exchanged by :meth:`set_weights`.
        source: The file it came from, if it came from one.
        format: The format of that file.
        report: How the optimizer made it, if it did; saved with the model.

    Example:
        >>> from gristmill.graph import GraphBuilder
        >>> builder = GraphBuilder()
        >>> w = builder.constant("w", np.array([[1, 0, 0], [0, 2, 0]], np.float32))
        >>> y = builder.add("Gemm", [builder.input("x", np.float32, ("n", 3)), w], name="fc", transB=1)
        >>> Model(builder.build([y]))
        Model: 1 layer, 6 parameters (66.7% zeros), 24 B
        x: float32[n, 3]  ->  fc: float32[...]
        layer  op    output  parameters  bytes  zeros
        -----  ----  ------  ----------  -----  -----
        fc     Gemm  n, 2             6   24 B  66.7%
    """

    def __init__(
        self,
        graph: Graph,
        *,
        source: str | None = None,
        format: str | None = None,  # noqa: A002
        report: Report | None = None,
    ) -> None:
        """Hold a sound graph."""
        self.graph = graph
        self.source = source
        self.format = format
        self.report = report

    @property
    def inputs(self) -> tuple[ValueInfo, ...]:
        """What the model takes."""
        return self.graph.inputs

    @property
    def outputs(self) -> tuple[ValueInfo, ...]:
        """What the model gives."""
        return self.graph.outputs

    def weights(self) -> dict[str, Array]:
        """The constants that carry what was learned, by name: all but the integers of shape arithmetic. Read-only."""
        return {name: value for name, value in self.graph.constants.items() if value.dtype not in _BOOKKEEPING}

    def set_weights(self, weights: Mapping[str, npt.NDArray[Any]]) -> None:
        """Exchange weights for others of the same shape and element type; those not named stay.

        Raises:
            ArgumentError: There is no weight of that name.
            ShapeError: A weight has another shape.
            DTypeError: A weight has another element type.

        Example:
            >>> from gristmill.graph import GraphBuilder
            >>> builder = GraphBuilder()
            >>> w = builder.constant("w", np.ones((2, 3), np.float32))
            >>> model = Model(builder.build([builder.add("MatMul", [builder.input("x", np.float32, (2,)), w])]))
            >>> model.set_weights({"w": np.zeros((2, 3), np.float32)})
            >>> model.weights()["w"].sum()
            np.float32(0.0)
        """
        known = self.weights()
        fresh: dict[str, Array] = {}
        for name, value in weights.items():
            if name not in known:
                raise ArgumentError(f"there is no such weight; there are: {', '.join(known)}", node=name)
            array = np.array(value, copy=True)
            if array.dtype != known[name].dtype:
                raise DTypeError(f"expected {known[name].dtype.name}, got {array.dtype.name}", node=name)
            if array.shape != known[name].shape:
                raise ShapeError(f"expected shape {list(known[name].shape)}, got {list(array.shape)}", node=name)
            array.flags.writeable = False
            fresh[name] = array
        self.graph = self.graph.replace(constants={**self.graph.constants, **fresh})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model as a gristmill artefact (``.grist``), in one step; :func:`gristmill.load` reads it.

        Pruned weights are stored without their zeros, and the file is checksummed.

        Raises:
            ArgumentError: What has that name is a folder, a device, a pipe or a socket.
            OSError: The file cannot be written; an existing file is then as it was.
        """
        save_artefact(self.graph, path, report=None if self.report is None else self.report.json())

    def export_onnx(self, path: str | os.PathLike[str]) -> None:
        """Write the model as an ONNX file, at opset 18 (later if an operator needs it), in one step.

        Quantized models are written as they are held: with QuantizeLinear and DequantizeLinear, or integer operators.

        Raises:
            ArgumentError: The package onnx is not installed, or what has that name is no file that can be replaced.
            LimitError: The model exceeds the 2 GiB that an ONNX file may have.
            OSError: The file cannot be written.
        """
        replace_file(path, [to_onnx(self.graph)])

    def layers(self) -> list[LayerSummary]:
        """A summary of each node, in order."""
        shapes = output_shapes(self.graph)
        weights = self.weights()
        return [_summary(node, shapes, weights) for node in self.graph.nodes]

    def __repr__(self) -> str:
        layers = self.layers()
        shown = layers if len(layers) <= _LONG_SUMMARY else [layer for layer in layers if layer.parameters]
        weights = self.weights().values()
        total, zeros = sum(w.size for w in weights), sum(_zeros(w) for w in weights)
        table = Table(["layer", "op", "output", "parameters", "bytes", "zeros"], align="<<<>>>")
        for layer in shown:
            shape = "?" if layer.shape is None else ", ".join(map(str, layer.shape))
            figures = (f"{layer.parameters:,}", format_bytes(layer.nbytes), f"{layer.sparsity:.1%}")
            table.add(layer.name, layer.op, shape, *(figures if layer.parameters else ()))
        lines = [
            f"Model{f' from {self.source}' if self.source else ''}: {len(layers)} layer{'s' * (len(layers) != 1)}, "
            f"{total:,} parameters ({zeros / max(total, 1):.1%} zeros), {format_bytes(sum(w.nbytes for w in weights))}",
            f"{', '.join(map(str, self.inputs))}  ->  {', '.join(map(str, self.outputs))}",
            table.render(color=False, unicode=False),
        ]
        if len(shown) < len(layers):
            lines.append(f"and {len(layers) - len(shown)} layers without weights")
        return "\n".join(lines)


_BOOKKEEPING = frozenset(map(np.dtype, (np.int64, np.bool_)))


def output_shapes(graph: Graph) -> dict[str, tuple[int | str, ...]]:
    """The shape of every value, with the names of open extents where they are passed on; empty if none can be told.

    Open extents are tried with two different numbers: what changes with them is named after them.
    """
    names = sorted({extent for info in graph.inputs for extent in info.shape or () if isinstance(extent, str)})
    try:
        small = infer(graph, _types(graph, dict.fromkeys(names, 224)))
        named = {name: 256 + 32 * index for index, name in enumerate(names)}
        large = infer(graph, _types(graph, named))
    except GristmillError:
        return {}
    back = {extent: name for name, extent in named.items()}
    return {name: _merged(value.shape, large[name].shape, back) for name, value in small.items()}


def _types(graph: Graph, extents: Mapping[str, int]) -> dict[str, Known]:
    types: dict[str, Known] = {}
    for info in graph.inputs:
        if info.shape is None:
            raise ArgumentError("has an unknown rank", node=info.name)
        shape = tuple(extent if isinstance(extent, int) else extents[extent] for extent in info.shape)
        types[info.name] = TensorType(info.dtype, shape)
    return types


def _merged(small: tuple[int, ...], large: tuple[int, ...], names: Mapping[int, str]) -> tuple[int | str, ...]:
    if len(small) != len(large):
        return ("...",)
    return tuple(a if a == b else names.get(b, "?") for a, b in zip(small, large, strict=True))


def _summary(node: Node, shapes: Mapping[str, tuple[int | str, ...]], weights: Mapping[str, Array]) -> LayerSummary:
    read = [weights[name] for name in node.inputs if name in weights]
    return LayerSummary(
        node.name,
        node.op,
        shapes.get(node.outputs[0]),
        sum(w.size for w in read),
        sum(w.nbytes for w in read),
        sum(_zeros(w) for w in read),
    )


def _zeros(values: Array) -> int:
    return values.size - int(np.count_nonzero(values))
