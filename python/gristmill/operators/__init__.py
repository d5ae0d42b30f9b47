"""Operators: what each one computes, in plain numpy, and the types that come out.

They are the definition that compiled kernels are tested against, and what folds constants and shape arithmetic. One
module per family enters its operators into one table.

Example:
    >>> import numpy as np
    >>> from gristmill.graph import Node
    >>> node = Node("Concat", ("a", "b"), ("c",), {"axis": 0})
    >>> OPERATORS["Concat"].infer(node, [TensorType(np.dtype("f4"), (2, 3)), TensorType(np.dtype("f4"), (5, 3))])
    [float32[7, 3]]
    >>> OPERATORS["Concat"].evaluate(node, [np.array([1, 2]), np.array([3])])
    [array([1, 2, 3])]
"""

from __future__ import annotations

from gristmill.operators import (
    activation,
    convolution,
    elementwise,
    matmul,
    movement,
    normalization,
    pooling,
    quantization,
    quantized,
    quantized_elementwise,
    reduction,
    resize,
    shaping,
)
from gristmill.operators.registry import ELEMENT_TYPES, OPERATORS, Known, Operator, TensorType, find

__all__ = [
    "ELEMENT_TYPES",
    "OPERATORS",
    "Known",
    "Operator",
    "TensorType",
    "activation",
    "convolution",
    "elementwise",
    "find",
    "matmul",
    "movement",
    "normalization",
    "pooling",
    "quantization",
    "quantized",
    "quantized_elementwise",
    "reduction",
    "resize",
    "shaping",
]
