"""Prints how whole models compare with onnxruntime and OpenVINO, and writes JSON.

    python bench/engine_table.py [f32] [int8] [sparse] [batch] [small] [start] [artefact] [threads]
        [--models DIR] [--json FILE]

One thread on one core, the best run; the peer is the faster of the two at their best int8 or float32, dense where ours
is pruned, since neither gains from zeros. Engines take turns of a tenth of a second, in which one runs as it would in
a process of its own: after a single call of another the caches hold what that one used. ``--models`` keeps the ONNX
files between runs.

Where the processor has AMX both sides multiply bytes with it, we those of dense layers alone. The last column then
compares ours with OpenVINO while both are held to AVX-512 VNNI (onnxruntime has no such switch).
"""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx

import bars
import gristmill as gm
import peers
from bars import Bar
from gristmill.artefact import sparse_coding
from gristmill.timing import interleave
from networks import NETWORKS, Pruning, input_shape, mlp, quantized
from peer_process import STARTS, HeldPeer, peak_memory
from peers import Array, Call

_TURN = 0.1  # seconds

_DENSE = Pruning()
_S80, _S90, _S90B4 = Pruning(0.8), Pruning(0.9), Pruning(0.9, 4)


class Models:
    """Models by name, made once and kept in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, name: str, pruning: Pruning = _DENSE, *, int8: bool) -> Path:
        """The file of a model of ``networks.py``."""
        path = self._folder / f"{name}_{pruning.name or 'dense'}_{'int8' if int8 else 'f32'}.onnx"
        if not path.exists():
            model = NETWORKS[name](pruning)
            path.parent.mkdir(parents=True, exist_ok=True)
            onnx.save(quantized(model) if int8 else model, path)
        return path

    @functools.cache  # noqa: B019
    def get(self, name: str, pruning: Pruning = _DENSE, *, int8: bool) -> onnx.ModelProto:
        """A model of ``networks.py``."""
        return onnx.load(self.path(name, pruning, int8=int8))


def has_amx() -> bool:
    """Whether there are instructions that multiply tiles of bytes."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "amx_int8" in cpuinfo.read_text()


def our_call(model: onnx.ModelProto, x: Array, threads: int = 1, isa: str | None = None) -> Call:
    """Our run, output allocated once."""
    session = gm.InferenceSession(model, threads=threads, isa=isa)
    feeds = {"x": x}
    out = session.run(None, feeds)
    return lambda: session.run(None, feeds, out=out)


def compare(
    name: str,
    ours: onnx.ModelProto,
    theirs: onnx.ModelProto,
    target: float,
    *,
    batch: int = 1,
    held: Path | None = None,
) -> Bar:
    """Ours against the faster peer; and, both held to AVX-512 VNNI, against the one that runs from a file."""
    x = np.random.default_rng(0).standard_normal((batch, *input_shape(ours))).astype(np.float32)
    calls: dict[str, Call] = {
        "gristmill": our_call(ours, x),
        "onnxruntime": peers.onnxruntime_call(theirs, x)[0],
        "openvino": peers.openvino_call(theirs, x)[0],
    }
    alike = HeldPeer(held, batch) if held is not None and has_amx() else None
    if alike is not None:
        calls |= {"held": alike, "gristmill held": our_call(ours, x, isa="avx512vnni")}
    best = {who: timing.best * 1e3 for who, timing in interleave(calls, seconds=4.0, turn=_TURN).items()}
    peer = min(("onnxruntime", "openvino"), key=lambda who: best[who])
    against = f"{peer} {best[peer]:.3f} ms"
    ratio = alike.close() * 1e3 / best["gristmill held"] if alike is not None else 0.0
    return Bar(name, f"{best['gristmill']:.3f} ms", against, best[peer] / best["gristmill"], target, ratio)


def float_bars(models: Models) -> list[Bar]:
    """Dense float32."""
    pairs = {name: models.get(name, int8=False) for name in NETWORKS}
    return [compare(name, model, model, 1.0) for name, model in pairs.items()]


def int8_bars(models: Models) -> list[Bar]:
    """The same quantized file."""
    targets = {"resnet50": 1.0, "mobilenetv1": 1.1, "mlp": 1.2}
    pairs = {name: models.get(name, int8=True) for name in NETWORKS}
    return [
        compare(name, model, model, targets[name], held=models.path(name, int8=True)) for name, model in pairs.items()
    ]


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
            models.get(name, int8=int8),
            target,
            held=models.path(name, int8=True) if int8 else None,
        )
        for name, pruning, int8, target in cases
    ]


def batch_bars(models: Models) -> list[Bar]:
    """Batch 16."""
    cases = [
        ("resnet50", _DENSE, 1.0),
        ("resnet50", _S90, 3.0),
        ("resnet50", _S90B4, 3.5),
        ("resnet50", _S80, 1.8),
        ("mlp", _DENSE, 1.2),
        ("mlp", _S90, 3.5),
    ]
    return [
        compare(
            f"{name} {pruning.name or 'dense'} int8, batch 16",
            models.get(name, pruning, int8=True),
            models.get(name, int8=True),
            target,
            batch=16,
            held=models.path(name, int8=True),
        )
        for name, pruning, target in cases
    ]


