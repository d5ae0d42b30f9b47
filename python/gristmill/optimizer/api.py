"""The optimizer's functions: prune, quantize, both at once, and how sensitive a model is to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from gristmill.console import status
from gristmill.errors import ArgumentError
from gristmill.graph import Array, Graph
from gristmill.model import Model
from gristmill.optimizer.allocate import LEVELS, Cost
from gristmill.optimizer.calibration import CalibrationData, make_batches
from gristmill.optimizer.describe import describe
from gristmill.optimizer.equalize import equalizable_pairs, equalize
from gristmill.optimizer.layers import find_layers
from gristmill.optimizer.masks import parse_pattern
from gristmill.optimizer.plan import Planner
from gristmill.optimizer.prepare import prepare
from gristmill.optimizer.pruning import METHODS, Fitted, prune_by_magnitude, prune_calibrated
from gristmill.optimizer.qdq import insert_weight_qdq
from gristmill.optimizer.quantizing import Quantization, Quantized, quantize_static
from gristmill.optimizer.report import Report
from gristmill.optimizer.rules import select_ignored
from gristmill.optimizer.schedules import ConstantSparsity, PolynomialDecay
from gristmill.optimizer.search import search_sparsity

__all__ = ["METHODS", "MODES", "OptimizedModel", "optimize", "prune", "quantize", "sensitivity"]

Evaluate: TypeAlias = Callable[[Model], npt.ArrayLike]
Sparsity: TypeAlias = float | Mapping[str, float] | ConstantSparsity | PolynomialDecay

MODES = ("static", "dynamic", "weights")
_PRUNING_SAMPLES, _RANGE_SAMPLES = 2048, 512


class OptimizedModel(Model):
    """A model with a report of how it was made."""

    def __init__(self, graph: Graph, report: Report, original: Model) -> None:
        """Hold a graph made from another model."""
        super().__init__(graph, source=original.source, format=original.format)
        self.report = report


def prune(
    model: Model,
    sparsity: Sparsity,
    *,
    pattern: str = "unstructured",
    scope: str = "global",
    method: str | None = None,
    ignore: Collection[str] = (),
    calibration: CalibrationData | None = None,
    samples: int = _PRUNING_SAMPLES,
    cost: Cost | None = None,
    on_step: Callable[[OptimizedModel, float], Model | None] | None = None,
    seed: int = 0,
) -> OptimizedModel:
    """Set weights to zero, and refit the others so that the outputs change least.

    Args:
        model: Any model; never modified.
        sparsity: Share of all weights of convolutions and linear layers to drop; or a table of shares by name or
            regular expression; or a schedule of shares, for those who train between the steps.
        pattern: ``unstructured``, ``1x4`` (blocks of four input channels at one tap), ``N:M``, or ``channel``.
        scope: ``global`` lets layers compete, by calibrated error, or by magnitude without data; ``layer`` drops the
            same share of each.
        method: ``magnitude``; ``refit`` (masks by contribution, then least squares); ``admm`` (masks searched for, then
            least squares; the default with calibration data); ``obs`` (exact greedy where a layer is small enough).
        ignore: Names or regular expressions of layers to leave alone. The first layer, depthwise and tiny layers stay
            dense unless a table names them.
        calibration: Typical inputs.
        samples: How many of them to use at most.
        cost: What saving is counted in, by layer and sparsity, instead of the number of weights.
        on_step: Called after each step of a schedule; may return the model to go on with.
        seed: Equal seeds give equal results.

    Raises:
        ArgumentError: An argument makes no sense.

    Returns:
        The pruned model in float32, with a report.
    """
    method = method or ("magnitude" if calibration is None else "admm")
    if method not in METHODS:
        raise ArgumentError(f"must be one of {', '.join(METHODS)}, got {method!r}", node="method")
    if calibration is None and method != "magnitude":
        raise ArgumentError(f"method {method!r} needs calibration data", node="calibration")
    batches = [] if calibration is None else make_batches(model.graph, calibration, samples)
    steps = sparsity if isinstance(sparsity, (ConstantSparsity, PolynomialDecay)) else (sparsity,)
    current: Model = model
    result: OptimizedModel | None = None
    for share in steps:
        graph = _prepared(current.graph, batches)
        planner = Planner(graph, parse_pattern(pattern), scope, ignore, batches, cost, seed)
        changed, fitted = _pruned(graph, planner, share, method, batches, seed)
        report = describe(graph, changed, fitted=fitted, reasons=planner.reasons)
        result = OptimizedModel(changed, report, model)
        current = result
        if on_step is not None and isinstance(share, float):
            current = on_step(result, share) or result
    if result is None:
        raise ArgumentError("the schedule has no steps", node="sparsity")
    return result


def quantize(
    model: Model,
    calibration: CalibrationData | None = None,
    *,
    mode: str = "static",
    calibrator: str = "mse",
    percentile: float = 99.99,
    symmetric: bool = False,
    bias_correction: bool = True,
    equalization: str | bool = "auto",
    min_layer_sqnr: float = 10.0,
    ignore: Collection[str] = (),
    samples: int = _RANGE_SAMPLES,
) -> OptimizedModel:
    """Quantize layers to int8: weights symmetric per output channel, so that zeros stay zeros.

    Args:
        model: A float32 model; never modified.
        calibration: Typical inputs; needed by ``static``.
        mode: ``static``: activations have fixed scales; ``dynamic``: each run measures them; ``weights``: they stay
            float32.
        calibrator: How ranges are chosen: ``mse``, ``minmax``, ``percentile`` or ``entropy``.
        percentile: What ``percentile`` keeps, in percent.
        symmetric: int8 activations around zero instead of uint8 with a zero point.
        bias_correction: Let biases make up for shifts of the means.
        equalization: Balance the channels of depthwise layers and their neighbours: True, False, or ``auto`` for where
            there are any.
        min_layer_sqnr: Layers whose outputs would have a lower ratio of signal to noise, in dB, stay float32.
        ignore: Names or regular expressions of layers to leave in float32.
        samples: How many samples to use at most.

    Raises:
        ArgumentError: An argument makes no sense, or calibration data is missing or not finite.

    Returns:
        The model with QuantizeLinear and DequantizeLinear, with a report.
    """
    if mode not in MODES:
        raise ArgumentError(f"must be one of {', '.join(MODES)}, got {mode!r}", node="mode")
    if mode == "static" and calibration is None:
        raise ArgumentError("static quantization needs calibration data", node="calibration")
    batches = [] if calibration is None else make_batches(model.graph, calibration, samples)
    how = Quantization(calibrator, percentile, symmetric, bias_correction, min_layer_sqnr)
    graph = _prepared(model.graph, batches)
    done = _quantized(graph, mode, batches, how, ignore, equalization)
    reasons = select_ignored(find_layers(graph), ignore)
    return OptimizedModel(done.graph, describe(graph, done.graph, quantized=done, reasons=reasons), model)


def optimize(
    model: Model,
    calibration: CalibrationData,
    *,
    sparsity: Sparsity | None = None,
    pattern: str = "auto",
    quantize: str | None = "static",
    evaluate: Evaluate | None = None,
    max_drop: float | None = None,
    holdout: Evaluate | None = None,
    method: str = "admm",
    ignore: Collection[str] = (),
    samples: int = _PRUNING_SAMPLES,
    cost: Cost | None = None,
    trials: int = 7,
    seed: int = 0,
) -> OptimizedModel:
    """Prune, refit and quantize in one go, to a sparsity or to the highest one within a budget.

    Args:
        model: A float32 model; never modified.
        calibration: Typical inputs; a few hundred to a few thousand.
        sparsity: As in :func:`prune`; 0.5 if there is no budget either.
        pattern: As in :func:`prune`; ``auto`` is ``unstructured``.
        quantize: ``static``, ``dynamic``, ``weights``, or None for float32.
        evaluate: Scores a model, higher is better: one number, or one per sample (then the loss is bounded by a paired
            test instead of taken as it is). Used to select, so keep other data for judging the result.
        max_drop: How much of the score may be lost.
        holdout: Scores the result on data that it was not selected on, for the report.
        method: As in :func:`prune`.
        ignore: Layers to leave alone.
        samples: How many samples to use at most.
        cost: As in :func:`prune`.
        trials: How many models a search may make.
        seed: Equal seeds give equal results.

    Raises:
        ArgumentError: An argument makes no sense, or the budget cannot be kept; the message says what can be reached.
    """
    if quantize is not None and quantize not in MODES:
        raise ArgumentError(f"must be one of {', '.join(MODES)} or None, got {quantize!r}", node="quantize")
    if (evaluate is None) != (max_drop is None):
        raise ArgumentError("a budget takes both evaluate and max_drop", node="max_drop")
    if max_drop is not None and sparsity is not None:
        raise ArgumentError("give either a sparsity or a budget", node="sparsity")
    if method not in METHODS:
        raise ArgumentError(f"must be one of {', '.join(METHODS)}, got {method!r}", node="method")
    batches = make_batches(model.graph, calibration, samples)
    graph = _prepared(model.graph, batches)
    planner = Planner(graph, parse_pattern("unstructured" if pattern == "auto" else pattern), "global", ignore, batches)
    planner.cost, planner.seed = cost, seed

    def attempt(share: Sparsity) -> OptimizedModel:
        pruned, fitted = _pruned(graph, planner, _last(share), method, batches, seed)
        done = None
        if quantize is not None:
            few = _first(batches, _RANGE_SAMPLES)
            done = _quantized(pruned, quantize, few, Quantization(), ignore, "auto")
        changed = pruned if done is None else done.graph
        report = describe(graph, changed, fitted=fitted, quantized=done, reasons=planner.reasons)
        return OptimizedModel(changed, report, model)

    if evaluate is None or max_drop is None:
        return _judged(attempt(0.5 if sparsity is None else sparsity), model, holdout)
    score = evaluate

    def scored(share: float) -> tuple[OptimizedModel, npt.ArrayLike]:
        made = attempt(share)
        return made, score(made)

    found = search_sparsity(scored, evaluate(model), max_drop, trials=trials)
    report = found.outcome.report
    notes = (*report.notes, f"{found.sparsity:.1%} is the highest sparsity tried that keeps within {max_drop:g}")
    selected = Report(report.layers, report.settings, notes, tuple(found.trials))
    return _judged(OptimizedModel(found.outcome.graph, selected, model), model, holdout)


def sensitivity(
    model: Model,
    calibration: CalibrationData,
    *,
    pattern: str = "unstructured",
    samples: int = _RANGE_SAMPLES,
    seed: int = 0,
) -> dict[str, dict[float, float]]:
    """How much each layer's pruning harms the model: expected divergence of its answers by layer and sparsity.

    Raises:
        ArgumentError: An argument makes no sense.
    """
    batches = make_batches(model.graph, calibration, samples)
    planner = Planner(_prepared(model.graph, batches), parse_pattern(pattern), batches=batches, seed=seed)
    return {
        curve.layer.name: {level: float(harm) for level, harm in zip(LEVELS, curve.harm(np.array(LEVELS)), strict=True)}
        for curve in planner.curves()
    }


def _prepared(graph: Graph, batches: Iterable[Mapping[str, Array]]) -> Graph:
    first = next(iter(batches), None)
    return graph if first is None else prepare(graph, first)


def _pruned(
    graph: Graph,
    planner: Planner,
    share: float | Mapping[str, float],
    method: str,
    batches: list[dict[str, Array]],
    seed: int,
) -> tuple[Graph, dict[str, Fitted]]:
    with status("deciding how much each layer can lose"):
        targets = planner.targets(share)
    if not targets:
        return graph, {}
    if method == "magnitude":
        return prune_by_magnitude(graph, targets), {}
    with status(f"pruning {len(targets)} layers"):
        return prune_calibrated(graph, targets, batches, method=method, seed=seed)


def _quantized(
    graph: Graph,
    mode: str,
    batches: list[dict[str, Array]],
    how: Quantization,
    ignore: Collection[str],
    equalization: str | bool,
) -> Quantized:
    ignored = select_ignored(find_layers(graph), ignore)
    if equalization is True or (equalization == "auto" and equalizable_pairs(graph)):
        graph = equalize(graph)
    layers = [layer for layer in find_layers(graph) if layer.name not in ignored]
    with status(f"quantizing {len(layers)} layers"):
        if mode == "static":
            return quantize_static(graph, batches, how, layers)
        return Quantized(insert_weight_qdq(graph, layers, dynamic=mode == "dynamic"))


def _judged(made: OptimizedModel, original: Model, holdout: Evaluate | None) -> OptimizedModel:
    if holdout is None:
        return made
    before, after = (float(np.mean(np.asarray(holdout(item)))) for item in (original, made))
    report = made.report
    notes = (*report.notes, f"on data that it was not selected on: {before:.4f} -> {after:.4f}")
    made.report = Report(report.layers, report.settings, notes, report.trials)
    return made


def _last(share: Sparsity) -> float | Mapping[str, float]:
    return list(share)[-1] if isinstance(share, (ConstantSparsity, PolynomialDecay)) else share


def _first(batches: list[dict[str, Array]], samples: int) -> list[dict[str, Array]]:
    size = len(next(iter(batches[0].values())))
    return batches[: max(1, math.ceil(samples / max(size, 1)))]
