"""Files that are replaced in one step, and what is never replaced."""

from __future__ import annotations

import os
import secrets
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import gristmill as gm
from gristmill.artefact.atomic_file import replace_file
from gristmill.compile.timings import Timings
from gristmill.graph import GraphBuilder

pytestmark = pytest.mark.skipif(os.name != "posix", reason="pipes, sockets, links and permissions are POSIX's")


def relu() -> gm.Model:
    builder = GraphBuilder()
    return gm.Model(builder.build([builder.add("Relu", [builder.input("x", np.float32, (2,))])]))


def write(path: Path) -> None:
    replace_file(path, [b"new"])


@pytest.mark.parametrize("save", [write, relu().save, relu().export_onnx])
@pytest.mark.parametrize("linked", [False, True])
def test_pipes_are_not_replaced(tmp_path: Path, save: Callable[[Path], None], *, linked: bool) -> None:
    pytest.importorskip("onnx")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    path = tmp_path / "link" if linked else pipe
    if linked:
        path.symlink_to(pipe)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(gm.ArgumentError, match="is a device, a pipe or a socket") as caught:
        save(path)
    assert caught.value.file == str(path)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert sorted(os.listdir(tmp_path)) == before


def test_folders_and_sockets_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(gm.ArgumentError, match="folder: is a folder"):
        write(tmp_path / "folder")
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(str(tmp_path / "s"))
        except OSError as error:
            pytest.skip(f"no sockets of such a name: {error}")
        with pytest.raises(gm.ArgumentError, match="a socket"):
            write(tmp_path / "s")
    assert sorted(os.listdir(tmp_path)) == ["folder", "s"]


def test_timings_in_a_pipe_count_as_missing(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    os.mkfifo(path)
    timings = Timings(path, "m")
    timings.put("a", {"dense": 1.0})
    timings.store()
    assert timings.get("a") == {"dense": 1.0}
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_a_file_that_lies_ready_under_the_temporary_name_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "token_hex", lambda _: "00")
    trap = tmp_path / ".m.00.tmp"
    trap.write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        write(tmp_path / "m")
    assert trap.read_bytes() == b"precious"
    assert os.listdir(tmp_path) == [trap.name]


def test_content_and_then_the_folder_are_made_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, bool]] = []
    sync, path = os.fsync, tmp_path / "m"

    def record(descriptor: int) -> None:
        facts = os.fstat(descriptor)
        is_ours = os.path.samestat(facts, tmp_path.stat()) if stat.S_ISDIR(facts.st_mode) else facts.st_size == 3
        assert is_ours
        seen.append(("folder" if stat.S_ISDIR(facts.st_mode) else "file", path.exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    write(path)
    assert seen == [("file", False), ("folder", True)]
    assert path.read_bytes() == b"new"
