"""Evaluation: how often a classifier is right, how sure that is, and whether another one is really worse."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gristmill.console import Table, progress
from gristmill.errors import ShapeError
from gristmill.graph import Array
from gristmill.loaders import load
from gristmill.model import Model
from gristmill.optimizer.calibration import CalibrationData, labels_of, make_batches
from gristmill.session import InferenceSession

__all__ = ["Accuracy", "Comparison", "Evaluation", "evaluate"]

#: Two-sided 95 % of a normal distribution.
_TWO_SIDED = 1.960
_EVERYTHING = 1 << 62


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Answers of a classifier on labelled samples.

    Attributes:
        labels: The right classes.
        predicted: The classes it gives.
        confidence: How likely it takes those to be, by softmax of its answers, or as they are if they sum to one.

    Example:
        >>> found = Evaluation(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2]), np.ones(4))
        >>> found.accuracy, [round(bound, 2) for bound in found.interval]
        (0.75, [0.3, 0.95])
    """

    labels: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float64]

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """Whether each answer is right."""
        return np.asarray(self.predicted == self.labels)

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return float(self.correct.mean())

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % confidence interval of the accuracy (Wilson's)."""
        n, p, z = len(self.labels), self.accuracy, _TWO_SIDED
        middle, width = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return max(0.0, (middle - width) / (1 + z * z / n)), min(1.0, (middle + width) / (1 + z * z / n))

    def against(self, other: Evaluation) -> Comparison:
        """Compare with another model's answers to the same samples.

        Raises:
            ShapeError: The samples differ.
        """
        if not np.array_equal(self.labels, other.labels):
            raise ShapeError("the evaluations are of different samples", node="other")
        return Comparison(
            self.accuracy,
            other.accuracy,
            int(np.sum(self.correct & ~other.correct)),
            int(np.sum(~self.correct & other.correct)),
            len(self.labels),
        )

    def __str__(self) -> str:
        low, high = self.interval
        return (
            f"{self.accuracy:.2%} of {len(self.labels)} samples are right (95 % interval {low:.2%} to {high:.2%}), "
            f"{int(self.correct.sum())} of {len(self.labels)}"
        )


@dataclass(frozen=True)
class Comparison:
    """Two classifiers on the same samples.

    Attributes:
        accuracy: Of the first.
        other: Of the second.
        won: Samples that the first alone gets right.
        lost: Samples that the second alone gets right.
        samples: All samples.

    Example:
        >>> found = Comparison(0.92, 0.93, won=10, lost=20, samples=1000)
        >>> round(found.gain, 3), [round(bound, 4) for bound in found.interval], round(found.p_value, 2)
        (-0.01, [-0.0207, 0.0007], 0.1)
    """

    accuracy: float
    other: float
    won: int
    lost: int
    samples: int

    @property
    def gain(self) -> float:
        """How much more accurate the first is."""
        return (self.won - self.lost) / self.samples

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the gain, both judged on the same samples."""
        variance = (self.won + self.lost) / self.samples - self.gain**2
        width = _TWO_SIDED * math.sqrt(max(variance, 0.0) / max(self.samples - 1, 1))
        return self.gain - width, self.gain + width

    @property
    def p_value(self) -> float:
        """How likely so large a difference is if both are equally good (McNemar's exact test)."""
        n, k = self.won + self.lost, min(self.won, self.lost)
        logs = (
            math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - n * math.log(2) for i in range(k + 1)
        )
        return min(1.0, 2 * sum(map(math.exp, logs)))

    def __str__(self) -> str:
        table = Table(["", "accuracy", "alone right"])
        table.add("this", f"{self.accuracy:.2%}", str(self.won))
        table.add("other", f"{self.other:.2%}", str(self.lost))
        low, high = (100 * bound for bound in self.interval)
        sure = f"95 % interval {low:+.2f} to {high:+.2f}; p = {self.p_value:.2g}"
        return f"{table.render(color=False, unicode=False)}\n{100 * self.gain:+.2f} percentage points ({sure})"


def evaluate(
    model: Model | str | os.PathLike[str],
    inputs: CalibrationData,
    labels: npt.ArrayLike,
    *,
    threads: int | None = None,
) -> Evaluation:
    """Run a classifier on labelled samples.

    Args:
        model: A model, or a file of one. Its first output holds a number for each class along its last axis.
        inputs: All samples: an array, arrays by input name, batches of those, or the path of a ``.npy`` or ``.npz``.
        labels: The class of each.
        threads: Threads to use.

    Raises:
        ArgumentError: There are no samples, or a label is no class.
        DTypeError: Inputs have another element type than the model takes, or labels are no integers.
        ShapeError: Inputs do not fit, or there is not one label for each.

    Example:
        >>> from gristmill.graph import GraphBuilder
        >>> build = GraphBuilder()
        >>> model = Model(build.build([build.add("Relu", [build.input("x", np.float32, ("n", 2))])]))
        >>> print(evaluate(model, np.array([[1, 0], [0, 1], [3, 2]], np.float32), [0, 1, 1]))
        66.67% of 3 samples are right (95 % interval 20.77% to 93.85%), 2 of 3
    """
    held = model if isinstance(model, Model) else load(model)
    batches = make_batches(held.graph, inputs, _EVERYTHING)
    session = InferenceSession(held, threads=threads)
    with progress("evaluating", len(batches)) as begin:
        parts = []
        for batch in batches:
            begin("")
            parts.append(_by_sample(session.run(None, batch)[0], len(next(iter(batch.values())))))
    answers = np.concatenate(parts)
    predicted = answers.argmax(axis=1)
    classes = labels_of(labels, len(answers), answers.shape[1])
    return Evaluation(classes, predicted.astype(np.int64), _probabilities(answers)[np.arange(len(answers)), predicted])


class Accuracy:
    """Whether each sample's answer is right, as :func:`gristmill.optimize` takes it for ``evaluate`` and ``holdout``.

    Example:
        >>> from gristmill.graph import GraphBuilder
        >>> build = GraphBuilder()
        >>> model = Model(build.build([build.add("Relu", [build.input("x", np.float32, ("n", 2))])]))
        >>> Accuracy(np.array([[1, 0], [0, 1], [3, 2]], np.float32), [0, 1, 1])(model)
        array([1., 1., 0.])
    """

    def __init__(self, inputs: CalibrationData, labels: npt.ArrayLike) -> None:
        """Judge by these samples; see :func:`evaluate`."""
        self._inputs, self._labels = inputs, labels

    def __call__(self, model: Model) -> npt.NDArray[np.float64]:
        """1 for each sample that the model gets right, else 0."""
        return evaluate(model, self._inputs, self._labels).correct.astype(np.float64)


def _by_sample(answers: Array, samples: int) -> Array:
    """(samples, classes); axes of extent one are dropped."""
    if answers.ndim < 2 or len(answers) != samples or max(answers.shape[1:]) * samples != answers.size:
        raise ShapeError(f"gives answers of shape {list(answers.shape)}, not a number for each class", node="model")
    return answers.reshape(samples, -1)


def _probabilities(answers: Array) -> npt.NDArray[np.float64]:
    wide = answers.astype(np.float64)
    if np.all(wide >= 0) and np.allclose(wide.sum(axis=1), 1.0, atol=1e-3):
        return wide
    powers = np.exp(wide - wide.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
