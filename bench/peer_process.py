"""A program in a process of its own, which an environment or a clean memory needs; driven line by line over a pipe.

python bench/peer_process.py time MODEL BATCH      # OpenVINO: runs once per line read, at the end prints the best time
python bench/peer_process.py memory ENGINE MODEL   # loads, runs once and prints the peak of its memory in KiB
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

#: What keeps oneDNN, and OpenVINO with it, from using more than AVX-512 VNNI.
HELD = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"}


class HeldPeer:
    """OpenVINO held to AVX-512 VNNI: a call runs it once, in its own process, which takes the time.

    Args:
        model: An ONNX file.
        batch: Rows of its input.
    """

    def __init__(self, model: Path, batch: int = 1) -> None:
        """Start the process and wait until it is ready."""
        command = [sys.executable, __file__, "time", str(model), str(batch)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._process = subprocess.Popen(command, text=True, env={**os.environ, **HELD}, **pipes)  # type: ignore[call-overload]
        self._read()

    def __call__(self) -> None:
        """Run once."""
        self._process.stdin.write("run\n")
        self._process.stdin.flush()
        self._read()

    def close(self) -> float:
        """End the process; return the best time of all calls in seconds."""
        self._process.stdin.close()
        best = float(self._read())
        self._process.wait()
        return best

    def _read(self) -> str:
        line: str = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the peer's process has ended")
        return line


def peak_memory(engine: str, model: Path) -> int:
    """Peak resident KiB of a process that makes a session of a model and runs it once."""
    command = [sys.executable, __file__, "memory", engine, str(model)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _input(model: Path, batch: int) -> npt.NDArray[np.float32]:
    import onnx

    axes = onnx.load(model, load_external_data=False).graph.input[0].type.tensor_type.shape.dim[1:]
    shape = (batch, *(axis.dim_value for axis in axes))
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def _time(model: Path, batch: int) -> None:
    import onnx

    import peers

    call, _ = peers.openvino_call(onnx.load(model), _input(model, batch))
    call()
    best = float("inf")
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
        print(best, flush=True)
    print(best, flush=True)


def start_gristmill(model: Path, x: npt.NDArray[np.float32]) -> None:
    """Make a session of a file and run it once."""
    import gristmill as gm

    gm.InferenceSession(model, threads=1, select="heuristic").run(None, {"x": x})


def start_onnxruntime(model: Path, x: npt.NDArray[np.float32]) -> None:
    """Make a session of a file and run it once."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    ort.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, {"x": x})


STARTS = {"gristmill": start_gristmill, "onnxruntime": start_onnxruntime}


def _memory(engine: str, model: Path) -> None:
    STARTS[engine](model, np.zeros((1, 3, 224, 224), np.float32))
    lines = Path("/proc/self/status").read_text().splitlines()
    print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


if __name__ == "__main__":
    if sys.argv[1] == "time":
        _time(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        _memory(sys.argv[2], Path(sys.argv[3]))
