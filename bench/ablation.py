"""What each step of pruning is worth: one table per model and pattern, every step with the ones before it.

    magnitude    drop the smallest weights
    + refit      drop those that contribute least; least squares for the others, on the original network's inputs
    + admm       search for the mask
    + sequential refit for the inputs that the layers before give once they are pruned
    + statistics give channels their means and deviations back
    + int8       quantize, correcting the means again

All steps drop the same share of each layer: the optimizer's own allocation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gristmill as gm
from bars import Bar
from gristmill.console import progress
from gristmill.evaluation import Comparison, Evaluation
from gristmill.graph import Graph
from gristmill.optimizer.batching import wide_batches
from gristmill.optimizer.masks import parse_pattern
from gristmill.optimizer.pipeline import Batches, first_samples, prepared, quantized
from gristmill.optimizer.plan import Planner
from gristmill.optimizer.pruning import Target, prune_by_magnitude, prune_calibrated
from gristmill.optimizer.quantizing import Quantization
from gristmill.optimizer.repair import repair
from real_models import RealModel

STEPS = ("magnitude", "+ refit", "+ admm", "+ sequential", "+ statistics", "+ int8")
LEVELS = (0.5, 0.7, 0.8, 0.9)
PATTERNS = ("unstructured", "1x4")


@dataclass(frozen=True)
class Row:
    """One model at one sparsity: what each of :data:`STEPS` reaches; nothing if the sparsity cannot be reached."""

    model: RealModel
    pattern: str
    sparsity: float
    results: tuple[Evaluation, ...] = ()

    def gains(self) -> list[Comparison]:
        """What each step but the first adds."""
        return [after.against(before) for before, after in zip(self.results, self.results[1:], strict=False)]


def ablate(model: RealModel) -> list[Row]:
    """Every step at every level and pattern."""
    batches = wide_batches(model.model.graph, model.calibration, len(model.calibration))
    graph = prepared(model.model.graph, batches)
    rows = []
    with progress(f"ablation of {model.name}", len(LEVELS) * len(PATTERNS)) as begin:
        for pattern in PATTERNS:
            planner = Planner(graph, parse_pattern(pattern), batches=batches)
            for sparsity in LEVELS:
                begin(f"{sparsity:.0%} {pattern}")
                rows.append(_row(model, graph, planner, sparsity, batches))
    return rows


def _row(model: RealModel, graph: Graph, planner: Planner, sparsity: float, batches: Batches) -> Row:
    try:
        targets = planner.targets(sparsity)
    except gm.ArgumentError:
        return Row(model, str(planner.pattern), sparsity)
    made = _steps(graph, targets, batches)
    return Row(model, str(planner.pattern), sparsity, tuple(model.judge(gm.Model(one)) for one in made))


def _steps(graph: Graph, targets: dict[str, Target], batches: Batches) -> list[Graph]:
    one_by_one = [
        prune_calibrated(graph, targets, batches, method=method, sequential=sequential)[0]
        for method, sequential in (("refit", False), ("admm", False), ("admm", True))
    ]
    repaired = repair(graph, one_by_one[-1], batches)
    integer = quantized(repaired, "static", first_samples(batches, 512), Quantization()).graph
    return [prune_by_magnitude(graph, targets), *one_by_one, repaired, integer]


def bars(rows: Sequence[Row]) -> list[Bar]:
    """One for each step that must not worsen: the loss over the half-width of its paired 95 % interval."""
    result = []
    for row in rows:
        for step, gain in zip(STEPS[1:-1], row.gains(), strict=False):
            name = f"{row.model.name} {row.sparsity:.0%} {row.pattern} {step}"
            result.append(no_worse(name, gain, "without it"))
    return result


def no_worse(name: str, gain: Comparison, than: str) -> Bar:
    """Met if a loss is within the noise of the pairs: not larger than half of its 95 % interval."""
    width = (gain.interval[1] - gain.interval[0]) / 2
    loss = max(-gain.gain, 0.0) / width if width else 0.0
    figure = f"{gain.accuracy:.2%} ({100 * gain.gain:+.2f} ± {100 * width:.2f} pp)"
    return Bar(name, figure, f"{than} {gain.other:.2%}", loss, 1.0, at_most=True)


def markdown(rows: Sequence[Row]) -> str:
    """A page with a table per model and pattern."""
    lines = ["# What each step of pruning is worth", ""]
    lines += [
        "Top-1 accuracy in percent after each step, every step together with those before it. All steps drop the same "
        "share of each layer. A value in italics differs from the one on its left by less than the paired 95 % "
        "interval; a loss beyond it would be marked with (!). `python bench/accuracy_table.py ablation --markdown "
        "docs/ablation.md` writes this page.",
        "",
        "| step | what it does |",
        "|---|---|",
        "| magnitude | drop the smallest weights; change nothing else |",
        "| + refit | drop those that contribute least, and solve least squares for the others, layer by layer |",
        "| + admm | search for the masks by alternating directions |",
        "| + sequential | refit each layer for the inputs that it gets from the pruned layers before it |",
        "| + statistics | give channels back their means and deviations, if that clearly brings the answers closer |",
        "| + int8 | quantize weights and activations |",
    ]
    for model in dict.fromkeys(row.model for row in rows):
        lines += [
            "",
            f"## {model.name}",
            "",
            f"{model.dense.accuracy:.2%} as it came. Calibrated on {model.split}.",
            "",
        ]
        lines += ["| zeros | pattern | " + " | ".join(STEPS) + " |", "|---|---|" + "---|" * len(STEPS)]
        lines += [_line(row) for row in rows if row.model is model]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    if not row.results:
        cells = ["cannot be reached"] + [""] * (len(STEPS) - 1)
    else:
        cells = [f"{100 * row.results[0].accuracy:.2f}", *map(_cell, row.gains())]
    return f"| {row.sparsity:.0%} | {row.pattern} | " + " | ".join(cells) + " |"


def _cell(gain: Comparison) -> str:
    low, high = gain.interval
    text = f"{100 * gain.accuracy:.2f}"
    if low <= 0 <= high:
        return f"*{text}*"
    return f"{text} (!)" if high < 0 else text
