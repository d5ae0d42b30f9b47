"""Prints how accurate trained models stay, and writes JSON.

    python bench/accuracy_table.py [int8] [sparse] [wide] [peers] [ablation] [cost] [latency]
        [--models NAME ...] [--quick] [--json FILE] [--markdown FILE]

``GRISTMILL_REAL_DATA`` names the folder with the models. Losses are in percentage points of top-1 accuracy, with their
95 % interval, both models judged on the same samples in sessions. ``--markdown`` writes the ablation as a page.
"""

from __future__ import annotations

import functools
import os
import resource
import time
from multiprocessing import get_context
from pathlib import Path

import onnx

import ablation
import accuracy_peers
import bars
import gristmill as gm
import held_out
import peers
from bars import Bar
from gristmill.artefact import pack_artefact
from gristmill.console import status
from gristmill.optimizer.measuring import file_bytes
from gristmill.timing import interleave
from real_models import RealModel, folder, real_model

_LARGE = "fashion_cnn_50mb"
_RANGE_SAMPLES = 512
#: Sparsity, pattern and the loss allowed, in percentage points, by model.
_SPARSE = {
    _LARGE: [(0.8, "unstructured", 0.3), (0.9, "unstructured", 0.8), (0.9, "1x4", 1.2)],
    "cifar10_resnet20": [(0.5, "unstructured", 1.5)],
}
_INT8 = {_LARGE: 0.15, "fashion_cnn": 0.5, "kws_dscnn": 0.5, "cifar10_resnet20": 0.5, "mnist_cntk": 0.5}
_AGAINST_MAGNITUDE = {
    _LARGE: [(0.8, "unstructured"), (0.9, "unstructured"), (0.9, "1x4")],
    "fashion_cnn": [(0.5, "unstructured"), (0.8, "unstructured"), (0.8, "1x4")],
    "cifar10_resnet20": [(0.5, "unstructured"), (0.5, "1x4")],
}
_ABLATED = ("fashion_cnn", "cifar10_resnet20")


@functools.cache
def int8(name: str) -> gm.OptimizedModel:
    """A model quantized on at most 512 samples."""
    model = real_model(name)
    with status(f"quantizing {name}"):
        return gm.quantize(model.model, model.calibration[:_RANGE_SAMPLES])


@functools.cache
def sparse(name: str, sparsity: float, pattern: str) -> gm.OptimizedModel:
    """A model pruned and quantized."""
    model = real_model(name)
    return gm.optimize(model.model, model.calibration, sparsity=sparsity, pattern=pattern, measure=False)


@functools.cache
def judged(name: str, sparsity: float = 0.0, pattern: str = "") -> gm.Evaluation:
    """How good one of these is."""
    return real_model(name).judge(sparse(name, sparsity, pattern) if pattern else int8(name))


def loss_bar(name: str, model: RealModel, found: gm.Evaluation, allowed: float) -> Bar:
    """Met if no more accuracy is lost than allowed."""
    gain = found.against(model.dense)
    low, high = (-100 * bound for bound in reversed(gain.interval))
    figure = f"{found.accuracy:.2%}, lost {-100 * gain.gain:.2f} ({low:+.2f} to {high:+.2f}) pp"
    return Bar(name, figure, f"float32 {model.dense.accuracy:.2%}", -100 * gain.gain, allowed, at_most=True)


def int8_bars(names: list[str]) -> list[Bar]:
    """Quantization alone."""
    result = []
    for name, allowed in _INT8.items():
        if name not in names:
            continue
        layers = int8(name).report.layers
        count = sum(layer.dtype == "int8" for layer in layers)
        result.append(
            loss_bar(f"{name}, {count} of {len(layers)} layers int8", real_model(name), judged(name), allowed)
        )
    return result


def sparse_bars(names: list[str]) -> list[Bar]:
    """Pruned and quantized."""
    result = []
    for name in filter(names.__contains__, _SPARSE):
        for sparsity, pattern, allowed in _SPARSE[name]:
            made = sparse(name, sparsity, pattern)
            title = f"{name} {sparsity:.0%} {pattern} int8 ({made.report.sparsity:.1%} zeros)"
            result.append(loss_bar(title, real_model(name), judged(name, sparsity, pattern), allowed))
    if _LARGE in names:
        size, whole = (
            file_bytes(sparse(_LARGE, 0.9, "unstructured").graph),
            os.path.getsize(folder() / f"{_LARGE}.onnx"),
        )
        figure, against = f"{size / 1e6:.2f} MB", f"float32 ONNX {whole / 1e6:.1f} MB"
        result.append(Bar(f"{_LARGE} 90% unstructured, file", figure, against, size / whole, 0.05, at_most=True))
    return result


def peer_bars(names: list[str]) -> list[Bar]:
    """Against onnxruntime's quantization and global magnitude pruning."""
    result = []
    for name in names:
        with status(f"quantizing {name} with onnxruntime"):
            result += accuracy_peers.int8_bars(real_model(name), judged(name))
        for sparsity, pattern in _AGAINST_MAGNITUDE.get(name, []):
            ours = judged(name, sparsity, pattern)
            result.append(accuracy_peers.magnitude_bar(real_model(name), ours, sparsity, pattern))
    return result


