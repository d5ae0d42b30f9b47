from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import gristmill as gm
from gristmill.cli import demo, main
from gristmill.cli.demo import findings, page, story
from gristmill.cli.demo.story import Candidate, Story
from gristmill.comparison.engines import ENGINES, Opened
from gristmill.embedded import load_digits
from gristmill.evaluation import Evaluation
from gristmill.timing import Timing
from test_charts import check_page


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Story, Path]:
    file = tmp_path_factory.mktemp("demo") / "small.grist"
    return story.tell(lambda _: None, sparsity=0.9, threads=1, seconds=0.1, file=file), file


def test_story_measured_the_model_that_it_saved(told: tuple[Story, Path]) -> None:
    it, file = told
    model = gm.load(file)
    _, images, labels, _ = load_digits()
    best = findings.smallest(it)
    assert best.bytes == file.stat().st_size
    assert (
        best.answers.correct.sum()
        == (gm.InferenceSession(model).run(None, {"image": images})[0].argmax(1) == labels).sum()
    )
    assert best.answers.correct.sum() >= 784
    assert it.report.sparsity == pytest.approx(0.9, abs=0.02)
    kept = sum(
        np.count_nonzero(value) for value in model.weights().values() if value.dtype == np.int8 and value.ndim > 1
    )
    assert sum(layer.nonzeros for layer in it.report.layers) == kept
    verbs = [step.verb for step in it.steps]
    assert verbs == ["load", "prune", "refit", "compact", "quantize", "save", "run", "compare"]
    assert it.levels == dict.fromkeys(gm.kernels.supported_isas(), True)


def test_peer_runs_the_same_networks(told: tuple[Story, Path]) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    it, _ = told
    ours = {one.dtype: one for one in it.candidates if one.is_ours and not one.sparsity}
    theirs = [one for one in it.candidates if not one.is_ours]
    assert {one.dtype for one in theirs} == {"float32", "int8"}
    for one in theirs:
        assert np.count_nonzero(one.answers.predicted != ours[one.dtype].answers.predicted) <= 2


def test_page_is_whole_and_says_what_was_measured(told: tuple[Story, Path]) -> None:
    it, _ = told
    text = page.draw_page(it)
    check_page(text)
    for one in it.candidates:
        assert text.count(one.name) >= 5
    for line in findings.losses(it):
        assert line in text.replace("&#x27;", "'")
    worse = replace(it, levels={**it.levels, "avx2": False})
    assert "DIFFER" in page.draw_page(worse)
    assert "DIFFER" not in text


def candidate(engine: str, dtype: str, sparsity: float, best: float, right: int = 9) -> Candidate:
    times = {batch: Timing(best, best, 5) for batch in story.BATCHES}
    labels = np.arange(10)
    return Candidate(
        engine, dtype, sparsity, 100, Evaluation(labels, np.where(labels < right, labels, 0), np.ones(10)), times
    )


def test_losses_are_named_and_wins_are_not(told: tuple[Story, Path]) -> None:
    ours = [candidate("gristmill", "float32", 0.0, 4.0), candidate("gristmill", "int8", 0.0, 1.0),
            candidate("gristmill", "float32", 0.9, 2.0), candidate("gristmill", "int8", 0.9, 1.0, right=7)]  # fmt: skip
    peers = [candidate("other", "float32", 0.0, 8.0), candidate("other", "int8", 0.0, 0.5)]
    said = findings.losses(replace(told[0], candidates=(*ours, *peers), report=gm.Report(())))
    assert [line.partition(": ")[2] for line in said if line.startswith("1 image:")] == [
        "other int8 is 2.00× as fast as int8, dense",
        "pruning gains nothing in int8: 1.00× as fast as dense",
    ]
    assert said[-1] == "of the held-out images, 2 went from right to wrong and 0 from wrong to right"


def test_busy_machine_is_told() -> None:
    quiet, busy = candidate("gristmill", "int8", 0.0, 1.0), candidate("gristmill", "int8", 0.9, 1.0)
    assert story._disturbances([quiet, busy]) == []
    busy = replace(busy, timings={**busy.timings, 16: Timing(1.0, 3.0, 5)})
    assert story._disturbances([quiet, busy])[0].startswith("the machine was busy, medians are up to 3.0 times")


def test_command_writes_page_and_model_and_shows_tables(
    told: tuple[Story, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    given: dict[str, object] = {}

    def tell(say: object, **how: object) -> Story:
        given.update(how)
        return told[0]

    monkeypatch.setattr(demo, "tell", tell)
    assert main(["demo", "--sparsity", "0.8", "--threads", "2"]) == 0
    text = capsys.readouterr().out
    assert (given["sparsity"], given["threads"], given["file"]) == (0.8, 2, Path("gristmill-demo.grist"))
    assert f"Report: {tmp_path / 'gristmill-demo.html'}" in text
    check_page((tmp_path / "gristmill-demo.html").read_text(encoding="utf-8"))
    assert all(one.name in text for one in told[0].candidates)
    assert main(["demo", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert given["file"] is None
    assert [network["bytes"] for network in document["networks"]] == [one.bytes for one in told[0].candidates]
    monkeypatch.setattr(demo, "tell", lambda *_, **__: replace(told[0], levels={"scalar": True, "avx2": False}))
    assert main(["demo"]) == 1
    assert "DIFFER" in capsys.readouterr().out


def test_folder_that_cannot_be_written_is_one_line(
    told: tuple[Story, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(demo, "tell", lambda *_, **__: told[0])
    assert main(["demo", "--html", str(tmp_path / "no" / "demo.html")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"gristmill: {tmp_path / 'no' / 'demo.html'}: cannot be written: ")
    assert said.count("\n") == 1
    if not Path("/proc").is_dir():
        pytest.skip("no folder that nobody can write")
    monkeypatch.chdir("/proc")
    assert main(["demo"]) == 0
    assert "No report and no model were written. gristmill-demo.html: cannot be written: " in capsys.readouterr().out


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_missing_peer_is_one_line(missing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    digits = load_digits()
    forms = [story.Form("float32", 0.0, digits.model)]
    found, notes = story._measured(digits, forms, tmp_path, 1, 0.01)
    assert [one.engine for one in found] == ["gristmill"]
    assert any(note.startswith(f"{missing} is not installed") for note in notes)


def test_peer_that_fails_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="onnx is not installed")

    def fail(*_: object) -> Opened:
        raise RuntimeError("no such\ninstruction")

    broken = replace(ENGINES["onnxruntime"], open=fail)
    monkeypatch.setattr(story, "installed", lambda _: True)
    monkeypatch.setattr(story, "ENGINES", {**ENGINES, "onnxruntime": broken})
    digits = load_digits()
    said = story._peers(digits, [story.Form("float32", 0.0, digits.model)], tmp_path, 1)
    assert said == ([], ["onnxruntime does not run here: RuntimeError: no such"])


def test_no_temporary_folder_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(gm.ArgumentError, match="TMPDIR"), story._temporary_folder():
        pass


@pytest.mark.parametrize("sparsity", ["1.5", "-1", "nan"])
def test_impossible_sparsity_is_one_line(
    sparsity: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--sparsity", sparsity]) == 2
    assert "gristmill: sparsity: " in capsys.readouterr().err
