"""The blocks of code in Markdown files, and whether they print what they say."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import gristmill as gm

ROOT = Path(__file__).parent.parent


def blocks(file: Path, language: str) -> list[str]:
    """The blocks of a language; what follows it behind the fence is part of it."""
    return re.findall(rf"^```{language}\n(.*?)^```$", file.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def check_prints(code: str) -> None:
    """Run code; each line ``print(...)  # text`` has to print that text, those without one may print anything."""
    level, threads = gm.get_isa(), gm.get_num_threads()
    said: list[tuple[str, str]] = []

    def listen(line: str, *values: object) -> None:
        with contextlib.redirect_stdout(io.StringIO()) as text:
            print(*values)
        said.append((line, text.getvalue().rstrip()))

    listened = re.sub(
        r"^( *)print\((.*)\)  # (.*)$", lambda m: f"{m[1]}__said({m[3]!r}, {m[2]})", code, flags=re.MULTILINE
    )
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(listened, "<snippet>", "exec"), {"__said": listen, "__name__": "snippet"})
    finally:
        gm.set_isa(level)
        gm.set_num_threads(threads)
    for expected, actual in said:
        assert actual == expected or expected.startswith("the level in use"), f"printed {actual!r}, not {expected!r}"
