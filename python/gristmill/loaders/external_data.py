"""Weights in files beside a model, read without leaving its folder.

A model names such a file itself, so the name is not to be trusted. It must be relative and may not climb (``..``). The
file it leads to, all links resolved, must be a regular one inside the folder that holds the model, or inside the one
that holds the model's own target if the model is a link: so the cache of the Hugging Face hub works, in which model and
data are links into one folder of blobs. It may have no other hard links, which could lead anywhere unseen.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from gristmill.errors import ModelFormatError


@dataclass(frozen=True)
class DataFolder:
    """The folder of a model, from which its external data may be read.

    Attributes:
        model: The model's file, or ``None`` if the model came without one.
    """

    model: Path | None

    def read(self, location: str, offset: int, size: int, tensor: str) -> bytes:
        """Bytes of a file in the folder.

        Raises:
            ModelFormatError: The file is not one that the model may read, or lacks these bytes.
        """
        try:
            return self._read(location, offset, size, tensor)
        except (OSError, ValueError, RuntimeError) as error:
            if isinstance(error, ModelFormatError):
                raise
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise _error(tensor, location, f"cannot be read: {reason}") from error

    def _read(self, location: str, offset: int, size: int, tensor: str) -> bytes:
        path = self._resolve(location, tensor)
        wanted = ("O_BINARY", "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK")
        descriptor = os.open(path, os.O_RDONLY | sum(getattr(os, name, 0) for name in wanted))
        with os.fdopen(descriptor, "rb") as stream:
            facts = os.fstat(stream.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise _error(tensor, location, "is not a regular file")
            if facts.st_nlink > 1:
                raise _error(tensor, location, "has hard links, which may lead outside of the folder; copy the file")
            if offset + size > facts.st_size:
                end = offset + size
                raise _error(tensor, location, f"has {facts.st_size} bytes, but bytes {offset} to {end} are needed")
            stream.seek(offset)
            content = stream.read(size)
        if len(content) != size:
            raise _error(tensor, location, "became shorter while it was read")
        return content

    def _resolve(self, location: str, tensor: str) -> Path:
        if self.model is None:
            raise _error(tensor, location, "is beside the model's file; load the model by its path")
        parts = PurePosixPath(location).parts
        windows = PureWindowsPath(location)
        if not parts or "\0" in location or ".." in (*parts, *windows.parts):
            raise _error(tensor, location, "is not a name inside the model's folder")
        if PurePosixPath(location).is_absolute() or windows.drive or windows.root:
            raise _error(tensor, location, "is an absolute path; only names inside the model's folder are read")
        folder = self.model.parent
        path = (folder / location).resolve(strict=True)
        allowed = {folder.resolve(), self.model.resolve().parent}
        if not any(path.is_relative_to(parent) for parent in allowed):
            raise _error(tensor, location, "leads outside of the model's folder")
        return path


def _error(tensor: str, location: str, reason: str) -> ModelFormatError:
    return ModelFormatError(f"external data {location!r} {reason}", node=tensor or None)
