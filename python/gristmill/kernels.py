"""The compiled kernels on numpy arrays, and what they run on."""

from __future__ import annotations

from gristmill import _core
from gristmill.cpu import (
    Cache,
    Calibration,
    CpuInfo,
    Rate,
    ReadBandwidth,
    calibrate,
    cpu_info,
    get_num_threads,
    set_num_threads,
)
from gristmill.dense import (
    Activation,
    Epilogue,
    PackedConv,
    PackedGemm,
    PackedLinear,
    Residual,
    conv1d,
    conv2d,
    gemm,
    linear,
)
from gristmill.quantization import (
    abs_max,
    choose_qparams,
    dequantize_per_channel,
    dequantize_per_tensor,
    min_max,
    quantize_per_channel,
    quantize_per_tensor,
    range_qparams,
    requantize,
)
from gristmill.sparse import CsrMatrix, spmm

__all__ = [
    "Activation",
    "Cache",
    "Calibration",
    "CpuInfo",
    "CsrMatrix",
    "Epilogue",
    "PackedConv",
    "PackedGemm",
    "PackedLinear",
    "Rate",
    "ReadBandwidth",
    "Residual",
    "abs_max",
    "calibrate",
    "choose_qparams",
    "compiled_isas",
    "conv1d",
    "conv2d",
    "cpu_info",
    "dequantize_per_channel",
    "dequantize_per_tensor",
    "gemm",
    "get_isa",
    "get_num_threads",
    "linear",
    "min_max",
    "quantize_per_channel",
    "quantize_per_tensor",
    "range_qparams",
    "requantize",
    "set_isa",
    "set_num_threads",
    "spmm",
    "supported_isas",
]


def compiled_isas() -> list[str]:
    """Return the instruction-set levels in this build, lowest first."""
    return _core.compiled_isas()


def supported_isas() -> list[str]:
    """Return the compiled levels that this machine can run, lowest first.

    Example:
        >>> supported_isas()[0]
        'scalar'
    """
    return _core.supported_isas()


def get_isa() -> str:
    """Return the active level: the one that calls use."""
    return _core.get_isa()


def set_isa(name: str) -> None:
    """Make a supported level the active one, for the whole process.

    Args:
        name: One of :func:`supported_isas`. The environment variable ``GRISTMILL_ISA`` does the same at import.

    Raises:
        IsaError: The level is unknown or cannot run here.

    Example:
        >>> before = get_isa()
        >>> set_isa("scalar")
        >>> get_isa()
        'scalar'
        >>> set_isa(before)
    """
    _core.set_isa(name)
