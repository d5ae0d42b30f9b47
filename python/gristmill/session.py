"""InferenceSession: a model ready to run, with the surface that users of ONNX Runtime know."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gristmill import _core
from gristmill.artefact import pack_artefact, unpack_artefact
from gristmill.compile import Cache, CompiledGraph, Packer, compile_graph
from gristmill.compile.deciding import deciding_inputs
from gristmill.compile.packer import Selector
from gristmill.compile.program import require_dtype
from gristmill.compile.selection import Heuristic, Measured
from gristmill.compile.timings import Timings
from gristmill.errors import ArgumentError, DTypeError, GristmillError, ShapeError, UnsupportedOpError, errors_at
from gristmill.graph import Dimension, Graph, ValueInfo, dtype_text
from gristmill.loaders import load
from gristmill.loaders.source import Given
from gristmill.model import Model
from gristmill.operators import Known, TensorType
from gristmill.passes import simplify
from gristmill.profile import Profile, profile_plan
from gristmill.reference import check_outputs

__all__ = ["InferenceSession", "TensorInfo"]

Array = npt.NDArray[Any]

#: Plans for this many different input shapes are kept.
KEPT_PLANS = 8
#: An input whose values decide about shapes has at most this many.
DECIDING_SIZE = 64

_Key: TypeAlias = tuple[tuple[int, ...] | bytes, ...]

_ONNX_NAMES = {"float32": "float", "float64": "double"}


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a session.

    Attributes:
        name: What feeds and output names call it.
        dtype: Element type.
        shape: Extents; a name where inputs decide, None if even their number is open.

    Example:
        >>> TensorInfo("x", np.dtype(np.float32), ("n", 3)).type
        'tensor(float)'
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[Dimension, ...] | None

    @property
    def type(self) -> str:
        """The element type as ONNX Runtime writes it."""
        return f"tensor({_ONNX_NAMES.get(self.dtype.name, self.dtype.name)})"


class InferenceSession:
    """Runs a model.

    Weights are packed once. For each combination of input shapes (and of the values of inputs that decide about shapes,
    such as the second of a Reshape) a plan is compiled at the first run, and the last few are kept. A run is one call
    into compiled code without the GIL; any number of threads may run one session at once.
    Sessions can be pickled.

    Args:
        model: A :class:`Model`, or what :func:`gristmill.load` takes: a path, bytes, a file, an ``onnx.ModelProto``.
        threads: Threads of a run; by default those of :func:`gristmill.get_num_threads` at that time.
        isa: The level of the layers' kernels; by default the active one.
        select: How the kernels of layers with many zeros are chosen. ``"measure"`` times those that could run a layer
            and takes the fastest; it takes some milliseconds per layer at the first run with a shape, and nothing in
            later processes, which find the timings in a file (see :func:`gristmill.compile.timings.cache_folder`).
            ``"heuristic"`` goes by the sparsity of the weights, and starts at once. Dense layers have no choice and are
            never measured.

    Raises:
        ArgumentError: An option makes no sense.
        IsaError: There is no such level, or not on this machine.
        GristmillError: The model cannot be read or run.

    Example:
        >>> from gristmill.graph import GraphBuilder
        >>> builder = GraphBuilder()
        >>> w = builder.constant("w", np.array([[1, 2], [3, 4]], np.float32))
        >>> y = builder.add("Gemm", [builder.input("x", np.float32, ("n", 2)), w], transB=1)
        >>> session = InferenceSession(Model(builder.build([y])))
        >>> session(np.array([[10, 1]], np.float32))
        array([[12., 34.]], dtype=float32)
    """

    def __init__(
        self,
        model: Model | Graph | Given,
        *,
        threads: int | None = None,
        isa: str | None = None,
        select: str = "measure",
    ) -> None:
        self._start(*_graph_of(model), threads, isa, select)

    def _start(self, graph: Graph, file: str | None, threads: int | None, isa: str | None, select: str) -> None:
        _check_options(threads, isa, select)
        self._graph, self._file, self._threads, self._select = graph, file, threads, select
        with errors_at(file=file):
            for info in graph.inputs:
                require_dtype(info.dtype, info.name)
            self._simple = simplify(graph)
        self._packer = Packer(self._selector(isa), isa)
        self._deciding = deciding_inputs(self._simple)
        self._plans: OrderedDict[_Key, CompiledGraph] = OrderedDict()
        self._latest: tuple[_Key, CompiledGraph] | None = None
        self._wanted = [(info.name, info.dtype) for info in graph.inputs]
        self._lock, self._compiling = threading.Lock(), threading.Lock()
        if not self._deciding and all(_is_fixed(info) for info in graph.inputs):
            self._compiled([TensorType(info.dtype, _extents(info)) for info in graph.inputs])

    def _selector(self, isa: str | None) -> Selector:
        if self._select == "heuristic":
            return Heuristic(isa)
        return Measured(Timings.of_machine(isa), self._threads or _core.get_num_threads(), isa)

    def get_inputs(self) -> list[TensorInfo]:
        """What a run takes."""
        return [TensorInfo(info.name, info.dtype, info.shape) for info in self._graph.inputs]

    def get_outputs(self) -> list[TensorInfo]:
        """What a run gives."""
        return [TensorInfo(info.name, info.dtype, info.shape) for info in self._graph.outputs]

    def run(
        self,
        output_names: Sequence[str] | None,
        feeds: Mapping[str, Array],
        *,
        out: Sequence[Array | None] | None = None,
    ) -> list[Array]:
        """Run once.

        Args:
            output_names: The outputs wanted, in this order; None or an empty list for all.
            feeds: An array for each input. Copied if it is not in C order.
            out: An array in C order for each output of the model, or None in the place of one that is to be new.

        Returns:
            The outputs.

        Raises:
            ArgumentError: An input is missing, a name is unknown, or an argument is of another kind.
            DTypeError: An array has another element type.
            ShapeError: An array has another rank or shape.
            OutOfMemoryError: Memory does not suffice for inputs of these shapes.
        """
        self._check_arguments(feeds, out)
        arrays = self._arrays(feeds)
        compiled = self._compiled(arrays)
        try:
            results = compiled.plan.run(arrays, None if out is None else list(out), threads=self._threads)
        except MemoryError as error:
            raise compiled.lack_of_memory(self._file) from error
        if not output_names:
            return results
        by_name = dict(zip((info.name for info in self._graph.outputs), results, strict=True))
        for name in output_names:
            if name not in by_name:
                self._refuse_name(name, self._graph.outputs, "output")
        return [by_name[name] for name in output_names]

    def __call__(self, *inputs: Array, **feeds: Array) -> Array | tuple[Array, ...]:
        """Run with inputs in order or by name; returns the output, or a tuple if there are several."""
        names = [info.name for info in self._graph.inputs]
        if len(inputs) > len(names):
            raise ArgumentError(f"expected {len(names)} inputs, got {len(inputs)}", node="inputs")
        results = self.run(None, {**dict(zip(names, inputs, strict=False)), **feeds})
        return results[0] if len(results) == 1 else tuple(results)

    def profile(self, *inputs: Array, runs: int = 10) -> Profile:
        """Measure each step of a run; printing the result shows a table.

        Args:
            inputs: As for a call.
            runs: How many runs are measured; the best time of each step counts.
        """
        names = [info.name for info in self._graph.inputs]
        if len(inputs) != len(names):
            raise ArgumentError(f"expected {len(names)} inputs, got {len(inputs)}", node="inputs")
        arrays = self._arrays(dict(zip(names, inputs, strict=True)))
        compiled = self._compiled(arrays)
        try:
            return profile_plan(compiled, arrays, self._threads, runs, self._packer.isa)
        except MemoryError as error:
            raise compiled.lack_of_memory(self._file) from error

    def _check_arguments(self, feeds: object, out: object) -> None:
        if not isinstance(feeds, Mapping):
            names = ", ".join(f"{name!r}: ..." for name, _ in self._wanted)
            reason = f"expected arrays by name, {{{names}}}, got {type(feeds).__name__}"
            raise ArgumentError(reason, node="feeds")
        if out is not None and not isinstance(out, Sequence):
            raise ArgumentError(f"expected a list with an array for each output, got {type(out).__name__}", node="out")

    def _arrays(self, feeds: Mapping[str, Array]) -> list[Array]:
        """The arrays in the order of the inputs, their element types checked."""
        arrays = []
        for name, dtype in self._wanted:
            value = feeds.get(name)
            if not isinstance(value, np.ndarray) or value.dtype != dtype:
                raise self._wrong_type(name, dtype, feeds)
            arrays.append(value)
        if len(feeds) > len(arrays):
            known = {info.name for info in self._graph.inputs}
            self._refuse_name(next(name for name in feeds if name not in known), self._graph.inputs, "input")
        return arrays

    def _compiled(self, inputs: Sequence[Known]) -> CompiledGraph:
        """The plan for inputs of these shapes; of some, for these values."""
        key: _Key = tuple([given.shape for given in inputs])
        if self._deciding:
            key += tuple([self._value_of(info, given) for info, given in zip(self._graph.inputs, inputs, strict=True)])
        latest = self._latest
        if latest is not None and latest[0] == key:
            return latest[1]
        found = self._known_plan(key)
        if found is None:
            for info, given in zip(self._graph.inputs, inputs, strict=True):
                if info.shape is not None and not _fits(info.shape, given.shape):
                    raise ShapeError(f"expected shape {_text(info.shape)}, got {_text(given.shape)}", node=info.name)
            with self._compiling:
                found = self._known_plan(key) or self._compile(key, inputs)
        self._latest = key, found
        return found

    def _known_plan(self, key: _Key) -> CompiledGraph | None:
        with self._lock:
            found = self._plans.get(key)
            if found is not None:
                self._plans.move_to_end(key)
            return found

    def _compile(self, key: _Key, inputs: Sequence[Known]) -> CompiledGraph:
        known: dict[str, Known] = {}
        for info, given in zip(self._graph.inputs, inputs, strict=True):
            decides = info.name in self._deciding
            known[info.name] = np.array(given) if decides else TensorType(info.dtype, given.shape)
        cache = Cache.of_machine(self._threads or _core.get_num_threads())
        with errors_at(file=self._file):
            compiled = compile_graph(self._simple, known, self._packer, cache)
            check_outputs(self._graph, compiled.types)
        with self._lock:
            self._plans[key] = compiled
            if len(self._plans) > KEPT_PLANS:
                self._plans.popitem(last=False)
        return compiled

    def _value_of(self, info: ValueInfo, given: Known) -> bytes:
        """What a plan depends on beside shapes: the bytes of an input that decides about some."""
        if info.name not in self._deciding:
            return b""
        if given.size > DECIDING_SIZE or not isinstance(given, np.ndarray):
            reason = f"the input decides about shapes by {given.size} values; up to {DECIDING_SIZE} are supported"
            raise UnsupportedOpError(reason, node=info.name)
        return given.tobytes()

    def _wrong_type(self, name: str, dtype: np.dtype[Any], feeds: Mapping[str, Any]) -> GristmillError:
        if name not in feeds:
            (info,) = (info for info in self._graph.inputs if info.name == name)
            return ArgumentError(f"nothing is given for this input: {info}", node=name)
        value = feeds[name]
        if not isinstance(value, np.ndarray):
            return DTypeError(f"expected an array of {dtype.name}, got {type(value).__name__}", node=name)
        remedy = f"pass {name}.astype(np.{dtype.name})"
        return DTypeError(f"expected {dtype.name}, got {dtype_text(value.dtype)}: {remedy}", node=name)

    @staticmethod
    def _refuse_name(name: str, infos: Sequence[ValueInfo], kind: str) -> None:
        known = ", ".join(info.name for info in infos)
        raise ArgumentError(f"there is no {kind} of that name; there are: {known}", node=name)

    def __getstate__(self) -> dict[str, object]:
        data = b"".join(pack_artefact(self._graph))
        return {
            "graph": data,
            "file": self._file,
            "threads": self._threads,
            "isa": self._packer.isa,
            "select": self._select,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        graph = unpack_artefact(state["graph"])
        self._start(graph, state["file"], state["threads"], state["isa"], state["select"])

    def __repr__(self) -> str:
        sides = [", ".join(map(str, side)) for side in (self._graph.inputs, self._graph.outputs)]
        return f"<InferenceSession {sides[0]} -> {sides[1]}, level {self._packer.isa or _core.get_isa()}>"


def _check_options(threads: object, isa: object, select: object) -> None:
    if threads is not None:
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
            raise ArgumentError(f"expected a whole number of at least 1, got {threads!r}", node="threads")
        _core.Plan(0, [], []).run([], None, threads=threads)  # refuses more than there can be
    if isa is not None:
        if not isinstance(isa, str):
            raise ArgumentError(f"expected the name of a level, got {isa!r}", node="isa")
        if isa not in _core.supported_isas():
            _core.set_isa(isa)  # refuses it, and says why
    if select not in {"measure", "heuristic"}:
        raise ArgumentError(f"expected 'measure' or 'heuristic', got {select!r}", node="select")


def _graph_of(model: Model | Graph | Given) -> tuple[Graph, str | None]:
    """The graph, and the file that it came from, if it is known."""
    if isinstance(model, Graph):
        return model, None
    found = model if isinstance(model, Model) else load(model)
    return found.graph, found.source


def _is_fixed(info: ValueInfo) -> bool:
    return info.shape is not None and all(isinstance(extent, int) for extent in info.shape)


def _extents(info: ValueInfo) -> tuple[int, ...]:
    return tuple(extent for extent in info.shape or () if isinstance(extent, int))


def _fits(declared: tuple[Dimension, ...], given: tuple[int, ...]) -> bool:
    return len(declared) == len(given) and all(
        isinstance(extent, str) or extent == actual for extent, actual in zip(declared, given, strict=True)
    )


def _text(shape: Sequence[Dimension]) -> str:
    return f"[{', '.join(map(str, shape))}]"
