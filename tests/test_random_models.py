"""Random models in onnxruntime and here. ``GRISTMILL_RANDOM_MODELS=2000`` asks for more of them."""

from __future__ import annotations

import os

import numpy as np
import pytest

import gristmill as gm

pytest.importorskip("onnx")

import oracles
from gristmill.operators.registry import find
from gristmill.reference import run
from onnxruntime_peer import exact_session
from oracles_dense import f32_bound
from random_models import Array, RandomModel

COUNT = int(os.environ.get("GRISTMILL_RANDOM_MODELS", "150"))
CHUNK = 25


class Example:
    """A random model in both engines: by output, what a session here and one of onnxruntime answer."""

    def __init__(self, seed: int, *, int8: bool = False) -> None:
        self.title = f"seed {seed}"
        model = RandomModel(seed, int8=int8)
        self.x = np.random.default_rng(seed).standard_normal(model.input_shape).astype(np.float32)
        self.data = model.model().SerializeToString()
        session = gm.InferenceSession(self.data)
        self.names = [output.name for output in session.get_outputs()]
        self.ours: list[Array] = session.run(None, {"x": self.x})

    def theirs(self) -> list[Array]:
        """The answers of onnxruntime."""
        answers: list[Array] = exact_session(self.data).run(None, {"x": self.x})
        return answers

    def layer_answers(self, name: str) -> tuple[Array, Array, Array]:
        """What a quantized layer answers here by definition, and the least and greatest that float32 sums may give.

        Here, sums of integers times one scale are rounded. Where a Relu stands between a layer and a zero point above
        the least byte, onnxruntime dequantizes first: each term then takes part in as many roundings as a sum has
        terms, and in four more, those of both factors, of the sum with the bias and of the quotient.
        """
        graph = gm.load(self.data).graph
        makers = {output: node for node in graph.nodes for output in node.outputs}
        source, y_scale, y_zero = makers[makers[name].inputs[0]].inputs
        layer = makers.get(source)
        rectified = layer is not None and layer.op == "Relu"
        if layer is not None and rectified:
            layer = makers.get(layer.inputs[0])
        if layer is None or layer.op not in {"Conv", "Gemm"}:
            raise AssertionError(f"{self.title}: {name} is of no layer, so that it has one answer")
        stored = [makers[item].inputs for item in layer.inputs]
        values = run(graph, {"x": self.x}, {y_scale, y_zero, *(item for inputs in stored for item in inputs)})
        steps = [values[q].astype(np.float64) - oracles.along(0, values[z], values[q].ndim) for q, _, z in stored]
        sums, sizes = (find(layer).evaluate(layer, terms)[0] for terms in (steps, list(map(np.abs, steps))))
        scale, zero_point = values[y_scale], values[y_zero]
        x_scale, w_scales = values[stored[0][1]], oracles.along(1, values[stored[1][1]], sums.ndim)
        exact_scale = w_scales.astype(np.float64) * x_scale / scale
        margin = f32_bound(sizes * exact_scale, steps[1][0].size + 3)

        def answer(real: Array) -> Array:
            q = np.rint(np.maximum(real, 0) if rectified else real) + zero_point
            return oracles.dequantize(np.clip(q, 0, 255), scale, zero_point)

        definition = answer(sums.astype(np.float32) * (x_scale * w_scales / scale))
        return definition, answer(sums * exact_scale - margin), answer(sums * exact_scale + margin)

    def differences(self, index: int, theirs: Array) -> int:
        """How many elements of an output are others in onnxruntime, all halfway between steps as nearly as it can tell.

        Such elements are here what they are by definition.
        """
        ours = self.ours[index]
        apart = np.abs(ours - theirs) > 1e-6
        if apart.any():
            definition, least, greatest = (answer[apart] for answer in self.layer_answers(self.names[index]))
            np.testing.assert_array_equal(ours[apart], definition, self.title)
            np.testing.assert_array_less(least - 1e-6, theirs[apart], self.title)
            np.testing.assert_array_less(theirs[apart], greatest + 1e-6, self.title)
        return int(apart.sum())


@pytest.mark.parametrize("start", range(0, COUNT, CHUNK))
def test_random_float_models_agree(start: int) -> None:
    for seed in range(start, start + CHUNK):
        example = Example(seed)
        for ours, theirs in zip(example.ours, example.theirs(), strict=True):
            scale = max(1.0, float(np.abs(theirs).max(initial=0)))
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * scale, err_msg=example.title)


@pytest.mark.parametrize("start", range(0, COUNT, CHUNK))
def test_random_int8_models_agree(start: int) -> None:
    different = elements = 0
    for seed in range(start, start + CHUNK):
        example = Example(seed, int8=True)
        for index, theirs in enumerate(example.theirs()):
            different += example.differences(index, theirs)
            elements += theirs.size
    assert different < elements / 1000


def test_only_elements_halfway_between_steps_may_differ() -> None:
    """One sum of this model is 5.49999996 steps; by definition, with one scale in float32, it is 5.5000005."""
    example = Example(743, int8=True)
    layer, image = example.ours
    halfway, step = (1, 0, 6, 3), np.float32(0.043764956)

    def moved(answers: Array, index: tuple[int, ...], steps: int) -> Array:
        changed: Array = answers.copy()
        changed[index] += steps * step
        return changed

    _, least, greatest = example.layer_answers(example.names[0])
    assert np.argwhere(least != greatest).tolist() == [list(halfway)]
    assert example.differences(0, layer) == 0
    assert example.differences(0, moved(layer, halfway, -1)) == 1
    for index, steps in ((halfway, 1), (halfway, -2), ((1, 0, 6, 2), -1), ((1, 0, 6, 2), 1)):
        with pytest.raises(AssertionError):
            example.differences(0, moved(layer, index, steps))
    with pytest.raises(AssertionError, match="of no layer"):
        example.differences(1, moved(image, (0, 0, 0, 0), 1))
    example.ours[0] = moved(layer, halfway, -1)
    with pytest.raises(AssertionError):
        example.differences(0, layer)
