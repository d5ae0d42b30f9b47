from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import gristmill as gm
import train_digits
from gristmill import embedded

FILE = Path(embedded.__file__).parent / "data" / "digits.npz"


def test_network_finds_digits_that_it_was_not_trained_on() -> None:
    model, images, labels, calibration = embedded.load_digits()
    right = (gm.InferenceSession(model).run(None, {"image": images})[0].argmax(1) == labels).sum()
    assert len(labels) == len(images) == 800
    assert right >= 792
    assert images.dtype == calibration.dtype == np.float32
    assert (calibration.min(), calibration.max()) == (0, 1)
    seen = {image.tobytes() for image in calibration}
    assert not any(image.tobytes() in seen for image in images)


def test_file_is_small_and_weights_are_as_precise_as_bfloat16() -> None:
    assert FILE.stat().st_size < 500_000
    for value in embedded.load_digits().model.weights().values():
        assert not (value.view(np.uint32) & 0xFFFF).any()


def test_images_are_those_of_scikit_learn() -> None:
    pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    images, labels = train_digits.read_digits()
    with np.load(FILE) as stored:
        np.testing.assert_array_equal(np.concatenate([stored["images"], stored["calibration"]]), images)
        np.testing.assert_array_equal(stored["labels"], labels[:800])


def test_training_learns_and_its_network_is_the_one_that_runs() -> None:
    model, images, labels, calibration = embedded.load_digits()
    some, wanted = images[:256, 0], labels[:256]
    network = train_digits.train(some, wanted, epochs=4)
    model.set_weights(network.arrays())
    scores = gm.InferenceSession(model).run(None, {"image": calibration[:64]})[0]
    np.testing.assert_allclose(scores, network.forward(calibration[:64, 0]), atol=0.05)
    found = network.forward(some).argmax(1)
    assert (found == wanted).mean() > 0.3


def test_gradients_are_those_of_differences() -> None:
    random = np.random.default_rng(0)
    network = train_digits.Network(random)
    images, direction = random.random((4, 8, 8), np.float32), random.standard_normal((4, 10)).astype(np.float32)
    network.forward(images, training=True)
    network.backward(direction)
    for parameter in network.parameters():
        change = random.standard_normal(parameter.value.shape).astype(np.float32)
        slope = float((parameter.gradient * change).sum())
        start, step = parameter.value, np.float32(2e-4)
        sums = []
        for sign in (1, -1):
            parameter.value = start + sign * step * change
            sums.append(float((network.forward(images, training=True) * direction).astype(np.float64).sum()))
        parameter.value = start
        assert (sums[0] - sums[1]) / (2 * float(step)) == pytest.approx(slope, rel=0.1, abs=0.05)
