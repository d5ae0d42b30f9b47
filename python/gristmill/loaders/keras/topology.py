"""From a Keras configuration to a graph: which layer is called with what, in which order.

A layer may be called several times and a model may be a layer of another; both are translated call by call. Classes
that are not in the tables are refused by name: nothing in a configuration is ever imported or run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from gristmill.errors import LimitError, ModelFormatError, UnsupportedOpError
from gristmill.graph import Dimension, Graph, ValueInfo
from gristmill.loaders.channels_last import Builder, Shape, Value
from gristmill.loaders.keras.activations import ACTIVATION_LAYERS
from gristmill.loaders.keras.convolutions import CONVOLUTION_LAYERS
from gristmill.loaders.keras.layer import Layer, WeightSource
from gristmill.loaders.keras.shapes import SHAPE_LAYERS
from gristmill.loaders.keras.sources import WeightScope

__all__ = ["translate"]

Config: TypeAlias = Mapping[str, Any]
#: Layer name, which of its calls, which of the call's results.
_Reference: TypeAlias = tuple[str, int, int]
#: What a call reads: results of other calls; functions read numbers as well.
_Operand: TypeAlias = "_Reference | float"

_MODELS = ("Sequential", "Functional", "Model")
_WRAPPERS = ("PruneLowMagnitude", "QuantizeWrapper", "QuantizeWrapperV2", "QuantizeAnnotate")
_MOST_DEPTH = 32
#: Models that call each other twice on every level would double with each.
_MOST_CALLS = 4096
#: Bytes of weights, which every call has of its own: so many, and so many times the size of the file.
_MOST_BYTES, _MOST_EXPANSION = 64 << 20, 64
#: Where Keras 3 has functions, which may be called as layers are, and those that layers of their names do as well.
_OPERATIONS = ("keras.ops", "keras.src.ops")
_ARITHMETIC = ("Add", "Subtract", "Multiply", "Maximum", "Minimum")

_SINGLE: Mapping[str, Callable[[Layer], Value]] = {**ACTIVATION_LAYERS, **SHAPE_LAYERS}
_KNOWN = (*CONVOLUTION_LAYERS, *_SINGLE)


def translate(model: Config, weights: WeightScope, major: int, file_size: int) -> Graph:
    """Translate a model's configuration ``{"class_name": ..., "config": ...}``.

    Args:
        model: From the file.
        weights: Of the model.
        major: Keras's major version.
        file_size: Bytes of the file that holds the weights.

    Raises:
        LimitError: If calls of layers multiply the weights beyond reason.
        ModelFormatError: If the configuration contradicts itself or the weights.
        UnsupportedOpError: If there is a layer that is not known; it names the layer and what is known.
    """
    translator = _Translator(Builder(), major, _MOST_BYTES + _MOST_EXPANSION * file_size)
    outputs = translator.model(_described(model, "the model"), None, weights, prefix="", depth=0)
    build = translator.build
    infos = [
        ValueInfo(build.plain(value), np.dtype(np.float32), _dimensions(value.shape, value.name)) for value in outputs
    ]
    return build.graph.build(infos)


@dataclass
class _Call:
    """A layer's call: what it reads, and its results once it is translated."""

    references: list[_Operand]
    results: list[Value] | None = None


