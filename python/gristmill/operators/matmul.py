"""MatMul and Gemm."""

from __future__ import annotations

import numpy as np

from gristmill.graph import Array, Node
from gristmill.operators.registry import Known, TensorType, broadcast_shapes, common_dtype, operator


def product_shape(node: Node, a: Known, b: Known) -> tuple[int, ...]:
    """The shape of a matrix product by numpy's rules."""
    if not a.ndim or not b.ndim:
        raise node.error("needs at least one axis")
    rows, left = (a.shape if a.ndim > 1 else (1, *a.shape))[-2:]
    right, columns = (b.shape if b.ndim > 1 else (*b.shape, 1))[-2:]
    if left != right:
        raise node.error(f"shapes {list(a.shape)} and {list(b.shape)} do not go together")
    batch = broadcast_shapes(node, a.shape[:-2], b.shape[:-2])
    return (*batch, *((rows,) if a.ndim > 1 else ()), *((columns,) if b.ndim > 1 else ()))


def _product(node: Node, a: Known, b: Known) -> TensorType:
    return TensorType(common_dtype(node, (a, b)), product_shape(node, a, b))


@operator("MatMul", rule=_product)
def matmul(_node: Node, a: Array, b: Array) -> Array:
    """Matrix products, batched."""
    return np.asarray(np.matmul(a, b))


def gemm_shape(node: Node, a: Known, b: Known, c: Known | None) -> tuple[int, int]:
    """The shape of A times B, either transposed, to which C broadcasts."""
    if a.ndim != 2 or b.ndim != 2:
        raise node.error(f"needs matrices, got shapes {list(a.shape)} and {list(b.shape)}")
    rows, left = a.shape[::-1] if node.integer("transA", 0) else a.shape
    right, columns = b.shape[::-1] if node.integer("transB", 0) else b.shape
    shape = (rows, columns)
    if left != right:
        raise node.error(f"shapes {list(a.shape)} and {list(b.shape)} do not go together")
    if c is not None and broadcast_shapes(node, c.shape, shape) != shape:
        raise node.error(f"C of shape {list(c.shape)} does not broadcast to {list(shape)}")
    return shape


def _gemm(node: Node, a: Known, b: Known, c: Known | None = None) -> TensorType:
    return TensorType(common_dtype(node, (a, b, c)), gemm_shape(node, a, b, c))


@operator("Gemm", rule=_gemm)
def gemm(node: Node, a: Array, b: Array, c: Array | None = None) -> Array:
    """``alpha * A' B' + beta * C``."""
    left = a.T if node.integer("transA", 0) else a
    right = b.T if node.integer("transB", 0) else b
    alpha, beta = node.real("alpha", 1.0), node.real("beta", 1.0)
    result = np.matmul(left, right)
    if alpha != 1:
        result = (result * alpha).astype(a.dtype)
    if c is None or beta == 0:
        return np.asarray(result)
    return np.asarray(result + (c if beta == 1 else (c * beta).astype(a.dtype)))
