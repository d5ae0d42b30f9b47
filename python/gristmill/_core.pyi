"""Types of the compiled core; checked against it by stubtest."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any, Protocol, TypeAlias, TypedDict, final

import numpy as np
import numpy.typing as npt

_Float32Array: TypeAlias = npt.NDArray[np.float32]
_Int8Array: TypeAlias = npt.NDArray[np.int8] | npt.NDArray[np.uint8]
_IntegerArray: TypeAlias = npt.NDArray[np.integer[Any]]

__version__: str

def compiled_isas() -> list[str]: ...
def supported_isas() -> list[str]: ...
def get_isa() -> str: ...
def set_isa(name: str) -> None: ...

_Rate: TypeAlias = tuple[float, float, int]

class _CpuInfo(TypedDict):
    model: str
    features: dict[str, bool]
    caches: list[tuple[int, int, int]]
    affinity_cores: int
    quota_cores: float
    usable_cores: int

class _Calibration(TypedDict):
    int8_macs: _Rate
    int8_saturating_macs: _Rate | None
    f32_fmas: _Rate
    reads: list[tuple[str, int, bool, _Rate]]

bench: ModuleType

def cpu_info() -> _CpuInfo: ...
def calibrate(isa: str, seconds: float) -> _Calibration: ...
def get_num_threads() -> int: ...
def set_num_threads(threads: int) -> None: ...
def pool_workers() -> int: ...
def quantize(
    x: _Float32Array,
    scale: float | _Float32Array,
    zero_point: int | _IntegerArray,
    dtype: npt.DTypeLike,
    axis: int | None,
    out: _Int8Array | None,
    threads: int | None,
) -> _Int8Array: ...
def dequantize(
    q: _Int8Array,
    scale: float | _Float32Array,
    zero_point: int | _IntegerArray,
    axis: int | None,
    out: _Float32Array | None,
    threads: int | None,
) -> _Float32Array: ...
def requantize(
    acc: npt.NDArray[np.int32],
    scale: float | _Float32Array,
    zero_point: int | _IntegerArray,
    dtype: npt.DTypeLike,
    axis: int | None,
    out: _Int8Array | _Float32Array | None,
    threads: int | None,
) -> _Int8Array | _Float32Array: ...
def min_max(x: _Float32Array, axis: int | None, threads: int | None) -> tuple[_Float32Array, _Float32Array]: ...
def range_qparams(
    minimum: float | _Float32Array, maximum: float | _Float32Array, dtype: npt.DTypeLike, symmetric: bool
) -> tuple[_Float32Array, _Int8Array]: ...

_Array: TypeAlias = npt.NDArray[Any]
_Quantization: TypeAlias = tuple[float, int]

@final
class Epilogue:
    def __init__(
        self,
        output: str,
        bias: _Array | None,
        scale: float | _Array | None,
        zero_point: int,
        output_scale: float,
        activation: str,
        low: float,
        high: float,
        alpha: float,
        activation_output: _Quantization | None,
    ) -> None: ...
    def add_residual(
        self,
        dtype: str,
        quantization: _Quantization | None,
        result: _Quantization | None,
        activation: tuple[str, float, float],
        first: bool,
    ) -> None: ...

class _SparseMatrix(Protocol):
    _core: CsrMatrix

def count_nonzero(weights: _Array) -> int: ...

@final
class CsrMatrix:
    def __init__(self, indptr: _Array, indices: _Array, data: _Array, shape: tuple[int, int]) -> None: ...
    @staticmethod
    def from_dense(array: _Array) -> CsrMatrix: ...
    def to_dense(self) -> _Array: ...
    def arrays(self) -> tuple[_Array, _Array, _Array]: ...
    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def nnz(self) -> int: ...
    @property
    def dtype(self) -> str: ...

@final
class PackedConv:
    def __init__(
        self,
        weights: _Array | _SparseMatrix,
        *,
        stride: int | Sequence[int] = 1,
        padding: int | Sequence[int] = 0,
        dilation: int | Sequence[int] = 1,
        groups: int = 1,
        format: str | None = None,  # noqa: A002
        kernel: int | Sequence[int] = 1,
    ) -> None: ...
    def output_size(self, height: int, width: int) -> tuple[int, int]: ...
    @property
    def format(self) -> str: ...
    @property
    def isa(self) -> str: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def executed_macs(self) -> int: ...

@final
class PackedLinear:
    def __init__(
        self,
        weights: _Array | _SparseMatrix,
        *,
        format: str | None = None,  # noqa: A002
        rows: int = 1,
    ) -> None: ...
    @property
    def format(self) -> str: ...
    @property
    def batched(self) -> bool: ...
    @property
    def isa(self) -> str: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def executed_macs(self) -> int: ...

@final
class PackedGemm:
    def __init__(self, b: _Array) -> None: ...
    @property
    def isa(self) -> str: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def executed_macs(self) -> int: ...

def conv2d(
    x: _Array,
    weights: PackedConv,
    x_zero_point: int = 0,
    epilogue: Epilogue | None = None,
    residual: _Array | None = None,
    out: _Array | None = None,
    threads: int | None = None,
) -> _Array: ...
def batch_pays(rows: int, isa: str) -> bool: ...
def linear(
    x: _Array,
    weights: PackedLinear,
    x_zero_point: int = 0,
    epilogue: Epilogue | None = None,
    residual: _Array | None = None,
    out: _Array | None = None,
    threads: int | None = None,
) -> _Array: ...
def gemm(
    a: _Array,
    b: PackedGemm,
    a_zero_point: int = 0,
    epilogue: Epilogue | None = None,
    residual: _Array | None = None,
    out: _Array | None = None,
    threads: int | None = None,
) -> _Array: ...

_View: TypeAlias = Tensor | TensorView

@final
class TensorView:
    # Made by Tensor.view().
    def __init__(self, *args: object, **kwargs: object) -> None: ...

@final
class Tensor:
    # Made by the static methods.
    def __init__(self, *args: object, **kwargs: object) -> None: ...
    @staticmethod
    def arena(offset: int, dtype: str, shape: Sequence[int]) -> Tensor: ...
    @staticmethod
    def input(index: int, dtype: str, shape: Sequence[int], offset: int = 0) -> Tensor: ...
    @staticmethod
    def output(index: int, dtype: str, shape: Sequence[int], offset: int = 0) -> Tensor: ...
    @staticmethod
    def constant(array: _Array) -> Tensor: ...
    def view(self, shape: Sequence[int], strides: Sequence[int], offset: int = 0) -> TensorView: ...
    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def nbytes(self) -> int: ...

@final
class Plan:
    def __init__(
        self,
        arena_bytes: int,
        inputs: Sequence[tuple[str, Sequence[int]]],
        outputs: Sequence[tuple[str, Sequence[int]]],
    ) -> None: ...
    def run(
        self, inputs: Sequence[_Array], outputs: Sequence[_Array | None] | None = None, threads: int | None = None
    ) -> list[_Array]: ...
    def profile(self, inputs: Sequence[_Array], threads: int | None = None) -> list[tuple[str, str, float]]: ...
    @property
    def steps(self) -> list[tuple[str, str]]: ...
    @property
    def arena_bytes(self) -> int: ...
    def conv(
        self,
        name: str,
        x: Tensor,
        out: Tensor,
        weights: PackedConv,
        epilogue: Epilogue | None = None,
        x_zero_point: int | Tensor = 0,
        residual: Tensor | None = None,
    ) -> None: ...
    def linear(
        self,
        name: str,
        x: Tensor,
        out: Tensor,
        weights: PackedLinear | PackedGemm,
        epilogue: Epilogue | None = None,
        x_zero_point: int | Tensor = 0,
        residual: Tensor | None = None,
    ) -> None: ...
    def slices(self, name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], part: Plan) -> None: ...
    def copy(self, name: str, x: _View, out: _View) -> None: ...
    def fill(self, name: str, out: _View, value: float) -> None: ...
    def unary(
        self, name: str, function: str, x: Tensor, out: Tensor, alpha: float = 0.0, beta: float = 0.0
    ) -> None: ...
    def binary(
        self, name: str, function: str, a: Tensor, b: Tensor, out: Tensor, low: float = ..., high: float = ...
    ) -> None: ...
    def select(self, name: str, condition: Tensor, a: Tensor, b: Tensor, out: Tensor) -> None: ...
    def pool(
        self,
        name: str,
        kind: str,
        x: Tensor,
        out: Tensor,
        kernel: Sequence[int],
        stride: Sequence[int],
        pad_begin: Sequence[int] = ...,
        pad_end: Sequence[int] = ...,
        dilation: Sequence[int] = ...,
        count_include_pad: bool = False,
    ) -> None: ...
    def reduce(self, name: str, function: str, x: Tensor, out: Tensor, axes: Sequence[int] = ...) -> None: ...
    def softmax(self, name: str, x: Tensor, out: Tensor, axis: int = -1, logarithm: bool = False) -> None: ...
    def argmax(
        self, name: str, x: Tensor, out: Tensor, axis: int, greatest: bool = True, last: bool = False
    ) -> None: ...
    def topk(
        self, name: str, x: Tensor, values: Tensor, indices: Tensor, axis: int = -1, greatest: bool = True
    ) -> None: ...
    def lrn(self, name: str, x: Tensor, out: Tensor, size: int, alpha: float, beta: float, bias: float) -> None: ...
    def instance_norm(self, name: str, x: Tensor, scale: Tensor, bias: Tensor, out: Tensor, epsilon: float) -> None: ...
    def gather(self, name: str, x: Tensor, indices: Tensor, out: Tensor, axis: int = 0) -> None: ...
    def cast(self, name: str, x: Tensor, out: Tensor) -> None: ...
    def matmul(
        self, name: str, a: Tensor, b: Tensor, out: Tensor, a_zero_point: int = 0, b_zero_point: int = 0
    ) -> None: ...
    def quantize(
        self,
        name: str,
        x: Tensor,
        out: Tensor,
        scale: Sequence[float],
        zero_point: Sequence[int],
        axis: int | None = None,
    ) -> None: ...
    def dequantize(
        self,
        name: str,
        x: Tensor,
        out: Tensor,
        scale: Sequence[float],
        zero_point: Sequence[int],
        axis: int | None = None,
    ) -> None: ...
    def requantize(
        self,
        name: str,
        x: Tensor,
        out: Tensor,
        scale: Sequence[float],
        zero_point: Sequence[int],
        axis: int | None = None,
    ) -> None: ...
    def dynamic_quantize(self, name: str, x: Tensor, out: Tensor, scale: Tensor, zero_point: Tensor) -> None: ...
    def lookup(self, name: str, x: Tensor, out: Tensor, table: _Int8Array) -> None: ...
    def qbinary(
        self,
        name: str,
        function: str,
        a: Tensor,
        b: Tensor,
        out: Tensor,
        a_map: _Quantization,
        b_map: _Quantization,
        out_map: _Quantization,
    ) -> None: ...
    def qglobal_average(
        self, name: str, x: Tensor, out: Tensor, x_map: _Quantization, out_map: _Quantization
    ) -> None: ...
    def qaverage(
        self,
        name: str,
        x: Tensor,
        out: Tensor,
        kernel: Sequence[int],
        stride: Sequence[int],
        pad_begin: Sequence[int],
        pad_end: Sequence[int],
        dilation: Sequence[int],
        count_include_pad: bool,
        x_map: _Quantization,
        out_map: _Quantization,
    ) -> None: ...
    def qsoftmax(
        self, name: str, x: Tensor, out: Tensor, axis: int, powers: Sequence[float], steps: float, zero_point: int
    ) -> None: ...
    def resize(
        self,
        name: str,
        x: Tensor,
        out: Tensor,
        mode: str,
        coordinates: str = "half_pixel",
        rounding: str = "round_prefer_floor",
        cubic_a: float = -0.75,
        exclude_outside: bool = False,
        extrapolation: float = 0.0,
        scales: Sequence[float] = ...,
        roi_start: Sequence[float] = ...,
        roi_end: Sequence[float] = ...,
    ) -> None: ...
