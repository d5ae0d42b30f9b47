"""One operation of a TFLite model at the moment it is translated.

Integer tensors become what ONNX calls QDQ: operations compute on reals that are dequantized before and quantized
after, which compiling turns into integer kernels again. A tensor is translated once; its real form, once more if asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gristmill.errors import ModelFormatError, UnsupportedOpError
from gristmill.loaders.channels_last import Builder, Shape, Value
from gristmill.loaders.tflite.flatbuffer import Table
from gristmill.loaders.tflite.schema import Operation, Program, Tensor

__all__ = ["Step", "Translation"]

Array: TypeAlias = npt.NDArray[Any]


@dataclass(eq=False)
class Translation:
    """A program on its way to a graph.

    Attributes:
        program: What is translated.
        build: The graph under construction.
        values: The graph's value of each tensor that has been written, quantized if the tensor is.
    """

    program: Program
    build: Builder
    values: dict[int, Value] = field(default_factory=dict)
    _reals: dict[int, Value] = field(default_factory=dict)

    def real(self, index: int) -> Value:
        """A tensor as reals."""
        if index not in self._reals:
            self._reals[index] = self._make_real(index)
        return self._reals[index]

    def _make_real(self, index: int) -> Value:
        tensor = self.program.tensors[index]
        if index not in self.values and tensor.value is not None:
            stored = tensor.value if tensor.quantized else tensor.value.astype(np.float32)
            self.values[index] = Value(self.build.constant(tensor.name, stored), tensor.shape)
        if index not in self.values:
            raise ModelFormatError("is read before it is written", node=tensor.name)
        value = self.values[index]
        if not tensor.quantized:
            return value
        attributes = (
            {"axis": tensor.axis if not value.planar else self._planar_axis(tensor)} if tensor.scale.size > 1 else {}
        )
        name = self.build.add(
            "DequantizeLinear", [value.name, *self.quantization(tensor)], f"{tensor.name}/real", **attributes
        )
        return Value(name, value.shape, value.planar)

    @staticmethod
    def _planar_axis(tensor: Tensor) -> int:
        if tensor.axis == 0:
            return 0
        return 1 if tensor.axis == len(tensor.shape) - 1 else tensor.axis + 1

    def quantization(self, tensor: Tensor) -> list[str]:
        """Constants for a tensor's scale and zero point."""
        scale, zero_point = tensor.scale, tensor.zero_point.astype(tensor.dtype)
        if scale.size == 1:
            scale, zero_point = scale.reshape(()), zero_point.reshape(())
        return [
            self.build.constant(f"{tensor.name}/scale", scale),
            self.build.constant(f"{tensor.name}/zero_point", zero_point),
        ]

    def store(self, index: int, value: Value) -> None:
        """Write a tensor that was computed as reals."""
        tensor = self.program.tensors[index]
        if not tensor.quantized:
            self.values[index] = value
            return
        name = self.build.add("QuantizeLinear", [value.name, *self.quantization(tensor)], f"{tensor.name}/stored")
        self.values[index] = Value(name, value.shape, value.planar)


