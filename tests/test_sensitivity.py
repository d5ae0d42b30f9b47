"""Which layers bear pruning, as figures, table, page and picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import gristmill as gm
from gristmill.optimizer.sensitivity import Sensitivity
from small_nets import conv_net, images


@pytest.fixture(scope="module")
def found() -> Sensitivity:
    return gm.sensitivity(gm.Model(conv_net()), images(64), levels=(0.5, 0.7, 0.9))


def test_answers_get_worse_with_sparsity(found: Sensitivity) -> None:
    assert list(found) == ["stem", "depthwise", "wide", "inner", "hidden", "logits"]
    for row in found.values():
        assert list(row) == [0.5, 0.7, 0.9]
        assert row[0.5] > row[0.7] > row[0.9]
    assert found["stem"][0.9] < found["inner"][0.9]


def test_labels_give_accuracy() -> None:
    model, x = gm.Model(conv_net()), images(64)
    labels = gm.InferenceSession(model).run(None, {"x": x})[0].argmax(axis=1)
    labels[:16] = (labels[:16] + 1) % 10
    found = gm.sensitivity(model, x, labels=labels, levels=(0.0, 0.95), ignore=["h.*", "stem"], method="magnitude")
    assert found.dense == 0.75
    assert set(found) == {"depthwise", "wide", "inner", "logits"}
    assert all(row[0.0] == 0.75 for row in found.values())
    assert found["wide"][0.95] < 0.7


def test_they_read_as_table_json_page_and_picture(found: Sensitivity, tmp_path: Path) -> None:
    assert str(found).splitlines()[1].split() == ["layer", "50%", "70%", "90%"]
    rows = json.loads(found.json())["layers"]
    assert rows[0]["values"][0] == {"sparsity": 0.5, "dB": found["stem"][0.5]}
    found.plot(tmp_path / "plot.html")
    page = (tmp_path / "plot.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "http" not in page
    assert all(name in page for name in found)
    with pytest.raises(gm.ArgumentError, match=r"\.png"):
        found.plot(tmp_path / "plot.txt")


def test_pictures_take_matplotlib(found: Sensitivity, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found.plot(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_pictures_say_what_is_missing(found: Sensitivity, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(gm.MissingDependencyError, match=r"gristmill\[plot\]"):
        found.plot(tmp_path / "plot.png")


@pytest.mark.parametrize(
    "options", [{"levels": (1.0,)}, {"method": "best"}, {"pattern": "8x8"}, {"ignore": ["nothing"]}, {"labels": [0, 1]}]
)
def test_arguments_that_make_no_sense_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(gm.GristmillError):
        gm.sensitivity(gm.Model(conv_net()), images(8), **options)  # type: ignore[arg-type]


def test_equal_seeds_give_equal_figures(found: Sensitivity) -> None:
    again = gm.sensitivity(gm.Model(conv_net()), images(64), levels=(0.5, 0.7, 0.9))
    assert {name: list(row.values()) for name, row in again.items()} == {
        name: pytest.approx(list(row.values()), abs=0.0) for name, row in found.items()
    }
    assert np.isfinite(list(again["stem"].values())).all()
