"""Resize: by one step where that has the node's form, else axis by axis."""

from __future__ import annotations

import math

import numpy as np

from gristmill.compile.program import Program, Value, unsupported
from gristmill.compile.registry import lowers
from gristmill.graph import Node
from gristmill.operators.resize import ResizedAxis, interpolation, nearest_indices, resized_axes


@lowers("Resize")
def lower_resize(program: Program, node: Node) -> None:
    """Images larger or smaller."""
    x = program.value(node.inputs[0])
    numbers = [program.known(node.input(index)) for index in (1, 2, 3)]
    axes = resized_axes(node, program.type(node.inputs[0]), *numbers)
    mode = node.text("mode", "nearest")
    if mode != "nearest" and x.dtype != np.float32:
        raise unsupported(node, f"mode {mode} of {x.dtype.name}; float32 can be run, and nearest of any type")
    if not axes:
        program.alias(node.outputs[0], x)
    elif _suits_step(node, x, axes):
        _append_step(program, node, x, axes)
    elif node.text("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        raise unsupported(node, "tf_crop_and_resize with antialias, or along more than the last three axes")
    else:
        program.alias(node.outputs[0], _axis_by_axis(program, node, x, axes))


def _suits_step(node: Node, x: Value, axes: list[ResizedAxis]) -> bool:
    special = node.text("coordinate_transformation_mode", "half_pixel") == "tf_half_pixel_for_nn"
    return not special and not node.integer("antialias", 0) and min(item.axis for item in axes) >= len(x.shape) - 3


def _append_step(program: Program, node: Node, x: Value, axes: list[ResizedAxis]) -> None:
    scales, starts, ends = ([default] * len(x.shape) for default in (1.0, 0.0, 1.0))
    for item in axes:
        scales[item.axis] = float(item.scale)
        starts[item.axis], ends[item.axis] = map(float, item.roi)
    program.step(
        "resize",
        node,
        [x],
        [program.result(node.outputs[0])],
        node.text("mode", "nearest"),
        node.text("coordinate_transformation_mode", "half_pixel"),
        node.text("nearest_mode", "round_prefer_floor"),
        node.real("cubic_coeff_a", -0.75),
        bool(node.integer("exclude_outside", 0)),
        node.real("extrapolation_value", 0.0),
        scales,
        starts,
        ends,
    )


def _axis_by_axis(program: Program, node: Node, x: Value, axes: list[ResizedAxis]) -> Value:
    """Elements taken by their index, or sums by a matrix of weights."""
    for item in axes:
        before, after = math.prod(x.shape[: item.axis]), x.shape[item.axis + 1 :]
        out = program.scratch(x.dtype, (*x.shape[: item.axis], item.after, *after))
        if node.text("mode", "nearest") == "nearest":
            program.step("gather", node, [x, program.constant(nearest_indices(node, item))], [out], item.axis)
        else:
            weights = program.constant(interpolation(node, item).astype(np.float32))
            planes = [value.reshaped((before, value.shape[item.axis], math.prod(after))) for value in (x, out)]
            program.step("matmul", node, [weights, planes[0]], [planes[1]])
        x = out
    return x
