"""Timings of layers, kept by what they depend on: in memory for all sessions, and in a file for the next process.

The file lies in the folder that ``GRISTMILL_CACHE_DIR`` names, or where the platform keeps caches of a user. A folder
that cannot be written costs nothing but the next process's time; a file that makes no sense counts as missing and is
replaced. Files are replaced as a whole, with what other processes have added meanwhile.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from gristmill import _core
from gristmill.artefact.atomic_file import replace_file
from gristmill.errors import ArgumentError
from gristmill.loaders.source import open_regular

#: Oldest entries beyond this many are dropped.
MOST_ENTRIES = 4096
_FORMAT = 1

_Entries = dict[str, dict[str, float]]


def cache_folder() -> Path:
    """Where gristmill keeps what it has measured on this machine."""
    if chosen := os.environ.get("GRISTMILL_CACHE_DIR"):
        return Path(chosen)
    home = Path(os.path.expanduser("~"))
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", home / "AppData" / "Local")) / "gristmill" / "Cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "gristmill"
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "gristmill"


class Timings:
    """Milliseconds of a layer's candidates, by a key that says all they depend on but the machine.

    Args:
        path: The file.
        machine: What the file is about; one about another machine counts as missing.
    """

    def __init__(self, path: Path, machine: str) -> None:
        self._path, self._machine = path, machine
        self._lock = threading.Lock()
        self._entries: _Entries = self._read()
        self._new: _Entries = {}

    @staticmethod
    def of_machine(isa: str | None = None) -> Timings:
        """Those of this machine, this version and a level, shared by all that ask in this process."""
        machine = f"{_core.cpu_info()['model']}, {isa or _core.get_isa()}, gristmill {_core.__version__}"
        return _shared(cache_folder(), machine)

    def get(self, key: str) -> Mapping[str, float] | None:
        """What has been measured."""
        with self._lock:
            return self._entries.get(key)

    def put(self, key: str, milliseconds: Mapping[str, float]) -> None:
        """Add what has been measured."""
        with self._lock:
            self._entries[key] = self._new[key] = dict(milliseconds)

    def store(self) -> None:
        """Add what is new to the file, if it can be written."""
        with self._lock:
            if not self._new:
                return
            merged = [*{**self._read(), **self._new}.items()][-MOST_ENTRIES:]
            document = {"format": _FORMAT, "machine": self._machine, "milliseconds": dict(merged)}
            with suppress(OSError, ArgumentError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                replace_file(self._path, [json.dumps(document, indent=1).encode()])
            self._new.clear()

    def _read(self) -> _Entries:
        try:
            with open_regular(self._path, str(self._path)) as file:
                document = json.loads(file.read())
            if document["format"] != _FORMAT or document["machine"] != self._machine:
                return {}
            found = document["milliseconds"].items()
            return {str(key): _checked(times) for key, times in found}
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
            return {}


def _checked(times: Mapping[str, object]) -> dict[str, float]:
    """Positive numbers by name; ValueError otherwise."""
    checked = {str(name): float(value) for name, value in times.items() if isinstance(value, (int, float))}
    if len(checked) != len(times) or not all(math.isfinite(value) and value > 0 for value in checked.values()):
        raise ValueError("not timings")
    return checked


@functools.cache
def _shared(folder: Path, machine: str) -> Timings:
    return Timings(folder / f"kernels-{hashlib.sha256(machine.encode()).hexdigest()[:16]}.json", machine)
