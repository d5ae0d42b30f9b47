"""``gristmill demo``: what int8 does to a weight tensor, in a few seconds."""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

import gristmill
from gristmill import kernels
from gristmill.cli import options
from gristmill.console import Cell, Console, Table, format_bytes, format_seconds, status
from gristmill.quantization import Int8Array
from gristmill.timing import interleave

_SHAPE = (512, 512, 3, 3)
_SEED = 2026

Float32 = npt.NDArray[np.float32]
Int8 = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Scheme:
    """One way of storing the tensor, and what it costs.

    Attributes:
        name: What the table calls it.
        bytes: Size of values, scales and zero points.
        max_error: Largest absolute difference after the way there and back.
        snr_db: Signal to noise ratio in decibels.
        quantize_seconds: Best time of our kernel.
        numpy_seconds: Best time of the same arithmetic as a numpy expression.
    """

    name: str
    bytes: int
    max_error: float
    snr_db: float
    quantize_seconds: float
    numpy_seconds: float


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "demo", help="quantize a realistic weight tensor and show error, bytes and speed", description=__doc__
    )
    options.add_json_option(parser)
    options.add_threads_option(parser)
    parser.set_defaults(run=run)


def realistic_weights(shape: tuple[int, ...] = _SHAPE, seed: int = _SEED) -> Float32:
    """Return weights like those of a trained convolution: normal within a channel, very different between channels.

    Example:
        >>> realistic_weights((8, 4, 3, 3)).shape
        (8, 4, 3, 3)
    """
    generator = np.random.default_rng(seed)
    spread = np.sqrt(2.0 / np.prod(shape[1:])) * generator.lognormal(0.0, 0.8, size=(shape[0], 1, 1, 1))
    weights: Float32 = (generator.standard_normal(shape) * spread).astype(np.float32)
    return weights


def _numpy_quantize(weights: Float32, scale: Float32) -> Int8:
    quantized: Int8 = np.clip(np.rint(weights / scale), -127, 127).astype(np.int8)
    return quantized


def _measure(name: str, weights: Float32, scale: Float32, threads: int | None) -> Scheme:
    """Quantize with one scale, or with one for each index of the first axis."""
    zero_points = np.zeros(scale.size, np.int8)

    def quantize() -> Int8Array:
        return kernels.quantize_per_channel(rows, scale, zero_points, 0, np.int8, threads=threads)

    rows = weights.reshape(scale.size, -1)
    restored = kernels.dequantize_per_channel(quantize(), scale, zero_points, 0)
    noise = rows.astype(np.float64) - restored
    column = scale.reshape(-1, 1)
    timings = interleave({"ours": quantize, "numpy": lambda: _numpy_quantize(rows, column)}, seconds=1.0)
    return Scheme(
        name=name,
        bytes=weights.size + scale.nbytes,
        max_error=float(np.abs(noise).max()),
        snr_db=float(10 * np.log10(np.square(rows, dtype=np.float64).sum() / np.square(noise).sum())),
        quantize_seconds=timings["ours"].best,
        numpy_seconds=timings["numpy"].best,
    )


def _levels_that_agree(weights: Float32, scale: Float32) -> list[str]:
    """Quantize at every level of this machine; return the levels whose bytes equal those of the scalar level."""
    active = kernels.get_isa()
    results: dict[str, bytes] = {}
    try:
        for level in kernels.supported_isas():
            kernels.set_isa(level)
            results[level] = kernels.quantize_per_channel(weights, scale, 0, 0, np.int8).tobytes()
    finally:
        kernels.set_isa(active)
    return [level for level, data in results.items() if data == results["scalar"]]


def _show(console: Console, weights: Float32, schemes: list[Scheme], agree: list[str]) -> None:
    info = kernels.cpu_info()
    shape = "×".join(str(n) for n in weights.shape)
    console.print(Cell(f"gristmill {gristmill.__version__}", "bold"))
    console.print(f"{info.model}, level {info.active}, {info.usable_cores} usable cores")
    console.print()
    table = Table(
        ["stored as", "bytes", "of f32", "SNR", "max error", "quantize", "numpy", "speedup"],
        title=f"A convolution's weights, {shape}, float32 to int8",
    )
    table.add("float32", format_bytes(weights.nbytes), "100 %")
    for scheme in schemes:
        table.add(
            scheme.name,
            format_bytes(scheme.bytes),
            f"{100 * scheme.bytes / weights.nbytes:.1f} %",
            f"{scheme.snr_db:.1f} dB",
            f"{scheme.max_error:.2e}",
            format_seconds(scheme.quantize_seconds),
            format_seconds(scheme.numpy_seconds),
            Cell(f"{scheme.numpy_seconds / scheme.quantize_seconds:.1f}×", "green"),
        )
    console.print(table)
    console.print()
    console.print("Times: best of interleaved rounds. One scale per output channel keeps quiet channels accurate.")
    missing = [level for level in info.supported if level not in agree]
    if missing:
        console.print(Cell(f"The int8 bytes DIFFER from those of level scalar on: {', '.join(missing)}.", "red"))
    else:
        console.print(f"The int8 bytes are identical on every level that runs here: {', '.join(agree)}.")


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    weights = realistic_weights()
    one_scale = np.array([kernels.choose_qparams(weights, np.int8, symmetric=True)[0]], np.float32)
    per_channel, _ = kernels.choose_qparams(weights, np.int8, symmetric=True, axis=0)
    with status("quantizing"):
        schemes = [
            _measure("int8, one scale", weights, one_scale, arguments.threads),
            _measure("int8, per channel", weights, per_channel, arguments.threads),
        ]
        agree = _levels_that_agree(weights, per_channel)
    if arguments.json:
        options.print_json(
            {
                "shape": list(weights.shape),
                "float32_bytes": weights.nbytes,
                "schemes": [asdict(scheme) for scheme in schemes],
                "bit_identical_levels": agree,
            }
        )
    else:
        _show(Console(), weights, schemes, agree)
    return 0 if agree == kernels.supported_isas() else 1
