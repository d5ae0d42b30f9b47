"""Folding scales and offsets of channels, such as BatchNormalization, into the layer before or behind them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gristmill.graph import Array, Node
from gristmill.passes.editor import Editor, make
from gristmill.passes.layers import CONV, LAYERS, is_integer

_OPS = ("BatchNormalization", "Add", "Sub", "Mul", "Div")
_TRANSPOSED = "ConvTranspose"


@dataclass(frozen=True)
class Affine:
    """``source * scale + offset``, one of each per channel, in float64."""

    source: str
    scale: npt.NDArray[np.float64]
    offset: npt.NDArray[np.float64]


def fold_affine(editor: Editor) -> None:
    """Fold what is affine per channel into layers and transposed convolutions of float32.

    Behind a layer this is always possible. Before one a scale is, and an offset only where no padding hides it.
    """
    for node in editor.nodes(*_OPS):
        _fold_behind(editor, node)
    for node in editor.nodes(*LAYERS):
        _fold_before(editor, node)


def _fold_behind(editor: Editor, node: Node) -> None:
    for source in dict.fromkeys(node.inputs[:2] if node.op != "BatchNormalization" else node.inputs[:1]):
        layer = editor.own_writer(source, *LAYERS, _TRANSPOSED)
        weights = editor.constant(layer.inputs[1]) if layer is not None else None
        if layer is None or weights is None or not _is_plain(layer, weights):
            continue
        channels = _out_channels(layer, weights)
        affine = _affine(editor, node, source, channels, 0 if layer.op == "LinearLayer" else weights.ndim - 2)
        bias = _bias(editor, layer, channels)
        if affine is None or bias is None:
            continue
        scaled = _scale_outputs(layer, weights, affine.scale)
        name = editor.add_constant(f"{layer.inputs[1]}.folded", scaled) if scaled is not weights else layer.inputs[1]
        offset = (bias * affine.scale + affine.offset).astype(np.float32)
        inputs = (layer.inputs[0], name, editor.add_constant(f"{layer.name}.bias", offset), *layer.inputs[3:])
        editor.replace((layer, node), make(layer.op, inputs, node, layer.attributes))
        return


def _fold_before(editor: Editor, layer: Node) -> None:
    weights = editor.constant(layer.inputs[1])
    node = editor.own_writer(layer.inputs[0], *_OPS)
    if weights is None or node is None or is_integer(layer) or layer.integer("group", 1) != 1:
        return
    for source in node.inputs[:1] if node.op == "BatchNormalization" else node.inputs[:2]:
        affine = _affine(editor, node, source, weights.shape[1], 0 if layer.op == "LinearLayer" else weights.ndim - 2)
        bias = _bias(editor, layer, len(weights))
        if affine is None or bias is None or (affine.offset.any() and _is_padded(layer)):
            continue
        wide = weights.astype(np.float64)
        columns = affine.scale.reshape(-1, *[1] * (weights.ndim - 2))
        name = editor.add_constant(f"{layer.inputs[1]}.folded", (wide * columns).astype(np.float32))
        added = np.tensordot(wide.reshape(len(wide), len(affine.offset), -1).sum(2), affine.offset, 1)
        offset = editor.add_constant(f"{layer.name}.bias", (bias + added).astype(np.float32))
        inputs = (affine.source, name, offset, *layer.inputs[3:])
        editor.replace((node, layer), make(layer.op, inputs, layer, layer.attributes))
        return


def _affine(editor: Editor, node: Node, source: str, channels: int, behind: int) -> Affine | None:
    """What a node makes of ``source``, whose channel axis has ``behind`` axes behind it."""
    if node.op == "BatchNormalization":
        return _normalization(editor, node, channels)
    first = node.inputs[0] == source
    value = _per_channel(editor.constant(node.inputs[1 if first else 0]), channels, behind)
    if value is None or node.inputs[0] == node.inputs[1]:
        return None
    one, zero = np.ones(channels), np.zeros(channels)
    if node.op == "Add":
        return Affine(source, one, value)
    if node.op == "Mul":
        return Affine(source, value, zero)
    if node.op == "Sub":
        return Affine(source, one, -value) if first else Affine(source, -one, value)
    return Affine(source, 1 / value, zero) if first and value.all() else None


def _normalization(editor: Editor, node: Node, channels: int) -> Affine | None:
    values = [editor.constant(name) for name in node.inputs[1:5]]
    known = [np.asarray(value, np.float64) for value in values if value is not None]
    if len(known) < 4 or any(node.outputs[1:]) or any(value.shape != (channels,) for value in known):
        return None
    gamma, beta, mean, variance = known
    scale = gamma / np.sqrt(variance + node.real("epsilon", 1e-5))
    return Affine(node.inputs[0], scale, beta - mean * scale)


def _per_channel(value: Array | None, channels: int, behind: int) -> npt.NDArray[np.float64] | None:
    """A constant that broadcasts over everything but the channels, and adds no axis before them."""
    if value is None or value.dtype != np.float32 or not np.isfinite(value).all():
        return None
    if value.size == 1 and value.ndim <= 1 + behind:
        return np.full(channels, value.item(), np.float64)
    leading = value.shape[: value.ndim - behind]
    if value.ndim <= behind or value.size != channels or leading[-1] != channels:
        return None
    # The axis before an image's channels is the batch, so that one more axis of 1 is harmless.
    return value.astype(np.float64).reshape(-1) if len(leading) <= 1 + (behind > 0) else None


def _is_plain(layer: Node, weights: Array) -> bool:
    """Whether nothing but the bias happens to a layer's sums."""
    return weights.dtype == np.float32 and "activation" not in layer.attributes and not layer.input(3)


def _out_channels(layer: Node, weights: Array) -> int:
    return weights.shape[1] * layer.integer("group", 1) if layer.op == _TRANSPOSED else len(weights)


def _scale_outputs(layer: Node, weights: Array, scale: npt.NDArray[np.float64]) -> Array:
    if (scale == 1).all():
        return weights
    groups = layer.integer("group", 1) if layer.op == _TRANSPOSED else 1
    inputs = len(weights) // groups if layer.op == _TRANSPOSED else 1
    rows = weights.reshape(groups, inputs, scale.size // groups, -1)
    scaled = rows * scale.reshape(groups, 1, -1, 1)
    return np.ascontiguousarray(scaled.reshape(weights.shape), np.float32)


def _bias(editor: Editor, layer: Node, channels: int) -> npt.NDArray[np.float64] | None:
    if not layer.input(2):
        return np.zeros(channels)
    value = editor.constant(layer.input(2))
    return None if value is None else value.astype(np.float64)


def _is_padded(layer: Node) -> bool:
    return layer.op == CONV and (
        any(layer.integers("pads") or ()) or layer.text("auto_pad", "NOTSET") not in {"NOTSET", "VALID"}
    )
