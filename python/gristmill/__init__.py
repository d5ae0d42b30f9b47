"""gristmill: prune, quantize and run convolution and linear networks on CPUs."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from gristmill import errors, kernels
from gristmill._core import __version__
from gristmill._environment import apply_environment
from gristmill.errors import (
    ArgumentError,
    DTypeError,
    GristmillError,
    IsaError,
    LimitError,
    MissingDependencyError,
    ModelFormatError,
    ShapeError,
    UnsupportedOpError,
)
from gristmill.evaluation import Accuracy, Evaluation, evaluate
from gristmill.kernels import get_isa, get_num_threads, set_isa, set_num_threads
from gristmill.loaders import load
from gristmill.loaders.torch_module import from_torch
from gristmill.model import Model
from gristmill.optimizer import (
    ConstantSparsity,
    OptimizedModel,
    PolynomialDecay,
    Sensitivity,
    apply_masks,
    optimize,
    prune,
    prune_weights,
    quantize,
    quantize_weights,
    remove_dead_channels,
    sensitivity,
)
from gristmill.report import Report
from gristmill.sequential import Sequential
from gristmill.session import InferenceSession
from gristmill.weights import load_weights

if TYPE_CHECKING:
    from gristmill.benchmark import Benchmark, bench
    from gristmill.comparison import Comparison, compare

__all__ = [
    "Accuracy",
    "ArgumentError",
    "Benchmark",
    "Comparison",
    "ConstantSparsity",
    "DTypeError",
    "Evaluation",
    "GristmillError",
    "InferenceSession",
    "IsaError",
    "LimitError",
    "MissingDependencyError",
    "Model",
    "ModelFormatError",
    "OptimizedModel",
    "PolynomialDecay",
    "Report",
    "Sensitivity",
    "Sequential",
    "ShapeError",
    "UnsupportedOpError",
    "__version__",
    "apply_masks",
    "bench",
    "compare",
    "errors",
    "evaluate",
    "from_torch",
    "get_isa",
    "get_num_threads",
    "kernels",
    "load",
    "load_weights",
    "optimize",
    "prune",
    "prune_weights",
    "quantize",
    "quantize_weights",
    "remove_dead_channels",
    "sensitivity",
    "set_isa",
    "set_num_threads",
]

_MEASURING = {
    "Benchmark": "gristmill.benchmark",
    "Comparison": "gristmill.comparison",
    "bench": "gristmill.benchmark",
    "compare": "gristmill.comparison",
}


def __getattr__(name: str) -> object:
    """Import what measures when it is first asked for: a session needs none of it."""
    if name in _MEASURING:
        return getattr(importlib.import_module(_MEASURING[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


apply_environment()
