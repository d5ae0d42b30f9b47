"""Quantize and dequantize: ours against plain copies of the same bytes, onnxruntime and numpy.

Run with ``pytest bench/bench_quantize.py`` for all candidates side by side; ``python bench/quantize_table.py`` prints
the bars.
"""

from __future__ import annotations

from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from pytest_benchmark.fixture import BenchmarkFixture

import peers
from gristmill.benchmark.quantize import AXES, Call, Case, copies

LARGE = (65536, 1024)  # 64 Mi elements: beyond every cache
SMALL = (64, 1024)  # 320 KiB in and out: within the second-level cache


def onnxruntime_call(case: Case, op: str) -> Call:
    """One QuantizeLinear or DequantizeLinear, input and output bound once."""
    x, kind = (case.x, TensorProto.FLOAT) if op == "QuantizeLinear" else (case.q, TensorProto.UINT8)
    result = TensorProto.UINT8 if op == "QuantizeLinear" else TensorProto.FLOAT
    scale, zero_point = case.scale, case.zero_point
    if case.axis is None:
        scale, zero_point = scale.reshape(()), zero_point.reshape(())
    attributes: dict[str, Any] = {} if case.axis is None else {"axis": case.axis}
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "scale", "zero_point"], ["y"], **attributes)],
        "layer",
        [helper.make_tensor_value_info("x", kind, x.shape)],
        [helper.make_tensor_value_info("y", result, x.shape)],
        [numpy_helper.from_array(scale, "scale"), numpy_helper.from_array(zero_point, "zero_point")],
    )
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return peers.onnxruntime_call(model, x)[0]


def candidates(case: Case, op: str) -> dict[str, Call]:
    """Return ours, the bound and the peers."""
    ours, theirs = (
        (case.quantize, case.numpy_quantize) if op == "quantize" else (case.dequantize, case.numpy_dequantize)
    )
    peer = onnxruntime_call(case, "QuantizeLinear" if op == "quantize" else "DequantizeLinear")
    return {"ours": ours(), **copies(case, op), "onnxruntime": peer, "numpy": theirs()}


@pytest.mark.parametrize("who", ["ours", "copy", "streaming copy", "onnxruntime", "numpy"])
@pytest.mark.parametrize("axis", list(AXES.values()), ids=list(AXES))
@pytest.mark.parametrize("shape", [SMALL, pytest.param(LARGE, marks=pytest.mark.full)], ids=["L2", "DRAM"])
@pytest.mark.parametrize("op", ["quantize", "dequantize"])
def test_quantize(benchmark: BenchmarkFixture, op: str, shape: tuple[int, int], axis: int | None, who: str) -> None:
    benchmark.group = f"{op} {shape} axis {axis}"
    call = candidates(Case.random(shape, axis), op)[who]
    benchmark.extra_info["elements"] = shape[0] * shape[1]
    benchmark(call)
