"""Report: what the optimizer did to each layer and to the whole, and why; as text, JSON or a page."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

from gristmill.console import Table, format_bytes

__all__ = ["LayerReport", "Report"]


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
        reason: Why it was not pruned or quantized, if it was not.
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

    @property
    def sparsity(self) -> float:
        """Share of the weights that is zero."""
        return 1.0 - self.nonzeros / self.weights


@dataclass(frozen=True)
class Report:
    """All layers, and what was decided about the whole.

    Attributes:
        layers: In order of execution.
        settings: What was asked for.
        notes: What a user should know, such as why a search ended where it did.
        trials: Sparsity and score of each point that a search evaluated.
    """

    layers: tuple[LayerReport, ...]
    settings: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    trials: tuple[tuple[float, float], ...] = ()

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
        table = Table(["layer", "shape", "zeros", "type", "bytes", "before", "error", "SQNR", "why"], align="<<><>>>><")
        for cells in self._rows():
            table.add(*cells)
        lines = [self.summary(), table.render(color=False, unicode=False), *self.notes]
        return "\n".join(lines)

    def summary(self) -> str:
        """The whole in one line."""
        part = self.bytes_after / self.bytes_before if self.bytes_before else 1.0
        sizes = f"{format_bytes(self.bytes_before)} -> {format_bytes(self.bytes_after)}"
        return f"{len(self.layers)} layers, {self.sparsity:.1%} zeros, {sizes} ({part:.1%} of the original)"

    def json(self) -> str:
        """A JSON document."""
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

    def html(self) -> str:
        """A page that needs nothing else: the table, and bars of each layer's bytes before and after."""
        largest = max((layer.bytes_before for layer in self.layers), default=1)
        rows = "".join(
            f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}"
            f"<td>{_bar(layer.bytes_before / largest, '#b9c4d0')}"
            f"{_bar(layer.bytes_after / largest, '#1f6f54')}</td></tr>"
            for cells, layer in zip(self._rows(), self.layers, strict=True)
        )
        heads = ("layer", "shape", "zeros", "type", "bytes", "before", "error", "SQNR", "why", "bytes before / after")
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.notes)
        trials = "".join(f"<tr><td>{sparsity:.1%}</td><td>{score:.4f}</td></tr>" for sparsity, score in self.trials)
        tried = f"<table><tr><th>sparsity</th><th>score</th></tr>{trials}</table>" if trials else ""
        return (
            f"<!doctype html><html lang=en><meta charset=utf-8><title>gristmill report</title><style>{_STYLE}</style>"
            f"<h1>gristmill report</h1><p>{html.escape(self.summary())}</p>{notes}"
            f"<table><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>{rows}</table>{tried}</html>"
        )

    def _rows(self) -> Iterator[tuple[str, ...]]:
        for layer in self.layers:
            yield (
                layer.name,
                "x".join(map(str, layer.shape)),
                f"{layer.sparsity:.1%}",
                layer.dtype,
                format_bytes(layer.bytes_after),
                format_bytes(layer.bytes_before),
                "" if layer.error is None else f"{layer.error:.2g}",
                "" if layer.sqnr is None else f"{layer.sqnr:.0f} dB",
                layer.reason,
            )


_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#1c2530}"
    "table{border-collapse:collapse;margin:1rem 0}"
    "td,th{padding:.3rem .7rem;text-align:left;border-bottom:1px solid #ddd}"
    ".bar{height:.5rem;min-width:1px;margin:.1rem 0}"
)


def _bar(share: float, color: str) -> str:
    return f'<div class=bar style="width:{12 * share:.2f}rem;background:{color}"></div>'
