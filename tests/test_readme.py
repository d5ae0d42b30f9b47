from __future__ import annotations

from pathlib import Path

import pytest

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
