"""Operators that move elements: other views of the same memory where that suffices, else copies."""

from __future__ import annotations

import math

import numpy as np

from gristmill.compile.arithmetic import fill
from gristmill.compile.program import Program, View, unsupported
from gristmill.compile.registry import lowers
from gristmill.graph import Array, Node
from gristmill.operators import find
from gristmill.operators.movement import split_extents


@lowers("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity")
def lower_reshape(program: Program, node: Node) -> None:
    """The same elements in C order."""
    program.alias(node.outputs[0], program.value(node.inputs[0]))


@lowers("Transpose")
def lower_transpose(program: Program, node: Node) -> None:
    """The axes in another order."""
    x = program.value(node.inputs[0])
    order = node.integers("perm") or tuple(reversed(range(len(x.shape))))
    take(program, node, x.view().permuted([axis % len(x.shape) for axis in order]), node.outputs[0])


@lowers("Concat")
def lower_concat(program: Program, node: Node) -> None:
    """Parts one behind the other; each is written in its place at once where its memory allows it."""
    out = program.result(node.outputs[0])
    axis, start = node.integer("axis", 0) % len(out.shape), 0
    for name in node.inputs:
        part = program.value(name)
        extent = part.shape[axis]
        if part.size:
            program.copy(node, part, out.view().part(axis, start, extent), movable=True)
        start += extent


@lowers("Split")
def lower_split(program: Program, node: Node) -> None:
    """Parts of an axis, of which some may be of no use."""
    x, start = program.value(node.inputs[0]), 0
    axis, extents = split_extents(node, program.type(node.inputs[0]), program.known(node.input(1)))
    for name, extent in zip(node.outputs, extents, strict=False):
        if name:
            take(program, node, x.view().part(axis, start, extent), name)
        start += extent


@lowers("Slice")
def lower_slice(program: Program, node: Node) -> None:
    """Every n-th element of some axes."""
    x, out = program.value(node.inputs[0]), program.type(node.outputs[0])
    rank = len(x.shape)
    starts, steps = [0] * rank, [1] * rank
    given = [program.known(node.input(index)) for index in (1, 3, 4)]
    first = given[0]
    if first is None:
        raise unsupported(node, "bounds that are not constant")
    axes = range(len(first)) if given[1] is None else [int(axis) % rank for axis in given[1]]
    by = [1] * len(first) if given[2] is None else [int(step) for step in given[2]]
    for axis, start, step in zip(axes, first, by, strict=True):
        extent = x.shape[axis]
        begin = int(start) + (extent if start < 0 else 0)
        starts[axis] = min(max(begin, 0), extent if step > 0 else extent - 1)
        steps[axis] = step
    take(program, node, x.view().slices(starts, out.shape, steps), node.outputs[0])


