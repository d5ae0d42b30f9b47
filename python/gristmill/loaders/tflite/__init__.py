"""TFLite models: float, integer, dynamic-range and float16, from the file's own bytes.

``flatbuffer`` reads the container with every offset checked, ``schema`` says what its fields mean, and the tables of
operations (``layers``, ``elementwise``) translate each into ONNX's operators in NCHW with the help of ``operation``.
Integer tensors are translated as quantized and dequantized reals. They are computed as integers, with one rounding of a
float32 product where TFLite rounds a fixed-point one twice: results may differ by one step.
"""

from __future__ import annotations

from gristmill.errors import ModelFormatError, UnsupportedOpError
from gristmill.graph import Dimension, Graph, ValueInfo
from gristmill.loaders.channels_last import Builder, Shape, Value
from gristmill.loaders.tflite.elementwise import ELEMENTWISE
from gristmill.loaders.tflite.layers import LAYERS
from gristmill.loaders.tflite.operation import Step, Translation
from gristmill.loaders.tflite.schema import Operation, Program, read_program
from gristmill.operators import TensorType
from gristmill.reference import infer

__all__ = ["read_tflite"]

_OPERATIONS = {**LAYERS, **ELEMENTWISE}


def read_tflite(data: bytes) -> Graph:
    """Read a model. A batch of 1 in the file is open in the graph.

    Raises:
        ModelFormatError: If the file is damaged or contradicts itself.
        UnsupportedOpError: If it has an operation that is not known.
    """
    program = read_program(data)
    translation = Translation(program, Builder())
    for index in program.inputs:
        _declare_input(translation, index)
    for operation in program.operations:
        _translate(Step(translation, operation))
    outputs = [_output(translation, index) for index in program.outputs]
    graph = translation.build.graph.build(outputs).without_dead()
    _check_shapes(graph, program)
    return graph


def _check_shapes(graph: Graph, program: Program) -> None:
    """Refuse what does not come to the shapes that the file says."""
    tensors = [program.tensors[index] for index in program.inputs]
    known = infer(graph, {tensor.name: TensorType(tensor.dtype, tensor.shape) for tensor in tensors})
    for info, index in zip(graph.outputs, program.outputs, strict=True):
        declared, computed = program.tensors[index].shape, known[info.name].shape
        if declared != computed:
            raise ModelFormatError(f"has shape {list(computed)}, and the file says {list(declared)}", node=info.name)


def _translate(step: Step) -> None:
    operation: Operation = step.operation
    if operation.name not in _OPERATIONS:
        what = f"{operation.name} {operation.custom}".strip()
        raise UnsupportedOpError(
            f"operation {what} is not known; known are {', '.join(sorted(_OPERATIONS))}", node=step.name
        )
    _OPERATIONS[operation.name](step)


def _declare_input(translation: Translation, index: int) -> None:
    program: Program = translation.program
    tensor = program.tensors[index]
    shape: Shape = (None, *tensor.shape[1:]) if tensor.shape[:1] == (1,) else tensor.shape
    translation.build.graph.input(tensor.name, tensor.dtype, _dimensions(shape))
    translation.values[index] = Value(tensor.name, shape)


def _output(translation: Translation, index: int) -> ValueInfo:
    tensor = translation.program.tensors[index]
    if index not in translation.values:
        translation.real(index)
    value = translation.values[index]
    return ValueInfo(translation.build.plain(value), tensor.dtype, _dimensions(value.shape))


def _dimensions(shape: Shape) -> tuple[Dimension, ...]:
    return tuple("n" if extent is None else extent for extent in shape)
