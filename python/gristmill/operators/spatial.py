"""How a kernel walks over the spatial axes of an image: shared by convolutions and pooling."""

from __future__ import annotations

import functools
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
    return _checked(node, name, rank, node.integers(name) or (1,) * rank, 1)


def padding(node: Node, rank: int) -> tuple[Extents, Extents]:
    """The attribute ``pads``: extents before and after each spatial axis."""
    pads = node.integers("pads") or (0,) * (2 * rank)
    if len(pads) != 2 * rank:
        raise node.error(f"pads needs {2 * rank} numbers, got {len(pads)}")
    _checked(node, "pads", 2 * rank, pads, 0)
    return pads[:rank], pads[rank:]


def window(node: Node, extents: Extents, kernel: Extents, *, ceil: bool = False) -> Window:
    """How this node's kernel walks over an image of these extents.

    Raises:
        ModelFormatError: An attribute has the wrong length or is out of range, or the kernel exceeds the image.
    """
    rank = len(extents)
    _checked(node, "kernel_shape", rank, kernel, 1)
    strides, dilations = positive(node, "strides", rank), positive(node, "dilations", rank)
    mode = node.text("auto_pad", "NOTSET")
    pads = padding(node, rank) if mode == "NOTSET" else None
    try:
        return _window(extents, kernel, strides, dilations, mode, pads, ceil)
    except ValueError as error:
        raise node.error(str(error)) from None


@functools.lru_cache(maxsize=1024)
def _window(
    extents: Extents,
    kernel: Extents,
    strides: Extents,
    dilations: Extents,
    mode: str,
    pads: tuple[Extents, Extents] | None,
    ceil: bool,
) -> Window:
    """The same for checked attributes: networks repeat few windows in many layers."""
    rank = len(extents)
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
    elif pads is not None:
        begins, ends = pads
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


def _checked(node: Node, name: str, count: int, values: Extents, least: int) -> Extents:
    if len(values) != count:
        raise node.error(f"{name} needs {count} numbers, got {len(values)}")
    if values and not least <= min(values) <= max(values) < 1 << 31:
        raise node.error(f"{name} must lie between {least} and 2^31, got {list(values)}")
    return values
