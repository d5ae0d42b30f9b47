"""Engines that can run a model file: ours and those of others, each at its best and under the same rules.

Under the rules an engine gets a file, a number of threads and inputs, computes float32 in float32, binds inputs and
outputs once where it can, and does not keep cores busy after a run.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.errors import MissingDependencyError

__all__ = ["ENGINES", "Engine", "Opened", "installed"]

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]


@dataclass(frozen=True)
class Opened:
    """A model ready to run on some inputs.

    Attributes:
        run: Runs once; what it returns is ignored.
        outputs: Runs on inputs of the same shapes and returns new arrays, in the model's order.
        step_table: The profile of one run, if the engine is ours.
    """

    run: Callable[[], object]
    outputs: Callable[[Feeds], list[Array]]
    step_table: Callable[[], list[dict[str, object]]] | None = None


@dataclass(frozen=True)
class Engine:
    """What runs model files.

    Attributes:
        name: What users call it.
        modules: Modules that provide it, any one of them.
        suffix: Of the files that it reads.
        open: Makes a model of a file ready: path, threads, inputs.
    """

    name: str
    modules: tuple[str, ...]
    suffix: str
    open: Callable[[str, int, Feeds], Opened]

    @property
    def module(self) -> str | None:
        """The first of its modules that is installed."""
        return next((name for name in self.modules if installed(name)), None)

    @property
    def version(self) -> str:
        """The installed version, as far as it can be told."""
        name = (self.module or "").split(".")[0].replace("_", "-")
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return ""


def installed(module: str) -> bool:
    """Tell whether a module could be imported, without doing it.

    Example:
        >>> installed("numpy"), installed("no_such_package.part")
        (True, False)
    """
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def _open_gristmill(path: str, threads: int, feeds: Feeds) -> Opened:
    from gristmill.session import InferenceSession

    session = InferenceSession(path, threads=threads)
    given = dict(feeds)
    kept: list[Any] = [None]

    def run() -> None:
        kept[0] = session.run(None, given, out=kept[0])

    def steps() -> list[dict[str, object]]:
        profile = session.profile(*(given[info.name] for info in session.get_inputs()))
        return [
            {"name": s.name, "kernel": s.kernel, "seconds": s.milliseconds / 1e3, "macs": s.macs, "zeros": s.sparsity,
             "bytes": s.nbytes}
            for s in profile.steps
        ]  # fmt: skip

    return Opened(run, lambda other: session.run(None, other), steps)


def _open_onnxruntime(path: str, threads: int, feeds: Feeds) -> Opened:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, value in feeds.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(value))
    for output in session.get_outputs():
        binding.bind_output(output.name)

    return Opened(lambda: session.run_with_iobinding(binding), lambda other: list(session.run(None, dict(other))))


def _open_openvino(path: str, threads: int, feeds: Feeds) -> Opened:
    import openvino as ov

    core = ov.Core()
    config = {
        "INFERENCE_NUM_THREADS": str(threads),
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = core.compile_model(core.read_model(path), "CPU", config).create_infer_request()
    for name, value in feeds.items():
        request.set_tensor(name, ov.Tensor(value, shared_memory=True))

    def outputs(other: Feeds) -> list[Array]:
        for name, value in other.items():
            request.set_tensor(name, ov.Tensor(value, shared_memory=True))
        request.infer()
        found = [np.array(tensor.data) for tensor in request.output_tensors]
        for name, value in feeds.items():
            request.set_tensor(name, ov.Tensor(value, shared_memory=True))
        return found

    return Opened(request.infer, outputs)


def _open_litert(path: str, threads: int, feeds: Feeds) -> Opened:
    module = ENGINES["litert"].module
    if module is None:
        raise MissingDependencyError("needs ai-edge-litert: pip install ai-edge-litert", node="litert")
    interpreter = importlib.import_module(module).Interpreter(model_path=path, num_threads=threads)
    by_index = dict(zip((d["index"] for d in interpreter.get_input_details()), feeds.values(), strict=True))
    for index, value in by_index.items():
        interpreter.resize_tensor_input(index, value.shape)
    interpreter.allocate_tensors()
    for index, value in by_index.items():
        interpreter.set_tensor(index, value)

    def outputs(other: Feeds) -> list[Array]:
        for index, value in zip(by_index, other.values(), strict=True):
            interpreter.set_tensor(index, value)
        interpreter.invoke()
        return [interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()]

    return Opened(interpreter.invoke, outputs)


def _open_torch(path: str, threads: int, feeds: Feeds) -> Opened:
    import torch

    torch.set_num_threads(threads)
    module = torch.export.load(path).module()
    given = [torch.from_numpy(value) for value in feeds.values()]

    def run(*values: Any) -> Any:  # noqa: ANN401
        with torch.inference_mode():
            return module(*values)

    def outputs(other: Feeds) -> list[Array]:
        found = run(*map(torch.from_numpy, other.values()))
        return [value.numpy() for value in (found if isinstance(found, (tuple, list)) else [found])]

    return Opened(lambda: run(*given), outputs)


ENGINES = {
    engine.name: engine
    for engine in (
        Engine("gristmill", ("gristmill",), ".grist", _open_gristmill),
        Engine("onnxruntime", ("onnxruntime",), ".onnx", _open_onnxruntime),
        Engine("openvino", ("openvino",), ".onnx", _open_openvino),
        Engine("torch", ("torch",), ".pt2", _open_torch),
        Engine("litert", ("ai_edge_litert.interpreter", "tflite_runtime.interpreter"), ".tflite", _open_litert),
    )
}
