"""HDF5 files from strangers: groups, attributes and plain numeric datasets that lie within the file, and nothing else.

HDF5 can point anywhere: links to other files, storage in other files, virtual datasets stitched from them, objects that
deserialize. None of these belongs in a weights file; each is refused by name. What Keras and h5py write by default is
read by ``content`` (bytes), ``headers`` (objects), ``links`` (groups), ``types`` and ``datasets``, with every address
checked and no structure followed twice; no HDF5 library is involved.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gristmill import signatures
from gristmill.errors import ModelFormatError
from gristmill.weights.hdf5.content import UNDEFINED, Content, Cursor, damage
from gristmill.weights.hdf5.datasets import Dataset, locate
from gristmill.weights.hdf5.headers import Kind, Messages, read_messages
from gristmill.weights.hdf5.links import ELSEWHERE, group_members
from gristmill.weights.hdf5.types import Attribute, read_attribute

__all__ = ["Hdf5File"]

Array: TypeAlias = npt.NDArray[Any]


class Hdf5File:
    """The objects of a file. Paths are from its root, with slashes.

    Raises:
        ModelFormatError: If the file is damaged; later, if it holds what it should not.
    """

    def __init__(self, data: bytes) -> None:
        """Find the root."""
        self._content = Content(data)
        self._objects: dict[int, Messages] = {}
        self._groups: dict[int, dict[str, int]] = {}
        self._datasets: dict[int, Dataset] = {}
        self._root = _root_address(Cursor(memoryview(data)))
        self._messages(self._root)

    def exists(self, path: str) -> bool:
        """Whether the group or dataset exists."""
        return self._find(path) is not None

    def attribute(self, path: str, name: str) -> object:
        """An attribute of a group: text, a list of texts, or a number; None if it is missing.

        Long lists are split over attributes ``name0``, ``name1``, ...
        """
        at = self._find(path)
        if at is None:
            return None
        found = {item.name: item for item in self._attributes(at, path)}
        if name in found:
            return found[name].value(self._content)
        items: list[object] = []
        count = 0
        while f"{name}{count}" in found:
            part = found[f"{name}{count}"].value(self._content)
            items.extend(part if isinstance(part, list) else [part])
            count += 1
        return items if count else None

    def read(self, path: str) -> Array:
        """A dataset of numbers; float16 becomes float32."""
        at = self._find(path)
        if at is None or self._messages(at).first(Kind.LAYOUT) is None:
            raise ModelFormatError("there is no such dataset in the file", node=path)
        try:
            if at not in self._datasets:
                self._datasets[at] = locate(self._content, self._messages(at))
            array = self._datasets[at].array()
        except ModelFormatError as error:
            error.node = error.node or path
            raise
        return array.astype(np.float32) if array.dtype == np.float16 else array

    def _attributes(self, at: int, path: str) -> list[Attribute]:
        messages = self._messages(at)
        info = messages.first(Kind.ATTRIBUTE_INFO)
        if info is not None:
            info.skip(1)
            info.skip(2 if info.integer(1) & 1 else 0)
            if info.integer(8) != UNDEFINED:
                raise ModelFormatError("has attributes in the form of libver='latest'", node=path)
        return [read_attribute(message) for message in messages.all(Kind.ATTRIBUTE)]

    def _find(self, path: str) -> int | None:
        at, walked = self._root, ""
        for part in filter(None, path.split("/")):
            walked += f"/{part}"
            members = self._members(at)
            if part not in members:
                return None
            at = members[part]
            if at == ELSEWHERE:
                raise ModelFormatError("is a link that may lead out of the file", node=walked)
        return at

    def _messages(self, at: int) -> Messages:
        if at not in self._objects:
            self._objects[at] = read_messages(self._content, at)
        return self._objects[at]

    def _members(self, at: int) -> dict[str, int]:
        if at not in self._groups:
            self._groups[at] = group_members(self._content, self._messages(at))
        return self._groups[at]


def _root_address(superblock: Cursor) -> int:
    superblock.expect(signatures.HDF5)
    version = superblock.integer(1)
    if version > 3:
        raise damage(f"its superblock has unknown version {version}")
    superblock.skip(4 if version < 2 else 0)
    if (superblock.integer(1), superblock.integer(1)) != (8, 8):
        raise ModelFormatError("HDF5 files with addresses of other than 8 bytes are not supported")
    superblock.skip({0: 9, 1: 13}.get(version, 1))
    if superblock.integer(8):
        raise ModelFormatError("HDF5 files behind a user block are not supported")
    superblock.skip(32 if version < 2 else 16)
    return superblock.integer(8)
