from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest

from gristmill.cli import build_parser
from snippets import ROOT, blocks, check_prints

README = ROOT / "README.md"


def test_first_block_is_the_two_commands() -> None:
    assert blocks(README, "sh")[0].splitlines() == [
        'python -m pip install ".[all]" && gristmill demo',
        'python -m pip install ".[test]" && python -m pytest',
    ]


def test_python_examples_run_and_print_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_prints("\n".join(blocks(README, "python")))


def test_every_command_is_listed() -> None:
    text = README.read_text(encoding="utf-8")
    listed = re.findall(r"^\| (`gristmill .*?) \|", text, re.MULTILINE)
    names = {name for cell in listed for name in re.findall(r"`(?:gristmill )?(\w+)[^`]*`", cell)}
    commands = next(a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    assert names == set(commands.choices)
