"""Keras's layers that pool, move, cut or combine values without weights, and its normalizations."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from gristmill.graph import Array
from gristmill.loaders.channels_last import Shape, Value
from gristmill.loaders.keras.convolutions import padding
from gristmill.loaders.keras.layer import Layer

__all__ = ["SHAPE_LAYERS"]

#: How many times the numbers of a configuration may be repeated.
_MOST_GROWTH = 64


def _enter(layer: Layer, spatial: int) -> tuple[str, Shape, int | None]:
    value = layer.input
    if value.rank != spatial + 2:
        raise layer.error(f"takes inputs of rank {spatial + 2}, got shape {value.shape}")
    if layer.channels_first:
        return layer.build.plain(value), value.shape[2:], value.shape[1]
    return layer.build.planar(value), value.shape[1:-1], value.shape[-1]


def _leave(layer: Layer, output: str, spatial: Shape, channels: int | None) -> Value:
    batch = layer.input.shape[0]
    if layer.channels_first:
        return Value(output, (batch, channels, *spatial))
    return Value(output, (batch, *spatial, channels), planar=True)


def _pool(op: str, rank: int) -> Callable[[Layer], Value]:
    def convert(layer: Layer) -> Value:
        x, spatial, channels = _enter(layer, rank)
        window = layer.sizes("pool_size", rank, 2)
        strides = window if layer.config.get("strides") is None else layer.sizes("strides", rank)
        how = layer.text("padding", "valid")
        if how not in ("valid", "same"):
            raise layer.error(f"padding {how!r} is not known")
        pads = padding(layer, spatial, window, strides, (1,) * rank)
        output = layer.build.add(op, [x], layer.name, kernel_shape=window, strides=strides, **pads)
        extents = tuple(
            None if n is None else -(-(n if how == "same" else n - k + 1) // s)
            for n, k, s in zip(spatial, window, strides, strict=True)
        )
        if any(extent is not None and extent < 1 for extent in extents):
            raise layer.error(f"its window of {window} does not fit the input {spatial}")
        return _leave(layer, output, extents, channels)

    return convert


def _global_pool(op: str, rank: int) -> Callable[[Layer], Value]:
    def convert(layer: Layer) -> Value:
        x, _, channels = _enter(layer, rank)
        keeps = layer.flag("keepdims", default=False)
        pooled = layer.build.add(op, [x], layer.name if keeps else f"{layer.name}/pooled")
        if keeps:
            return _leave(layer, pooled, (1,) * rank, channels)
        return Value(layer.build.add("Flatten", [pooled], layer.name, axis=1), (layer.input.shape[0], channels))

    return convert


def _zero_padding(rank: int) -> Callable[[Layer], Value]:
    def convert(layer: Layer) -> Value:
        x, spatial, channels = _enter(layer, rank)
        margins = layer.margins("padding", rank)
        pads = [0, 0, *(before for before, _ in margins), 0, 0, *(after for _, after in margins)]
        amounts = layer.build.constant(f"{layer.name}/pads", np.array(pads, np.int64))
        extents = tuple(None if n is None else n + sum(pair) for n, pair in zip(spatial, margins, strict=True))
        return _leave(layer, layer.build.add("Pad", [x, amounts], layer.name), extents, channels)

    return convert


def _cropping(rank: int) -> Callable[[Layer], Value]:
    def convert(layer: Layer) -> Value:
        x, spatial, channels = _enter(layer, rank)
        margins = layer.margins("cropping", rank)
        most = np.iinfo(np.int64).max
        slices = {
            "starts": [before for before, _ in margins],
            "ends": [-after if after else most for _, after in margins],
            "axes": list(range(2, rank + 2)),
        }
        inputs = [layer.build.constant(f"{layer.name}/{key}", np.array(v, np.int64)) for key, v in slices.items()]
        extents = tuple(None if n is None else n - sum(pair) for n, pair in zip(spatial, margins, strict=True))
        if any(extent is not None and extent < 1 for extent in extents):
            raise layer.error(f"crops all of the input {spatial}")
        return _leave(layer, layer.build.add("Slice", [x, *inputs], layer.name), extents, channels)

    return convert


def _upsampling(rank: int) -> Callable[[Layer], Value]:
    def convert(layer: Layer) -> Value:
        x, spatial, channels = _enter(layer, rank)
        factors = layer.sizes("size", rank, 2)
        scales = layer.build.constant(f"{layer.name}/scales", np.array((1, 1, *factors), np.float32))
        match layer.text("interpolation", "nearest"):
            case "nearest":
                how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
            case "bilinear":
                how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
            case other:
                raise layer.unsupported(f"interpolation {other!r}")
        output = layer.build.add("Resize", [x, "", scales], layer.name, **how)
        extents = tuple(None if n is None else n * factor for n, factor in zip(spatial, factors, strict=True))
        return _leave(layer, output, extents, channels)

    return convert


def _identity(layer: Layer) -> Value:
    return layer.input


def _flatten(layer: Layer) -> Value:
    value = layer.input
    x = layer.build.plain(value)
    if layer.channels_first and value.rank > 2:
        x = layer.build.add("Transpose", [x], f"{layer.name}/plain", perm=(0, *range(2, value.rank), 1))
    rest = value.shape[1:]
    count = None if None in rest else int(np.prod([n for n in rest if n is not None], dtype=np.int64))
    return Value(layer.build.add("Flatten", [x], layer.name, axis=1), (value.shape[0], count))


def _reshape(layer: Layer) -> Value:
    target = layer.config.get("target_shape")
    if not isinstance(target, list | tuple) or not all(isinstance(n, int) and (n > 0 or n == -1) for n in target):
        raise layer.error(f"target_shape must be a list of extents, got {target!r}")
    shape: Shape = tuple(None if n == -1 else n for n in target)
    rest = layer.input.shape[1:]
    if shape.count(None) == 1 and None not in rest:
        known = int(np.prod([n for n in shape if n is not None], dtype=np.int64))
        whole = int(np.prod([n for n in rest if n is not None], dtype=np.int64))
        shape = tuple(whole // known if n is None else n for n in shape)
    sizes = layer.build.constant(f"{layer.name}/shape", np.array((0, *target), np.int64))
    output = layer.build.add("Reshape", [layer.build.plain(layer.input), sizes], layer.name)
    return Value(output, (layer.input.shape[0], *shape))


def _permute(layer: Layer) -> Value:
    value, dims = layer.input, layer.config.get("dims")
    if not isinstance(dims, list | tuple) or sorted(dims) != list(range(1, value.rank)):
        raise layer.error(f"dims must be a permutation of 1..{value.rank - 1}, got {dims!r}")
    order = (0, *(int(axis) for axis in dims))
    output = layer.build.add("Transpose", [layer.build.plain(value)], layer.name, perm=order)
    return Value(output, tuple(value.shape[axis] for axis in order))


def _common(layer: Layer) -> tuple[list[str], bool]:
    """The inputs in one form, of one rank; numbers have none."""
    arrays = [value for value in layer.inputs if value.rank]
    if not arrays:
        raise layer.error("takes at least one input")
    if len({value.rank for value in arrays}) != 1:
        raise layer.unsupported(f"inputs of different rank: {', '.join(str(v.shape) for v in layer.inputs)}")
    planar = all(value.planar for value in arrays)
    return [value.name if planar else layer.build.plain(value) for value in layer.inputs], planar


def _broadcast(layer: Layer) -> Shape:
    columns = zip(*(value.shape for value in layer.inputs if value.rank), strict=True)
    shape: list[int | None] = []
    for column in columns:
        wide = [n for n in column if n != 1]
        if len({n for n in wide if n is not None}) > 1:
            raise layer.error(f"inputs do not fit each other: {', '.join(str(v.shape) for v in layer.inputs)}")
        shape.append(next((n for n in wide if n is not None), wide[0] if wide else 1))
    return tuple(shape)


def _merge(op: str) -> Callable[[Layer], Value]:
    def convert(layer: Layer) -> Value:
        (first, *others), planar = _common(layer)
        for index, other in enumerate(others):
            last = index == len(others) - 1 and layer.kind != "Average"
            first = layer.build.add(op, [first, other], layer.name if last else f"{layer.name}/{index}")
        merged = Value(first, _broadcast(layer), planar)
        return layer.build.binary("Div", merged, len(layer.inputs), layer.name) if layer.kind == "Average" else merged

    return convert


def _concatenate(layer: Layer) -> Value:
    names, planar = _common(layer)
    rank = layer.inputs[0].rank
    axis = layer.integer("axis", -1)
    if not -rank <= axis < rank:
        raise layer.error(f"axis {axis} of inputs of rank {rank}")
    axis %= rank
    extents = [value.shape[axis] for value in layer.inputs]
    whole = None if None in extents else sum(n for n in extents if n is not None)
    held = axis if not planar or axis == 0 else 1 if axis == rank - 1 else axis + 1
    shape = layer.inputs[0].shape
    output = layer.build.add("Concat", names, layer.name, axis=held)
    return Value(output, (*shape[:axis], whole, *shape[axis + 1 :]), planar)


def _batch_normalization(layer: Layer) -> Value:
    value = layer.input
    axis = layer.config.get("axis", -1)
    axis = axis[0] if isinstance(axis, list | tuple) and len(axis) == 1 else axis
    if not isinstance(axis, int) or axis % value.rank not in (1, value.rank - 1):
        raise layer.unsupported(f"normalization over axis {axis!r} of {value.shape}")
    last = axis % value.rank == value.rank - 1
    channels = value.extent(axis, layer.name)
    stored = [name for name, wanted in (("gamma", "scale"), ("beta", "center")) if layer.flag(wanted, default=True)]
    stored += ["moving_mean", "moving_variance"]
    arrays = {name: layer.weight(name, position, (channels,)) for position, name in enumerate(stored)}
    for name, default in (("gamma", 1.0), ("beta", 0.0)):
        arrays.setdefault(name, np.full(channels, default, np.float32))
    names = [layer.constant(name, arrays[name]) for name in ("gamma", "beta", "moving_mean", "moving_variance")]
    x = layer.build.planar(value) if last else layer.build.plain(value)
    output = layer.build.add("BatchNormalization", [x, *names], layer.name, epsilon=layer.real("epsilon", 1e-3))
    return Value(output, value.shape, planar=last and value.rank > 2)


def _rescaling(layer: Layer) -> Value:
    scaled = layer.build.binary("Mul", layer.input, layer.real("scale", 1.0), layer.name)
    return layer.build.binary("Add", scaled, layer.real("offset", 0.0), layer.name)


def _normalization(layer: Layer) -> Value:
    """(x - mean) / max(sqrt(variance), 1e-7), or its inverse."""
    value = layer.input
    axes = layer.config.get("axis", -1)
    kept = [] if axes is None else [axis % value.rank for axis in (axes if isinstance(axes, list) else [axes])]
    stored = tuple(value.extent(axis, layer.name) for axis in kept)
    shape = tuple(value.extent(i, layer.name) if i in kept else 1 for i in range(value.rank))
    mean, variance = (_statistic(layer, name, i, stored, shape) for i, name in enumerate(("mean", "variance")))
    deviation = np.maximum(np.sqrt(variance), np.float32(1e-7))
    names = [layer.constant("mean", mean), layer.constant("deviation", deviation)]
    x, build = layer.build.plain(value), layer.build
    if layer.flag("invert", default=False):
        wide = build.add("Mul", [x, names[1]], f"{layer.name}/wide")
        return Value(build.add("Add", [wide, names[0]], layer.name), value.shape)
    centred = build.add("Sub", [x, names[0]], f"{layer.name}/centred")
    return Value(build.add("Div", [centred, names[1]], layer.name), value.shape)


def _statistic(layer: Layer, name: str, position: int, stored: tuple[int, ...], shape: tuple[int, ...]) -> Array:
    """From the weights, or from the configuration, where one number may stand for all."""
    given = layer.config.get(name)
    if given is None:
        return layer.weight(name, position, stored).reshape(shape)
    try:
        values = np.asarray(given, np.float32)
        if values.size == 1:
            return values.reshape((1,) * len(shape))
        if math.prod(stored) > _MOST_GROWTH * values.size:
            raise layer.error(f"{name} of shape {values.shape} for {stored}")
        return np.broadcast_to(values, stored).reshape(shape)
    except (ValueError, TypeError) as error:
        raise layer.error(f"{name} does not fit shape {stored}: {error}") from error


_IDENTITIES = (
    *("Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianDropout", "GaussianNoise", "AlphaDropout"),
    *("ActivityRegularization", "QuantizeLayer"),
)

SHAPE_LAYERS: dict[str, Callable[[Layer], Value]] = {
    **dict.fromkeys(_IDENTITIES, _identity),
    **{f"MaxPooling{n}D": _pool("MaxPool", n) for n in (1, 2)},
    **{f"AveragePooling{n}D": _pool("AveragePool", n) for n in (1, 2)},
    **{f"GlobalMaxPooling{n}D": _global_pool("GlobalMaxPool", n) for n in (1, 2)},
    **{f"GlobalAveragePooling{n}D": _global_pool("GlobalAveragePool", n) for n in (1, 2)},
    **{f"ZeroPadding{n}D": _zero_padding(n) for n in (1, 2)},
    **{f"Cropping{n}D": _cropping(n) for n in (1, 2)},
    **{f"UpSampling{n}D": _upsampling(n) for n in (1, 2)},
    **{kind: _merge(op) for kind, op in {"Add": "Add", "Subtract": "Sub", "Multiply": "Mul", "Average": "Add"}.items()},
    **{kind: _merge(op) for kind, op in {"Maximum": "Max", "Minimum": "Min"}.items()},
    "Concatenate": _concatenate,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Permute": _permute,
    "BatchNormalization": _batch_normalization,
    "Rescaling": _rescaling,
    "Normalization": _normalization,
}
