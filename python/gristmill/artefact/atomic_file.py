"""Replacing a file in one step: whatever happens, the old or the new one is there, complete."""

from __future__ import annotations

import os
import secrets
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from gristmill.errors import ArgumentError

_ORPHAN_SECONDS = 3600.0


def replace_file(path: str | os.PathLike[str], parts: Iterable[bytes | memoryview]) -> None:
    """Write a file next to its final place, make it durable, and give it its name.

    A symbolic link stays and its target is replaced; an existing file's permissions are kept. An exception leaves
    nothing behind; a killed process may leave ``.NAME.*.tmp``, which a later call for the same file removes when it is
    an hour old.

    Raises:
        ArgumentError: What has that name is a folder, a device, a pipe or a socket.
        OSError: If the folder cannot be written or is full. The old file is then as it was.
    """
    target = Path(os.path.realpath(path))
    mode = _mode(target, os.fsdecode(path))
    _remove_orphans(target)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(temporary, flags, 0o666)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            for part in parts:
                _write_all(file.fileno(), memoryview(part))
            os.fsync(file.fileno())
        if mode is not None:
            temporary.chmod(mode)
        os.replace(temporary, target)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise
    _sync_folder(target.parent)


def _mode(target: Path, name: str) -> int | None:
    """The permissions of the file that is to be replaced; None if there is none."""
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(mode):
        what = "is a folder" if stat.S_ISDIR(mode) else "is a device, a pipe or a socket"
        raise ArgumentError(f"{what}, which is not replaced by a file; give the name of a file", file=name)
    return stat.S_IMODE(mode)


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data[: 1 << 24]) :]


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_orphans(target: Path) -> None:
    for orphan in target.parent.glob(f".{_escaped(target.name)}.*.tmp"):
        with suppress(OSError):
            if time.time() - orphan.stat().st_mtime > _ORPHAN_SECONDS:
                orphan.unlink()


def _escaped(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
