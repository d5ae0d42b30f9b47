"""HDF5 files from strangers: groups, attributes and plain numeric datasets that lie within the file, and nothing else.

HDF5 can point anywhere: links to other files, storage in other files, virtual datasets stitched from them, objects that
deserialize. None of these belongs in a weights file; each is refused by name. A dataset may not declare more than the
file can hold: filters other than deflate and shuffle are refused, and what deflate could expand is bounded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

from gristmill.errors import MissingDependencyError, ModelFormatError

if TYPE_CHECKING:
    import h5py

__all__ = ["Hdf5File"]

Array: TypeAlias = npt.NDArray[Any]

#: What h5py raises about damaged files.
_DAMAGE = (OSError, RuntimeError, ValueError, LookupError, TypeError, OverflowError, MemoryError)
_FILTERS = frozenset(("gzip", "shuffle", "fletcher32"))
_MOST_EXPANSION = 64
_SMALL = 1 << 24


class Hdf5File:
    """A file opened for reading. Paths are from its root, with slashes.

    Raises:
        ModelFormatError: If the file is damaged; later, if it holds what it should not.
    """

    def __init__(self, stream: BinaryIO) -> None:
        """Open the file that the stream reads."""
        try:
            import h5py
        except ImportError as error:
            raise MissingDependencyError('reading HDF5 needs h5py: pip install "gristmill[keras]"') from error
        self._h5py = h5py
        self._budget = _SMALL + _MOST_EXPANSION * stream.seek(0, 2)
        stream.seek(0)
        try:
            self._file = h5py.File(stream, "r")
        except _DAMAGE as error:
            raise ModelFormatError(f"damaged HDF5 file: {error}") from error

    def __enter__(self) -> Hdf5File:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def exists(self, path: str) -> bool:
        """Whether the group or dataset exists."""
        return self._find(path) is not None

    def members(self, path: str) -> list[str]:
        """Names in a group, in the file's order; none if there is no such group."""
        group = self._find(path)
        return list(group) if isinstance(group, self._h5py.Group) else []

    def attribute(self, path: str, name: str) -> object:
        """An attribute of a group: text, a list of texts, or a number; None if it is missing.

        Long lists are split over attributes ``name0``, ``name1``, ...
        """
        group = self._find(path)
        if group is None:
            return None
        try:
            if name in group.attrs:
                return _plain(group.attrs[name])
            parts = list(self._attribute_parts(group, name))
        except _DAMAGE as error:
            raise ModelFormatError(f"attribute {name} cannot be read: {error}", node=path) from error
        return [item for part in parts for item in part] if parts else None

    def read(self, path: str) -> Array:
        """A dataset of numbers; float16 becomes float32."""
        dataset = self._find(path)
        if not isinstance(dataset, self._h5py.Dataset):
            raise ModelFormatError("there is no such dataset in the file", node=path)
        self._check_dataset(dataset, path)
        try:
            array = np.asarray(dataset[()])
        except _DAMAGE as error:
            raise ModelFormatError(f"cannot be read: {error}", node=path) from error
        return array.astype(np.float32) if array.dtype == np.float16 else array.astype(array.dtype.newbyteorder("="))

    def _attribute_parts(self, group: h5py.Group, name: str) -> Iterator[list[Any]]:
        count = 0
        while f"{name}{count}" in group.attrs:
            part = _plain(group.attrs[f"{name}{count}"])
            yield part if isinstance(part, list) else [part]
            count += 1

    def _find(self, path: str) -> h5py.Group | h5py.Dataset | None:
        found: Any = self._file
        walked = ""
        for part in filter(None, path.split("/")):
            walked += f"/{part}"
            if not isinstance(found, self._h5py.Group):
                return None
            try:
                link = found.get(part, getlink=True)
                if link is None:
                    return None
                if not isinstance(link, self._h5py.HardLink):
                    raise ModelFormatError(f"is a {type(link).__name__}, which may lead out of the file", node=walked)
                found = found[part]
            except _DAMAGE as error:
                raise ModelFormatError(f"cannot be opened: {error}", node=walked) from error
        return found

    def _check_dataset(self, dataset: h5py.Dataset, path: str) -> None:
        settings = dataset.id.get_create_plist()
        if settings.get_external_count() or dataset.is_virtual:
            raise ModelFormatError("is stored in another file", node=path)
        if dataset.dtype.kind not in "fiub":
            raise ModelFormatError(f"holds {dataset.dtype}, not numbers", node=path)
        names = {1: "gzip", 2: "shuffle", 3: "fletcher32"}
        for index in range(settings.get_nfilters()):
            code = settings.get_filter(index)[0]
            if names.get(code) not in _FILTERS:
                raise ModelFormatError(f"is compressed by filter {code}; only gzip is supported", node=path)
        declared = math.prod(dataset.shape or ()) * dataset.dtype.itemsize
        if declared > self._budget:
            raise ModelFormatError(f"declares {declared} bytes, more than the file can hold", node=path)
        self._budget -= declared


def _plain(value: object) -> object:
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.tolist()]
    return value.item() if isinstance(value, np.generic) else value
