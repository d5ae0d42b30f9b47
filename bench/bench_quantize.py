"""Quantize and dequantize: ours against plain copies of the same bytes, onnxruntime and numpy.

Run with ``pytest bench/bench_quantize.py`` for all candidates side by side; ``python bench/quantize_table.py`` prints
the bars.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import peers
from gristmill import _core, kernels

Call = Callable[[], object]
Array = npt.NDArray[Any]

LARGE = (65536, 1024)  # 64 Mi elements: beyond every cache
SMALL = (64, 1024)  # 320 KiB in and out: within the second-level cache
AXES: dict[str, int | None] = {"per tensor": None, "per channel, axis 0": 0, "per channel, last axis": -1}


def aligned(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """Return an array of zeros whose pages exist and whose first byte begins a cache line."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.zeros(size + 64, np.uint8)
    raw.fill(0)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


@dataclass(frozen=True)
class Case:
    """Data of one shape and its maps along one axis."""

    x: Array
    q: Array
    axis: int | None
    scale: Array
    zero_point: Array

    @classmethod
    def random(cls, shape: tuple[int, ...], axis: int | None) -> Case:
        """Normal values that use the range of uint8 and saturate now and then."""
        generator = np.random.default_rng(0)
        x, q = aligned(shape, np.float32), aligned(shape, np.uint8)
        generator.standard_normal(out=x, dtype=np.float32)
        q[...] = generator.integers(0, 256, shape[-1], np.uint8)
        count = 1 if axis is None else shape[axis]
        scale = generator.uniform(0.02, 0.03, count).astype(np.float32)
        return cls(x, q, axis, scale, generator.integers(100, 156, count).astype(np.uint8))

    def quantize(self) -> Call:
        """Our call."""
        out = aligned(self.x.shape, np.uint8)
        if self.axis is None:
            scale, zero_point = float(self.scale[0]), int(self.zero_point[0])
            return functools.partial(
                kernels.quantize_per_tensor, self.x, scale, zero_point, np.uint8, out=out, threads=1
            )
        maps = self.scale, self.zero_point, self.axis
        return functools.partial(kernels.quantize_per_channel, self.x, *maps, np.uint8, out=out, threads=1)

    def dequantize(self) -> Call:
        """Our call."""
        out = aligned(self.q.shape, np.float32)
        if self.axis is None:
            scale, zero_point = float(self.scale[0]), int(self.zero_point[0])
            return functools.partial(kernels.dequantize_per_tensor, self.q, scale, zero_point, out=out, threads=1)
        maps = self.scale, self.zero_point, self.axis
        return functools.partial(kernels.dequantize_per_channel, self.q, *maps, out=out, threads=1)

    def numpy_quantize(self) -> Call:
        """The expression that one would write in numpy."""
        x, (scale, zero_point) = self.x, self._wide()
        return lambda: np.clip(np.rint(x / scale) + zero_point, 0, 255).astype(np.uint8)

    def numpy_dequantize(self) -> Call:
        """The expression that one would write in numpy."""
        q, (scale, zero_point) = self.q, self._wide()
        return lambda: (q.astype(np.float32) - zero_point) * scale

    def _wide(self) -> tuple[Array, Array]:
        if self.axis is None:
            return self.scale[0], self.zero_point[0].astype(np.float32)
        shape = [1] * self.x.ndim
        shape[self.axis] = -1
        return self.scale.reshape(shape), self.zero_point.reshape(shape).astype(np.float32)

    def onnxruntime(self, op: str) -> Call:
        """One QuantizeLinear or DequantizeLinear, input and output bound once."""
        x, kind = (self.x, TensorProto.FLOAT) if op == "QuantizeLinear" else (self.q, TensorProto.UINT8)
        result = TensorProto.UINT8 if op == "QuantizeLinear" else TensorProto.FLOAT
        scale, zero_point = self.scale, self.zero_point
        if self.axis is None:
            scale, zero_point = scale.reshape(()), zero_point.reshape(())
        attributes: dict[str, Any] = {} if self.axis is None else {"axis": self.axis}
        graph = helper.make_graph(
            [helper.make_node(op, ["x", "scale", "zero_point"], ["y"], **attributes)],
            "layer",
            [helper.make_tensor_value_info("x", kind, x.shape)],
            [helper.make_tensor_value_info("y", result, x.shape)],
            [numpy_helper.from_array(scale, "scale"), numpy_helper.from_array(zero_point, "zero_point")],
        )
        model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        return peers.onnxruntime_call(model, x)[0]


def copies(case: Case, op: str) -> dict[str, Call]:
    """Return what moves the same bytes and hardly computes, with and without stores around the caches."""
    if op == "quantize":
        copy, source, target = _core.bench.narrow, case.x, aligned(case.x.shape, np.uint8)
    else:
        copy, source, target = _core.bench.widen, case.q, aligned(case.q.shape, np.float32)
    return {
        "copy": functools.partial(copy, source, target, streaming=False),
        "streaming copy": functools.partial(copy, source, target, streaming=True),
    }


def candidates(case: Case, op: str) -> dict[str, Call]:
    """Return ours, the bound and the peers."""
    if op == "quantize":
        return {
            "ours": case.quantize(),
            **copies(case, op),
            "onnxruntime": case.onnxruntime("QuantizeLinear"),
            "numpy": case.numpy_quantize(),
        }
    return {
        "ours": case.dequantize(),
        **copies(case, op),
        "onnxruntime": case.onnxruntime("DequantizeLinear"),
        "numpy": case.numpy_dequantize(),
    }


@pytest.mark.parametrize("who", ["ours", "copy", "streaming copy", "onnxruntime", "numpy"])
@pytest.mark.parametrize("axis", list(AXES.values()), ids=list(AXES))
@pytest.mark.parametrize("shape", [SMALL, LARGE], ids=["L2", "DRAM"])
@pytest.mark.parametrize("op", ["quantize", "dequantize"])
def test_quantize(benchmark: Any, op: str, shape: tuple[int, int], axis: int | None, who: str) -> None:  # noqa: ANN401
    benchmark.group = f"{op} {shape} axis {axis}"
    call = candidates(Case.random(shape, axis), op)[who]
    benchmark.extra_info["elements"] = shape[0] * shape[1]
    benchmark(call)
