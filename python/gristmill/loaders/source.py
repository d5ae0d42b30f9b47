"""Where a model comes from: a file, bytes, an open file, or an object of another library."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO, TextIOBase
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias, runtime_checkable

import numpy as np

from gristmill.errors import ArgumentError, ModelFormatError


@runtime_checkable
class Readable(Protocol):
    """A binary file that is open for reading."""

    def read(self) -> bytes:
        """All that is left of it."""


_HEAD = 64
#: Bytes at the end of an archive where its directory is looked for.
_TAIL = 1 << 16
#: What a model may be loaded from; other objects are left to the loaders that know them.
Given: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | object"


@dataclass(frozen=True)
class Source:
    """The content of a model file, or an object that stands for it.

    Attributes:
        file: For messages; ``None`` for what has no name.
        path: The file, if there is one: files beside it may belong to the model.
        stream: What is read of it; ``None`` for an object.
        given: What the caller gave.
        architecture: The description of the model that goes with weights alone.
    """

    file: str | None
    path: Path | None
    stream: BinaryIO | None
    given: object = None
    architecture: str | None = None

    @property
    def suffix(self) -> str:
        """The end of the file's name, in lower case, with its dot."""
        return Path(self.file).suffix.lower() if self.file else ""

    @cached_property
    def head(self) -> bytes:
        """The first bytes, by which formats are told apart; empty for an object."""
        return self._read(0, _HEAD)

    @cached_property
    def tail(self) -> bytes:
        """The last bytes."""
        return b"" if self.stream is None else self._read(max(0, self.stream.seek(0, os.SEEK_END) - _TAIL), _TAIL)

    @cached_property
    def content(self) -> bytes:
        """All bytes; empty for an object."""
        return self._read(0, -1)

    @cached_property
    def buffer(self) -> bytes | memoryview:
        """All bytes, for who keeps views of them: those of a file in an array, whose large pages are soon there."""
        if self.stream is None or isinstance(self.stream, BytesIO):
            return self.content
        space = np.empty(self.stream.seek(0, os.SEEK_END), np.uint8)
        self.stream.seek(0)
        count = self.stream.readinto(space.data)  # type: ignore[attr-defined]
        return space.data[:count].toreadonly()

    def _read(self, offset: int, size: int) -> bytes:
        if self.stream is None:
            return b""
        self.stream.seek(offset)
        return self.stream.read(size)

    def close(self) -> None:
        """Read no more."""
        if self.stream is not None:
            self.stream.close()


def open_source(given: Given) -> Source:
    """Read what the caller gave.

    Raises:
        OSError: The file cannot be read.
        ModelFormatError: It is not a regular file.
        ArgumentError: An open file gives text.
    """
    if isinstance(given, (str, os.PathLike)):
        path = Path(given)
        return Source(str(path), path, open_regular(path, str(path)), given)
    if isinstance(given, (bytes, bytearray, memoryview)):
        return Source(None, None, BytesIO(given), given)
    if isinstance(given, TextIOBase):
        raise _not_binary(given)
    if isinstance(given, Readable):
        content = given.read()
        if not isinstance(content, bytes):
            raise _not_binary(given)
        name = getattr(given, "name", None)
        return Source(name if isinstance(name, str) else None, None, BytesIO(content), given)
    return Source(None, None, None, given)


def _not_binary(file: object) -> ArgumentError:
    name = getattr(file, "name", None)
    return ArgumentError("open the file in binary mode ('rb')", file=str(name) if name else None)


def open_regular(path: Path, file: str) -> BinaryIO:
    """Open a file that is neither a folder nor a device, pipe or socket."""
    if path.is_dir():
        raise ModelFormatError("is a folder, not a model file", file=file)
    descriptor = os.open(path, os.O_RDONLY | _flags("O_BINARY", "O_CLOEXEC", "O_NONBLOCK"))
    stream = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise ModelFormatError("is not a regular file", file=file)
    return stream


def _flags(*names: str) -> int:
    return sum(getattr(os, name, 0) for name in names)
