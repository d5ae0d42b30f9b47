"""Report: what the optimizer did to each layer and to the whole, and why; as text, JSON or a page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from gristmill.console import Table, format_bytes
from gristmill.errors import ModelFormatError

__all__ = ["LayerReport", "Report", "Trial", "Whole"]


@dataclass(frozen=True)
class LayerReport:
    """One layer.

    Attributes:
        name: The node.
        op: Its operator.
        shape: Of its weights: (outputs, inputs / groups, *kernel).
        weights: How many there are.
        nonzeros: How many of them are not zero.
        dtype: In which it runs: ``float32`` or ``int8``.
        bytes_before: Of its weights and bias in the original.
        bytes_after: Of what is stored: nonzero weights with their positions where that is less, scales and bias.
        error: Mean square error that pruning made in its outputs, relative to the original's, on calibration data.
        sqnr: Signal to quantization noise of its outputs in dB, if it was quantized.
        reason: Why it was not pruned or quantized, if it was not, or what decided its pattern.
        kernel: What runs it now, if that was measured, as are the four below.
        ms_before: Milliseconds in the original.
        ms_after: Milliseconds now.
        memory_before: Bytes of its packed weights in a session of the original.
        memory_after: Bytes of its packed weights now.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    weights: int
    nonzeros: int
    dtype: str
    bytes_before: int
    bytes_after: int
    error: float | None = None
    sqnr: float | None = None
    reason: str = ""
    kernel: str = ""
    ms_before: float | None = None
    ms_after: float | None = None
    memory_before: int | None = None
    memory_after: int | None = None

    @property
    def sparsity(self) -> float:
        """Share of the weights that is zero."""
        return 1.0 - self.nonzeros / self.weights


@dataclass(frozen=True)
class Whole:
    """The model before and after, as measured.

    Attributes:
        inputs: What was run, such as ``x: float32[1, 3, 32, 32]``.
        isa: The level that ran it.
        threads: On how many threads.
        ms_before: Milliseconds of a run of the original; the best of several, both models in turns.
        ms_after: Milliseconds of a run now.
        file_before: Bytes of the original as a ``.grist`` file.
        file_after: Bytes of the file now.
        memory_before: Bytes of packed weights and values in a session of the original.
        memory_after: The same now.
    """

    inputs: str
    isa: str
    threads: int
    ms_before: float
    ms_after: float
    file_before: int
    file_after: int
    memory_before: int
    memory_after: int

    @property
    def speedup(self) -> float:
        """How many times faster it has become."""
        return self.ms_before / self.ms_after if self.ms_after else math.inf


@dataclass(frozen=True)
class Trial:
    """One point that a search evaluated.

    Attributes:
        sparsity: Asked for.
        score: Mean score.
        loss: How much lower than the original's it is at most.
        accepted: Whether that is within the budget.
        bytes: Of the layers as they are stored.
        ms: Milliseconds of a run, if measured.
    """

    sparsity: float
    score: float
    loss: float
    accepted: bool
    bytes: int
    ms: float | None = None


