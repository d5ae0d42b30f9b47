"""Zip archives from strangers: members are read whole, if they are as large as they say and not absurdly so."""

from __future__ import annotations

import zipfile
import zlib
from typing import BinaryIO

from gristmill.errors import ModelFormatError

__all__ = ["Archive"]

#: A member may be this much larger than the file takes, beyond what is small anyway. Zeros compress a thousandfold:
#: an archive that does is a trap, or holds nothing.
_MOST_EXPANSION = 64
_SMALL = 1 << 24


class Archive:
    """An archive opened for reading.

    Raises:
        ModelFormatError: If it is damaged, two members share a name, or one would expand beyond reason.
    """

    def __init__(self, stream: BinaryIO) -> None:
        """Read the directory."""
        try:
            self._file = zipfile.ZipFile(stream)
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
            raise ModelFormatError(f"damaged zip archive: {error}") from error
        self._members: dict[str, zipfile.ZipInfo] = {}
        expanded = taken = 0
        for member in self._file.infolist():
            if member.filename in self._members:
                raise ModelFormatError("two members of the archive have this name", node=member.filename)
            self._members[member.filename] = member
            expanded += member.file_size
            taken += member.compress_size
        if expanded > _SMALL + _MOST_EXPANSION * taken:
            raise ModelFormatError(f"the archive would expand from {taken} to {expanded} bytes")

    @property
    def names(self) -> list[str]:
        """Names of the members."""
        return list(self._members)

    def size(self, name: str) -> int:
        """Bytes of a member as the directory says; :meth:`read` holds it to that."""
        return self._member(name).file_size

    def read(self, name: str) -> bytes:
        """The bytes of a member."""
        member = self._member(name)
        try:
            with self._file.open(member) as stream:
                data = stream.read(member.file_size + 1)
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError) as error:
            raise ModelFormatError(f"cannot be read: {error}", node=name) from error
        if len(data) != member.file_size:
            raise ModelFormatError(f"holds {len(data)} bytes, not {member.file_size} as the archive says", node=name)
        return data

    def _member(self, name: str) -> zipfile.ZipInfo:
        if name not in self._members:
            raise ModelFormatError("the archive has no such member", node=name)
        return self._members[name]
