"""Small pieces of programs that several lowerings are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gristmill.compile.program import Program, Value, View
from gristmill.graph import Array, Node

FLOAT, INT32 = np.dtype(np.float32), np.dtype(np.int32)


def apply(program: Program, node: Node, function: str, x: Value, out: Value | None = None, *numbers: float) -> Value:
    """A function of one value, which may overwrite it."""
    out = program.scratch(x.dtype, x.shape) if out is None else out
    in_place = x if x.dtype == out.dtype else None
    program.step("unary", node, [x], [out], *numbers, function=function, in_place=in_place)
    return out


def combine(program: Program, node: Node, function: str, a: Value, b: Value, out: Value | None = None) -> Value:
    """A function of two values, which may overwrite one that is not broadcast."""
    out = program.scratch(a.dtype, np.broadcast_shapes(a.shape, b.shape)) if out is None else out
    in_place = next((x for x in (a, b) if x.shape == out.shape and x.dtype == out.dtype), None)
    if in_place is not None and a.storage is b.storage:
        in_place = None
    program.step("binary", node, [a, b], [out], function=function, in_place=in_place)
    return out


def reduce(program: Program, node: Node, function: str, x: Value, axes: Sequence[int]) -> Value:
    """A reduction along axes, which stay as axes of extent 1."""
    shape = [1 if axis in axes else extent for axis, extent in enumerate(x.shape)]
    out = program.scratch(x.dtype, shape)
    program.step("reduce", node, [x], [out], list(axes), function=function)
    return out


def scaled(program: Program, node: Node, x: Value, factor: float) -> Value:
    """The value times a number."""
    return x if factor == 1.0 else combine(program, node, "mul", x, program.constant(np.array(factor, x.dtype)))


def cast(program: Program, node: Node, x: Value, dtype: np.dtype[Any], out: Value | None = None) -> Value:
    """The value as another type."""
    if x.dtype == dtype and out is None:
        return x
    out = program.scratch(dtype, x.shape) if out is None else out
    program.step("cast", node, [x], [out])
    return out


def fill(program: Program, node: Node, out: Value, value: Value | Array | float) -> None:
    """One number everywhere; the number may be computed in the run."""
    if isinstance(value, Value):
        program.copy(node, View(value, out.shape, (0,) * len(out.shape)), out)
    else:
        program.step("fill", node, [], [out], np.asarray(value).item())


def number(program: Program, name: str) -> Value | int:
    """A zero point: a number if it is one known number, 0 if it is left out, else what the run computes."""
    known = program.known(name) if name else np.zeros(1)
    return int(known.item()) if known is not None and known.size == 1 else program.value(name)


def spread_along(x: Value, axis: int, rank: int) -> Value:
    """Numbers of which there is one, or one for each index of an axis, shaped to go with tensors of a rank."""
    return x.reshaped([x.size if index == axis else 1 for index in range(rank)] if x.size != 1 else ())


def store(program: Program, node: Node, steps: Value, zero: Value | int, out: Value) -> None:
    """Reals that count steps of a scale become integers: rounded, moved by the zero point and saturated."""
    if isinstance(zero, int):
        program.step("quantize", node, [steps], [out], [1.0], [zero], None)
        return
    bounds = np.iinfo(out.dtype)
    rounded = apply(program, node, "round", steps)
    moved = combine(program, node, "add", rounded, cast(program, node, zero, FLOAT))
    kept = apply(program, node, "clip", moved, None, bounds.min, bounds.max)
    nothing = program.scratch(np.dtype(np.bool_), kept.shape)
    program.step("unary", node, [kept], [nothing], function="isnan")
    known = program.scratch(FLOAT, kept.shape)
    least = program.constant(np.array(bounds.min, np.float32))
    program.step("select", node, [nothing, least, kept], [known])
    cast(program, node, known, out.dtype, out)
