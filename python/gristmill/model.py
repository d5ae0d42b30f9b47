"""Model: a graph with where it came from, what is in it, and its weights by name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.artefact import save_artefact
from gristmill.artefact.atomic_file import replace_file
from gristmill.console import Table, format_bytes
from gristmill.errors import ArgumentError, DTypeError, ShapeError
from gristmill.graph import Array, Graph, ValueInfo, dtype_text
from gristmill.onnx_export import to_onnx
from gristmill.report import Report
from gristmill.summary import LayerSummary, count_zeros, is_weight, summarize

__all__ = ["LayerSummary", "Model"]

#: Summaries longer than this leave out layers without weights.
_LONG_SUMMARY = 40


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
        return {name: value for name, value in self.graph.constants.items() if is_weight(value)}

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
                raise DTypeError(f"expected {known[name].dtype.name}, got {dtype_text(array.dtype)}", node=name)
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
        return summarize(self.graph)

    def __repr__(self) -> str:
        layers = self.layers()
        shown = layers if len(layers) <= _LONG_SUMMARY else [layer for layer in layers if layer.parameters]
        weights = self.weights().values()
        total, zeros = sum(w.size for w in weights), sum(map(count_zeros, weights))
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
