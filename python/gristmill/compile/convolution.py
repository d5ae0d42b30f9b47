"""Convolutions with constant weights as steps of a plan, whatever their number of axes.

Kernels run images. A sequence is an image of one row; a volume becomes one image for each slice of the result, with the
slices of the input that its kernel reaches as channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gristmill.compile.packer import Layer
from gristmill.compile.products import Zero, pad
from gristmill.compile.program import Program, Value, View, dense_strides
from gristmill.dense import Epilogue
from gristmill.graph import Array, Node
from gristmill.operators.spatial import Window


@dataclass(frozen=True)
class Convolution:
    """A convolution of one to three spatial axes.

    Attributes:
        weights: (out channels, in channels / groups, taps...), int8 or float32.
        window: How its kernel walks.
        groups: Groups of channels.
        epilogue: What becomes of the sums.
        x_zero_point: What padding means; the run may compute it.
    """

    weights: Array
    window: Window
    groups: int
    epilogue: Epilogue
    x_zero_point: Zero = 0

    def append(self, program: Program, node: Node, x: Value, out: Value, residual: Value | None = None) -> None:
        """Append its steps."""
        if len(self.window.kernel) == 3:
            self._append_slices(program, node, x, out, residual)
            return
        images = [_image(value) for value in (x, out, residual) if value is not None]
        self._append_images(program, node, images, self.weights, self.window)

    def _append_images(self, program: Program, node: Node, images: list[Value], weights: Array, window: Window) -> None:
        more = 2 - len(window.kernel)
        options = {
            "stride": (*[1] * more, *window.strides),
            "padding": (*[0] * more, *window.begins, *[0] * more, *window.ends),
            "dilation": (*[1] * more, *window.dilations),
            "groups": self.groups,
        }
        if weights.ndim == 3:
            weights = program.packer.derived(weights, "rows", lambda rows: rows[:, :, None])
        program.layer(node, Layer("conv", weights, options, tuple(images), self.epilogue, self.x_zero_point))

    def _append_slices(self, program: Program, node: Node, x: Value, out: Value, residual: Value | None) -> None:
        (taps, *_), (depth, *_) = self.window.kernel, self.window.output
        begin, end = self.window.begins[0], self.window.ends[0]
        x = pad(program, node, x, [0, 0, begin, 0, 0], [0, 0, end, 0, 0], self.x_zero_point)
        batch, channels, _, *plane = x.shape
        image, channel, piece, *pixel = dense_strides(x.shape)
        steps = image, piece * self.window.strides[0], channel, piece * self.window.dilations[0], *pixel
        source = View(x, (batch, depth, channels, taps, *plane), steps)
        stacked = program.scratch(x.dtype, (batch * depth, channels * taps, *plane))
        made = program.scratch(out.dtype, (batch * depth, out.shape[1], *out.shape[3:]))
        split = (batch, depth, *made.shape[1:])
        images = [stacked, made]
        if stacked.size:
            program.copy(node, source, stacked.reshaped(source.shape))
        if residual is not None:
            images.append(program.scratch(residual.dtype, made.shape))
            program.copy(node, residual.view().permuted((0, 2, 1, 3, 4)), images[-1].reshaped(split))
        kernels = program.packer.derived(self.weights, "stacked slices", _stacked)
        flat = Window(*(part[1:] for part in vars(self.window).values()))
        self._append_images(program, node, images, kernels, flat)
        if out.size:
            program.copy(node, made.reshaped(split).view().permuted((0, 2, 1, 3, 4)), out)


def _stacked(weights: Array) -> Array:
    """Slices of kernels as channels."""
    return np.ascontiguousarray(weights.reshape(weights.shape[0], -1, *weights.shape[3:]))


def _image(value: Value) -> Value:
    """Sequences as images of one row."""
    return value if len(value.shape) != 3 else value.reshaped((*value.shape[:2], 1, value.shape[2]))
