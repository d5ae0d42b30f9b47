"""Conv and ConvTranspose, of one to three spatial axes."""

from __future__ import annotations

import math

import numpy as np

from gristmill.graph import Array, Node
from gristmill.operators.registry import Known, TensorType, common_dtype, operator, require_float, unsupported
from gristmill.operators.spatial import Extents, Window, padding, positive, taps, window


def conv_window(node: Node, x: Known, w: Known) -> Window:
    """How the kernel of a convolution walks, its shapes checked against each other."""
    if x.ndim < 3 or x.ndim != w.ndim:
        raise node.error(f"an image of shape {list(x.shape)} and weights of shape {list(w.shape)} do not go together")
    if x.ndim > 5:
        raise unsupported(node, f"more than three spatial axes, got shape {list(x.shape)}")
    groups = node.integer("group", 1)
    if groups < 1 or x.shape[1] != groups * w.shape[1] or w.shape[0] % groups:
        raise node.error(f"{x.shape[1]} channels, weights of shape {list(w.shape)} and {groups} groups contradict")
    declared = node.integers("kernel_shape") or w.shape[2:]
    if declared != w.shape[2:]:
        raise node.error(f"kernel_shape {list(declared)} contradicts weights of shape {list(w.shape)}")
    return window(node, x.shape[2:], w.shape[2:])


def check_bias(node: Node, bias: Known | None, channels: int) -> None:
    """A bias has one number per channel."""
    if bias is not None and bias.shape != (channels,):
        raise node.error(f"a bias of shape {list(bias.shape)} for {channels} channels")


