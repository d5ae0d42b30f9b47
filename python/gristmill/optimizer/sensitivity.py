"""Sensitivity: what a model's answers lose when one layer alone is pruned, by layer and sparsity."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gristmill.artefact.atomic_file import replace_file
from gristmill.console import Table, progress
from gristmill.errors import ArgumentError
from gristmill.graph import Array, Graph
from gristmill.model import Model
from gristmill.optimizer.calibration import CalibrationData, labels_of, make_batches
from gristmill.optimizer.capture import Lockstep
from gristmill.optimizer.layers import find_layers, with_constants
from gristmill.optimizer.masks import parse_pattern
from gristmill.optimizer.pipeline import Batches, first_samples, prepared
from gristmill.optimizer.pruning import METHODS, Target, fit_layer, gather
from gristmill.optimizer.rules import select_ignored
from gristmill.optimizer.schedules import check_sparsity
from gristmill.session import InferenceSession

__all__ = ["Sensitivity", "require_plottable", "sensitivity"]

_LEVELS = (0.5, 0.7, 0.8, 0.9, 0.95)
_SAMPLES, _ANSWERS = 512, 64


@dataclass(frozen=True, repr=False)
class Sensitivity(Mapping[str, dict[float, float]]):
    """By layer and sparsity: accuracy, or the signal to noise ratio of the answers in dB. Printing it shows a table.

    Attributes:
        figures: By name of the layer, the figure for each sparsity.
        unit: ``dB``, or ``accuracy``.
        dense: The accuracy of the model as it is; None for dB.
        pattern: In what the layers were pruned.
    """

    figures: Mapping[str, dict[float, float]]
    unit: str
    dense: float | None
    pattern: str

    def __getitem__(self, layer: str) -> dict[float, float]:
        return self.figures[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self.figures)

    def __len__(self) -> int:
        return len(self.figures)

    @property
    def title(self) -> str:
        """What the figures are."""
        figure = "SNR of the answers in dB" if self.dense is None else f"accuracy (dense: {self.dense:.2%})"
        return f"{figure}, one layer pruned alone, {self.pattern}"

    def table(self) -> Table:
        """A row for each layer, a column for each sparsity."""
        levels = list(next(iter(self.figures.values()), {}))
        table = Table(["layer", *(f"{level:.0%}" for level in levels)], title=self.title)
        for name, row in self.figures.items():
            table.add(name, *(self._shown(row[level]) for level in levels))
        return table

    def __repr__(self) -> str:
        return self.table().render(color=False, unicode=False)

    def json(self) -> str:
        """A JSON document."""
        rows = [
            {"layer": name, "values": [{"sparsity": level, self.unit: value} for level, value in row.items()]}
            for name, row in self.figures.items()
        ]
        return json.dumps({"unit": self.unit, "dense": self.dense, "pattern": self.pattern, "layers": rows}, indent=2)

    def html(self) -> str:
        """A page that needs nothing else: the plot and the table."""
        from gristmill.report_page import sensitivity_page

        return sensitivity_page(self)

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Write the figures to a file: a page (``.html``) or a picture (``.png``, ``.svg``, ``.pdf``).

        Raises:
            MissingDependencyError: A picture is wanted, and matplotlib is not installed.
            ArgumentError: The file's name ends otherwise.
            OSError: The file cannot be written.
        """
        suffix = require_plottable(path)
        if suffix == ".html":
            replace_file(path, [self.html().encode()])
            return
        from gristmill.optimizer.pictures import sensitivity_picture

        replace_file(path, [sensitivity_picture(self, suffix[1:])])

    def _shown(self, value: float) -> str:
        return f"{value:.1f}" if self.dense is None else f"{value:.2%}"


