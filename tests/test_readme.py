from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

import gristmill as gm

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_first_block_is_the_two_commands() -> None:
    assert blocks("sh")[0].splitlines() == [
        'python -m pip install ".[all]" && gristmill demo',
        'python -m pip install ".[test]" && python -m pytest',
    ]


def test_python_examples_run_and_print_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    level, threads = gm.get_isa(), gm.get_num_threads()
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            exec("\n".join(blocks("python")), {})
    finally:
        gm.set_isa(level)
        gm.set_num_threads(threads)
    lines = "\n".join(blocks("python")).splitlines()
    said = [line.partition(")  # ")[2] for line in lines if line.startswith("print(")]
    for actual, expected in zip(printed.getvalue().splitlines(), said, strict=True):
        assert actual == expected or expected.startswith("the level in use")