def convolve(x: Array, w: Array, window: Window, groups: int) -> Array:
    """Sums of products: float32 for float32, else exact in float64 for 8-bit integers."""
    kind = x.dtype if x.dtype.kind == "f" else np.dtype(np.float64)
    matrices = w.astype(kind, copy=False).reshape(groups, w.shape[0] // groups, math.prod(w.shape[1:]))
    spatial = len(window.kernel)
    order = (0, *range(1 + spatial, 1 + 2 * spatial), *range(1, 1 + spatial))
    result = np.empty((x.shape[0], w.shape[0], *window.output), kind)
    for image, out in zip(x, result, strict=True):
        columns = taps(image[None].astype(kind, copy=False), window, 0)[0].transpose(order)
        patches = columns.reshape(groups, matrices.shape[2], math.prod(window.output))
        out[...] = (matrices @ patches).reshape(out.shape)
    return result


def per_channel(values: Array, rank: int) -> Array:
    """Numbers per channel (or one for all), shaped to broadcast against an image."""
    return values.reshape((-1,) + (1,) * (rank - 2)) if values.ndim else values


def _conv(node: Node, x: Known, w: Known, bias: Known | None = None) -> TensorType:
    require_float(node, x)
    dtype = common_dtype(node, (x, w, bias))
    check_bias(node, bias, w.shape[0])
    return TensorType(dtype, (x.shape[0], w.shape[0], *conv_window(node, x, w).output))


@operator("Conv", rule=_conv)
def conv(node: Node, x: Array, w: Array, bias: Array | None = None) -> Array:
    """A convolution with groups, strides, dilations and padding."""
    result = convolve(x, w, conv_window(node, x, w), node.integer("group", 1))
    return result if bias is None else result + per_channel(bias, x.ndim)


def transposed_window(node: Node, x: Known, w: Known) -> Window:
    """How a transposed convolution spreads its input: the window of the convolution it undoes.

    ``output`` holds the extents of the result, cut by ``begins`` and ``ends``, which may be negative.
    """
    rank = x.ndim - 2
    if not 1 <= rank <= 3 or x.ndim != w.ndim:
        raise node.error(f"an image of shape {list(x.shape)} and weights of shape {list(w.shape)} do not go together")
    groups = node.integer("group", 1)
    if groups < 1 or x.shape[1] != w.shape[0] or x.shape[1] % groups:
        raise node.error(f"{x.shape[1]} channels, weights of shape {list(w.shape)} and {groups} groups contradict")
    kernel = node.integers("kernel_shape") or w.shape[2:]
    if kernel != w.shape[2:]:
        raise node.error(f"kernel_shape {list(kernel)} contradicts weights of shape {list(w.shape)}")
    strides, dilations = positive(node, "strides", rank), positive(node, "dilations", rank)
    extra = node.integers("output_padding") or (0,) * rank
    wanted = node.integers("output_shape")
    if len(extra) != rank or min(extra) < 0 or (wanted is not None and len(wanted) < rank):
        raise node.error(f"output_padding and output_shape need {rank} numbers")
    full = tuple(
        (extent - 1) * stride + (k - 1) * dilation + 1 + more
        for extent, stride, k, dilation, more in zip(x.shape[2:], strides, kernel, dilations, extra, strict=True)
    )
    begins, ends = _cut(node, x.shape[2:], strides, full, wanted)
    output = tuple(length - begin - end for length, begin, end in zip(full, begins, ends, strict=True))
    if min(output) < 1:
        raise node.error(f"pads leave nothing of the result: {list(output)}")
    return Window(kernel, strides, dilations, begins, ends, output)


def _cut(
    node: Node, extents: Extents, strides: Extents, full: Extents, wanted: Extents | None
) -> tuple[Extents, Extents]:
    mode = node.text("auto_pad", "NOTSET")
    if mode not in {"NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"}:
        raise node.error(f"auto_pad must be NOTSET, SAME_UPPER, SAME_LOWER or VALID, got {mode!r}")
    if wanted is None and mode in {"SAME_UPPER", "SAME_LOWER"}:
        wanted = tuple(extent * stride for extent, stride in zip(extents, strides, strict=True))
    if wanted is None:
        return padding(node, len(extents)) if mode == "NOTSET" else ((0,) * len(extents), (0,) * len(extents))
    total = [length - out for length, out in zip(full, wanted[-len(extents) :], strict=True)]
    less = tuple(cut // 2 for cut in total)
    more = tuple(cut - half for cut, half in zip(total, less, strict=True))
    return (less, more) if mode == "SAME_UPPER" else (more, less)


def _transposed(node: Node, x: Known, w: Known, bias: Known | None = None) -> TensorType:
    require_float(node, x)
    dtype = common_dtype(node, (x, w, bias))
    found = transposed_window(node, x, w)
    channels = w.shape[1] * node.integer("group", 1)
    check_bias(node, bias, channels)
    return TensorType(dtype, (x.shape[0], channels, *found.output))


@operator("ConvTranspose", rule=_transposed)
def conv_transpose(node: Node, x: Array, w: Array, bias: Array | None = None) -> Array:
    """The gradient of a convolution by its input: every input element adds a scaled kernel to the result."""
    found, groups = transposed_window(node, x, w), node.integer("group", 1)
    images, channels, extents = x.shape[0], w.shape[1] * groups, x.shape[2:]
    matrices = w.reshape(groups, w.shape[0] // groups, -1).swapaxes(1, 2)
    columns = matrices @ x.reshape(images, groups, x.shape[1] // groups, math.prod(extents))
    columns = columns.reshape(images, channels, math.prod(found.kernel), *extents)
    reach = [(n - 1) * stride + 1 for n, stride in zip(extents, found.strides, strict=True)]
    spread = [length - 1 + span for length, span in zip(reach, found.spans, strict=True)]
    result = np.zeros((images, channels, *spread), columns.dtype)
    for index, tap in enumerate(np.ndindex(*found.kernel)):
        starts = [at * dilation for at, dilation in zip(tap, found.dilations, strict=True)]
        area = [slice(start, start + n, s) for start, n, s in zip(starts, reach, found.strides, strict=True)]
        place = (slice(None), slice(None), *area)
        result[place] += columns[:, :, index]
    cut = _part(result, found)
    return cut if bias is None else np.asarray(cut + per_channel(bias, x.ndim))


def _part(full: Array, found: Window) -> Array:
    """What is left of the full result after cutting (or, below zero, adding) ``begins`` and ``ends``."""
    result = np.zeros((*full.shape[:2], *found.output), full.dtype)
    source, target = [slice(None), slice(None)], [slice(None), slice(None)]
    for begin, out, extent in zip(found.begins, found.output, full.shape[2:], strict=True):
        first = max(begin, 0)
        last = max(min(begin + out, extent), first)
        source.append(slice(first, last))
        target.append(slice(first - begin, last - begin))
    result[tuple(target)] = full[tuple(source)]
    return result
