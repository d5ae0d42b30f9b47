"""How a kernel walks over the spatial axes of an image: shared by convolutions and pooling."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from gristmill.graph import Array, Node

Extents = tuple[int, ...]


@dataclass(frozen=True)
class Window:
    """Kernel, strides, dilations, padding before and after, and the extents of the result, one per spatial axis."""

    kernel: Extents
    strides: Extents
    dilations: Extents
    begins: Extents
    ends: Extents
    output: Extents

    @property
    def spans(self) -> Extents:
        """From the first tap of a window to the last, both counted."""
        return tuple((k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True))


def positive(node: Node, name: str, rank: int) -> Extents:
    """Strides or dilations: one per spatial axis, at least 1."""
    with _errors_of(node):
        return _positive(name, rank, node.integers(name))


def padding(node: Node, rank: int) -> tuple[Extents, Extents]:
    """The attribute ``pads``: extents before and after each spatial axis."""
    with _errors_of(node):
        return _padding(rank, node.integers("pads"))


def window(node: Node, extents: Extents, kernel: Extents, *, ceil: bool = False) -> Window:
    """How this node's kernel walks over an image of these extents.

    Raises:
        ModelFormatError: An attribute has the wrong length or is out of range, or the kernel exceeds the image.
    """
    strides, dilations, pads = node.integers("strides"), node.integers("dilations"), node.integers("pads")
    with _errors_of(node):
        return _window(extents, kernel, strides, dilations, node.text("auto_pad", "NOTSET"), pads, ceil)


@functools.lru_cache(maxsize=1024)
def _window(
    extents: Extents,
    kernel: Extents,
    given_strides: Extents | None,
    given_dilations: Extents | None,
    mode: str,
    pads: Extents | None,
    ceil: bool,
) -> Window:
    """The same for attributes as they are: networks repeat few windows in many layers."""
    rank = len(extents)
    _checked("kernel_shape", rank, kernel, 1)
    strides, dilations = _positive("strides", rank, given_strides), _positive("dilations", rank, given_dilations)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    if mode in {"SAME_UPPER", "SAME_LOWER"}:
        wanted = [-(-extent // stride) for extent, stride in zip(extents, strides, strict=True)]
        total = [
            max((out - 1) * stride + span - extent, 0)
            for out, stride, span, extent in zip(wanted, strides, spans, extents, strict=True)
        ]
        less, more = tuple(pad // 2 for pad in total), tuple(pad - pad // 2 for pad in total)
        begins, ends = (less, more) if mode == "SAME_UPPER" else (more, less)
    elif mode == "VALID":
        begins = ends = (0,) * rank
    elif mode == "NOTSET":
        begins, ends = _padding(rank, pads)
    else:
        raise ValueError(f"auto_pad must be NOTSET, SAME_UPPER, SAME_LOWER or VALID, got {mode!r}")
    output = []
    for extent, span, stride, begin, end in zip(extents, spans, strides, begins, ends, strict=True):
        room = extent + begin + end - span
        if room < 0:
            raise ValueError(f"a kernel spanning {span} does not fit an image of {extent} padded by {begin} and {end}")
        steps = -(-room // stride) if ceil else room // stride
        if steps * stride >= extent + begin and ceil:
            steps -= 1
        output.append(steps + 1)
    return Window(kernel, strides, dilations, begins, ends, tuple(output))


def taps(x: Array, window: Window, fill: npt.ArrayLike) -> Array:
    """A view of what each tap reads for each element of the result: (images, channels, *output, *kernel).

    Beyond the image is ``fill``.
    """
    rank = len(window.kernel)
    pads, crop = [(0, 0), (0, 0)], [slice(None), slice(None)]
    for axis, span in enumerate(window.spans):
        last = (window.output[axis] - 1) * window.strides[axis] + span
        after = last - window.begins[axis] - x.shape[2 + axis]
        pads.append((window.begins[axis], max(after, 0)))
        crop.append(slice(0, last))
    padded = np.pad(x, pads, constant_values=fill)[tuple(crop)]
    view = sliding_window_view(padded, window.spans, axis=tuple(range(2, 2 + rank)))
    starts = tuple(slice(None, None, stride) for stride in window.strides)
    inside = tuple(slice(None, None, dilation) for dilation in window.dilations)
    index = (slice(None), slice(None), *starts, *inside)
    return view[index]


def _positive(name: str, rank: int, values: Extents | None) -> Extents:
    return _checked(name, rank, values or (1,) * rank, 1)


def _padding(rank: int, values: Extents | None) -> tuple[Extents, Extents]:
    pads = _checked("pads", 2 * rank, values or (0,) * (2 * rank), 0)
    return pads[:rank], pads[rank:]


def _checked(name: str, count: int, values: Extents, least: int) -> Extents:
    if len(values) != count:
        raise ValueError(f"{name} needs {count} numbers, got {len(values)}")
    if values and not least <= min(values) <= max(values) < 1 << 31:
        raise ValueError(f"{name} must lie between {least} and 2^31, got {list(values)}")
    return values


@contextmanager
def _errors_of(node: Node) -> Iterator[None]:
    """Let errors name a node."""
    try:
        yield
    except ValueError as error:
        raise node.error(str(error)) from None
