"""Dense layers on numpy arrays: convolution, linear layers, matrix products, and their epilogues."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from gristmill import _core
from gristmill._core import PackedConv, PackedGemm, PackedLinear
from gristmill.errors import ShapeError

__all__ = [
    "Activation",
    "Epilogue",
    "PackedConv",
    "PackedGemm",
    "PackedLinear",
    "Residual",
    "conv1d",
    "conv2d",
    "gemm",
    "linear",
]

_Array: TypeAlias = npt.NDArray[Any]
_OutputName: TypeAlias = Literal["uint8", "int8", "int32", "float32"]
_ActivationName: TypeAlias = Literal[
    "none", "relu", "clip", "leaky_relu", "hardsigmoid", "hardswish", "sigmoid", "silu"
]


@dataclass(frozen=True)
class Activation:
    """A function applied to every output.

    Attributes:
        name: ``relu`` and ``clip`` narrow the clamp that stores the output anyway and cost nothing. The others
            (``leaky_relu``, ``hardsigmoid``, ``hardswish``, ``sigmoid``, ``silu``) map 8-bit outputs through a table of
            256 entries, computed in float64, and float32 outputs by vector code.
        low: Lower bound of ``clip``, as a real number.
        high: Upper bound of ``clip``.
        alpha: Slope of ``leaky_relu`` below zero.

    Example:
        >>> Activation("clip", low=0.0, high=6.0).name
        'clip'
    """

    name: _ActivationName = "none"
    low: float = -np.inf
    high: float = np.inf
    alpha: float = 0.01


@dataclass(frozen=True)
class Residual:
    """Another tensor that is added to the output, exactly as a separate operator would.

    Sums of 8-bit tensors are those of ONNX Runtime's QLinearAdd. For float32 outputs the scales are not used.

    Attributes:
        dtype: Element type of the tensor: ``uint8`` or ``int8`` beside 8-bit outputs, else ``float32``.
        scale: Scale of the tensor.
        zero_point: Zero point of the tensor.
        sum_scale: Scale of the sum.
        sum_zero_point: Zero point of the sum.
        activation: Of the sum: none, relu or clip.
        first: Whether the tensor is the first operand of an 8-bit sum, which may decide how the sum is rounded.

    Example:
        >>> Residual("uint8", scale=0.1, zero_point=128, sum_scale=0.2).activation.name
        'none'
    """

    dtype: _OutputName
    scale: float = 1.0
    zero_point: int = 0
    sum_scale: float = 1.0
    sum_zero_point: int = 0
    activation: Activation = Activation()
    first: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class Epilogue:
    """What becomes of a layer's accumulators before they are stored.

    An int8 layer computes, for the accumulator of output channel c, ``t = acc + bias[c]`` (``int32`` output),
    ``v = float32(t) * scale[c]`` (``float32`` output) and ``round_half_even(v) + zero_point``, saturated (``uint8`` and
    ``int8`` output). A float32 layer computes ``acc + bias[c]``. Activation and residual then work on stored outputs.

    Attributes:
        output: Element type of the output.
        bias: One value for each output channel: int32 for int8 layers, float32 for float32 layers.
        scale: float32, one for all or one for each output channel: ``x_scale * w_scale[c] / output_scale`` for 8-bit
            outputs, ``x_scale * w_scale[c]`` for float32.
        zero_point: Zero point of an 8-bit output.
        output_scale: Scale of an 8-bit output; needed for bounds other than zero, curves and residuals.
        activation: A function of the output.
        activation_output: Scale and zero point of what a curve yields; those of the output if absent.
        residual: Another tensor that is added.

    Example:
        >>> import numpy as np
        >>> weights = PackedLinear(np.array([[1, 2], [3, -4]], np.int8))
        >>> x = np.array([[10, 20]], np.uint8)
        >>> linear(x, weights)
        array([[ 50, -50]], dtype=int32)
        >>> relu = Epilogue(output="uint8", scale=0.5, activation=Activation("relu"))
        >>> linear(x, weights, epilogue=relu)
        array([[25,  0]], dtype=uint8)
    """

    output: _OutputName
    bias: _Array | None = None
    scale: float | _Array | None = None
    zero_point: int = 0
    output_scale: float = 0.0
    activation: Activation = Activation()
    activation_output: tuple[float, int] | None = None
    residual: Residual | None = None
    _core: _core.Epilogue = field(init=False, repr=False)

    def __post_init__(self) -> None:
        compiled = _core.Epilogue(
            output=self.output,
            bias=self.bias,
            scale=self.scale,
            zero_point=self.zero_point,
            output_scale=self.output_scale,
            activation=self.activation.name,
            low=self.activation.low,
            high=self.activation.high,
            alpha=self.activation.alpha,
            activation_output=self.activation_output,
        )
        if (residual := self.residual) is not None:
            clamp = residual.activation
            compiled.add_residual(
                residual.dtype,
                (residual.scale, residual.zero_point),
                (residual.sum_scale, residual.sum_zero_point),
                (clamp.name, clamp.low, clamp.high),
                residual.first,
            )
        object.__setattr__(self, "_core", compiled)


def conv2d(
    x: _Array,
    weights: PackedConv,
    *,
    x_zero_point: int = 0,
    epilogue: Epilogue | None = None,
    residual: _Array | None = None,
    out: _Array | None = None,
    threads: int | None = None,
) -> _Array:
    """Convolve images in NCHW.

    Args:
        x: uint8 or int8 for int8 weights, float32 for float32 weights; (images, channels, rows, columns). Copied if it
            is not in C order.
        weights: Packed weights, which carry stride, padding, dilation and groups. They must have been packed at the
            active level.
        x_zero_point: Zero point of x. Padding reads as this value, so borders are exact.
        epilogue: What becomes of the sums; without one int8 layers yield int32.
        residual: What the epilogue's residual adds; of the output's shape.
        out: An array for the result, in C order.
        threads: Threads to use; by default those of :func:`gristmill.get_num_threads`. Results do not depend on it.

    Returns:
        (images, output channels, output rows, output columns).

    Example:
        >>> import numpy as np
        >>> blur = PackedConv(np.ones((1, 1, 3, 3), np.int8), padding=1)
        >>> conv2d(np.full((1, 1, 2, 2), 7, np.uint8), blur, x_zero_point=5)[0, 0]
        array([[8, 8],
               [8, 8]], dtype=int32)
    """
    return _core.conv2d(x, weights, x_zero_point, _compiled(epilogue), residual, out, threads)


def conv1d(
    x: _Array,
    weights: PackedConv,
    *,
    x_zero_point: int = 0,
    epilogue: Epilogue | None = None,
    residual: _Array | None = None,
    out: _Array | None = None,
    threads: int | None = None,
) -> _Array:
    """Convolve sequences (batch, channels, length) with weights (out channels, in channels / groups, 1, taps).

    The arguments are those of :func:`conv2d`, of which this is the case of one row.

    Example:
        >>> import numpy as np
        >>> difference = PackedConv(np.array([[[[-1, 1]]]], np.int8))
        >>> conv1d(np.array([[[3, 5, 4]]], np.uint8), difference)
        array([[[ 2, -1]]], dtype=int32)
    """
    y = conv2d(
        _with_row(x, "x"),
        weights,
        x_zero_point=x_zero_point,
        epilogue=epilogue,
        residual=None if residual is None else _with_row(residual, "residual"),
        out=None if out is None else _with_row(out, "out"),
        threads=threads,
    )
    if y.shape[2] != 1:
        raise ShapeError(f"expected one row, got {y.shape[2]}: do not pad rows", node="weights")
    return y[:, :, 0, :] if out is None else out


def linear(
    x: _Array,
    weights: PackedLinear,
    *,
    x_zero_point: int = 0,
    epilogue: Epilogue | None = None,
    residual: _Array | None = None,
    out: _Array | None = None,
    threads: int | None = None,
) -> _Array:
    """Apply a linear layer: ``x @ weights.T``, then the epilogue.

    Args:
        x: uint8 or int8 for int8 weights, float32 for float32 weights; (rows, in features). Copied if not in C order.
        weights: Packed weights; they must have been packed at the active level.
        x_zero_point: Zero point of x.
        epilogue: What becomes of the sums; without one int8 layers yield int32.
        residual: What the epilogue's residual adds; of the output's shape.
        out: An array for the result, in C order.
        threads: Threads to use; by default those of :func:`gristmill.get_num_threads`. Results do not depend on it.

    Returns:
        (rows, out features).

    Example:
        >>> import numpy as np
        >>> weights = PackedLinear(np.array([[1.0, 2.0], [3.0, 4.0]], np.float32))
        >>> linear(np.array([[10.0, 1.0]], np.float32), weights)
        array([[12., 34.]], dtype=float32)
    """
    return _core.linear(x, weights, x_zero_point, _compiled(epilogue), residual, out, threads)


def gemm(
    a: _Array,
    b: PackedGemm,
    *,
    a_zero_point: int = 0,
    epilogue: Epilogue | None = None,
    residual: _Array | None = None,
    out: _Array | None = None,
    threads: int | None = None,
) -> _Array:
    """Multiply matrices: ``a @ b``, where b was packed before. The arguments are those of :func:`linear`.

    Example:
        >>> import numpy as np
        >>> b = PackedGemm(np.array([[1, 2], [3, 4]], np.int8))
        >>> gemm(np.array([[1, 1]], np.uint8), b)
        array([[4, 6]], dtype=int32)
    """
    return _core.gemm(a, b, a_zero_point, _compiled(epilogue), residual, out, threads)


def _compiled(epilogue: Epilogue | None) -> _core.Epilogue | None:
    return None if epilogue is None else epilogue._core


def _with_row(array: _Array, name: str) -> _Array:
    if not isinstance(array, np.ndarray) or array.ndim != 3:
        raise ShapeError(f"expected an array of rank 3, got {getattr(array, 'shape', type(array).__name__)}", node=name)
    return array[:, :, np.newaxis, :]
