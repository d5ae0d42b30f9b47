"""The same single layer in onnxruntime and OpenVINO: one thread, inputs and outputs bound once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from gristmill.benchmark.dense import Layer
from gristmill.benchmark.shapes import Conv

Array = npt.NDArray[np.generic]
Call = Callable[[], object]
Model = onnx.ModelProto

_OPSET = [helper.make_opsetid("", 13)]


def _model(
    nodes: list[onnx.NodeProto], input_type: int, shape: tuple[int, ...], constants: dict[str, Array]
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", input_type, shape)],
        [helper.make_tensor_value_info("y", input_type, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=_OPSET, ir_version=8)


def conv_model_f32(layer: Conv, weights: Array, bias: Array) -> onnx.ModelProto:
    """A float convolution."""
    node = helper.make_node("Conv", ["x", "w", "b"], ["y"], **_attributes(layer))
    shape = (1, layer.channels, layer.size, layer.size)
    return _model([node], TensorProto.FLOAT, shape, {"w": weights, "b": bias})


def conv_model_qdq(
    layer: Conv, weights: Array, weight_scale: Array, bias: Array, x_scale: float, y_scale: float, zero_point: int
) -> onnx.ModelProto:
    """An int8 convolution, u8 in and out, weights s8 per channel, written as QuantizeLinear/DequantizeLinear pairs."""
    constants: dict[str, Array] = {
        "w": weights,
        "ws": weight_scale,
        "wz": np.zeros(layer.filters, np.int8),
        "b": bias,
        "bs": (weight_scale * np.float32(x_scale)).astype(np.float32),
        "bz": np.zeros(layer.filters, np.int32),
        "xs": np.float32(x_scale).reshape(()),
        "ys": np.float32(y_scale).reshape(()),
        "z": np.uint8(zero_point).reshape(()),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "xs", "z"], ["xf"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wf"], axis=0),
        helper.make_node("DequantizeLinear", ["b", "bs", "bz"], ["bf"], axis=0),
        helper.make_node("Conv", ["xf", "wf", "bf"], ["yf"], **_attributes(layer)),
        helper.make_node("QuantizeLinear", ["yf", "ys", "z"], ["y"]),
    ]
    shape = (1, layer.channels, layer.size, layer.size)
    return _model(nodes, TensorProto.UINT8, shape, constants)


def conv_model(layer: Layer) -> onnx.ModelProto:
    """The same layer as a model."""
    filters = layer.shape.filters
    if layer.weights.dtype == np.float32:
        return conv_model_f32(layer.shape, layer.weights, np.zeros(filters, np.float32))
    bias = np.zeros(filters, np.int32)
    return conv_model_qdq(
        layer.shape, layer.weights, layer.scale, bias, x_scale=1.0, y_scale=1.0, zero_point=layer.zero_point
    )


def _attributes(layer: Conv) -> dict[str, Any]:
    return {
        "kernel_shape": [layer.kernel] * 2,
        "strides": [layer.stride] * 2,
        "pads": [layer.padding] * 4,
        "group": layer.groups,
    }


def onnxruntime_call(model: onnx.ModelProto, x: Array, threads: int = 1) -> tuple[Call, Callable[[], Array]]:
    """Return a call that runs the model once, and one that gives its output."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_ortvalue_input(session.get_inputs()[0].name, ort.OrtValue.ortvalue_from_numpy(x))
    binding.bind_output(session.get_outputs()[0].name)
    return (lambda: session.run_with_iobinding(binding)), (lambda: binding.copy_outputs_to_cpu()[0])


def openvino_call(model: onnx.ModelProto, x: Array, threads: int = 1) -> tuple[Call, Callable[[], Array]]:
    """Return a call that runs the model once, and one that gives its output."""
    import io

    import openvino as ov

    core = ov.Core()
    config = {
        "INFERENCE_NUM_THREADS": str(threads),
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    compiled = core.compile_model(core.read_model(io.BytesIO(model.SerializeToString())), "CPU", config)
    request = compiled.create_infer_request()
    request.set_input_tensor(ov.Tensor(x, shared_memory=True))
    return request.infer, (lambda: np.array(request.get_output_tensor().data))
