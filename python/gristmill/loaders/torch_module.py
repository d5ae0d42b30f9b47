"""PyTorch modules, through PyTorch's own ONNX export."""

from __future__ import annotations

import copy
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gristmill.errors import ArgumentError, MissingDependencyError, UnsupportedOpError
from gristmill.loaders import onnx
from gristmill.loaders.source import Source
from gristmill.model import Model

if TYPE_CHECKING:
    import torch

__all__ = ["from_torch"]

_OPSET = 17


def from_torch(module: torch.nn.Module, example_input: torch.Tensor | Sequence[torch.Tensor]) -> Model:
    """Take over a PyTorch module.

    The module is exported in evaluation mode; it is not changed. Masks of ``torch.nn.utils.prune`` are applied, so that
    what was pruned is zero. The first axis of every input and output is open. PyTorch and its ONNX export must be
    installed; they are yours, gristmill brings neither.

    Args:
        module: With parameters as they shall run.
        example_input: A tensor, or several, that the module can be called with.

    Raises:
        MissingDependencyError: PyTorch or onnx is not installed.
        ArgumentError: What is given is not a module, or cannot be called with the example.
        UnsupportedOpError: PyTorch cannot export the module, or gristmill does not run one of its operators.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError("from_torch needs PyTorch: pip install torch") from error
    if not isinstance(module, torch.nn.Module):
        raise ArgumentError(f"expected a torch.nn.Module, got {type(module).__name__}", node="module")
    examples = (example_input,) if isinstance(example_input, torch.Tensor) else tuple(example_input)
    if not examples or not all(isinstance(item, torch.Tensor) for item in examples):
        raise ArgumentError("expected a tensor, or a sequence of tensors", node="example_input")
    own = _without_masks(module).eval()
    try:
        with torch.no_grad():
            results = own(*examples)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ArgumentError(f"the module cannot be called with it: {error}", node="example_input") from error
    count = 1 if isinstance(results, torch.Tensor) else len(results)
    content = _export(own, examples, count)
    return Model(onnx.load(Source(None, None, io.BytesIO(content))), source=type(module).__name__, format="PyTorch")


def _without_masks(module: torch.nn.Module) -> torch.nn.Module:
    """Copy a module with the masks of pruning multiplied into the weights for good."""
    from torch.nn.utils import prune

    masked = [(layer, name) for layer in module.modules() for name in _masked(layer)]
    # What masks have computed is no parameter, and PyTorch refuses to copy it.
    computed = [getattr(layer, name) for layer, name in masked]
    own = copy.deepcopy(module, {id(tensor): tensor.detach().clone() for tensor in computed})
    for layer in own.modules():
        for name in _masked(layer):
            prune.remove(layer, name)
    return own


def _masked(layer: torch.nn.Module) -> list[str]:
    own = {name for name, _ in layer.named_parameters(recurse=False)}
    masks = [name.removesuffix("_mask") for name, _ in layer.named_buffers(recurse=False) if name.endswith("_mask")]
    return [name for name in masks if f"{name}_orig" in own]


def _export(module: torch.nn.Module, examples: tuple[Any, ...], results: int) -> bytes:
    import torch

    inputs = [f"input{index}" if index else "input" for index in range(len(examples))]
    outputs = [f"output{index}" if index else "output" for index in range(results)]
    content = io.BytesIO()
    try:
        torch.onnx.export(
            module,
            examples,
            content,
            input_names=inputs,
            output_names=outputs,
            dynamic_axes={name: {0: "n"} for name in (*inputs, *outputs)},
            opset_version=_OPSET,
            dynamo=False,
        )
    except ImportError as error:
        raise MissingDependencyError(f"PyTorch's ONNX export needs another package: {error}") from error
    except (RuntimeError, ValueError, TypeError, NotImplementedError, torch.onnx.errors.OnnxExporterError) as error:
        raise UnsupportedOpError(f"PyTorch cannot export the module: {error}") from error
    return content.getvalue()
