"""TFLite models of all kinds, made by TensorFlow from Keras models, with the answers of TensorFlow's interpreter.

python tests/tflite_models.py FOLDER KIND SEED...      writes models, inputs and answers, as in tests/data/tflite

Models of unsigned bytes are what the first converters made: one scale for all weights of a layer, with a zero point.
TensorFlow no longer makes them, but its interpreter runs them; they are rewritten from models of signed bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

KINDS = ("float", "f16", "dynamic", "int8", "u8")
#: Where operators with weights have x, weights and bias: CONV_2D, DEPTHWISE_CONV_2D, FULLY_CONNECTED, TRANSPOSE_CONV.
_OPERANDS = {3: (0, 1, 2), 4: (0, 1, 2), 9: (0, 1, 2), 67: (2, 1, 3)}
_INT8, _UINT8 = 9, 3


def convert(model: Any, kind: str, calibration: Array) -> bytes:  # noqa: ANN401
    """A Keras model as a TFLite file of that kind, for one sample at a time."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    signature = [tf.TensorSpec((1, *calibration.shape[1:]), tf.float32)]
    traced = tf.function(lambda x: model(x, training=False), input_signature=signature).get_concrete_function()
    frozen = convert_variables_to_constants_v2(traced)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen], frozen)
    if kind != "float":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "f16":
        converter.target_spec.supported_types = [tf.float16]
    if kind in ("int8", "u8"):
        converter.representative_dataset = lambda: ([sample[np.newaxis]] for sample in calibration)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
        converter._experimental_disable_per_channel = kind == "u8"
    data: bytes = converter.convert()
    return unsigned(data) if kind == "u8" else data


def unsigned(data: bytes) -> bytes:
    """A model of signed bytes with one scale for each tensor, in unsigned bytes, with zero points in its weights."""
    import flatbuffers
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(data, 0)
    tensors = model.subgraphs[0].tensors
    for tensor in tensors:
        if tensor.type == _INT8:
            tensor.type = _UINT8
            _make_unsigned(tensor.quantization, model.buffers[tensor.buffer])
    for operator in model.subgraphs[0].operators:
        code = model.operatorCodes[operator.opcodeIndex]
        places = _OPERANDS.get(max(code.builtinCode, code.deprecatedBuiltinCode), ())
        if places and len(operator.inputs) > max(places):
            x, weights, bias = (tensors[operator.inputs[place]] for place in places)
            _rescale_bias(bias, model.buffers[bias.buffer], x.quantization.scale[0] * weights.quantization.scale[0])
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _make_unsigned(quantization: Any, buffer: Any) -> None:  # noqa: ANN401
    if buffer.data is None or not len(buffer.data):
        quantization.zeroPoint = [int(zero) + 128 for zero in quantization.zeroPoint]
        return
    stored = np.array(buffer.data, np.uint8).view(np.int8)
    reals = (stored.astype(np.float64) - quantization.zeroPoint[0]) * quantization.scale[0]
    low, high = min(reals.min(), 0.0), max(reals.max(), 0.0)
    scale = (high - low) / 255 or 1.0
    zero = round(-low / scale)
    buffer.data = np.clip(np.rint(reals / scale) + zero, 0, 255).astype(np.uint8)
    quantization.scale, quantization.zeroPoint = [scale], [zero]


def _rescale_bias(tensor: Any, buffer: Any, scale: float) -> None:  # noqa: ANN401
    reals = np.array(buffer.data, np.uint8).view(np.int32) * np.float64(tensor.quantization.scale[0])
    buffer.data = np.rint(reals / scale).astype(np.int32).view(np.uint8)
    tensor.quantization.scale = [scale]


def interpret(data: bytes, samples: Array) -> tuple[Array, Array]:
    """The interpreter's inputs, quantized if the model's are, and its answers."""
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    (entry,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    inputs = quantized(samples, entry["dtype"], *entry["quantization"])
    answers = []
    for sample in inputs:
        interpreter.set_tensor(entry["index"], sample[np.newaxis])
        interpreter.invoke()
        answers.append(interpreter.get_tensor(result["index"]))
    return inputs, np.concatenate(answers)


def quantized(samples: Array, dtype: npt.DTypeLike, scale: float, zero_point: int) -> Array:
    """Samples as a model of that input wants them."""
    if np.dtype(dtype).kind == "f":
        return samples.astype(dtype)
    limits = np.iinfo(np.dtype(dtype))
    whole: Array = np.clip(np.rint(samples / scale) + zero_point, limits.min, limits.max)
    return whole.astype(dtype)


def write(folder: Path, kind: str, seed: int) -> None:
    """Save a random model beside inputs and answers."""
    from keras_models import random_model

    model, samples = random_model(seed)
    calibration = np.random.default_rng(seed).normal(0, 1, (16, *samples.shape[1:])).astype(np.float32)
    data = convert(model, kind, calibration)
    x, y = interpret(data, calibration[:2])
    (folder / f"m{seed}_{kind}.tflite").write_bytes(data)
    arrays: dict[str, Any] = {"x": x, "y": y}
    if kind == "dynamic":
        arrays["real"] = np.asarray(model(calibration[:2], training=False))
    np.savez_compressed(folder / f"m{seed}_{kind}.npz", **arrays)


if __name__ == "__main__":
    for chosen in sys.argv[3:]:
        write(Path(sys.argv[1]), sys.argv[2], int(chosen))
