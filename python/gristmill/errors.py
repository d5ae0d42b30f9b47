"""The errors gristmill raises: one base class, one subclass per kind of mistake.

Every error carries the place it is about, as far as it is known: ``file``, ``node`` (an argument, layer or tensor) and
the bare ``reason``. ``str(error)`` joins them into one line.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class GristmillError(Exception):
    """Base class of every error that gristmill raises on purpose.

    Example:
        >>> error = ShapeError("expected 3 channels, got 4", node="conv1", file="model.onnx")
        >>> str(error)
        'model.onnx: conv1: expected 3 channels, got 4'
        >>> error.node
        'conv1'
    """

    def __init__(self, reason: str, *, node: str | None = None, file: str | None = None) -> None:
        """Store the place and the reason."""
        super().__init__(reason, node, file)
        self.reason = reason
        self.node = node
        self.file = file

    def __str__(self) -> str:
        return ": ".join(part for part in (self.file, self.node, self.reason) if part)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.reason, self.node, self.file)


class ArgumentError(GristmillError, ValueError):
    """An argument has a value that makes no sense: a scale of zero, an unknown name, a negative count."""


class DTypeError(GristmillError, TypeError):
    """An array has another element type than the operation takes; nothing is converted silently."""


class ShapeError(GristmillError, ValueError):
    """An array has another rank or shape than the operation needs."""


class IsaError(GristmillError, ValueError):
    """An instruction-set level is unknown, not compiled, or not supported by this processor."""


class ModelFormatError(GristmillError, ValueError):
    """A model file, or a graph made from it, is damaged or contradicts itself."""


class UnsupportedOpError(GristmillError, NotImplementedError):
    """A model uses an operator, or a form of one, that gristmill does not run."""


class MissingDependencyError(GristmillError, ImportError):
    """An optional package is needed; the message says how to install it."""


class LimitError(GristmillError, ValueError):
    """A size is beyond what the arithmetic or the memory budget allows."""


class OutOfMemoryError(LimitError, MemoryError):
    """The memory of this process does not suffice."""


@contextmanager
def errors_at(*, node: str | None = None, file: str | None = None) -> Iterator[None]:
    """Tell errors that pass through here the place that they do not name, and give a MemoryError a type and a place.

    Example:
        >>> with errors_at(file="model.onnx"), errors_at(node="conv1"):
        ...     bytearray(1 << 62)
        Traceback (most recent call last):
        gristmill.errors.OutOfMemoryError: model.onnx: conv1: memory does not suffice
    """
    try:
        yield
    except GristmillError as error:
        error.node = error.node or node
        error.file = error.file or file
        raise
    except MemoryError as error:
        about = "" if str(error) in {"", "std::bad_alloc"} else f": {error}"
        raise OutOfMemoryError(f"memory does not suffice{about}", node=node, file=file) from error


def _rebuild(kind: type[GristmillError], reason: str, node: str | None, file: str | None) -> GristmillError:
    return kind(reason, node=node, file=file)
