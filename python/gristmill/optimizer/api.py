"""The optimizer's functions: prune, quantize, and both at once."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from gristmill.console import progress
from gristmill.errors import ArgumentError
from gristmill.model import Model
from gristmill.optimizer.allocate import Cost
from gristmill.optimizer.batching import wide_batches
from gristmill.optimizer.calibration import CalibrationData
from gristmill.optimizer.channels import drop_dead_channels
from gristmill.optimizer.describe import describe
from gristmill.optimizer.kernel_times import KernelTimes, measure_kernel_times, stored_weights
from gristmill.optimizer.layers import Layer, find_layers
from gristmill.optimizer.masks import Pattern, parse_pattern
from gristmill.optimizer.measuring import one_sample, run_time
from gristmill.optimizer.optimized import OptimizedModel, apply_masks
from gristmill.optimizer.pipeline import MODES, Batches, first_samples, prepared, pruned, quantized
from gristmill.optimizer.plan import Planner
from gristmill.optimizer.pruning import METHODS
from gristmill.optimizer.quantizing import Quantization
from gristmill.optimizer.rules import select_ignored
from gristmill.optimizer.schedules import ConstantSparsity, PolynomialDecay
from gristmill.optimizer.search import loss_interval, search_sparsity
from gristmill.report import Trial

__all__ = ["METHODS", "MODES", "optimize", "prune", "quantize"]

Evaluate: TypeAlias = Callable[[Model], npt.ArrayLike]
Sparsity: TypeAlias = float | Mapping[str, float] | ConstantSparsity | PolynomialDecay

_PRUNING_SAMPLES, _RANGE_SAMPLES, _TIMED_SAMPLES = 2048, 512, 16


def prune(
    model: Model,
    sparsity: Sparsity | None = None,
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
            regular expression; or a schedule of shares, for those who train between the steps. N:M needs none.
        pattern: ``unstructured``, ``1x4`` (blocks of four input channels at one tap), ``N:M``, or ``channel``: whole
            output channels, which are then removed from the network; what the layers behind them lose comes on top of
            the sparsity.
        scope: ``global`` lets layers compete, by calibrated error, or by magnitude without data; ``layer`` drops the
            same share of each.
        method: ``magnitude``; ``refit`` (masks by contribution, then least squares); ``admm`` (masks searched for, then
            least squares; the default with calibration data); ``obs`` (exact greedy where a layer is small enough).
        ignore: Names or regular expressions of layers to leave alone. The first layer, depthwise and tiny layers stay
            dense unless a table names them.
        calibration: Typical inputs, shuffled: what none of them shows is not kept.
        samples: How many of them to use at most, from the start.
        cost: What saving is counted in, by layer and sparsity, instead of the number of weights.
        on_step: Called after each step with the model so far and its sparsity, to train it for example; may return the
            model to go on with, in which what was pruned is set to zero again.
        seed: Equal seeds give equal results.

    Raises:
        ArgumentError: An argument makes no sense.

    Returns:
        The pruned model in float32, with a report.

    Example:
        >>> from gristmill.graph import GraphBuilder
        >>> rng, build = np.random.default_rng(0), GraphBuilder()
        >>> weights = [rng.standard_normal(shape).astype(np.float32) for shape in ((64, 32), (64, 64), (10, 64))]
        >>> x = build.input("x", np.float32, ("n", 32))
        >>> for i, w in enumerate(weights):
        ...     x = build.add("Gemm", [x, build.constant(f"w{i}", w)], name=f"fc{i}", transB=1)
        >>> model = Model(build.build([x]))
        >>> print(prune(model, {"fc1": 0.75}).report)
        3 layers, 45.3% zeros, 26.5 KiB -> 21.4 KiB (80.9% of the original)
        layer  shape  zeros  type        bytes   before  why
        -----  -----  -----  -------  --------  -------  ----------------
        fc0    64x32   0.0%  float32     8 KiB    8 KiB  not in the table
        fc1    64x64  75.0%  float32  10.9 KiB   16 KiB
        fc2    10x64   0.0%  float32   2.5 KiB  2.5 KiB  not in the table
        >>> shares = []
        >>> made = prune(model, PolynomialDecay(0.1, 0.5, steps=3), on_step=lambda made, share: shares.append(share))
        >>> [round(share, 3) for share in shares]
        [0.1, 0.45, 0.5]
    """
    method = method or ("magnitude" if calibration is None else "admm")
    if method not in METHODS:
        raise ArgumentError(f"must be one of {', '.join(METHODS)}, got {method!r}", node="method")
    if calibration is None and method != "magnitude":
        raise ArgumentError(f"method {method!r} needs calibration data", node="calibration")
    batches = [] if calibration is None else wide_batches(model.graph, calibration, samples)
    steps = list(sparsity) if isinstance(sparsity, (ConstantSparsity, PolynomialDecay)) else [sparsity]
    start = current = prepared(model.graph, batches)
    kind = parse_pattern(pattern)
    for share in steps:
        planner = Planner(current, kind, scope, ignore, batches, cost, seed)
        current, fitted = pruned(current, planner, share, method, batches)
        result = OptimizedModel(current, describe(start, current, fitted=fitted, reasons=planner.reasons), model)
        reached = share if isinstance(share, float) else result.report.sparsity
        trained = on_step(result, reached) if on_step is not None else None
        if trained is not None:
            current = prepared(apply_masks(trained, result.masks()).graph, batches)
            result = OptimizedModel(current, describe(start, current, reasons=planner.reasons), model)
    if kind.kind == "channel":
        smaller = drop_dead_channels(current)
        result = OptimizedModel(smaller, describe(start, smaller, fitted=fitted, reasons=planner.reasons), model)
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
    per_channel: bool = True,
    equalize: str | bool = "auto",
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
        per_channel: A scale for each output channel's weights instead of one for a layer.
        equalize: Balance the channels of depthwise layers and their neighbours: True, False, or ``auto`` for where
            there are any. Unless it is False, ``static`` also raises channels that are much quieter than others.
        min_layer_sqnr: Layers whose outputs would have a lower ratio of signal to noise, in dB, stay float32.
        ignore: Names or regular expressions of layers to leave in float32.
        samples: How many samples to use at most.

    Raises:
        ArgumentError: An argument makes no sense, or calibration data is missing or not finite.

    Returns:
        The model with QuantizeLinear and DequantizeLinear, with a report.

    Example:
        >>> from gristmill.graph import GraphBuilder
        >>> rng, build = np.random.default_rng(0), GraphBuilder()
        >>> w = build.constant("w", rng.standard_normal((8, 16)).astype(np.float32))
        >>> x = build.input("x", np.float32, ("n", 16))
        >>> model = Model(build.build([build.add("Gemm", [x, w], name="fc", transB=1)]))
        >>> made = quantize(model, rng.standard_normal((64, 16)).astype(np.float32))
        >>> made.report.layers[0].dtype, made.report.layers[0].sqnr > 30, made.graph.constants["w.quantized"].dtype
        ('int8', True, dtype('int8'))
    """
    if equalize not in {True, False, "auto"}:
        raise ArgumentError(f"must be True, False or 'auto', got {equalize!r}", node="equalize")
    if mode not in MODES:
        raise ArgumentError(f"must be one of {', '.join(MODES)}, got {mode!r}", node="mode")
    if mode == "static" and calibration is None:
        raise ArgumentError("static quantization needs calibration data", node="calibration")
    batches = [] if calibration is None else wide_batches(model.graph, calibration, samples)
    how = Quantization(calibrator, percentile, symmetric, bias_correction, min_layer_sqnr, per_channel)
    graph = prepared(model.graph, batches)
    done = quantized(graph, mode, batches, how, ignore, equalize)
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
    cost: Cost | Literal["time"] | None = None,
    trials: int = 7,
    measure: bool = True,
    seed: int = 0,
) -> OptimizedModel:
    """Prune, refit and quantize in one go, to a sparsity or to the highest one within a budget.

    Channels that nothing depends on any more are removed.

    Args:
        model: A float32 model; never modified.
        calibration: Typical inputs; a few hundred to a few thousand, shuffled: what none of them shows is not kept.
        sparsity: As in :func:`prune`, of a schedule the last; 0.5 if there is no budget either.
        pattern: As in :func:`prune`; or ``auto``: for each layer unstructured, 1x4 or dense, the fastest mix by
            measured kernel times whose expected harm is at most 3 % above the least. A ``cost`` of your own makes
            it ``unstructured``.
        quantize: ``static``, ``dynamic``, ``weights``, or None for float32.
        evaluate: Scores a model, higher is better: one number, or one per sample, as :class:`gristmill.Accuracy` does
            (then the loss is bounded by a paired test instead of taken as it is). Used to select, so keep other data
            for judging the result.
        max_drop: How much of the score may be lost.
        holdout: Scores the result on data that it was not selected on, for the report.
        method: As in :func:`prune`.
        ignore: Layers to leave alone.
        samples: How many samples to use at most.
        cost: As in :func:`prune`; or ``time``: as ``auto`` chooses, but all in the pattern named, ``unstructured`` or
            ``1x4``.
        trials: How many models a search may make.
        measure: Run the result and the original, about a second in all, so that the report shows kernels, times and
            memory. They never decide what the model becomes.
        seed: Equal seeds give equal results; with ``auto`` for equal kernel times, which are kept on disk once they
            are measured.

    Raises:
        ArgumentError: An argument makes no sense, or the budget cannot be kept; the message says what can be reached.

    Example:
        >>> from gristmill.graph import GraphBuilder
        >>> rng, build = np.random.default_rng(0), GraphBuilder()
        >>> weights = [rng.standard_normal(shape).astype(np.float32) for shape in ((64, 32), (64, 64), (10, 64))]
        >>> x = build.input("x", np.float32, ("n", 32))
        >>> for i, w in enumerate(weights):
        ...     x = build.add("Gemm", [x, build.constant(f"w{i}", w)], name=f"fc{i}", transB=1)
        >>> model = Model(build.build([x]))
        >>> inputs = rng.standard_normal((256, 32)).astype(np.float32)
        >>> small = optimize(model, inputs, sparsity=0.4)
        >>> [layer.dtype for layer in small.report.layers], round(small.report.sparsity, 1)
        (['int8', 'int8', 'int8'], 0.4)
        >>> small.report.whole.file_after < small.report.whole.file_before
        True
        >>> def score(candidate: Model) -> float:
        ...     return 0.9 - 0.2 * candidate.report.sparsity if candidate is not model else 0.9
        >>> optimize(model, inputs, evaluate=score, max_drop=0.1, trials=5).report.sparsity > 0.4
        True
    """
    if quantize is not None and quantize not in MODES:
        raise ArgumentError(f"must be one of {', '.join(MODES)} or None, got {quantize!r}", node="quantize")
    if (evaluate is None) != (max_drop is None):
        raise ArgumentError("a budget takes both evaluate and max_drop", node="max_drop")
    if max_drop is not None and sparsity is not None:
        raise ArgumentError("give either a sparsity or a budget", node="sparsity")
    if method not in METHODS:
        raise ArgumentError(f"must be one of {', '.join(METHODS)}, got {method!r}", node="method")
    batches = wide_batches(model.graph, calibration, samples)
    maker = _Maker(model, batches, quantize, method, pattern, ignore, cost, seed)
    if evaluate is None or max_drop is None:
        made = maker.make(0.5 if sparsity is None and not maker.has_own_sparsity else sparsity)
    elif maker.has_own_sparsity:
        raise ArgumentError(f"{pattern} has a sparsity of its own, so there is nothing to search", node="max_drop")
    else:
        made = _within(maker, evaluate, max_drop, trials, measure)
    if holdout is not None:
        made.report = replace(made.report, notes=(*made.report.notes, _judged(made, model, holdout)))
    if measure:
        made.measure(*one_sample(model.graph, batches[0]).values())
    return made


class _Maker:
    """Makes models of any sparsity; what is measured for that is measured once."""

    def __init__(
        self,
        model: Model,
        batches: Batches,
        mode: str | None,
        method: str,
        pattern: str,
        ignore: Collection[str],
        cost: Cost | Literal["time"] | None,
        seed: int,
    ) -> None:
        self.model, self.batches = model, batches
        self._graph = prepared(model.graph, batches)
        self._mode, self._method, self._ignore = mode, method, ignore
        kind = parse_pattern("unstructured" if pattern == "auto" else pattern)
        if isinstance(cost, str) and cost != "time":
            raise ArgumentError(f"must be 'time', a function or None, got {cost!r}", node="cost")
        timed = cost == "time" or (pattern == "auto" and cost is None)
        if timed and kind.kind not in {"unstructured", "1x4"}:
            raise ArgumentError(f"time decides between layers of pattern unstructured or 1x4, not {kind}", node="cost")
        self.planner = Planner(
            self._graph,
            None if timed else kind,
            "global",
            ignore,
            batches,
            None if cost == "time" else cost,
            seed,
            timer=self._time,
        )
        if pattern != "auto" or mode not in {"static", "dynamic"}:
            self.planner.patterns = (kind,)
        self.has_own_sparsity = kind.kind == "n:m"

    def make(self, sparsity: Sparsity | None) -> OptimizedModel:
        """The model of a sparsity, without what is measured."""
        share = list(sparsity)[-1] if isinstance(sparsity, (ConstantSparsity, PolynomialDecay)) else sparsity
        graph, fitted = pruned(self._graph, self.planner, share, self._method, self.batches)
        graph, done = drop_dead_channels(graph), None
        if self._mode is not None:
            few = first_samples(self.batches, _RANGE_SAMPLES)
            done = quantized(graph, self._mode, few, Quantization(), self._ignore)
            graph = done.graph
        reasons = self.planner.decided | self.planner.reasons
        report = describe(self._graph, graph, fitted=fitted, quantized=done, reasons=reasons)
        return OptimizedModel(graph, report, self.model)

    def _time(self, layers: Sequence[Layer], patterns: Sequence[Pattern]) -> KernelTimes:
        """The kernel times of the network that will come out, for one sample at a time."""
        graph = self._graph
        if self._mode is not None:
            few = first_samples(self.batches, _TIMED_SAMPLES)
            graph = quantized(
                graph, self._mode, few, Quantization("minmax", min_layer_sqnr=-np.inf), self._ignore, False
            ).graph
        feeds = one_sample(self.model.graph, self.batches[0])
        return measure_kernel_times(graph, stored_weights(graph, layers), layers, feeds, patterns)


def _within(maker: _Maker, evaluate: Evaluate, max_drop: float, trials: int, measure: bool) -> OptimizedModel:
    """The sparsest model inside a budget of lost score."""
    feeds = one_sample(maker.model.graph, maker.batches[0])
    facts: list[tuple[int, float | None]] = []

    def attempt(share: float) -> tuple[OptimizedModel, npt.ArrayLike]:
        begin(f"{share:.1%} sparsity")
        made = maker.make(share)
        facts.append((made.report.bytes_after, run_time(made.graph, feeds) if measure else None))
        return made, evaluate(made)

    before = evaluate(maker.model)
    with progress("trial", trials) as begin:
        found = search_sparsity(attempt, before, max_drop, high=maker.planner.most(), trials=trials)
    made = found.outcome
    note = f"{found.sparsity:.1%} is the highest sparsity tried that keeps within {max_drop:g}"
    tried = [
        Trial(one.sparsity, one.score, one.loss, one.accepted, size, ms)
        for one, (size, ms) in zip(found.trials, facts, strict=True)
    ]
    score = float(np.mean(np.asarray(before, np.float64)))
    made.report = replace(made.report, notes=(*made.report.notes, note), trials=tuple(tried), score_before=score)
    return made


def _judged(made: OptimizedModel, original: Model, holdout: Evaluate) -> str:
    before, after = (np.asarray(holdout(item), np.float64) for item in (original, made))
    mean, low, high = loss_interval(before, after)
    text = f"on data that it was not selected on: {before.mean():.4f} -> {after.mean():.4f}"
    return text if low == high else f"{text}, a loss of {mean:.4f} (95 % interval {low:.4f} to {high:.4f})"
