"""Zeros that a Pad puts around an image become the padding of the convolution that reads it."""

from __future__ import annotations

from gristmill.graph import Node
from gristmill.passes.editor import Editor, make
from gristmill.passes.layers import CONV


def fuse_pads(editor: Editor) -> None:
    """Move constant padding with the zero point into convolutions."""
    for layer in editor.nodes(CONV):
        pad = editor.own_writer(layer.inputs[0], "Pad")
        total = _sum_of_pads(editor, layer, pad) if pad is not None else None
        if pad is not None and total is not None:
            attributes = {**layer.attributes, "pads": total}
            editor.replace((pad, layer), make(CONV, (pad.inputs[0], *layer.inputs[1:]), layer, attributes))


def _sum_of_pads(editor: Editor, layer: Node, pad: Node) -> tuple[int, ...] | None:
    weights, pads = editor.constant(layer.inputs[1]), editor.constant(pad.input(1))
    if weights is None or pads is None or pad.input(3) or layer.text("auto_pad", "NOTSET") != "NOTSET":
        return None
    rank = weights.ndim
    value = editor.number(pad.input(2)) if pad.input(2) else 0.0
    if pad.text("mode", "constant") != "constant" or value != layer.integer("x_zero_point", 0):
        return None
    extents = [int(extent) for extent in pads]
    begins, ends = extents[:rank], extents[rank:]
    if len(extents) != 2 * rank or any(begins[:2] + ends[:2]) or min(extents) < 0:
        return None
    own = layer.integers("pads") or (0,) * (2 * (rank - 2))
    return tuple(a + b for a, b in zip(own, begins[2:] + ends[2:], strict=True))