@dataclass
class _Translator:
    build: Builder
    major: int
    bytes_left: int
    calls: int = 0

    def model(
        self,
        described: tuple[str, Config],
        inputs: list[Value] | None,
        weights: WeightScope,
        *,
        prefix: str,
        depth: int,
    ) -> list[Value]:
        kind, config = described
        if depth > _MOST_DEPTH:
            raise ModelFormatError("models are nested too deep")
        if kind not in _MODELS:
            raise UnsupportedOpError(f"{kind} is not a model that can be read; known are {', '.join(_MODELS)}")
        convert = self._sequential if kind == "Sequential" else self._functional
        return convert(config, inputs, weights, prefix, depth)

    def _sequential(
        self, config: Config, inputs: list[Value] | None, weights: WeightScope, prefix: str, depth: int
    ) -> list[Value]:
        layers = _list(config.get("layers"), "layers")
        values = inputs
        for position, item in enumerate(layers):
            kind, settings = _described(item, f"layer {position}")
            if values is None:
                shape = settings.get("batch_shape", settings.get("batch_input_shape", config.get("build_input_shape")))
                values = [self._input(str(settings.get("name", "input")), shape)]
            if kind != "InputLayer":
                values = self._layer((kind, settings), values, weights, prefix, depth)
        if values is None:
            raise ModelFormatError("the model has no layers")
        return values

    def _functional(
        self, config: Config, inputs: list[Value] | None, weights: WeightScope, prefix: str, depth: int
    ) -> list[Value]:
        layers = {}
        calls: dict[str, list[_Call]] = {}
        sources: dict[str, WeightScope | WeightSource] = {}
        for item in _list(config.get("layers"), "layers"):
            described = _described(item, "a layer")
            name = str(item.get("name", described[1].get("name")))
            if name in layers:
                raise ModelFormatError("two layers have this name", node=name)
            layers[name] = described
            calls[name] = [_Call(references) for references in _node_references(item.get("inbound_nodes"), name)]
            if described[0] != "InputLayer":
                sources[name] = self._weights(described, weights)
        entries = _references(config.get("input_layers"), "input_layers")
        if inputs is not None and len(inputs) != len(entries):
            raise ModelFormatError(f"the model takes {len(entries)} inputs, got {len(inputs)}", node=prefix or None)
        for position, (name, _, _) in enumerate(entries):
            kind, settings = layers.get(name, ("", {}))
            if kind != "InputLayer":
                raise ModelFormatError("is listed as an input but is none", node=name)
            shape = settings.get("batch_shape", settings.get("batch_input_shape"))
            calls[name] = [_Call([], [self._input(name, shape) if inputs is None else inputs[position]])]
        exits = _references(config.get("output_layers"), "output_layers")
        exits = self._renumber(layers, calls, exits)
        self._run(layers, calls, sources, prefix, depth)
        return [_resolve(calls, reference) for reference in exits]

    def _renumber(
        self,
        layers: Mapping[str, tuple[str, Config]],
        calls: Mapping[str, list[_Call]],
        exits: list[_Reference],
    ) -> list[_Reference]:
        """Count the calls of models within the model from 0, everywhere; returns the references of the outputs.

        Keras counts making such a model as a call of it: Keras 3 where outputs refer to it, Keras 2 everywhere, but
        for models that were made without an input.
        """
        models = {name for name, described in layers.items() if _unwrapped(described)[0] in _MODELS}
        if self.major >= 3:
            models = {name for name in models if _unwrapped(layers[name])[0] != "Sequential"}
            return [_earlier(reference, models) for reference in exits]
        inner = [call for own in calls.values() for call in own]
        read = [*exits, *(item for call in inner for item in call.references if isinstance(item, tuple))]
        shifted = {name for name, call, _ in read if name in models and call >= len(calls[name])}
        for call in inner:
            call.references = [_earlier(item, shifted) if isinstance(item, tuple) else item for item in call.references]
        return [_earlier(reference, shifted) for reference in exits]

    def _run(
        self,
        layers: Mapping[str, tuple[str, Config]],
        calls: Mapping[str, list[_Call]],
        sources: Mapping[str, WeightScope | WeightSource],
        prefix: str,
        depth: int,
    ) -> None:
        """Translate the calls whose inputs are there, until all are."""
        waiting = [(name, call) for name, own in calls.items() for call in own if call.results is None]
        while waiting:
            later = []
            for name, call in waiting:
                if not all(_is_ready(calls, reference) for reference in call.references):
                    later.append((name, call))
                    continue
                values = [self._operand(calls, operand, prefix + name) for operand in call.references]
                call.results = self._apply(layers[name], values, sources[name], prefix, depth)
            if len(later) == len(waiting):
                raise ModelFormatError("waits for an input that never comes", node=later[0][0])
            waiting = later

    def _operand(self, calls: Mapping[str, list[_Call]], operand: _Operand, name: str) -> Value:
        if isinstance(operand, tuple):
            return _resolve(calls, operand)
        return Value(self.build.constant(f"{name}/number", np.float32(operand)), ())

    def _weights(self, described: tuple[str, Config], weights: WeightScope) -> WeightScope | WeightSource:
        kind, config = _unwrapped(described)
        name = str(described[1].get("name", config.get("name")))
        return weights.model(name, kind) if kind in _MODELS else weights.layer(name, described[0])

    def _layer(
        self, described: tuple[str, Config], values: list[Value], weights: WeightScope, prefix: str, depth: int
    ) -> list[Value]:
        return self._apply(described, values, self._weights(described, weights), prefix, depth)

    def _apply(
        self,
        described: tuple[str, Config],
        values: list[Value],
        source: WeightScope | WeightSource,
        prefix: str,
        depth: int,
    ) -> list[Value]:
        kind, config = _unwrapped(described)
        name = f"{prefix}{config.get('name', kind)}"
        self.calls += 1
        if self.calls > _MOST_CALLS:
            raise LimitError(f"more than {_MOST_CALLS} calls of layers", node=name)
        if kind in _MODELS:
            return self.model((kind, config), values, source, prefix=f"{name}/", depth=depth + 1)  # type: ignore[arg-type]
        if kind not in _KNOWN:
            known = ", ".join(sorted(_KNOWN))
            raise UnsupportedOpError(f"layer {kind} is not known; known are {known}", node=name)
        if kind not in _ARITHMETIC and any(value.rank == 0 for value in values):
            raise UnsupportedOpError(f"layer {kind} is called with a number", node=name)
        layer = Layer(kind, name, config, values, source, self.build, self.major)  # type: ignore[arg-type]
        constants = self.build.graph.constants
        before = len(constants)
        results = [_SINGLE[kind](layer)] if kind in _SINGLE else CONVOLUTION_LAYERS[kind](layer)
        self.bytes_left -= sum(constants[added].nbytes for added in list(constants)[before:])
        if self.bytes_left < 0:
            raise LimitError("calls of layers make the weights many times as large as the file", node=name)
        return results

    def _input(self, name: str, shape: object) -> Value:
        if not isinstance(shape, list | tuple) or not shape or not all(_is_extent(n) for n in shape):
            raise ModelFormatError(f"has no input shape: {shape!r}", node=name)
        extents = (None, *shape[1:])
        self.build.graph.input(name, np.float32, _dimensions(extents, name))
        return Value(name, extents)


