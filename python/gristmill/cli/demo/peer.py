"""ONNX Runtime, if it is installed: the same networks, exported, for comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.graph import Graph
from gristmill.onnx_export import to_onnx

__all__ = ["Peer", "find_peer"]

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Peer:
    """Another engine.

    Attributes:
        name: With its version.
        start: Takes the content of an ONNX file and a number of threads, gives a function that runs it.
    """

    name: str
    start: Callable[[bytes, int], Callable[[Float32], Float32]]

    def run(self, graph: Graph, threads: int) -> tuple[int, Callable[[Float32], Float32]]:
        """The size of the exported file, and a function that runs it."""
        data = to_onnx(graph)
        return len(data), self.start(data, threads)


def find_peer() -> Peer | str:
    """The peer, or a line that says what is missing."""
    try:
        import onnx  # noqa: F401
        import onnxruntime
    except ImportError as error:
        missing = error.name or "onnxruntime"
        return f"{missing} is not installed, so there is no other engine to compare with: pip install onnx onnxruntime"

    def start(data: bytes, threads: int) -> Callable[[Float32], Float32]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        session: Any = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name

        def run(images: Float32) -> Float32:
            scores: Float32 = session.run(None, {name: images})[0]
            return scores

        return run

    return Peer(f"onnxruntime {onnxruntime.__version__}", start)
