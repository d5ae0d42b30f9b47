"""Plans of one step: what the tests of steps share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gristmill import _core

Array: TypeAlias = npt.NDArray[Any]
Tensor: TypeAlias = _core.Tensor
Add: TypeAlias = Callable[..., None]


def run_step(
    add: Callable[..., None],
    inputs: Sequence[Array],
    outputs: Sequence[tuple[str, Sequence[int]]],
    threads: int | None = 1,
) -> list[Array]:
    """Run the step that `add(plan, *input tensors, *output tensors)` adds to a plan of its own."""
    types = [(str(x.dtype), x.shape) for x in inputs]
    plan = _core.Plan(0, types, outputs)
    sources = [_core.Tensor.input(i, dtype, shape) for i, (dtype, shape) in enumerate(types)]
    targets = [_core.Tensor.output(i, dtype, shape) for i, (dtype, shape) in enumerate(outputs)]
    add(plan, *sources, *targets)
    return plan.run(list(inputs), threads=threads)


def random_array(rng: np.random.Generator, dtype: str, shape: Sequence[int]) -> Array:
    """Values of a type: small reals for float32, any for 8-bit integers and bool, and up to a thousand for others."""
    if dtype == "float32":
        return np.asarray(rng.standard_normal(tuple(shape)) * 3, np.float32)
    if dtype == "bool":
        return np.asarray(rng.integers(0, 2, tuple(shape)), np.bool_)
    low, high = {"uint8": (0, 256), "int8": (-128, 128)}.get(dtype, (-1000, 1001))
    return np.asarray(rng.integers(low, high, tuple(shape)), dtype)
