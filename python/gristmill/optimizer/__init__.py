"""The optimizer: prune, refit and quantize trained networks without training them again.

Layers are least-squares problems on calibration data (:mod:`~gristmill.optimizer.statistics`). They are pruned and
refitted one after the other against the original network's outputs (:mod:`~gristmill.optimizer.pruning`), with an
overall sparsity shared out by measured harm (:mod:`~gristmill.optimizer.allocate`), and quantized to int8
(:mod:`~gristmill.optimizer.quantizing`) as a graph of QuantizeLinear and DequantizeLinear. Everything is numpy; nothing
needs a training framework.
"""

from __future__ import annotations

from gristmill.optimizer.api import OptimizedModel, optimize, prune, quantize, sensitivity
from gristmill.optimizer.report import LayerReport, Report
from gristmill.optimizer.schedules import ConstantSparsity, PolynomialDecay
from gristmill.optimizer.weights_alone import QuantizedWeights, prune_weights, quantize_weights

__all__ = [
    "ConstantSparsity",
    "LayerReport",
    "OptimizedModel",
    "PolynomialDecay",
    "QuantizedWeights",
    "Report",
    "optimize",
    "prune",
    "prune_weights",
    "quantize",
    "quantize_weights",
    "sensitivity",
]
