"""Calibration data: the forms it may have, and that no more of it is read or held than is used."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import gristmill as gm
from gristmill.optimizer import calibration, capture
from gristmill.optimizer.calibration import make_batches
from small_nets import conv_net, images

Array = npt.NDArray[Any]


def _model(**options: Any) -> gm.Model:  # noqa: ANN401
    return gm.Model(conv_net(**options))


def test_calibration_comes_in_many_forms(tmp_path: Path) -> None:
    graph, x = conv_net(), images(70)
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x=x)
    forms: list[Any] = [x, {"x": x}, [x[:30], x[30:]], iter([{"x": x}]), tmp_path / "x.npy", str(tmp_path / "x.npz")]
    for form in forms:
        batches = make_batches(graph, form, 65)
        np.testing.assert_array_equal(np.concatenate([batch["x"] for batch in batches]), x[:65])
    assert [len(batch["x"]) for batch in make_batches(conv_net(batch=1), x, 3)] == [1, 1, 1]


def test_labels_beside_the_inputs_are_no_inputs(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", features=images(5), y=np.arange(5))
    assert len(make_batches(conv_net(), tmp_path / "x.npz", 9)[0]["x"]) == 5


def test_no_more_is_read_than_is_used(tmp_path: Path) -> None:
    given = 0

    def batches() -> Iterator[Array]:
        nonlocal given
        while True:
            given += 1
            yield images(10)

    assert sum(len(batch["x"]) for batch in make_batches(conv_net(), batches(), 35)) == 35
    assert given == 4
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros((5000, 3, 10, 10), np.float32))
    tracemalloc.start()
    assert len(make_batches(conv_net(), tmp_path / "x.npz", 50)[0]["x"]) == 50
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.25 * 5000 * 300 * 4


def test_memory_does_not_grow_with_the_calibration_set(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model()
    monkeypatch.setattr(calibration, "HELD_BYTES", 1 << 16)
    monkeypatch.setattr(capture, "LIVE_BYTES", 1 << 16)

    def peak(count: int) -> int:
        tracemalloc.start()
        gm.quantize(model, (images(32, seed=seed) for seed in range(count)), samples=32 * count)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(2)
    assert peak(12) < 1.5 * peak(3)