def small_bars(_models: Models) -> list[Bar]:
    """What a run costs beside its arithmetic."""
    model = mlp(_DENSE, (16, 16, 16))
    return [compare("mlp 16x16x16 f32", model, model, 1.0)]


def start_bars(models: Models) -> list[Bar]:
    """From a file to the first answer, and the memory that takes."""
    result = []
    for int8 in (False, True):
        path = models.path("resnet50", int8=int8)
        x = np.zeros((1, 3, 224, 224), np.float32)
        starts = {who: functools.partial(start, path, x) for who, start in STARTS.items()}
        best = {who: timing.best * 1e3 for who, timing in interleave(starts, seconds=8.0).items()}
        name = f"resnet50 {'int8' if int8 else 'f32'}"
        against, ours = f"onnxruntime {best['onnxruntime']:.0f} ms", best["gristmill"]
        result.append(Bar(f"{name}, session and first run", f"{ours:.0f} ms", against, best["onnxruntime"] / ours, 1.0))
        peaks = {who: peak_memory(who, path) / 1024 for who in starts}
        against, ratio = f"onnxruntime {peaks['onnxruntime']:.0f} MiB", peaks["onnxruntime"] / peaks["gristmill"]
        result.append(Bar(f"{name}, peak memory", f"{peaks['gristmill']:.0f} MiB", against, ratio, float(int8)))
    return result


def entropy(counts: npt.NDArray[np.int64]) -> float:
    """Bits that the best code takes for each of some symbols, of which one occurs as often as each count says."""
    parts = counts[counts > 0] / max(counts.sum(), 1)
    return float(-(parts * np.log2(parts)).sum())


def artefact_bars(models: Models) -> list[Bar]:
    """Bytes of sparse int8 weights in an artefact for each nonzero, without tables, and the entropy of such weights.

    That is of zeros anywhere and of the values of nonzeros: random ones have more than trained ones.
    """
    result = []
    for name in ("resnet50", "mlp"):
        nonzeros, nbytes, bits = 0, 0, 0.0
        for weights in gm.load(models.get(name, _S90, int8=True)).weights().values():
            values = weights[weights != 0]
            if weights.dtype != np.int8 or 2 * values.size > weights.size:
                continue
            coded = sparse_coding.encode(weights)
            nbytes += coded.gaps.nbytes + coded.values.nbytes
            parts = np.array([values.size, weights.size - values.size])
            bits += weights.size * entropy(parts) + values.size * entropy(np.unique(values, return_counts=True)[1])
            nonzeros += values.size
        each, least = nbytes / nonzeros, bits / 8 / nonzeros
        result.append(
            Bar(f"{name} s90 int8, each nonzero", f"{each:.2f} B", f"entropy {least:.2f} B", 1.35 / each, 1.0)
        )
    return result


def thread_bars(models: Models) -> list[Bar]:
    """Two threads against one, both ours."""
    result = []
    for int8, pruning in ((False, _DENSE), (True, _DENSE), (True, _S90)):
        model = models.get("resnet50", pruning, int8=int8)
        x = np.random.default_rng(0).standard_normal((1, *input_shape(model))).astype(np.float32)
        timings = interleave({str(n): our_call(model, x, n) for n in (1, 2)}, seconds=4.0, turn=_TURN)
        one, two = (timings[count].best * 1e3 for count in ("1", "2"))
        name = f"resnet50 {pruning.name or 'dense'} {'int8' if int8 else 'f32'}, two threads"
        result.append(Bar(name, f"{two:.3f} ms", f"one thread {one:.3f} ms", one / two, 1.75))
    return result


_HELD = "; last column: both held to AVX-512 VNNI, where the processor has AMX"
_TABLES = {
    "f32": ("Dense float32", float_bars),
    "int8": (f"Dense int8, the same quantized file{_HELD}", int8_bars),
    "sparse": (f"Pruned, against the peer's dense model{_HELD}", sparse_bars),
    "batch": (f"Batch 16{_HELD}", batch_bars),
    "small": ("A run's own cost", small_bars),
    "start": ("From a file to the first answer", start_bars),
    "artefact": ("Artefacts; the ratio is to 1.35 bytes", artefact_bars),
    "threads": ("Two threads", thread_bars),
}


def main() -> None:
    """Print the tables asked for."""
    parser = bars.argument_parser(__doc__)
    parser.add_argument("tables", nargs="*", choices=[[], *_TABLES], metavar="TABLE", help=", ".join(_TABLES))
    parser.add_argument("--models", type=Path, metavar="DIR", help="keep the ONNX files here")
    arguments = parser.parse_args()
    wanted, cores = arguments.tables or list(_TABLES), available_cores()
    report = bars.Report(arguments.json)
    with tempfile.TemporaryDirectory() as folder:
        models = Models(arguments.models or Path(folder))
        for name in wanted:
            title, make = _TABLES[name]
            use_cores(cores if name == "threads" else {max(cores)})
            report.add(title, make(models))
    report.close()


def available_cores() -> set[int]:
    """Those that this process may use."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {0}


def use_cores(cores: set[int]) -> None:
    """Stay on these cores, where the platform allows it."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


if __name__ == "__main__":
    main()
