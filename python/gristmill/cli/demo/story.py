"""What the demonstration does: shrink the embedded network step by step, and measure what became of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gristmill import kernels
from gristmill.artefact import pack_artefact
from gristmill.cli.demo.peer import Peer, find_peer
from gristmill.console import format_bytes, status
from gristmill.embedded import Digits, load_digits
from gristmill.evaluation import Evaluation
from gristmill.model import Model
from gristmill.optimizer import OptimizedModel, prune, quantize, remove_dead_channels
from gristmill.profile import Profile
from gristmill.report import Report
from gristmill.session import InferenceSession
from gristmill.timing import Timing, interleave

__all__ = ["BATCHES", "Candidate", "Step", "Story", "tell"]

BATCHES = (1, 16)
_REFIT_IMAGES, _COMPARED_IMAGES = 512, 64

Float32 = npt.NDArray[np.float32]
Run = Callable[[Float32], Float32]


@dataclass(frozen=True)
class Step:
    """Something that was done: a verb, what came of it, and how long it took."""

    verb: str
    outcome: str
    seconds: float


@dataclass(frozen=True, eq=False)
class Candidate:
    """One form of the network, run by one engine.

    Attributes:
        engine: ``gristmill``, or the name and version of another.
        dtype: ``float32`` or ``int8``.
        sparsity: Share of its weights that was pruned.
        bytes: Of its file.
        answers: What it reads in the held-out images.
        timings: Seconds of a run, by batch.
    """

    engine: str
    dtype: str
    sparsity: float
    bytes: int
    answers: Evaluation
    timings: Mapping[int, Timing]

    @property
    def name(self) -> str:
        """What tables call it."""
        form = f"{self.dtype}, {self.sparsity:.0%} pruned" if self.sparsity else f"{self.dtype}, dense"
        return form if self.is_ours else f"{self.engine} {self.dtype}"

    @property
    def is_ours(self) -> bool:
        """Whether gristmill ran it."""
        return self.engine == "gristmill"


@dataclass(frozen=True, eq=False)
class Story:
    """All that was done and measured.

    Attributes:
        digits: The network and its images.
        steps: In order.
        candidates: Ours first: dense float32, dense int8, sparse float32, sparse int8.
        report: What became of each layer of the sparse int8 network.
        profile: Its layers' times at batch 1.
        threads: Of every run.
        levels: The levels that run here, and whether int8 results equal those of the scalar level, bit for bit.
        file: Where the sparse int8 network was saved, if it was.
        notes: What is missing here, and what it would take.
    """

    digits: Digits
    steps: tuple[Step, ...]
    candidates: tuple[Candidate, ...]
    report: Report
    profile: Profile
    threads: int
    levels: Mapping[str, bool]
    file: Path | None
    notes: tuple[str, ...]


@dataclass
class _Teller:
    """Keeps the steps, and says each one when it is done."""

    digits: Digits
    say: Callable[[Step], None]
    steps: list[Step] = field(default_factory=list)

    @contextmanager
    def step(self, verb: str) -> Iterator[list[str]]:
        """A step; the block appends its outcome."""
        outcome: list[str] = []
        start = time.perf_counter()
        yield outcome
        self.steps.append(Step(verb, outcome[0], time.perf_counter() - start))
        self.say(self.steps[-1])

    def score(self, model: Model) -> str:
        """How many held-out images a network gets right."""
        right = _answers(partial(_scores, InferenceSession(model)), self.digits).correct
        return f"{right.sum()} of {right.size} right"


def tell(say: Callable[[Step], None], *, sparsity: float, threads: int, seconds: float, file: Path | None) -> Story:
    """Do it all.

    Args:
        say: Hears of each step when it is done.
        sparsity: Share of the weights to drop.
        threads: Of every run.
        seconds: To spend on timing.
        file: Where to save the sparse int8 network, if anywhere.
    """
    digits = load_digits()
    teller = _Teller(digits, say)
    dense, pruned, small = _shrink(teller, sparsity)
    forms = {("float32", 0.0): digits.model, ("int8", 0.0): dense,
             ("float32", sparsity): pruned, ("int8", sparsity): small}  # fmt: skip
    with teller.step("save") as outcome:
        if file is not None:
            small.save(file)
        sizes = [format_bytes(_file_size(model)) for model in (digits.model, small)]
        outcome.append(f"{file or 'nowhere, as asked'}: {sizes[1]} instead of {sizes[0]}")
    peer = find_peer()
    with teller.step("run") as outcome:
        candidates = _measured(digits, forms, peer, threads, seconds)
        engines = " and ".join(dict.fromkeys(candidate.engine for candidate in candidates))
        outcome.append(f"{len(candidates)} networks in turns, on {engines}")
    with teller.step("compare") as outcome:
        levels = _levels_that_agree(small, digits.images[:_COMPARED_IMAGES])
        agree = "the same" if all(levels.values()) else "DIFFERENT"
        outcome.append(f"int8 results are {agree} to the last bit on {', '.join(levels)}")
    profile = InferenceSession(small, threads=threads).profile(digits.images[:1], runs=50)
    notes = (peer,) if isinstance(peer, str) else ()
    return Story(digits, tuple(teller.steps), tuple(candidates), small.report, profile, threads, levels, file, notes)


def _shrink(teller: _Teller, sparsity: float) -> tuple[OptimizedModel, Model, OptimizedModel]:
    """Dense int8, sparse float32 and sparse int8."""
    model, _, _, images = teller.digits
    with teller.step("load") as outcome:
        weights = sum(value.size for value in model.weights().values())
        outcome.append(f"a trained network for handwritten digits, {weights:,} weights: {teller.score(model)}")
    with teller.step("prune") as outcome:
        cut = prune(model, sparsity)
        outcome.append(f"{sparsity:.0%} of the weights, the smallest ones, set to zero: {teller.score(cut)}")
    with teller.step("refit") as outcome:
        pruned = prune(model, sparsity, calibration=images, samples=_REFIT_IMAGES)
        outcome.append(f"better zeros, the rest fitted to {_REFIT_IMAGES} images: {teller.score(pruned)}")
    with teller.step("compact") as outcome:
        compact = remove_dead_channels(pruned)
        channels = [_channels(each) for each in (pruned, compact)]
        outcome.append(f"{channels[0] - channels[1]} of {channels[0]} channels are not needed: {teller.score(compact)}")
    with teller.step("quantize") as outcome:
        small = quantize(compact, images)
        outcome.append(f"weights and activations to int8: {teller.score(small)}")
    small.report = _joined(pruned.report, small.report)
    return quantize(model, images), compact, small


def _channels(model: Model) -> int:
    """The outputs of all layers."""
    return sum(len(value) for value in model.weights().values() if value.ndim > 1)


def _joined(pruned: Report, quantized: Report) -> Report:
    """What all steps together made of each layer."""
    layers = [
        replace(after, shape=before.shape, weights=before.weights, bytes_before=before.bytes_before,
                error=before.error, reason=before.reason or after.reason)
        for before, after in zip(pruned.layers, quantized.layers, strict=True)
    ]  # fmt: skip
    return Report(tuple(layers))


def _measured(
    digits: Digits, forms: Mapping[tuple[str, float], Model], peer: Peer | str, threads: int, seconds: float
) -> list[Candidate]:
    """Every form on gristmill and the dense ones on the peer: accuracy, and times in turns."""
    runs: list[tuple[str, str, float, int, Run]] = []
    for (dtype, sparsity), model in forms.items():
        session = InferenceSession(model, threads=threads)
        runs.append(("gristmill", dtype, sparsity, _file_size(model), partial(_scores, session)))
    if isinstance(peer, Peer):
        for (dtype, sparsity), model in forms.items():
            if not sparsity:
                runs.append((peer.name, dtype, sparsity, *peer.run(model.graph, threads)))
    timings: list[dict[int, Timing]] = [{} for _ in runs]
    for batch in BATCHES:
        images = digits.images[:batch]
        calls = {str(index): partial(run, images) for index, (*_, run) in enumerate(runs)}
        with status(f"timing {len(runs)} networks, batch {batch}"):
            for index, timing in interleave(calls, seconds=seconds / len(BATCHES)).items():
                timings[int(index)][batch] = timing
    return [
        Candidate(engine, dtype, sparsity, size, _answers(run, digits), measured)
        for (engine, dtype, sparsity, size, run), measured in zip(runs, timings, strict=True)
    ]


def _answers(run: Run, digits: Digits) -> Evaluation:
    scores = run(digits.images).astype(np.float64)
    likely = 1 / np.exp(scores - scores.max(axis=1, keepdims=True)).sum(axis=1)
    return Evaluation(digits.labels, scores.argmax(axis=1), likely)


def _levels_that_agree(model: Model, images: Float32) -> dict[str, bool]:
    active = kernels.get_isa()
    results: dict[str, bytes] = {}
    try:
        for level in kernels.supported_isas():
            kernels.set_isa(level)
            with status(f"running at level {level}"):
                results[level] = _scores(InferenceSession(model), images).tobytes()
    finally:
        kernels.set_isa(active)
    return {level: scores == results["scalar"] for level, scores in results.items()}


def _scores(session: InferenceSession, images: Float32) -> Float32:
    return session.run(None, {"image": images})[0]


def _file_size(model: Model) -> int:
    report = None if model.report is None else model.report.json()
    return sum(memoryview(part).nbytes for part in pack_artefact(model.graph, report))
