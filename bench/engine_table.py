"""Prints how whole models compare with onnxruntime and OpenVINO, and writes JSON.

    python bench/engine_table.py [f32] [int8] [sparse] [batch] [small] [threads] [--models DIR] [--json FILE]

One thread on one core, best of interleaved rounds; the peer is the faster of the two at their best int8 or float32,
dense where ours is pruned, since neither gains from zeros. ``--models`` keeps the ONNX files between runs.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np
import onnx

import bars
import gristmill as gm
import peers
from bars import Bar
from gristmill.timing import interleave
from networks import NETWORKS, Pruning, input_shape, mlp, quantized
from peers import Array, Call

_DENSE = Pruning()
_S80, _S90, _S90B4 = Pruning(0.8), Pruning(0.9), Pruning(0.9, 4)


class Models:
    """Models by name, made once and kept in a folder if there is one."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    @functools.cache  # noqa: B019
    def get(self, name: str, pruning: Pruning, *, int8: bool) -> onnx.ModelProto:
        """A model of ``networks.py``."""
        file = f"{name}_{pruning.name or 'dense'}_{'int8' if int8 else 'f32'}.onnx"
        path = None if self._folder is None else self._folder / file
        if path is not None and path.exists():
            return onnx.load(path)
        model = NETWORKS[name](pruning)
        model = quantized(model) if int8 else model
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            onnx.save(model, path)
        return model


def our_call(model: onnx.ModelProto, x: Array, threads: int = 1) -> Call:
    """Our run, output allocated once."""
    session = gm.InferenceSession(model, threads=threads)
    feeds = {"x": x}
    out = session.run(None, feeds)
    return lambda: session.run(None, feeds, out=out)


def compare(
    name: str, ours: onnx.ModelProto, theirs: onnx.ModelProto, target: float, *, batch: int = 1, threads: int = 1
) -> Bar:
    """Ours against the faster peer."""
    x = np.random.default_rng(0).standard_normal((batch, *input_shape(ours))).astype(np.float32)
    calls = {
        "gristmill": our_call(ours, x, threads),
        "onnxruntime": peers.onnxruntime_call(theirs, x, threads)[0],
        "openvino": peers.openvino_call(theirs, x, threads)[0],
    }
    best = {who: timing.best * 1e3 for who, timing in interleave(calls, seconds=3.0).items()}
    peer = min(("onnxruntime", "openvino"), key=lambda who: best[who])
    against = f"{peer} {best[peer]:.3f} ms"
    return Bar(name, f"{best['gristmill']:.3f} ms", against, best[peer] / best["gristmill"], target)


def float_bars(models: Models) -> list[Bar]:
    """Dense float32."""
    pairs = {name: models.get(name, _DENSE, int8=False) for name in NETWORKS}
    return [compare(name, model, model, 1.0) for name, model in pairs.items()]


def int8_bars(models: Models) -> list[Bar]:
    """The same quantized file."""
    targets = {"resnet50": 1.0, "mobilenetv1": 1.1, "mlp": 1.2}
    pairs = {name: models.get(name, _DENSE, int8=True) for name in NETWORKS}
    return [compare(name, model, model, targets[name]) for name, model in pairs.items()]


def sparse_bars(models: Models) -> list[Bar]:
    """Pruned models against the peer's dense ones."""
    cases = [
        ("resnet50", _S90, True, 3.0),
        ("resnet50", _S90B4, True, 3.5),
        ("resnet50", _S80, True, 1.8),
        ("mobilenetv1", _S90, True, 2.0),
        ("mlp", _S90, True, 3.5),
        ("resnet50", _S90, False, 4.0),
    ]
    return [
        compare(
            f"{name} {pruning.name} {'int8' if int8 else 'f32'}",
            models.get(name, pruning, int8=int8),
            models.get(name, _DENSE, int8=int8),
            target,
        )
        for name, pruning, int8, target in cases
    ]


def batch_bars(models: Models) -> list[Bar]:
    """Batch 16."""
    cases = [("resnet50", _DENSE, 1.0), ("resnet50", _S90, 3.0), ("mlp", _DENSE, 1.2), ("mlp", _S90, 3.5)]
    return [
        compare(
            f"{name} {pruning.name} int8, batch 16",
            models.get(name, pruning, int8=True),
            models.get(name, _DENSE, int8=True),
            target,
            batch=16,
        )
        for name, pruning, target in cases
    ]


def small_bars(_models: Models) -> list[Bar]:
    """What a run costs beside its arithmetic."""
    model = mlp(_DENSE, (16, 16, 16))
    return [compare("mlp 16x16x16 f32", model, model, 1.0)]


def thread_bars(models: Models) -> list[Bar]:
    """Two threads against one, both ours."""
    result = []
    for int8 in (False, True):
        model = models.get("resnet50", _DENSE, int8=int8)
        x = np.random.default_rng(0).standard_normal((1, *input_shape(model))).astype(np.float32)
        timings = interleave({str(n): our_call(model, x, n) for n in (1, 2)}, seconds=3.0)
        one, two = (timings[count].best * 1e3 for count in ("1", "2"))
        name = f"resnet50 {'int8' if int8 else 'f32'}, two threads"
        result.append(Bar(name, f"{two:.3f} ms", f"one thread {one:.3f} ms", one / two, 1.75))
    return result


_TABLES = {
    "f32": ("Dense float32", float_bars),
    "int8": ("Dense int8, the same quantized file", int8_bars),
    "sparse": ("Pruned, against the peer's dense model", sparse_bars),
    "batch": ("Batch 16", batch_bars),
    "small": ("A run's own cost", small_bars),
    "threads": ("Two threads", thread_bars),
}


def main() -> None:
    """Print the tables asked for."""
    parser = bars.argument_parser(__doc__)
    parser.add_argument("tables", nargs="*", choices=[[], *_TABLES], metavar="TABLE", help=", ".join(_TABLES))
    parser.add_argument("--models", type=Path, metavar="DIR", help="keep the ONNX files here")
    arguments = parser.parse_args()
    wanted = arguments.tables or list(_TABLES)
    if "threads" not in wanted and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    models, report = Models(arguments.models), bars.Report(arguments.json)
    for name in wanted:
        title, make = _TABLES[name]
        report.add(title, make(models))
    report.close()


if __name__ == "__main__":
    main()
