"""Models from files: one function, and a table of the formats that it knows.

What reads Keras and TFLite files is imported when there is one: starts with other models need none of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

from gristmill import artefact, signatures
from gristmill.errors import ModelFormatError, UnsupportedOpError, errors_at
from gristmill.graph import Graph
from gristmill.loaders import onnx
from gristmill.loaders.source import Given, Source, open_source
from gristmill.model import Model
from gristmill.operators import TensorType
from gristmill.reference import check_outputs, infer
from gristmill.report import Report

__all__ = ["FORMATS", "Format", "load"]


@dataclass(frozen=True)
class Format:
    """A kind of model file.

    Attributes:
        name: For messages and summaries.
        recognizes: Tells by content or suffix whether a source is of this kind.
        load: Makes a graph of it.
        report: What it says on how the model was made, after loading.
    """

    name: str
    recognizes: Callable[[Source], bool]
    load: Callable[[Source], Graph]
    report: Callable[[Source], Report | None] = lambda _source: None


def _unpack(source: Source) -> Graph:
    return artefact.unpack_artefact(source.buffer)


def _report(source: Source) -> Report | None:
    text = artefact.stored_report(source.buffer)
    return None if text is None else Report.from_json(text)


def _is_keras(source: Source) -> bool:
    """Whether it is a zip archive with Keras's weights in it, or says so by its name."""
    zipped = source.head.startswith(signatures.ZIP)
    return zipped and (source.suffix == ".keras" or b"model.weights.h5" in source.tail)


def _read_h5(source: Source) -> Graph:
    from gristmill.loaders import keras

    return keras.read_h5(BytesIO(source.content), source.architecture)


def _read_keras(source: Source) -> Graph:
    from gristmill.loaders import keras

    return keras.read_keras(BytesIO(source.content))


def _read_tflite(source: Source) -> Graph:
    from gristmill.loaders import tflite

    return tflite.read_tflite(source.content)


#: In the order in which they are asked; the surest come first.
FORMATS: list[Format] = [
    Format("gristmill", lambda source: artefact.is_artefact(source.head), _unpack, _report),
    Format("Keras HDF5", lambda source: source.head.startswith(signatures.HDF5), _read_h5),
    Format("Keras", _is_keras, _read_keras),
    Format("TFLite", lambda source: source.head[4:8] == b"TFL3", _read_tflite),
    Format("ONNX", onnx.recognizes, onnx.load),
]


def load(source: Given, *, architecture: str | os.PathLike[str] | None = None) -> Model:
    """Read a model.

    Nothing in a file is ever executed, and no file outside of the model's own folder is read.

    Args:
        source: A path, the bytes of a file, a file open for reading in binary mode, or an ``onnx.ModelProto``.
        architecture: For Keras weights without a model: the file that ``model.to_json()`` was written to.

    Returns:
        The model; printing it shows its layers.

    Raises:
        ModelFormatError: The file is damaged, contradicts itself, or is of an unknown format.
        UnsupportedOpError: The model uses an operator that gristmill does not run.
        LimitError: The model is too large.
        OSError: The file cannot be read.
    """
    given = open_source(source)
    with closing(given), errors_at(file=given.file):
        if architecture is not None:
            given = replace(given, architecture=Path(architecture).read_text(encoding="utf-8"))
        for kind in FORMATS:
            if kind.recognizes(given):
                graph = kind.load(given)
                _check_shapes(graph)
                return Model(graph, source=given.file, format=kind.name, report=kind.report(given))
        known = ", ".join(kind.name for kind in FORMATS)
        what = f"{type(source).__name__} is not" if given.stream is None else "the content is not"
        if given.stream is not None and not given.head:
            raise ModelFormatError("is empty")
        raise ModelFormatError(f"{what} of a format that is known; known are: {known}")


def _check_shapes(graph: Graph) -> None:
    """Refuse what cannot run; only shapes that inputs leave open, or decide by value, are left to a later time."""
    types = {}
    for info in graph.inputs:
        shape = tuple(extent for extent in info.shape or () if isinstance(extent, int))
        if info.shape is None or len(shape) != len(info.shape):
            return
        types[info.name] = TensorType(info.dtype, shape)
    with suppress(UnsupportedOpError):
        check_outputs(graph, infer(graph, types))
