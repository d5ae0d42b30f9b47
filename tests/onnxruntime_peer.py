"""Sessions of onnxruntime that compute what a file says, on every processor.

On x86-64 without VNNI onnxruntime multiplies u8 activations by s8 weights with instructions that saturate, unless it is
asked for precision.
"""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    import onnx


def exact_session(
    model: onnx.ModelProto | bytes | os.PathLike[str] | str,
    *,
    optimized: bool = True,
    precise: bool = True,
    **entries: str,
) -> Any:  # noqa: ANN401
    """A quiet session on the CPU, with further configuration entries; without onnxruntime, the test is skipped.

    Precision is an optimization, which files of float32 products with stored weights must do without.
    """
    ort = pytest.importorskip("onnxruntime")
    source = model if isinstance(model, bytes | os.PathLike | str) else model.SerializeToString()

    def session(precision: str) -> Any:  # noqa: ANN401
        options = ort.SessionOptions()
        options.log_severity_level = 4
        if not optimized:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        for entry, value in {"x64quantprecision": precision, **entries}.items():
            options.add_session_config_entry(f"session.{entry}", value)
        return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])

    try:
        return session(str(int(precise)))
    except ort.capi.onnxruntime_pybind11_state.NotImplemented:  # s8 activations: their products fit anyway
        return session("0")


@functools.cache
def saturates() -> bool:
    """Whether unoptimized sessions saturate on this processor; seven bits of a weight are safe."""
    onnx = pytest.importorskip("onnx")
    x, w = np.full((1, 64), 255, np.uint8), np.full((64, 1), 127, np.int8)
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMulInteger", ["x", "w"], ["y"])],
        "product",
        [info("x", onnx.TensorProto.UINT8, x.shape), info("w", onnx.TensorProto.INT8, w.shape)],
        [info("y", onnx.TensorProto.INT32, (1, 1))],
    )
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    (y,) = exact_session(made, optimized=False).run(None, {"x": x, "w": w})
    return bool(y.item() != 64 * 255 * 127)
