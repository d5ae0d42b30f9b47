"""compare: what a model gains on this machine, measured against itself and against other engines."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from gristmill import kernels
from gristmill.comparison.candidates import PEERS, is_quantized, make_forms, peer_candidates
from gristmill.comparison.curve import curve_forms
from gristmill.comparison.result import Comparison, Setting
from gristmill.comparison.running import Run
from gristmill.comparison.samples import gather
from gristmill.console import activity
from gristmill.embedded import load_digits
from gristmill.errors import ArgumentError
from gristmill.graph import ValueInfo
from gristmill.loaders import load
from gristmill.loaders.source import Given
from gristmill.model import Model
from gristmill.optimizer.api import METHODS
from gristmill.optimizer.calibration import CalibrationData

__all__ = ["compare"]


def compare(
    model: Model | Given | None = None,
    calibration: CalibrationData | None = None,
    *,
    sparsity: Sequence[float] = (0.7, 0.9),
    batch: Sequence[int] = (1,),
    threads: Sequence[int] = (1,),
    peers: Sequence[str] = PEERS,
    seconds: float = 0.5,
    samples: int = 512,
    method: str | None = None,
    cold_starts: int = 2,
    curve: bool = False,
    torch_program: str | os.PathLike[str] | None = None,
) -> Comparison:
    """Prune and quantize a model in several ways and measure each form beside other engines.

    Fresh processes measure, pinned to as many cores as there are threads; in each, all candidates take turns. Cold
    starts and memory are measured in processes of their own.

    Args:
        model: A :class:`Model` or what :func:`gristmill.load` takes; the embedded network of digits by default.
        calibration: Typical inputs, as for :func:`gristmill.optimize`; without them inputs are random.
        sparsity: Shares of the weights to drop, each tried unstructured and in 1x4 blocks.
        batch: Batch sizes.
        threads: Numbers of threads; those beyond the usable cores are left out.
        peers: Other engines; those that are not installed are left out.
        seconds: For each candidate in each setting.
        samples: How many of the inputs to calibrate on at most.
        method: How to prune, as for :func:`gristmill.prune`; by default ``refit``, or ``magnitude`` on random inputs.
        cold_starts: How often each candidate is started in a fresh process, the best of which counts; 0 for never.
        curve: Also measure at which sparsity each kind of sparse weights begins to pay.
        torch_program: A file of ``torch.export.save`` with the same network, for the peer ``torch``.

    Returns:
        Times, sizes, agreement, cold starts and memory; what was left out is said in its notes.

    Raises:
        GristmillError: The model cannot be run, or an argument makes no sense.

    Example:
        >>> found = compare(sparsity=[], peers=[], seconds=0.01, cold_starts=0)
        >>> [candidate.name for candidate in found.candidates]
        ['gristmill dense f32', 'gristmill dense int8']
    """
    _check(sparsity, batch, threads, peers, seconds, method, cold_starts)
    model, calibration, name = _given(model, calibration)
    data = gather(model.graph, calibration, samples)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gristmill-")))
        say = stack.enter_context(activity())
        forms = make_forms(model, data, sparsity, method, folder, say)
        program = None if torch_program is None else os.path.abspath(torch_program)
        others, lines = peer_candidates(model, forms, list(dict.fromkeys(peers)), program, folder)
        about = "The model is quantized already, so it is compared as it is." if is_quantized(model) else data.note
        run = Run(folder, data, seconds, say, [*forms.candidates, *others], [about, *lines])
        for setting in _settings(batch, threads, model.inputs, run.notes):
            run.measure(setting)
        if cold_starts:
            run.cold_starts(cold_starts)
        if curve and not is_quantized(model):
            run.curve(curve_forms(model, data, folder, say))
        return run.result(name)


def _given(model: Model | Given | None, data: CalibrationData | None) -> tuple[Model, CalibrationData | None, str]:
    if model is None:
        digits = load_digits()
        return digits.model, digits.calibration if data is None else data, "The embedded network of digits"
    loaded = model if isinstance(model, Model) else load(model)
    return loaded, data, os.path.basename(loaded.source) if loaded.source else "A model made in Python"


def _check(
    sparsity: Sequence[float],
    batch: Sequence[int],
    threads: Sequence[int],
    peers: Sequence[str],
    seconds: float,
    method: str | None,
    cold_starts: int,
) -> None:
    for share in sparsity:
        if not 0 < share < 1:
            raise ArgumentError(f"must lie between 0 and 1, got {share!r}", node="sparsity")
    for name, counts in (("batch", batch), ("threads", threads)):
        if not counts or any(count < 1 for count in counts):
            raise ArgumentError(f"expected whole numbers of at least 1, got {list(counts)!r}", node=name)
    for peer in peers:
        if peer not in PEERS:
            raise ArgumentError(f"must be among {', '.join(PEERS)}, got {peer!r}", node="peers")
    if not 0 < seconds <= 3600:
        raise ArgumentError(f"must lie between 0 and 3600, got {seconds!r}", node="seconds")
    if cold_starts < 0:
        raise ArgumentError(f"must not be negative, got {cold_starts!r}", node="cold_starts")
    if method is not None and method not in METHODS:
        raise ArgumentError(f"must be one of {', '.join(METHODS)}, got {method!r}", node="method")


def _settings(
    batch: Sequence[int], threads: Sequence[int], inputs: Sequence[ValueInfo], notes: list[str]
) -> list[Setting]:
    """The settings that this model and machine can do; a note for each that they cannot."""
    fixed = {info.shape[0] for info in inputs if info.shape and isinstance(info.shape[0], int)}
    usable = kernels.cpu_info().affinity_cores
    sizes = list(dict.fromkeys(batch))
    if fixed and set(sizes) != fixed:
        size = max(fixed)
        notes.append(f"The model takes batches of {size} alone, so no other batch is measured.")
        sizes = [size]
    counts = [count for count in dict.fromkeys(threads) if count <= usable]
    if len(counts) < len(set(threads)):
        cores = f"{usable} core{'s' * (usable > 1)} usable here"
        notes.append(f"Only {cores}, so more threads are not measured.")
    return [Setting(size, count) for count in counts or [1] for size in sizes]
