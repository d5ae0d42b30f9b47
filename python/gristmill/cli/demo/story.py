"""What the demonstration does: shrink the embedded network step by step, and measure what became of it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gristmill import kernels
from gristmill.comparison.engines import ENGINES, Opened, installed
from gristmill.console import activity, format_bytes, status
from gristmill.embedded import Digits, load_digits
from gristmill.errors import ArgumentError
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
_TURN = 0.01
#: Timings spread further than this are not to be trusted.
_DISTURBED = 0.7
_PEER = "onnxruntime"

Float32 = npt.NDArray[np.float32]


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


@dataclass(frozen=True, eq=False)
class Form:
    """The network in one form; see :class:`Candidate`."""

    dtype: str
    sparsity: float
    model: Model

    def save(self, folder: Path, suffix: str) -> Path:
        """The file, written if it is not there yet."""
        path = folder / f"{self.dtype}-{self.sparsity:g}{suffix}"
        if not path.exists():
            (self.model.save if suffix == ".grist" else self.model.export_onnx)(path)
        return path


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
        right = _answers(_scores(InferenceSession(model), self.digits.images), self.digits).correct
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
    dense, compact, small = _shrink(teller, sparsity)
    forms = [Form("float32", 0.0, digits.model), Form("int8", 0.0, dense),
             Form("float32", sparsity, compact), Form("int8", sparsity, small)]  # fmt: skip
    with _temporary_folder() as folder:
        with teller.step("save") as outcome:
            files = [form.save(folder, ".grist") for form in forms]
            if file is not None:
                small.save(file)
            before, after = (format_bytes(path.stat().st_size) for path in (files[0], files[-1]))
            outcome.append(f"{file or 'to a temporary folder'}: {after} instead of {before}")
        with teller.step("run") as outcome:
            candidates, notes = _measured(digits, forms, folder, threads, seconds)
            engines = " and ".join(dict.fromkeys(candidate.engine for candidate in candidates))
            outcome.append(f"{len(candidates)} networks in turns, on {engines}")
    with teller.step("compare") as outcome:
        levels = _levels_that_agree(small, digits.images[:_COMPARED_IMAGES])
        agree = "the same" if all(levels.values()) else "DIFFERENT"
        outcome.append(f"int8 results are {agree} to the last bit on {', '.join(levels)}")
    profile = InferenceSession(small, threads=threads).profile(digits.images[:1], runs=50)
    steps = tuple(teller.steps)
    return Story(digits, steps, tuple(candidates), small.report, profile, threads, levels, file, tuple(notes))


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    try:
        folder = tempfile.TemporaryDirectory()
    except OSError as error:
        raise ArgumentError("no folder for temporary files can be written; TMPDIR names another") from error
    with folder as name:
        yield Path(name)


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


def _peers(digits: Digits, forms: Sequence[Form], folder: Path, threads: int) -> tuple[list[Form], list[str]]:
    """The forms that another engine runs too, or what it would take."""
    missing = [name for name in (_PEER, "onnx") if not installed(name)]
    if missing:
        are = "is" if len(missing) == 1 else "are"
        return [], [
            f"{' and '.join(missing)} {are} not installed: pip install {' '.join(missing)} to compare with {_PEER}"
        ]
    dense = [form for form in forms if not form.sparsity]
    engine, feeds = ENGINES[_PEER], {"image": digits.images[:1]}
    try:
        for form in dense:
            engine.open(str(form.save(folder, engine.suffix)), threads, feeds)
    except Exception as error:
        return [], [f"{_PEER} does not run here: {type(error).__name__}: {str(error).partition(chr(10))[0]}"]
    return dense, []


def _measured(
    digits: Digits, forms: Sequence[Form], folder: Path, threads: int, seconds: float
) -> tuple[list[Candidate], list[str]]:
    """Every form on gristmill and the dense ones on the peer: accuracy, and times in turns; and what was missing."""
    theirs, notes = _peers(digits, forms, folder, threads)
    contenders = [*(("gristmill", form) for form in forms), *((_PEER, form) for form in theirs)]
    opened: list[Opened] = []
    timings: list[dict[int, Timing]] = [{} for _ in contenders]
    with activity() as say:
        for batch in BATCHES:
            feeds = {"image": digits.images[:batch]}
            say(f"timing {len(contenders)} networks, batch {batch}")
            opened = [
                ENGINES[engine].open(str(form.save(folder, ENGINES[engine].suffix)), threads, feeds)
                for engine, form in contenders
            ]
            calls = {str(index): each.run for index, each in enumerate(opened)}
            for index, timing in interleave(calls, seconds=seconds / len(BATCHES), turn=_TURN).items():
                timings[int(index)][batch] = timing
    found = []
    for (engine, form), each, measured in zip(contenders, opened, timings, strict=True):
        size = form.save(folder, ENGINES[engine].suffix).stat().st_size
        answers = _answers(each.outputs({"image": digits.images})[0], digits)
        version = "" if engine == "gristmill" else f" {ENGINES[engine].version}"
        found.append(Candidate(f"{engine}{version}", form.dtype, form.sparsity, size, answers, measured))
    return found, notes + _disturbances(found)


def _disturbances(candidates: Sequence[Candidate]) -> list[str]:
    spread = max(timing.spread for one in candidates for timing in one.timings.values())
    if spread < _DISTURBED:
        return []
    return [f"the machine was busy, medians are up to {1 + spread:.1f} times the best: run it again for steady gains"]


def _answers(scores: Float32, digits: Digits) -> Evaluation:
    wide = scores.astype(np.float64)
    likely = 1 / np.exp(wide - wide.max(axis=1, keepdims=True)).sum(axis=1)
    return Evaluation(digits.labels, wide.argmax(axis=1), likely)


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