@dataclass(frozen=True)
class Report:
    """All layers, and what was decided about the whole.

    Attributes:
        layers: In order of execution.
        notes: What a user should know, such as why a search ended where it did.
        trials: The points that a search evaluated.
        score_before: The original's score in the search.
        whole: The model before and after, if measured.
    """

    layers: tuple[LayerReport, ...]
    notes: tuple[str, ...] = ()
    trials: tuple[Trial, ...] = ()
    score_before: float | None = None
    whole: Whole | None = None

    @property
    def sparsity(self) -> float:
        """Share of the weights of all layers that is zero."""
        total = sum(layer.weights for layer in self.layers)
        return 1.0 - sum(layer.nonzeros for layer in self.layers) / total if total else 0.0

    @property
    def bytes_before(self) -> int:
        """Of all layers in the original."""
        return sum(layer.bytes_before for layer in self.layers)

    @property
    def bytes_after(self) -> int:
        """Of all layers as they are stored now."""
        return sum(layer.bytes_after for layer in self.layers)

    def __str__(self) -> str:
        return "\n".join([*self.summary(), self.table().render(color=False, unicode=False), *self.notes])

    def summary(self) -> list[str]:
        """The whole in a line, and in another what was measured."""
        part = self.bytes_after / self.bytes_before if self.bytes_before else 1.0
        sizes = f"{format_bytes(self.bytes_before)} -> {format_bytes(self.bytes_after)}"
        lines = [f"{len(self.layers)} layers, {self.sparsity:.1%} zeros, {sizes} ({part:.1%} of the original)"]
        if (whole := self.whole) is not None:
            lines.append(
                f"a run: {whole.ms_before:.3f} ms -> {whole.ms_after:.3f} ms ({whole.speedup:.1f} times as fast); "
                f"file: {format_bytes(whole.file_before)} -> {format_bytes(whole.file_after)}; "
                f"memory: {format_bytes(whole.memory_before)} -> {format_bytes(whole.memory_after)} "
                f"({whole.inputs}, {whole.isa}, {whole.threads} thread{'s' * (whole.threads != 1)})"
            )
        return lines

    def json(self) -> str:
        """A JSON document; :meth:`from_json` reads it."""
        document = asdict(self) | {
            "sparsity": self.sparsity,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
        }
        for layer, source in zip(document["layers"], self.layers, strict=True):
            layer["sparsity"] = source.sparsity
            if layer["sqnr"] is not None and math.isinf(layer["sqnr"]):
                layer["sqnr"] = None
        return json.dumps(document, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Report:
        """The report that :meth:`json` wrote.

        Raises:
            ModelFormatError: The text is no such document.

        Example:
            >>> row = LayerReport("fc", "Gemm", (2, 4), 8, 4, "int8", 32, 20)
            >>> Report.from_json(Report((row,)).json()).layers[0].sparsity
            0.5
        """
        try:
            document = json.loads(text)
            layers = tuple(_read(LayerReport, row | {"shape": tuple(row["shape"])}) for row in document["layers"])
            trials = tuple(_read(Trial, row) for row in document["trials"])
            whole = None if document["whole"] is None else _read(Whole, document["whole"])
            notes, score = tuple(map(str, document["notes"])), document["score_before"]
            report = cls(layers, notes, trials, None if score is None else float(score), whole)
            str(report)
        except (KeyError, TypeError, ValueError, ArithmeticError, RecursionError) as error:
            raise ModelFormatError(f"holds a report in an unknown form: {error!r}") from None
        return report

    def html(self) -> str:
        """A page that needs nothing else: plots and the table."""
        from gristmill.report_page import report_page

        return report_page(self)

    def table(self) -> Table:
        """A row for each layer; columns without any text are left out."""
        rows = list(map(_row, self.layers))
        used = [head for head in _HEADS if any(row[head] for row in rows)]
        table = Table(used, align="".join("<" if head in _LEFT else ">" for head in used))
        for row in rows:
            table.add(*(row[head] for head in used))
        return table


_HEADS = (
    *("layer", "shape", "zeros", "type", "bytes", "before", "memory", "memory before", "error", "SQNR"),
    *("kernel", "ms", "ms before", "why"),
)
_LEFT = frozenset({"layer", "shape", "type", "kernel", "why"})


def _row(layer: LayerReport) -> dict[str, str]:
    def shown(value: float | None, form: str) -> str:
        return "" if value is None else format(value, form)

    cells = (
        layer.name,
        "x".join(map(str, layer.shape)),
        f"{layer.sparsity:.1%}",
        layer.dtype,
        format_bytes(layer.bytes_after),
        format_bytes(layer.bytes_before),
        "" if layer.memory_after is None else format_bytes(layer.memory_after),
        "" if layer.memory_before is None else format_bytes(layer.memory_before),
        shown(layer.error, ".2g"),
        "" if layer.sqnr is None else f"{layer.sqnr:.0f} dB",
        layer.kernel,
        shown(layer.ms_after, ".4f"),
        shown(layer.ms_before, ".4f"),
        layer.reason,
    )
    return dict(zip(_HEADS, cells, strict=True))


def _read(kind: type[Any], row: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """A dataclass of numbers and texts from what JSON made of it; what it does not know is ignored."""
    return kind(**{item.name: row[item.name] for item in fields(kind) if item.name in row})
