"""Weights without a model: named arrays from the files that frameworks leave behind."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt

from gristmill.errors import GristmillError, ModelFormatError
from gristmill.weights.keras_file import read_keras_weights
from gristmill.weights.npz_file import read_npz
from gristmill.weights.safetensors_file import read_safetensors
from gristmill.weights.torch_file import read_checkpoint

__all__ = ["load_weights"]

Array: TypeAlias = npt.NDArray[Any]

#: Where checkpoints of training scripts keep the state dictionary, in order of preference.
_STATE_KEYS = ("state_dict", "model_state_dict", "model", "net", "weights")


def load_weights(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Read the named arrays of a weights file; nothing in the file is ever executed.

    Args:
        path: A PyTorch checkpoint (``.pt``, ``.pth``, ``.th``, ``.bin``; PyTorch is not needed), ``.safetensors``,
            ``.npz``, or the weights of a Keras model (``.h5``). A state dictionary inside a training checkpoint is
            found under its usual names, and the prefix ``module.`` of data-parallel training is taken off.

    Returns:
        Arrays by name, in the order of the file. float16 and bfloat16 become float32.

    Raises:
        ModelFormatError: If the file is damaged, or holds something else than tensors and plain data.
        FileNotFoundError: If there is no such file.

    Example:
        >>> import numpy as np, tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "w.npz"
        >>> np.savez(path, w=np.ones((2, 3), np.float32))
        >>> load_weights(path)["w"].shape
        (2, 3)
    """
    file = Path(path)
    reader = _READERS.get(file.suffix.lower())
    if reader is None:
        known = ", ".join(_READERS)
        raise ModelFormatError(f"no weights format goes by {file.suffix!r}; known are {known}", file=str(path))
    try:
        with file.open("rb") as stream:
            return {name: _single(array) for name, array in reader(stream).items()}
    except GristmillError as error:
        error.file = str(path)
        raise


def _read_torch(stream: BinaryIO) -> dict[str, Array]:
    root = read_checkpoint(stream)
    state = _state_of(root)
    if not state:
        raise ModelFormatError("holds no tensors; save model.state_dict()")
    prefix = "module."
    if all(name.startswith(prefix) for name in state):
        return {name.removeprefix(prefix): array for name, array in state.items()}
    return state


def _state_of(root: object) -> dict[str, Array]:
    if not isinstance(root, Mapping):
        return {}
    for key in _STATE_KEYS:
        if isinstance(root.get(key), Mapping) and (state := _arrays(root[key])):
            return state
    return _arrays(root)


def _arrays(mapping: Mapping[object, object]) -> dict[str, Array]:
    return {str(name): value for name, value in mapping.items() if isinstance(value, np.ndarray)}


def _single(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype == np.float16 else array


_READERS: dict[str, Callable[[BinaryIO], dict[str, Array]]] = {
    ".npz": read_npz,
    ".safetensors": read_safetensors,
    **dict.fromkeys((".h5", ".hdf5"), read_keras_weights),
    **dict.fromkeys((".pt", ".pth", ".th", ".bin"), _read_torch),
}