@dataclass(frozen=True, eq=False)
class Step:
    """An operation with what it reads and writes."""

    translation: Translation
    operation: Operation

    @property
    def build(self) -> Builder:
        """The graph under construction."""
        return self.translation.build

    @property
    def name(self) -> str:
        """For nodes: that of the first output."""
        return self.output.name

    @property
    def output(self) -> Tensor:
        """The only output."""
        if len(self.operation.outputs) != 1 or self.operation.outputs[0] < 0:
            raise ModelFormatError(f"{self.operation.name} with {len(self.operation.outputs)} outputs")
        return self.translation.program.tensors[self.operation.outputs[0]]

    @property
    def options(self) -> Table:
        """The operation's options."""
        if self.operation.options is None:
            raise self.error("has no options")
        return self.operation.options

    def option(self, field_index: int, kind: str = "<i", default: int = 0) -> int:
        """An integer option; its default if the operation has no options."""
        options = self.operation.options
        return default if options is None else options.integer(field_index, kind, default)

    def error(self, reason: str) -> ModelFormatError:
        """An error that names the operation."""
        return ModelFormatError(f"{self.operation.name}: {reason}", node=self.name)

    def unsupported(self, reason: str) -> UnsupportedOpError:
        """An error for what gristmill does not do."""
        return UnsupportedOpError(f"{self.operation.name}: {reason}", node=self.name)

    def index(self, position: int) -> int:
        """Which tensor an input is; -1 if it was left out."""
        inputs = self.operation.inputs
        return inputs[position] if position < len(inputs) else -1

    def tensor(self, position: int) -> Tensor:
        """The tensor of an input."""
        index = self.index(position)
        if index < 0:
            raise self.error(f"input {position} is missing")
        return self.translation.program.tensors[index]

    def real(self, position: int) -> Value:
        """An input as reals."""
        self.tensor(position)
        return self.translation.real(self.index(position))

    def numbers(self, position: int) -> list[int]:
        """An input that is a constant list of integers."""
        tensor = self.tensor(position)
        if tensor.value is None or tensor.dtype.kind != "i":
            raise self.unsupported(f"input {position} is not a constant list of integers")
        return [int(item) for item in tensor.value.reshape(-1)]

    def weights(self, position: int, arrange: Callable[[Array], Array], axis: int = 0) -> str:
        """Constant weights, rearranged so that their output channels lie along ``axis``.

        Integers stay integers where they are s8 around zero, as integer kernels want them.
        """
        tensor = self.tensor(position)
        if tensor.value is None:
            return self._computed_weights(position, arrange)
        if not tensor.quantized:
            return self.build.constant(tensor.name, np.ascontiguousarray(arrange(tensor.value), np.float32))
        shape = [1] * len(tensor.shape)
        if tensor.scale.size > 1:
            shape[tensor.axis] = tensor.scale.size
        centred = tensor.value.astype(np.int64) - tensor.zero_point.reshape(shape)
        reals = (centred * tensor.scale.reshape(shape).astype(np.float64)).astype(np.float32)
        if tensor.dtype.itemsize > 1 or np.abs(centred).max(initial=0) > 127:
            return self.build.constant(tensor.name, np.ascontiguousarray(arrange(reals)))
        stored = self.build.constant(tensor.name, np.ascontiguousarray(arrange(centred), np.int8))
        each = tensor.scale.size > 1
        scale = self.build.constant(f"{tensor.name}/scale", tensor.scale if each else tensor.scale.reshape(()))
        zero = self.build.constant(f"{tensor.name}/zero_point", np.zeros(tensor.scale.shape if each else (), np.int8))
        attributes = {"axis": axis} if each else {}
        return self.build.add("DequantizeLinear", [stored, scale, zero], f"{tensor.name}/real", **attributes)

    def _computed_weights(self, position: int, arrange: Callable[[Array], Array]) -> str:
        """Weights that another operation makes of constants: stored as float16, say."""
        tensor = self.tensor(position)
        axes = np.arange(int(np.prod(tensor.shape, dtype=np.int64))).reshape(tensor.shape)
        arranged = arrange(axes)
        if arranged.shape == tensor.shape and (arranged == axes).all():
            return self.build.plain(self.real(position))
        order = _permutation(tensor.shape, arrange)
        if order is None:
            raise self.unsupported("weights that are computed cannot be rearranged")
        moved = self.build.add("Transpose", [self.build.plain(self.real(position))], f"{tensor.name}/moved", perm=order)
        target = self.build.constant(f"{tensor.name}/shape", np.array(arranged.shape, np.int64))
        return self.build.add("Reshape", [moved, target], f"{tensor.name}/arranged")

    def finish(self, value: Value, activation: int = 0) -> None:
        """Apply a fused activation and write the output."""
        self.translation.store(self.operation.outputs[0], self.activate(value, activation))

    def activate(self, value: Value, activation: int) -> Value:
        """One of TFLite's fused activations."""
        match activation:
            case 0:
                return value
            case 1:
                return self.build.unary("Relu", value, f"{self.name}/relu")
            case 2:
                return self.clip(value, -1.0, 1.0)
            case 3:
                return self.clip(value, 0.0, 6.0)
            case 4:
                return self.build.unary("Tanh", value, f"{self.name}/tanh")
            case _:
                raise self.unsupported(f"fused activation number {activation}")

    def clip(self, value: Value, low: float, high: float) -> Value:
        """Bound a value."""
        bounds = [self.build.constant(f"{self.name}/bound", np.float32(bound)) for bound in (low, high)]
        return Value(self.build.add("Clip", [value.name, *bounds], f"{self.name}/clip"), value.shape, value.planar)

    def output_shape(self, value: Value) -> Shape:
        """The shape in the file, with the batch open where that of ``value`` is."""
        shape: Shape = self.output.shape
        return (None, *shape[1:]) if shape and shape[0] == 1 and value.shape and value.shape[0] is None else shape


def _permutation(shape: tuple[int, ...], arrange: Callable[[Array], Array]) -> tuple[int, ...] | None:
    """The order of axes that ``arrange`` amounts to, but for a reshape at the end."""
    probe = np.arange(int(np.prod(shape, dtype=np.int64))).reshape(shape)
    wanted = arrange(probe).reshape(-1)
    orders = [
        (*range(len(shape)),),
        (len(shape) - 1, *range(len(shape) - 1)),
        (0, len(shape) - 1, *range(1, len(shape) - 1)),
    ]
    return next((order for order in orders if (probe.transpose(order).reshape(-1) == wanted).all()), None)
