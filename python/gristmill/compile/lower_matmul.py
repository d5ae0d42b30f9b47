"""Matrix products of reals and of bytes. Weights that are constant become linear layers, everything else products."""

from __future__ import annotations

import numpy as np

from gristmill.compile.arithmetic import FLOAT, INT32, cast, combine, number, scaled, store
from gristmill.compile.packer import Layer
from gristmill.compile.products import Zero, multiply
from gristmill.compile.program import Program, Value
from gristmill.compile.registry import lowers
from gristmill.dense import Epilogue
from gristmill.graph import Node
from gristmill.passes.quantized_values import centred_bytes


@lowers("MatMul")
def lower_matmul(program: Program, node: Node) -> None:
    """The product of two activations."""
    a, b = (program.value(name) for name in node.inputs)
    multiply(program, node, a, b, program.result(node.outputs[0]))


@lowers("Gemm")
def lower_gemm(program: Program, node: Node) -> None:
    """The product of two activations, either transposed, plus a third."""
    a, b = _factors(program, node, node.inputs[:2])
    kind = program.type(node.outputs[0])
    value = program.scratch(kind.dtype, kind.shape)
    multiply(program, node, a, b, value)
    value, beta = scaled(program, node, value, node.real("alpha", 1.0)), node.real("beta", 1.0)
    if node.input(2) and beta:
        value = combine(program, node, "add", value, scaled(program, node, program.value(node.input(2)), beta))
    program.alias(node.outputs[0], value)


@lowers("MatMulInteger")
def lower_matmul_integer(program: Program, node: Node) -> None:
    """Bytes less their zero points; the sums are exact."""
    zeros = number(program, node.input(2)), number(program, node.input(3))
    a, out = program.value(node.inputs[0]), program.result(node.outputs[0])
    _multiply_bytes(program, node, a, node.inputs[1], out, zeros)


@lowers("QLinearMatMul")
def lower_byte_matmul(program: Program, node: Node) -> None:
    """The product of bytes, requantized."""
    a, out = program.value(node.inputs[0]), program.result(node.outputs[0])
    sums = program.scratch(INT32, out.shape)
    zeros = number(program, node.inputs[2]), number(program, node.inputs[5])
    _multiply_bytes(program, node, a, node.inputs[3], sums, zeros)
    rows = program.value(node.inputs[1])
    scales = [rows.reshaped((rows.size, 1)) if rows.size > 1 else rows, program.value(node.inputs[4])]
    requantize(program, node, sums, [*scales, program.value(node.inputs[6])], number(program, node.inputs[7]), out)


@lowers("QGemm")
def lower_byte_gemm(program: Program, node: Node) -> None:
    """The product of bytes plus a bias, over the scale of the result if there is one; bytes if it has a zero point."""
    a, b = _factors(program, node, (node.inputs[0], node.inputs[3]))
    out = program.result(node.outputs[0])
    sums = program.scratch(INT32, out.shape)
    multiply(program, node, a, b, sums, (number(program, node.input(2)), number(program, node.input(5))))
    if node.input(6):
        sums = combine(program, node, "add", sums, program.value(node.input(6)))
    alpha = program.constant(np.array(node.real("alpha", 1.0), np.float32))
    scales = [alpha, program.value(node.inputs[1]), program.value(node.inputs[4])]
    divisor = program.value(node.input(7)) if node.input(7) else program.constant(np.array(1, np.float32))
    if node.input(8):
        requantize(program, node, sums, [*scales, divisor], number(program, node.input(8)), out)
    else:
        steps_of(program, node, sums, [*scales, divisor], out)


def requantize(program: Program, node: Node, sums: Value, scales: list[Value], zero: Zero, out: Value) -> None:
    """The steps of sums become bytes."""
    store(program, node, steps_of(program, node, sums, scales), zero, out)


def steps_of(program: Program, node: Node, sums: Value, scales: list[Value], out: Value | None = None) -> Value:
    """Sums times the product of all scales but the last, over the last; float32, in that order."""
    factor = scales[0]
    for scale in scales[1:-1]:
        factor = combine(program, node, "mul", factor, scale)
    factor = combine(program, node, "div", factor, scales[-1])
    return combine(program, node, "mul", cast(program, node, sums, FLOAT), factor, out)


def _multiply_bytes(program: Program, node: Node, a: Value, weights: str, out: Value, zeros: tuple[Zero, Zero]) -> None:
    known, (a_zero, b_zero) = program.known(weights), zeros
    moved = None
    if known is not None and known.ndim == 2 and isinstance(b_zero, int):
        moved = centred_bytes(known, b_zero) if isinstance(a_zero, int) or a_zero.size == 1 else None
    if known is None or moved is None:
        multiply(program, node, a, program.value(weights), out, zeros)
        return
    rows = program.packer.derived(known, f"rows less {b_zero}", lambda _: np.ascontiguousarray(moved.T))
    program.layer(node, Layer("linear", rows, {}, (a, out), Epilogue(output="int32"), a_zero))


def _factors(program: Program, node: Node, names: tuple[str, ...]) -> list[Value]:
    """Both matrices, turned where attributes say so."""
    found = []
    for name, side in zip(names, ("transA", "transB"), strict=True):
        value = program.value(name)
        if node.integer(side, 0):
            turned = program.scratch(value.dtype, value.shape[::-1])
            program.copy(node, value.view().permuted((1, 0)), turned)
            value = turned
        found.append(value)
    return found
