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
    OutOfMemoryError,
    ShapeError,
    UnsupportedOpError,
)
from gristmill.kernels import get_isa, get_num_threads, set_isa, set_num_threads
from gristmill.loaders import load
from gristmill.model import Model
from gristmill.report import Report
from gristmill.session import InferenceSession

if TYPE_CHECKING:
    from gristmill.benchmark import Benchmark, bench
    from gristmill.comparison import Comparison, compare
    from gristmill.evaluation import Accuracy, Evaluation, evaluate
    from gristmill.loaders.torch_module import from_torch
    from gristmill.optimizer import (
        ConstantSparsity,
        OptimizedModel,
        PolynomialDecay,
        apply_masks,
        optimize,
        prune,
        prune_weights,
        quantize,
        quantize_weights,
        remove_dead_channels,
    )
    from gristmill.optimizer.sensitivity import Sensitivity, sensitivity
    from gristmill.sequential import Sequential
    from gristmill.weights import load_weights

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
    "OutOfMemoryError",
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

_LATER = {
    "gristmill.benchmark": ("Benchmark", "bench"),
    "gristmill.comparison": ("Comparison", "compare"),
    "gristmill.evaluation": ("Accuracy", "Evaluation", "evaluate"),
    "gristmill.loaders.torch_module": ("from_torch",),
    "gristmill.optimizer": (
        "ConstantSparsity",
        "OptimizedModel",
        "PolynomialDecay",
        "Sensitivity",
        "apply_masks",
        "optimize",
        "prune",
        "prune_weights",
        "quantize",
        "quantize_weights",
        "remove_dead_channels",
        "sensitivity",
    ),
    "gristmill.sequential": ("Sequential",),
    "gristmill.weights": ("load_weights",),
}
_MODULES = {name: module for module, names in _LATER.items() for name in names}


def __getattr__(name: str) -> object:
    """Import what a session does not need when it is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = getattr(importlib.import_module(_MODULES[name]), name)
    return globals()[name]


def __dir__() -> list[str]:
    """All public names, whether they have been asked for or not."""
    return sorted({*globals(), *__all__})


apply_environment()