@lowers("Expand", "Tile")
def lower_expand(program: Program, node: Node) -> None:
    """Elements repeated along axes."""
    x, out = program.value(node.inputs[0]), program.result(node.outputs[0])
    target = out.view()
    shape = (1,) * (len(out.shape) - len(x.shape)) + x.shape
    source = x.reshaped(shape).view()
    if node.op == "Expand":
        strides = [0 if a == 1 else s for a, s in zip(shape, source.strides, strict=True)]
        program.copy(node, View(x, out.shape, tuple(strides)), target)
        return
    split = [part for extent, whole in zip(shape, out.shape, strict=True) for part in (whole // max(extent, 1), extent)]
    strides = [part for stride in source.strides for part in (0, stride)]
    program.copy(node, View(x, tuple(split), tuple(strides)), out.reshaped(split))


@lowers("ConstantOfShape")
def lower_filled(program: Program, node: Node) -> None:
    """One value everywhere, where that is too much to keep as a constant."""
    out = program.result(node.outputs[0])
    value = node.attributes.get("value", 0)
    if out.size:
        fill(program, node, out, np.asarray(value))


@lowers("Range")
def lower_range(program: Program, node: Node) -> None:
    """Numbers that are known, though many."""
    bounds = [program.known(name) for name in node.inputs]
    (numbers,) = find(node).evaluate(node, bounds)
    program.alias(node.outputs[0], program.constant(numbers))


@lowers("Pad")
def lower_pad(program: Program, node: Node) -> None:
    """A constant around the elements; or edges repeated, mirrored or wrapped, axis by axis."""
    x = program.value(node.inputs[0])
    begins, ends = pad_extents(program, node, len(x.shape))
    if node.text("mode", "constant") != "constant":
        _pad_by_edges(program, node, begins, ends)
        return
    out = program.result(node.outputs[0])
    known = program.known(node.input(2)) if node.input(2) else np.zeros((), x.dtype)
    inside = [extent + min(begin, 0) + min(end, 0) for extent, begin, end in zip(x.shape, begins, ends, strict=True)]
    if out.size:
        fill(program, node, out, program.value(node.input(2)) if known is None else known)
    if math.prod(inside):
        steps = [1] * len(inside)
        source = x.view().slices([max(-begin, 0) for begin in begins], inside, steps)
        program.copy(node, source, out.view().slices([max(begin, 0) for begin in begins], inside, steps))


def pad_extents(program: Program, node: Node, rank: int) -> tuple[list[int], list[int]]:
    """What is put before and after each axis."""
    pads = program.known(node.input(1))
    axes = program.known(node.input(3)) if node.input(3) else np.arange(rank)
    if pads is None or axes is None:
        raise unsupported(node, "pads that are not constant")
    begins, ends = [0] * rank, [0] * rank
    for axis, begin, end in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        begins[int(axis) % rank], ends[int(axis) % rank] = int(begin), int(end)
    return begins, ends


def _pad_by_edges(program: Program, node: Node, begins: list[int], ends: list[int]) -> None:
    """Take along each axis the elements that belong there."""
    value = program.value(node.inputs[0])
    for axis, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        if begin or end:
            count = value.shape[axis]
            origins = _origins(node, np.arange(-begin, count + end, dtype=np.int64), count)
            shape = (*value.shape[:axis], len(origins), *value.shape[axis + 1 :])
            out = program.scratch(value.dtype, shape)
            program.step("gather", node, [value, program.constant(origins)], [out], axis)
            value = out
    program.alias(node.outputs[0], value)


def _origins(node: Node, places: Array, count: int) -> Array:
    """The elements of an axis that stand at places which may lie outside of it."""
    mode = node.text("mode", "constant")
    if mode == "edge":
        return places.clip(0, count - 1)
    if mode == "wrap":
        return np.mod(places, count)
    if mode == "reflect":
        period = max(2 * count - 2, 1)
        within = np.mod(places, period)
        return np.minimum(within, period - within) if count > 1 else np.zeros_like(places)
    raise unsupported(node, f"mode {mode!r}")


@lowers("DepthToSpace", "SpaceToDepth")
def lower_depth_to_space(program: Program, node: Node) -> None:
    """Blocks of pixels become channels, or the other way round."""
    x, out = program.value(node.inputs[0]), program.type(node.outputs[0])
    size = node.integer("blocksize", 1)
    if node.op == "SpaceToDepth":
        batch, channels, height, width = x.shape
        split = x.reshaped((batch, channels, height // size, size, width // size, size))
        order = (0, 3, 5, 1, 2, 4) if node.text("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
        take(program, node, split.view().permuted(order), node.outputs[0])
        return
    batch, channels, height, width = out.shape
    if node.text("mode", "DCR") == "DCR":
        split = x.reshaped((batch, size, size, channels, height // size, width // size))
        order = (0, 3, 4, 1, 5, 2)
    else:
        split = x.reshaped((batch, channels, size, size, height // size, width // size))
        order = (0, 1, 4, 2, 5, 3)
    take(program, node, split.view().permuted(order), node.outputs[0])


def take(program: Program, node: Node, view: View, name: str) -> None:
    """Let ``name`` be the elements of a view: the same memory if they lie there in order, else a copy."""
    value = view.contiguous()
    if value is not None:
        program.alias(name, value)
        return
    out = program.result(name)
    if out.size:
        program.copy(node, view, out.reshaped(view.shape))
