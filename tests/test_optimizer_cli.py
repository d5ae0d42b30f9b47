"""``gristmill optimize`` from file to file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import gristmill as gm
from gristmill import artefact, cli, reference
from small_nets import conv_net, images, snr


@pytest.fixture
def files(tmp_path: Path) -> Path:
    graph, x = conv_net(), images(80)
    artefact.save_artefact(graph, tmp_path / "in.grist")
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", reference.run(graph, {"x": x})["logits"].argmax(axis=1))
    return tmp_path


def _optimize(folder: Path, *extra: str) -> int:
    named = ["--calibration", str(folder / "x.npy"), "-o", str(folder / "out.grist")]
    return cli.main(["optimize", str(folder / "in.grist"), *named, *extra])


def test_files_become_smaller_and_stay_close(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _optimize(files, "--sparsity", "0.5", "--json", "--report", str(files / "report.html")) == 0
    assert json.loads(capsys.readouterr().out)["sparsity"] > 0.49
    assert (files / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert (files / "out.grist").stat().st_size < 0.3 * (files / "in.grist").stat().st_size
    x = images(32, seed=9)
    exact, given = (gm.InferenceSession(str(files / name)).run(None, {"x": x})[0] for name in ("in.grist", "out.grist"))
    assert snr(exact, given) > 12.0


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--max-drop", "0.1"], "--labels"),
        (["--sparsity", "1.5"], "below 1"),
        (["-o", "model.bin"], ".grist or .onnx"),
        (["--pattern", "8x8"], "pattern"),
    ],
)
def test_mistakes_are_one_line(files: Path, capsys: pytest.CaptureFixture[str], extra: list[str], message: str) -> None:
    assert _optimize(files, *extra) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1
