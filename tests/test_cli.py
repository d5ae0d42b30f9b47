from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gristmill as gm
from gristmill.cli import build_parser, demo, main, options


def run_json(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, object]:
    assert main([*argv, "--json"]) == 0
    document: dict[str, object] = json.loads(capsys.readouterr().out)
    return document


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"gristmill {gm.__version__}\n"


@pytest.mark.parametrize("argv", [[], ["grind"], ["demo", "--threads", "0"], ["demo", "--threads", "two"]])
def test_wrong_usage_exits_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(argv)
    assert "usage: gristmill" in capsys.readouterr().err


def test_every_command_has_help_and_json() -> None:
    parser = build_parser()
    for command in ("cpu", "demo"):
        assert parser.parse_args([command, "--json"]).json
        with pytest.raises(SystemExit, match="0"):
            parser.parse_args([command, "--help"])


def test_cpu_shows_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cpu"]) == 0
    text = capsys.readouterr().out
    info = gm.kernels.cpu_info()
    assert info.model in text
    assert ", ".join(info.supported) in text


def test_cpu_measure_gives_every_rate(capsys: pytest.CaptureFixture[str]) -> None:
    document = run_json(capsys, "cpu", "--measure", "--seconds", "0.1")
    calibration = document["calibration"]
    assert isinstance(calibration, dict)
    assert calibration["isa"] == gm.get_isa()
    assert calibration["int8_macs"]["best"] > 0
    assert [read["memory"] for read in calibration["reads"]] == ["L1", "L2", "L3", "DRAM"]
    assert main(["cpu", "--measure", "--seconds", "0.1"]) == 0
    assert "GMAC/s" in capsys.readouterr().out


def test_mistakes_are_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cpu", "--measure", "--seconds", "-1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("gristmill: seconds: ")
    assert error.count("\n") == 1


def test_demo_reports_what_it_measured(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    weights = demo.realistic_weights((16, 8, 3, 3))
    monkeypatch.setattr(demo, "realistic_weights", lambda: weights)
    document = run_json(capsys, "demo", "--threads", "1")
    assert document["shape"] == [16, 8, 3, 3]
    assert document["bit_identical_levels"] == gm.kernels.supported_isas()
    schemes = document["schemes"]
    assert isinstance(schemes, list)
    one, per_channel = schemes
    assert one["bytes"] == weights.size + 4
    assert per_channel["bytes"] == weights.size + 4 * 16
    scale = np.abs(weights).max() / 127
    restored = (np.rint(weights / scale) * scale).astype(np.float32)
    assert one["max_error"] == pytest.approx(np.abs(weights - restored).max(), rel=1e-3)
    assert per_channel["snr_db"] > one["snr_db"] > 20
    assert main(["demo"]) == 0
    assert "int8, per channel" in capsys.readouterr().out


def test_demo_fails_loudly_when_levels_disagree(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = demo.realistic_weights((4, 2, 3, 3))
    monkeypatch.setattr(demo, "realistic_weights", lambda: weights)
    monkeypatch.setattr(demo, "_levels_that_agree", lambda *_: ["scalar"])
    if gm.kernels.supported_isas() == ["scalar"]:
        pytest.skip("only one level runs here")
    assert main(["demo"]) == 1
    assert "DIFFER" in capsys.readouterr().out


def test_positive_int_refuses_what_int_would_take() -> None:
    import argparse

    assert options.positive_int("12") == 12
    for text in ("0", "-1", "1.5", " 3", "1_000", "٣", ""):
        with pytest.raises(argparse.ArgumentTypeError):
            options.positive_int(text)


def test_module_runs_as_a_program_and_survives_a_closed_pipe(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "gristmill", "cpu"]
    whole = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert (whole.returncode, whole.stderr) == (0, "")
    cut = subprocess.run(
        ["sh", "-c", 'exec 3>&1; { "$@" 2>&3; echo "status $?" >&3; } | true', "sh", *command],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert cut.stdout.strip() in {"status 0", "status 141"}
