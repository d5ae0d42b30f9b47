"""What files from strangers cost: each is loaded in a process of its own kind, which measures time and memory.

python tests/hostile_files.py FOLDER FUNCTION      loads all files of a folder and prints a line of JSON for each
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MOST_SECONDS = 1.0
MOST_BYTES = 64 << 20


def check_refused(
    folder: Path, files: Iterable[tuple[str, bytes]], suffix: str, function: str = "gristmill.load", least: int = 60
) -> None:
    """Assert that every file is refused by a typed error that names it, in little time and memory."""
    folder.mkdir(exist_ok=True)
    names = {}
    for index, (name, data) in enumerate(files):
        path = folder / f"{index:04}{suffix}"
        path.write_bytes(data)
        names[str(path)] = name
    assert len(names) >= least
    command = [sys.executable, __file__, str(folder), function]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    verdicts = [json.loads(line) for line in done.stdout.splitlines()]
    assert {item["path"] for item in verdicts} == set(names)
    wrong = {names[item["path"]]: item for item in verdicts if not _is_sound(item)}
    assert not wrong, wrong


def _is_sound(item: dict[str, Any]) -> bool:
    named = item["file"] == item["path"] and item["reason"]
    return bool(named) and item["seconds"] < MOST_SECONDS and item["bytes"] < 4 * item["size"] + MOST_BYTES


def _measure(path: Path, function: Any, errors: type[Exception]) -> dict[str, Any]:  # noqa: ANN401
    """Load twice: for the time, and for the memory, as tracing is slow."""
    start = time.process_time()
    found = _reason(path, function, errors)
    seconds = time.process_time() - start
    tracemalloc.start()
    _reason(path, function, errors)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {"path": str(path), "size": path.stat().st_size, "seconds": seconds, "bytes": peak, **found}


def _reason(path: Path, function: Any, errors: type[Exception]) -> dict[str, Any]:  # noqa: ANN401
    try:
        function(path)
    except errors as error:
        return {"file": vars(error)["file"], "reason": vars(error)["reason"]}
    return {"file": None, "reason": None}


def _main(folder: str, function: str) -> None:
    module, _, name = function.rpartition(".")
    load, errors = getattr(importlib.import_module(module), name), importlib.import_module("gristmill").GristmillError
    paths = sorted(Path(folder).iterdir())
    _reason(paths[0], load, errors)  # imports what the loader imports when it is first used
    for path in paths:
        print(json.dumps(_measure(path, load, errors)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