def require_plottable(path: str | os.PathLike[str]) -> str:
    """The suffix of a file that :meth:`Sensitivity.plot` can write.

    Raises:
        ArgumentError: It is another.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in {".html", ".png", ".svg", ".pdf"}:
        raise ArgumentError("must end in .html, .png, .svg or .pdf", file=os.fspath(path))
    return suffix


def sensitivity(
    model: Model,
    calibration: CalibrationData,
    *,
    labels: npt.ArrayLike | None = None,
    levels: Sequence[float] = _LEVELS,
    pattern: str = "unstructured",
    method: str = "refit",
    ignore: Collection[str] = (),
    samples: int = _SAMPLES,
    seed: int = 0,
) -> Sensitivity:
    """Prune one layer at a time, and see what the model's answers lose.

    Args:
        model: A float32 model; never modified.
        calibration: Typical inputs.
        labels: The class of each of them; without it answers are compared with those of the model as it is.
        levels: The sparsities to try.
        pattern: As in :func:`gristmill.prune`.
        method: As in :func:`gristmill.prune`.
        ignore: Names or regular expressions of layers to leave out.
        samples: How many samples to use at most, from the start. Answers are compared on the first 64 of them, or on
            all if there are labels.
        seed: Equal seeds give equal results.

    Raises:
        ArgumentError: An argument makes no sense.

    Example:
        >>> from gristmill.graph import GraphBuilder
        >>> rng, build = np.random.default_rng(0), GraphBuilder()
        >>> x = build.input("x", np.float32, ("n", 16))
        >>> for name in ("first", "second"):
        ...     w = rng.standard_normal((16, 16)).astype(np.float32)
        ...     x = build.add("Gemm", [x, build.constant(f"{name}.weight", w)], name=name, transB=1)
        >>> found = sensitivity(Model(build.build([x])), rng.standard_normal((64, 16)).astype(np.float32))
        >>> print(found.table().columns, found["first"][0.5] > found["first"][0.9])
        ['layer', '50%', '70%', '80%', '90%', '95%'] True
    """
    for level in levels:
        check_sparsity(level, "levels")
    if method not in METHODS:
        raise ArgumentError(f"must be one of {', '.join(METHODS)}, got {method!r}", node="method")
    kind = parse_pattern(pattern)
    batches = make_batches(model.graph, calibration, samples)
    graph = prepared(model.graph, batches)
    ignored = select_ignored(find_layers(graph), ignore)
    layers = {layer.name: layer for layer in find_layers(graph) if layer.name not in ignored}
    score = _Score(graph, batches, labels, samples)
    values: dict[str, dict[float, float]] = {}
    step, images = Lockstep(graph, batches), sum(len(next(iter(batch.values()))) for batch in batches)
    with progress("pruning one layer at a time", len(layers) * len(levels)) as begin:
        for node in graph.nodes:
            if (layer := layers.get(node.name)) is not None:
                statistics = gather(graph, layer, step, images, seed)
                values[layer.name] = {}
                for level in levels:
                    begin(f"{layer.name} at {level:.0%}")
                    fitted = fit_layer(graph, layer, statistics, Target(kind, level), method)
                    changed = with_constants(graph, [(layer, fitted.weights, fitted.bias)])
                    values[layer.name][level] = score(changed)
            step.advance(node)
    return Sensitivity(values, "dB" if labels is None else "accuracy", score.dense, str(kind))


class _Score:
    """Judges a changed network: by its accuracy, or by how far its answers are from the original's."""

    def __init__(self, graph: Graph, batches: Batches, labels: npt.ArrayLike | None, samples: int) -> None:
        self._batches = batches if labels is not None else first_samples(batches, _ANSWERS)
        self._exact = self._answers(graph)
        self._labels: Array | None = None
        self.dense: float | None = None
        if labels is not None:
            given = np.asarray(labels)[:samples]
            self._labels = labels_of(given, len(self._exact), self._exact.shape[-1])
            self.dense = self._accuracy(self._exact)

    def __call__(self, graph: Graph) -> float:
        answers = self._answers(graph)
        if self._labels is not None:
            return self._accuracy(answers)
        noise = float(np.square(answers - self._exact, dtype=np.float64).sum())
        signal = float(np.square(self._exact, dtype=np.float64).sum())
        return 10.0 * float(np.log10(max(signal, 1e-300) / max(noise, 1e-30 * max(signal, 1e-270))))

    def _accuracy(self, answers: Array) -> float:
        return float(np.mean(answers.reshape(len(answers), -1).argmax(axis=1) == self._labels))

    def _answers(self, graph: Graph) -> Array:
        session = InferenceSession(graph)
        return np.concatenate([session.run(None, batch)[0] for batch in self._batches])
