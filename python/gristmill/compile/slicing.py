"""A batch in slices: which layers run for a part of the batch at a time, and how large the parts are.

Layers of large images write more than the second-level cache holds long before a batch is through. What comes next then
reads it from further away, and so it pays to do several layers to a few images first. Every slice reads the weights
anew, though, and deep layers have large weights and small images. So a network is cut into stretches, each for slices
no smaller than those of the one before:

    images of 56 x 56     1 2 3 4  1 2 3 4  1 2 3 4  1 2 3 4        one at a time
    images of 14 x 14     (1 2 3 4)         (1 2 3 4)     ...       four at a time, as soon as they are there
    images of 7 x 7       (all)

Stretches end where one value is all that the rest of the network needs. Their slices are those that move the fewest
bytes between the second-level cache and what lies behind it: for each image the share of the weights, and that part of
a layer's images that does not fit beside the others. Only operators that treat each image by itself are sliced, so that
int8 results are the same bits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from gristmill.cpu import Cache as MachineCache
from gristmill.cpu import cpu_info
from gristmill.graph import Array, Graph, Node
from gristmill.operators import Known

__all__ = ["Cache", "Stretch", "find_stretches"]

#: Operators that compute each image of their inputs by itself, whatever their attributes.
_BY_IMAGE = frozenset((
    "Abs", "Add", "And", "AveragePool", "BatchNormalization", "Cast", "Ceil", "Celu", "Clip", "Cos", "DepthToSpace",
    "Div", "Elu", "Equal", "Erf", "Exp", "Floor", "Gelu", "GlobalAveragePool", "GlobalMaxPool", "Greater",
    "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity", "InstanceNormalization", "LRN", "LeakyRelu", "Less",
    "LessOrEqual", "Log", "Lookup", "LpPool", "Max", "MaxPool", "Mean", "Min", "Mish", "Mod", "Mul", "Neg", "Not",
    "Or", "PRelu", "Pow", "QLinearAdd", "QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearLeakyRelu",
    "QLinearMul", "QLinearSigmoid", "QuickGelu", "Reciprocal", "Relu", "Resize", "Round", "Selu", "Sigmoid", "Sign",
    "Sin", "Softplus", "Softsign", "SpaceToDepth", "Sqrt", "Sub", "Sum", "Swish", "Tanh", "ThresholdedRelu", "Where",
    "Xor",
))  # fmt: skip
#: Operators that do so if their second input is a constant.
_LAYERS = frozenset(("Conv", "ConvInteger", "ConvLayer", "ConvTranspose", "LinearLayer"))
#: Operators that do so along any axis but the first, and their default axis.
_ALONG_AXIS = {
    "Concat": 0,
    "DequantizeLinear": 1,
    "Hardmax": -1,
    "LayerNormalization": -1,
    "LogSoftmax": -1,
    "QLinearConcat": 0,
    "QLinearSoftmax": 0,
    "QuantizeLinear": 1,
    "Softmax": -1,
    "Split": 0,
}
#: Operators that keep the order of elements.
_IN_ORDER = frozenset(("Flatten", "Reshape", "Squeeze", "Unsqueeze"))

#: A step that runs slices reads no more tensors.
_MOST_INPUTS = 16
#: What a byte of weights costs, in bytes of images: kernels fetch weights ahead.
_AHEAD = 0.25
#: What a further stretch must save for each image, in bytes.
_LEAST_GAIN = 1 << 16


@functools.cache
def _caches() -> tuple[MachineCache, ...]:
    """Those of the machine, which are asked for once: asking is slow."""
    return cpu_info().caches


@dataclass(frozen=True)
class Cache:
    """The second-level caches of a run.

    Attributes:
        nbytes: What one thread has of one.
        threads: Threads of the run.
    """

    nbytes: int
    threads: int

    @staticmethod
    def of_machine(threads: int) -> Cache:
        """Those of this machine; a usual size where it is unknown."""
        found = [cache for cache in _caches() if cache.level == 2]
        nbytes = found[0].bytes // max(1, min(found[0].shared_by, threads)) if found else 1 << 19
        return Cache(nbytes, threads)

    def of_slices(self, batch: int, size: int) -> int:
        """Bytes of the caches that a slice has to itself: one thread's, since each thread runs slices of its own."""
        return self.nbytes if size < batch else self.nbytes * self.threads

    def sizes(self, batch: int) -> list[int]:
        """Slices that keep all threads busy, the whole batch last."""
        return [size for size in range(1, batch) if batch % size == 0 and batch // size >= self.threads] + [batch]


@dataclass(frozen=True)
class Stretch:
    """Nodes that run for a slice of the batch: those from the stretch before up to one.

    Attributes:
        end: The number of nodes in this stretch and all before it.
        size: Images in a slice.
        value: All that the nodes behind need from those before.
    """

    end: int
    size: int
    value: str


@dataclass
class _Traffic:
    """What a layer moves.

    Attributes:
        images: Bytes of all it reads and writes for one image.
        weights: Bytes of its weights.
    """

    images: float
    weights: float

    def of_slice(self, size: int, cache: int) -> float:
        """Bytes for each image that come from behind the cache."""
        together = size * self.images + self.weights
        return self.images * max(0.0, 1 - cache / max(together, 1)) + _AHEAD * self.weights / size


@dataclass
class _Best:
    """The cheapest stretches found for some first nodes."""

    cost: float = 0.0
    stretches: list[Stretch] = field(default_factory=list)


def find_stretches(
    graph: Graph, types: Mapping[str, Known], cache: Cache, weight_bytes: Callable[[Array], float]
) -> list[Stretch]:
    """The stretches of a graph that are to run in slices; none where that saves nothing.

    Args:
        graph: A graph for inputs of known shapes.
        types: What is known of its values.
        cache: The caches of the run.
        weight_bytes: What the weights of a layer take, packed.
    """
    batch = batch_of(graph, types)
    sizes = cache.sizes(batch)
    best = {size: _Best() for size in sizes}
    if batch > 1 and len(graph.inputs) <= _MOST_INPUTS:
        for end, value, traffic in _blocks(graph, types, batch, weight_bytes):
            costs = {size: sum(t.of_slice(size, cache.of_slices(batch, size)) for t in traffic) for size in sizes}
            best = {size: _extended(best, size, costs[size], end, value) for size in sizes}
    return [stretch for stretch in best[batch].stretches if stretch.size < batch]


def batch_of(graph: Graph, types: Mapping[str, Known]) -> int:
    """The first extent that all inputs share; 1 if they do not, or if some of their values decide about shapes."""
    extents = set()
    for info in graph.inputs:
        known = types[info.name]
        extents.add(known.shape[0] if known.ndim and not isinstance(known, np.ndarray) else 1)
    return extents.pop() if len(extents) == 1 else 1


def _extended(best: Mapping[int, _Best], size: int, cost: float, end: int, value: str) -> _Best:
    """The cheapest way to one more block, which runs in slices of that size."""
    steps = {before: best[before].cost + _LEAST_GAIN * (before != size) for before in best if size % before == 0}
    before = min(steps, key=lambda other: (steps[other], -other))
    kept = [stretch for stretch in best[before].stretches if stretch.size != size]
    return _Best(steps[before] + cost, [*kept, Stretch(end, size, value)])


def _blocks(
    graph: Graph, types: Mapping[str, Known], batch: int, weight_bytes: Callable[[Array], float]
) -> Iterator[tuple[int, str, list[_Traffic]]]:
    """Nodes up to each place where the graph can be cut, from the place before on; and those that remain."""
    last_use = {name: number for number, node in enumerate(graph.nodes) for name in node.inputs}
    last_use |= {info.name: len(graph.nodes) for info in graph.outputs}
    alive = {info.name for info in graph.inputs if info.name in last_use}
    traffic = [_traffic(node, types, batch, weight_bytes) for node in graph.nodes]
    begin = 0
    for number, node in enumerate(graph.nodes[:-1]):
        computed = [name for name in node.outputs if name and not isinstance(types[name], np.ndarray)]
        if computed and not _by_image(node, types, batch):
            break
        alive |= {name for name in computed if name in last_use}
        alive -= {name for name in node.inputs if last_use[name] == number}
        if len(alive) == 1:
            yield number + 1, next(iter(alive)), traffic[begin : number + 1]
            begin = number + 1
    yield len(graph.nodes), "", traffic[begin:]


def _traffic(node: Node, types: Mapping[str, Known], batch: int, weight_bytes: Callable[[Array], float]) -> _Traffic:
    known = [types[name] for name in (*node.inputs, *node.outputs) if name]
    images = sum(item.size * item.dtype.itemsize for item in known if not isinstance(item, np.ndarray))
    weights = types[node.inputs[1]] if node.op in _LAYERS else None
    return _Traffic(images / batch, weight_bytes(weights) if isinstance(weights, np.ndarray) else 0)


def _by_image(node: Node, types: Mapping[str, Known], batch: int) -> bool:
    """Whether each image of the results follows from the same image of the inputs."""
    inputs = [types[name] for name in node.inputs if name]
    images = [item for item in inputs if not isinstance(item, np.ndarray)]
    values = [*images, *(types[name] for name in node.outputs if name)]
    if not all(item.ndim and item.shape[0] == batch for item in values):
        return False
    if node.op in _IN_ORDER:
        return len(images) == 1
    rank = values[0].ndim
    if any(item.ndim != rank for item in values):
        return False
    if node.op in _LAYERS:
        return rank > 1 and images[0] is inputs[0] and isinstance(inputs[1], np.ndarray)
    constants = [item for item in inputs if isinstance(item, np.ndarray)]
    varied = any(item.ndim == rank and item.shape[0] == batch for item in constants)
    return not varied and (node.op in _BY_IMAGE or _keeps_first_axis(node, rank))


def _keeps_first_axis(node: Node, rank: int) -> bool:
    """Whether an operator that works along one axis, or exchanges some, leaves the first one alone."""
    if node.op == "Transpose":
        return (node.integers("perm") or (rank - 1,))[0] == 0
    return node.op in _ALONG_AXIS and node.integer("axis", _ALONG_AXIS[node.op]) % rank != 0
