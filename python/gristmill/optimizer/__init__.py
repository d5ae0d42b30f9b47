"""The optimizer: prune, refit and quantize trained networks without training them again.

Layers are least-squares problems on calibration data (:mod:`~gristmill.optimizer.statistics`). They are pruned and
refitted one after the other against the original network's outputs (:mod:`~gristmill.optimizer.pruning`), with an
overall sparsity shared out by measured harm (:mod:`~gristmill.optimizer.allocate`), and quantized to int8
(:mod:`~gristmill.optimizer.quantizing`) as a graph of QuantizeLinear and DequantizeLinear. Everything is numpy; nothing
needs a training framework.
"""

from __future__ import annotations

from gristmill.optimizer.api import optimize, prune, quantize
from gristmill.optimizer.channels import remove_dead_channels
from gristmill.optimizer.optimized import OptimizedModel, apply_masks
from gristmill.optimizer.schedules import ConstantSparsity, PolynomialDecay
from gristmill.optimizer.sensitivity import Sensitivity, sensitivity
from gristmill.optimizer.weights_alone import QuantizedWeights, prune_weights, quantize_weights
from gristmill.report import LayerReport, Report

__all__ = [
    "ConstantSparsity",
    "LayerReport",
    "OptimizedModel",
    "PolynomialDecay",
    "QuantizedWeights",
    "Report",
    "Sensitivity",
    "apply_masks",
    "optimize",
    "prune",
    "prune_weights",
    "quantize",
    "quantize_weights",
    "remove_dead_channels",
    "sensitivity",
]
