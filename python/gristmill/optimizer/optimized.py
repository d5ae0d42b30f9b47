"""OptimizedModel: a model with a report of how it was made, and the masks that keep it sparse while it is trained."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gristmill.errors import ArgumentError, ShapeError
from gristmill.graph import Array, Graph
from gristmill.model import Model
from gristmill.optimizer.layers import find_layers
from gristmill.optimizer.masks import Mask
from gristmill.optimizer.measuring import measure
from gristmill.report import Report

__all__ = ["OptimizedModel", "apply_masks"]


class OptimizedModel(Model):
    """A model with a report of how it was made.

    Attributes:
        report: What became of each layer, and why.
        original: The model that it was made from.
    """

    report: Report

    def __init__(self, graph: Graph, report: Report, original: Model) -> None:
        """Hold a graph made from another model."""
        super().__init__(graph, source=original.source, format=original.format, report=report)
        self.original = original

    def measure(self, *inputs: Array, seconds: float = 0.5) -> Report:
        """Run the original and this model in turns; the report learns kernels, times and memory.

        Args:
            inputs: What to run both on, in the order of the model's inputs; one sample shows latency.
            seconds: Time to spend on runs of the whole.

        Returns:
            The report, which the model has from now on.

        Raises:
            ArgumentError: Not every input is given.
        """
        if len(inputs) != len(self.inputs):
            names = ", ".join(info.name for info in self.inputs)
            raise ArgumentError(f"expected an array for each of {names}, got {len(inputs)}", node="inputs")
        feeds = {info.name: value for info, value in zip(self.inputs, inputs, strict=True)}
        self.report = measure(self.report, self.original.graph, self.graph, feeds, seconds)
        return self.report

    def masks(self) -> dict[str, Mask]:
        """By name of the weights of each pruned layer in float32: True for those that are not zero.

        Example:
            >>> from gristmill.graph import GraphBuilder
            >>> from gristmill.optimizer import prune
            >>> build = GraphBuilder()
            >>> x, w = build.input("x", np.float32, ("n", 4)), np.array([[1, -2, 3, 4], [5, 6, 7, -8]], np.float32)
            >>> model = Model(build.build([build.add("Gemm", [x, build.constant("w", w)], name="fc", transB=1)]))
            >>> prune(model, {"fc": 0.5}).masks()["w"]
            array([[False, False, False, False],
                   [ True,  True,  True,  True]])
        """
        constants = self.graph.constants
        found = {layer.weight: constants[layer.weight] != 0 for layer in find_layers(self.graph)}
        return {name: mask for name, mask in found.items() if not mask.all()}


def apply_masks(model: Model, masks: Mapping[str, Mask]) -> Model:
    """Set the weights to zero that masks leave out, such as after a step of training that has moved them.

    Args:
        model: Never modified.
        masks: By name of the weights; see :meth:`OptimizedModel.masks`.

    Raises:
        ArgumentError: There is no weight of that name.
        ShapeError: A mask has another shape than its weights.
    """
    weights = model.weights()
    changed = {}
    for name, mask in masks.items():
        if name not in weights:
            raise ArgumentError(f"there is no such weight; there are: {', '.join(weights)}", node=name)
        if np.shape(mask) != weights[name].shape:
            raise ShapeError(f"a mask of {list(np.shape(mask))} for weights of {list(weights[name].shape)}", node=name)
        changed[name] = np.where(mask, weights[name], np.zeros((), weights[name].dtype))
    made = Model(model.graph, source=model.source, format=model.format)
    made.set_weights(changed)
    return made