def wide_bars(names: list[str]) -> list[Bar]:
    """Layers with more inputs than samples: error on samples that they were refitted on and on as many others."""
    with status("refitting the widest layer"):
        return held_out.bars(real_model(_LARGE)) if _LARGE in names else []


def cost_bars(names: list[str]) -> list[Bar]:
    """What optimizing the largest model takes, in a process of its own, and that it is repeatable."""
    result = []
    if _LARGE in names:
        with status(f"optimizing {_LARGE}"), get_context("spawn").Pool(1) as pool:
            seconds, peak = pool.apply(_cost)
        title = f"{_LARGE} 90% unstructured int8"
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        against = f"120 s on {cores} cores"
        result.append(Bar(f"{title}, time", f"{seconds:.1f} s", against, seconds / 120, 1.0, at_most=True))
        result.append(Bar(f"{title}, peak memory", f"{peak:.2f} GB", "2 GB", peak / 2, 1.0, at_most=True))
    for name in filter(names.__contains__, _ABLATED[:1]):
        first = pack_artefact(sparse(name, 0.8, "unstructured").graph)
        second = pack_artefact(sparse.__wrapped__(name, 0.8, "unstructured").graph)
        differ = sum(a != b for a, b in zip(b"".join(map(bytes, first)), b"".join(map(bytes, second)), strict=True))
        figure = f"{differ} bytes differ"
        result.append(Bar(f"{name} 80% unstructured int8, twice", figure, "none", float(differ), 0.5, at_most=True))
    return result


def _cost() -> tuple[float, float]:
    """Seconds and the peak of resident memory in GB."""
    model = real_model(_LARGE)
    inputs, network = model.calibration.copy(), model.model
    real_model.cache_clear()
    del model
    started = time.perf_counter()
    gm.optimize(network, inputs, sparsity=0.9, measure=False)
    return time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def latency_bars(names: list[str]) -> list[Bar]:
    """One sample on one pinned core, in turns with onnxruntime's float32."""
    if _LARGE not in names:
        return []
    made = {pattern: sparse(_LARGE, 0.9, pattern) for pattern in ("unstructured", "1x4")}
    everything = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if everything:
        os.sched_setaffinity(0, {max(everything)})
    x = real_model(_LARGE).inputs[:1]
    calls = {"onnxruntime": peers.onnxruntime_call(onnx.load(folder() / f"{_LARGE}.onnx"), x)[0]}
    for pattern, model in made.items():
        session = gm.InferenceSession(model, threads=1)
        calls[pattern] = functools.partial(session.run, None, {session.get_inputs()[0].name: x})
    best = {who: 1e3 * timing.best for who, timing in interleave(calls, seconds=6.0).items()}
    if everything:
        os.sched_setaffinity(0, everything)
    against = f"onnxruntime float32 {best['onnxruntime']:.3f} ms"
    ratios = {pattern: best["onnxruntime"] / best[pattern] for pattern in made}
    return [
        Bar(f"{_LARGE} 90% {pattern} int8", f"{best[pattern]:.3f} ms", against, ratio, 5.0)
        for pattern, ratio in ratios.items()
    ]


def ablation_rows(names: list[str], quick: bool) -> list[ablation.Row]:
    """All steps of the models that are taken apart."""
    models = [real_model(name) for name in filter(names.__contains__, _ABLATED)]
    return [row for model in models for row in ablation.ablate(model.smaller(512, 3000) if quick else model)]


_TABLES = {
    "int8": ("int8, percentage points lost", int8_bars),
    "sparse": ("Pruned and int8, percentage points lost", sparse_bars),
    "wide": ("Errors of a wide layer, relative to the other's on fresh samples", wide_bars),
    "peers": ("Against what there is: loss over the half-width of its 95 % interval", peer_bars),
    "ablation": ("Steps: loss over the half-width of its 95 % interval", None),
    "cost": ("What optimizing takes", cost_bars),
    "latency": ("Latency", latency_bars),
}


def main() -> None:
    """Print the tables asked for."""
    parser = bars.argument_parser(__doc__)
    parser.add_argument("tables", nargs="*", choices=[[], *_TABLES], metavar="TABLE", help=", ".join(_TABLES))
    parser.add_argument("--models", nargs="+", choices=list(_INT8), default=list(_INT8), metavar="NAME")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the ablation as a page")
    parser.add_argument("--quick", action="store_true", help="take apart with fewer samples")
    arguments = parser.parse_args()
    report = bars.Report(arguments.json)
    for name in arguments.tables or list(_TABLES):
        title, make = _TABLES[name]
        if make is not None:
            report.add(title, make(arguments.models))
            continue
        rows = ablation_rows(arguments.models, arguments.quick)
        report.add(title, ablation.bars(rows))
        if arguments.markdown is not None:
            arguments.markdown.parent.mkdir(parents=True, exist_ok=True)
            arguments.markdown.write_text(ablation.markdown(rows))
    report.close()


if __name__ == "__main__":
    main()
