"""``gm.compare`` and ``gristmill compare``: what is measured, what is left out and said, every form of the result."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gristmill as gm
from gristmill import cli
from gristmill.comparison import Agreement, Candidate, Comparison, Facts, Setting
from gristmill.comparison.agreement import agreement
from gristmill.comparison.result import judged
from gristmill.timing import Timing
from small_nets import conv_net, images
from test_charts import check_page

QUICK: dict[str, Any] = {"seconds": 0.01, "method": "magnitude", "cold_starts": 0}
OWN = [
    "gristmill dense f32",
    "gristmill dense int8",
    "gristmill 80% f32",
    "gristmill 80% int8",
    "gristmill 80% int8 1x4",
]


@pytest.fixture(scope="module")
def found() -> Comparison:
    peers = ["onnxruntime", "litert"]
    data = images(64)
    return gm.compare(
        gm.Model(conv_net()), data, batch=[1, 4], threads=[1, 999], peers=peers, curve=True, sparsity=[0.8], **QUICK
    )


def test_every_form_is_measured_in_every_setting(found: Comparison) -> None:
    names = [candidate.name for candidate in found.candidates]
    assert names[:5] == OWN
    assert found.settings == [Setting(1, 1), Setting(4, 1)]
    for setting in found.settings:
        assert [m.candidate for m in found.at(setting)] == names
        assert all(0 < m.timing.best <= m.timing.median for m in found.at(setting))
        fastest = min(found.at(setting), key=lambda m: m.timing.best)
        assert found.winner(setting) == fastest


def test_facts_are_plausible(found: Comparison) -> None:
    facts = [found.facts[name] for name in OWN]
    assert facts[0].nbytes > facts[1].nbytes > facts[3].nbytes
    assert facts[0].agreement == Agreement(None, 1.0, 16)
    assert facts[1].agreement is not None
    assert facts[1].agreement.snr is not None
    assert facts[1].agreement.snr > 20
    for one in facts:
        assert {"name", "macs", "seconds", "bytes"} <= set(one.steps[0])


def test_cold_starts_and_memory_are_those_of_fresh_processes() -> None:
    quick = {**QUICK, "cold_starts": 1}
    found = gm.compare(gm.Model(conv_net()), images(16), sparsity=[], peers=[], **quick)
    assert [c.name for c in found.candidates] == OWN[:2]
    for one in found.facts.values():
        assert one.cold_seconds is not None
        assert one.first_seconds is not None
        assert one.import_seconds is not None
        assert 0 < one.cold_seconds < 30
        assert one.import_seconds > 0.01
        if sys.platform == "linux":
            assert one.memory_bytes is not None
            assert 1 << 20 < one.memory_bytes < 1 << 30


def test_what_is_left_out_is_said(found: Comparison) -> None:
    notes = "\n".join(found.notes)
    assert "more threads are not measured" in notes
    assert "litert" in notes
    assert "outputs compared on 16 others" in notes


def test_curve_and_bounds_are_measured(found: Comparison) -> None:
    assert [len(points) for points in found.curve.values()] == [6, 6, 6]
    assert all(ratio > 0 for points in found.curve.values() for _, ratio in points)
    assert found.bounds["int8_macs"]["best"] > 0


def test_json_csv_page_and_text_say_the_same(found: Comparison) -> None:
    document = json.loads(found.json())
    assert set(document) == {
        "schema", "model", "machine", "candidates", "measurements", "curve", "bounds", "notes"
    }  # fmt: skip
    assert {"name", "engine", "precision", "sparsity", "pattern", "nbytes", "agreement", "cold_seconds"} <= set(
        document["candidates"][0]
    )
    rows = list(csv.DictReader(io.StringIO(found.csv())))
    assert len(rows) == len(document["measurements"]) == 2 * len(found.candidates)
    for row, measured in zip(rows, document["measurements"], strict=True):
        assert row["candidate"] == measured["candidate"]
        assert float(row["best"]) == measured["best"]
    check_page(found.html())
    for text in (found.html(), str(found)):
        assert all(candidate.name in text for candidate in found.candidates)
        assert all(note in text for note in found.notes if "'" not in note)


def test_losses_and_wins_are_named() -> None:
    ours, theirs = (Candidate(f"{engine} f32", engine, "f32", __file__) for engine in ("gristmill", "onnxruntime"))
    for own, text in ((2.0, "slower than onnxruntime f32"), (0.5, "fastest"), (1.01, "as fast as onnxruntime f32")):
        timings = {ours.name: Timing(own, own, 1), theirs.name: Timing(1.0, 1.0, 1)}
        measured = judged([ours, theirs], Setting(1, 1), timings)
        assert measured[0].ratio == 1.0 / own
        assert [m.fastest for m in measured] == [own < 1, own >= 1]
        facts = {c.name: Facts(1) for c in (ours, theirs)}
        machine = {"cpu": "c", "level": "scalar", "gristmill": "0"}
        assert text in str(Comparison("m", machine, (ours, theirs), facts, tuple(measured)))


def test_agreement_of_scores_and_of_images() -> None:
    exact = np.array([[1.0, 2.0], [4.0, 3.0]], np.float32)
    assert agreement([exact], [exact]) == Agreement(None, 1.0, 2)
    assert agreement([exact], [exact[:, ::-1]]).top1 == 0.0
    assert agreement([np.ones((2, 3, 4, 4))], [np.ones((2, 3, 4, 4)) * 1.1]).top1 is None
    assert agreement([exact], [exact * 1.1]).snr == pytest.approx(20.0, abs=0.01)


def test_a_quantized_model_is_compared_as_it_is(tmp_path: Path) -> None:
    gm.quantize(gm.Model(conv_net(batch=2)), images(8)).save(tmp_path / "q.grist")
    found = gm.compare(tmp_path / "q.grist", peers=[], **QUICK)
    assert [candidate.name for candidate in found.candidates] == ["gristmill as given"]
    assert found.settings == [Setting(2, 1)]
    assert found.notes[0] == "The model is quantized already, so it is compared as it is."
    assert any("batches of 2 alone" in note for note in found.notes)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        ("raise RuntimeError('no licence\\nfor this')", "at batch 1, 1 thread: RuntimeError: no licence for this"),
        ("import os; os._exit(17)", "its process ended with code 17"),
    ],
    ids=["fails", "crashes"],
)
def test_a_peer_that_fails_or_crashes_becomes_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str, message: str
) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "onnxruntime.py").write_text(action)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    found = gm.compare(gm.Model(conv_net()), peers=["onnxruntime"], sparsity=[], **QUICK)
    assert [c.name for c in found.candidates] == OWN[:2]
    assert found.notes[0].startswith("Random inputs")
    lost = [note for note in found.notes if note.endswith(message)]
    assert [note.split(" is left out")[0] for note in lost] == ["onnxruntime f32", "onnxruntime int8"]


def test_without_other_packages(tmp_path: Path) -> None:
    block = """
        import sys
        class Block:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in {"onnx", "onnxruntime", "openvino", "torch", "matplotlib", "scipy", "h5py"}:
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        sys.meta_path.insert(0, Block())
    """
    run = _run(tmp_path, block, HOME="/proc/nothing", GRISTMILL_ISA="scalar")
    assert run.returncode == 0, run.stderr
    assert run.stderr == ""
    assert "onnxruntime is not installed, so it is not compared: pip install onnxruntime" in run.stdout
    assert "openvino is not installed" in run.stdout
    assert "level scalar" in run.stdout


def _run(folder: Path, site: str, *extra: str, **environment: str) -> subprocess.CompletedProcess[str]:
    gm.Model(conv_net()).save(folder / "m.grist")
    (folder / "sitecustomize.py").write_text(textwrap.dedent(site))
    quick = ["--seconds", "0.01", "--sparsity", "--cold-starts", "0"]
    command = [sys.executable, "-m", "gristmill", "compare", str(folder / "m.grist"), *quick, *extra]
    env = {**os.environ, "PYTHONPATH": str(folder), **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--peers", "tensorrt"], "peers: must be among onnxruntime, openvino, torch, litert, got 'tensorrt'"),
        (["--sparsity", "1.5"], "sparsity: must lie between 0 and 1"),
        (["--seconds", "0"], "seconds"),
        (["--cold-starts", "-1"], "cold_starts"),
        (["--html", "no_such_folder/page.html"], "no_such_folder/page.html: cannot be written"),
        (["no_such.onnx"], "no_such.onnx"),
        (["--calibration", "no_such.npz"], "no_such.npz"),
        (["--calibration", __file__], "is no .npy or .npz file"),
    ],
)
def test_mistakes_are_one_line_and_exit_with_2(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compare", *argv]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1