def _is_extent(value: object) -> bool:
    return value is None or (isinstance(value, int) and 0 < value < 1 << 31)


def _dimensions(shape: Shape, name: str) -> tuple[Dimension, ...]:
    batch, *rest = (f"{name}_{axis}" if extent is None else extent for axis, extent in enumerate(shape))
    return ("n" if shape[0] is None else batch, *rest)


def _list(value: object, name: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise ModelFormatError(f"{name} is not a list")
    return value


def _described(item: object, what: str) -> tuple[str, Config]:
    """Class name and configuration."""
    if not isinstance(item, Mapping) or not isinstance(item.get("class_name"), str):
        raise ModelFormatError(f"{what} has no class name")
    config = item.get("config")
    if isinstance(config, list) and item["class_name"] == "Sequential":
        config = {"layers": config}
    if not isinstance(config, Mapping):
        raise ModelFormatError(f"{what} has no configuration")
    if str(item.get("module", "")).startswith(_OPERATIONS) and item["class_name"] not in _ARITHMETIC:
        raise UnsupportedOpError(f"{item['class_name']} is an operation of keras.ops, not a layer: {what}")
    return item["class_name"], config


def _unwrapped(described: tuple[str, Config]) -> tuple[str, Config]:
    """The layer within wrappers of training for sparsity or quantization."""
    for _ in range(_MOST_DEPTH):
        if described[0] not in _WRAPPERS:
            return described
        described = _described(described[1].get("layer"), "a wrapped layer")
    raise ModelFormatError("wrappers are nested too deep")


def _references(value: object, name: str) -> list[_Reference]:
    """``[name, call, result]``, or a list or dict of such."""
    if isinstance(value, Mapping):
        return [reference for item in value.values() for reference in _references(item, name)]
    items = _list(value, name)
    if len(items) >= 3 and isinstance(items[0], str):
        if not all(isinstance(n, int) and n >= 0 for n in items[1:3]):
            raise ModelFormatError(f"{name} refers to a call that makes no sense: {items[:3]!r}")
        return [(items[0], items[1], items[2])]
    return [reference for item in items for reference in _references(item, name)]


def _earlier(reference: _Reference, names: set[str]) -> _Reference:
    """A reference to the call before, if it is to one of these layers."""
    name, call, result = reference
    return (name, max(call - 1, 0), result) if name in names else reference


def _node_references(nodes: object, name: str) -> Iterable[list[_Operand]]:
    """What each call of a layer reads, in the notation of Keras 3 or of Keras 1 and 2."""
    for node in _list(nodes or [], "inbound_nodes"):
        if isinstance(node, Mapping):
            found: list[_Operand] = []
            _collect(node.get("args"), found, name)
            _collect(node.get("kwargs"), found, name)
            yield found
        else:
            yield [*_references(node, f"an inbound node of {name}")]


def _collect(value: object, found: list[_Operand], name: str, depth: int = 0) -> None:
    if depth > _MOST_DEPTH:
        raise ModelFormatError("arguments are nested too deep", node=name)
    if isinstance(value, Mapping):
        if value.get("class_name") == "__keras_tensor__" and isinstance(value.get("config"), Mapping):
            found.extend(_references(value["config"].get("keras_history"), f"an inbound node of {name}"))
            return
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            _collect(item, found, name, depth + 1)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        found.append(float(value))


def _is_ready(calls: Mapping[str, list[_Call]], operand: _Operand) -> bool:
    if not isinstance(operand, tuple):
        return True
    name, call, _ = operand
    if name not in calls or call >= len(calls[name]):
        raise ModelFormatError(f"refers to call {call} of {name!r}, which does not exist")
    return calls[name][call].results is not None


def _resolve(calls: Mapping[str, list[_Call]], reference: _Reference) -> Value:
    name, call, result = reference
    results = calls[name][call].results if _is_ready(calls, reference) else None
    if results is None or result >= len(results):
        raise ModelFormatError(f"refers to result {result} of {name!r}, which does not exist")
    return results[result]
