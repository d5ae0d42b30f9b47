"""``gristmill optimize``, ``prune``, ``quantize``, ``eval`` and ``sensitivity`` from file to file."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

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
    labels = reference.run(graph, {"x": x})["logits"].argmax(axis=1)
    np.save(tmp_path / "y.npy", labels)
    np.savez(tmp_path / "both.npz", x=x, y=np.where(np.arange(80) < 8, (labels + 1) % 10, labels))
    return tmp_path


def _make(command: str, folder: Path, *extra: str) -> int:
    named = ["-o", str(folder / "out.grist")]
    if command == "optimize" and "--calibration" not in extra:
        named += ["--calibration", str(folder / "x.npy")]
    return cli.main([command, str(folder / "in.grist"), *named, *extra])


def _printed(capsys: pytest.CaptureFixture[str]) -> Any:  # noqa: ANN401
    return json.loads(capsys.readouterr().out)


def test_files_become_smaller_and_stay_close(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _make("optimize", files, "--sparsity", "0.5", "--json", "--report", str(files / "report.html")) == 0
    assert _printed(capsys)["sparsity"] > 0.49
    assert (files / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert (files / "out.grist").stat().st_size < 0.36 * (files / "in.grist").stat().st_size
    x = images(32, seed=9)
    exact, given = (gm.InferenceSession(str(files / name)).run(None, {"x": x})[0] for name in ("in.grist", "out.grist"))
    assert snr(exact, given) > 12.0


def test_budgets_from_files(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    budget = ["--calibration", str(files / "both.npz"), "--max-drop", "0.3", "--quantize", "none", "--trials", "2"]
    assert _make("optimize", files, *budget, "--holdout", str(files / "both.npz")) == 0
    shown = capsys.readouterr().out
    assert "is the highest sparsity tried that keeps within 0.3" in shown
    assert "not selected on: 0.9000 ->" in shown


def test_pruning_from_files(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _make("prune", files, "--layer", "hid.*=0.75", "--json", "--report", str(files / "report.json")) == 0
    rows = {row["name"]: row for row in _printed(capsys)["layers"]}
    assert rows["hidden"]["sparsity"] == 0.75
    assert rows["inner"]["sparsity"] == 0.0
    assert json.loads((files / "report.json").read_text())["layers"][0]["name"] == "stem"
    assert _make("prune", files, "--pattern", "2:4", "--calibration", str(files / "x.npy"), "--samples", "16") == 0
    assert "50.0%" in capsys.readouterr().out


@pytest.mark.parametrize("mode", ["static", "dynamic", "weights"])
def test_quantizing_from_files(files: Path, capsys: pytest.CaptureFixture[str], mode: str) -> None:
    data = ["--calibration", str(files / "x.npy"), "--samples", "16"] if mode == "static" else []
    assert _make("quantize", files, "--mode", mode, *data, "--ignore", "logits", "--json") == 0
    kinds = {row["name"]: row["dtype"] for row in _printed(capsys)["layers"]}
    assert kinds == {**dict.fromkeys(kinds, "int8"), "logits": "float32"}


def test_evaluation_from_files(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _make("prune", files, "--sparsity", "0.9") == 0
    capsys.readouterr()
    data = ["eval", str(files / "in.grist"), "--data", str(files / "both.npz")]
    assert cli.main([*data, "--json", "--against", str(files / "out.grist"), "--csv", str(files / "out.csv")]) == 0
    found = _printed(capsys)
    assert found["accuracy"] == 0.9
    assert found["correct"] == 72
    assert found["interval"] == pytest.approx([0.8148, 0.9485], abs=1e-3)
    assert found["gain"] == pytest.approx(found["accuracy"] - found["against"]["accuracy"])
    assert found["won"] - found["lost"] == round(80 * found["gain"])
    with (files / "out.csv").open() as text:
        rows = list(csv.DictReader(text))
    assert sum(int(row["correct"]) for row in rows) == 72
    assert sum(int(row["other_correct"]) for row in rows) == found["against"]["correct"]
    assert all(0 < float(row["confidence"]) <= 1 for row in rows)
    assert (
        cli.main(["eval", str(files / "in.grist"), "--data", str(files / "x.npy"), "--labels", str(files / "y.npy")])
        == 0
    )
    assert "100.00% of 80 samples are right" in capsys.readouterr().out


def test_sensitivity_from_files(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sensitivity", str(files / "in.grist"), "--calibration", str(files / "x.npy"), "--levels", "0.5,0.9"]
    plots = [str(files / "plot.html"), str(files / "plot.png")]
    if not _has_matplotlib():
        del plots[1]
    options = [part for option, path in zip(("--report", "--plot"), plots, strict=False) for part in (option, path)]
    assert cli.main([*command, *options, "--labels", str(files / "y.npy"), "--ignore", "logits", "--json"]) == 0
    found = _printed(capsys)
    assert found["unit"] == "accuracy"
    assert found["dense"] == 1.0
    assert [row["layer"] for row in found["layers"]] == ["stem", "depthwise", "wide", "inner", "hidden"]
    assert all(Path(path).stat().st_size > 1000 for path in plots)
    assert cli.main(command) == 0
    assert "SNR of the answers in dB" in capsys.readouterr().out


def _has_matplotlib() -> bool:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return False
    return True


@pytest.mark.parametrize(
    ("command", "extra", "message"),
    [
        ("optimize", ["--max-drop", "0.1"], "holds none of y, labels"),
        ("optimize", ["--labels", "y.npy"], "--max-drop"),
        ("optimize", ["--max-drop", "0.1", "--labels", "x.npy"], "labels"),
        ("optimize", ["--sparsity", "1.5"], "below 1"),
        ("optimize", ["-o", "model.bin"], ".grist or .onnx"),
        ("optimize", ["--pattern", "8x8"], "pattern"),
        ("optimize", ["--report", "report.pdf"], "--report"),
        ("optimize", ["-o", "nowhere/out.grist"], "nowhere"),
        ("optimize", ["--calibration", "in.grist"], "no .npy or .npz"),
        ("optimize", ["--calibration", "missing.npy"], "missing.npy"),
        ("prune", [], "--sparsity"),
        ("prune", ["--layer", "hidden"], "NAME=SPARSITY"),
        ("prune", ["--layer", "hidden=0.5", "--sparsity", "0.5"], "--layer"),
        ("prune", ["--layer", "nothing=0.5"], "there are: stem"),
        ("prune", ["--sparsity", "0.5", "--method", "admm"], "calibration"),
        ("quantize", [], "--calibration"),
        ("quantize", ["--mode", "weights", "--ignore", "nothing"], "there are: stem"),
        ("eval", ["--data", "x.npy"], "holds none of y, labels"),
        ("eval", ["--data", "wrong.npz"], "labels"),
        ("sensitivity", ["--calibration", "x.npy", "--plot", "plot.txt"], ".html"),
        ("sensitivity", ["--calibration", "x.npy", "--levels", "1.0"], "below 1"),
    ],
)
def test_mistakes_are_one_line(
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    extra: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(files)
    np.savez("wrong.npz", x=images(4), y=np.array([0, 1, 2, 10]))
    code = (
        cli.main([command, "in.grist", *extra]) if command in {"eval", "sensitivity"} else _make(command, files, *extra)
    )
    assert code == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1
