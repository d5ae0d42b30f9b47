"""Hypothesis strategies: values over the full range of a type, in arrays of awkward shapes and memory layouts."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

Array = npt.NDArray[Any]

shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=40)
channel_shapes = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=40)


@st.composite
def arrays(draw: st.DrawFn, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """An array of any bit patterns, or of reals near the integers, contiguous."""
    kind = np.dtype(dtype)
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if draw(st.booleans()):
        raw = generator.integers(0, 256, (*shape, kind.itemsize), dtype=np.uint8)
        return raw.view(kind).reshape(shape)
    if kind.kind == "f":
        return np.asarray(generator.integers(-1200, 1200, shape) * 0.25, kind)
    bounds = np.iinfo(kind)
    return generator.integers(max(bounds.min, -1000), min(bounds.max, 1000) + 1, shape).astype(kind)


@st.composite
def laid_out(draw: st.DrawFn, array: Array) -> Array:
    """A view with the same elements in another memory layout: permuted, gapped, reversed, misaligned or broadcast."""
    order = draw(st.permutations(range(array.ndim)))
    steps = [draw(st.sampled_from([1, 1, 1, 2, 3, -1, -2])) for _ in range(array.ndim)]
    extents = [array.shape[axis] * abs(step) for axis, step in zip(order, (steps[axis] for axis in order), strict=True)]
    offset = draw(st.sampled_from([0, 0, 0, 1]))
    size = int(np.prod(extents, dtype=np.int64)) * array.itemsize
    memory: Array = np.zeros(size + offset, np.uint8)[offset:].view(array.dtype) if size else np.zeros(0, array.dtype)
    index = (..., *(slice(None, None, step) for step in steps))
    view: Array = memory.reshape(extents).transpose(np.argsort(order))[index]
    assert view.shape == array.shape
    view[...] = array
    return view


@st.composite
def scales(draw: st.DrawFn, count: int) -> Array:
    """Scales from usual to the ends of float32."""
    exponents = st.floats(-8, 4) | st.floats(-149, 127)
    values = draw(st.lists(exponents, min_size=count, max_size=count))
    return np.asarray(np.exp2(np.array(values, np.float64)).astype(np.float32))
