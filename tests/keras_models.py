"""Random Keras models of every layer that can be read. Needs Keras, with TensorFlow behind it.

python tests/keras_models.py FOLDER SEED...      writes models, inputs and answers: the fixtures in tests/data/keras
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ACTIVATIONS = (
    *("linear", "relu", "relu6", "leaky_relu", "sigmoid", "hard_sigmoid", "tanh", "softmax", "log_softmax", "softplus"),
    *("softsign", "elu", "selu", "gelu", "silu", "mish", "hard_silu", "exponential"),
)

_Tensor = Any
_Choice = Callable[[random.Random, _Tensor], _Tensor]


def random_model(seed: int) -> tuple[Any, npt.NDArray[np.float32]]:
    """A model with random weights, and an input for it."""
    import keras

    rng, numbers = random.Random(seed), np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    sequence = rng.random() < 0.2
    shape = (
        (rng.randint(6, 12), rng.randint(1, 4))
        if sequence
        else (*(rng.randint(6, 11) for _ in "hw"), rng.randint(1, 4))
    )
    entry = keras.Input(shape)
    x = entry
    for _ in range(rng.randint(1, 5)):
        x = _grow(rng, _sequence_layers() if sequence else _image_layers(), x)
    model = keras.Model(entry, _head(rng, x, 1 if sequence else 2))
    for variable in model.weights:
        if variable.dtype == "float32":
            values = numbers.normal(0, 0.5, variable.shape)
            variable.assign(np.abs(values) + 0.3 if "variance" in variable.name else values)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Normalization):
            layer.finalize_state()
    return model, numbers.normal(0, 1, (2, *shape)).astype(np.float32)


def _grow(rng: random.Random, choices: Sequence[_Choice], x: _Tensor) -> _Tensor:
    """Another layer, if one of a few tries fits and leaves enough to go on with."""
    for _ in range(4):
        try:
            y = rng.choice(choices)(rng, x)
        except ValueError:
            continue
        if all(extent >= 3 for extent in y.shape[1:-1]):
            return y
    return x


def _image_layers() -> list[_Choice]:
    from keras import layers

    def window(rng: random.Random) -> tuple[int, int]:
        return rng.randint(1, 3), rng.randint(1, 3)

    def padding(rng: random.Random) -> str:
        return rng.choice(("same", "valid"))

    def some(rng: random.Random) -> int:
        return rng.randint(1, 5)

    def activation(rng: random.Random) -> str:
        return rng.choice(ACTIVATIONS)

    def grouped(rng: random.Random, x: _Tensor) -> _Tensor:
        groups = rng.choice([count for count in range(1, x.shape[-1] + 1) if x.shape[-1] % count == 0])
        return layers.Conv2D(groups * rng.randint(1, 3), window(rng), groups=groups, padding=padding(rng))(x)

    def merged(rng: random.Random, x: _Tensor) -> _Tensor:
        kinds = (layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum)
        return rng.choice(kinds)()([x, layers.Conv2D(x.shape[-1], 1, activation=activation(rng))(x)])

    def nested(rng: random.Random, x: _Tensor) -> _Tensor:
        import keras

        entry = keras.Input(x.shape[1:])
        y = layers.BatchNormalization()(layers.Conv2D(2, 1, activation="relu")(entry))
        inner = keras.Model(entry, layers.Conv2D(x.shape[-1], 1)(y))
        return layers.Add()([inner(inner(x)) if rng.random() < 0.5 else inner(x), x])

    return [
        lambda r, x: layers.Conv2D(
            some(r), window(r), strides=some(r), padding=padding(r), activation=activation(r), use_bias=r.random() < 0.7
        )(x),
        lambda r, x: layers.Conv2D(some(r), window(r), dilation_rate=r.randint(1, 2), padding=padding(r))(x),
        grouped,
        lambda r, x: layers.DepthwiseConv2D(
            window(r), strides=r.randint(1, 3), padding=padding(r), depth_multiplier=r.randint(1, 2)
        )(x),
        lambda r, x: layers.SeparableConv2D(some(r), window(r), padding=padding(r), depth_multiplier=r.randint(1, 2))(
            x
        ),
        lambda r, x: layers.Conv2DTranspose(
            some(r), window(r), strides=r.randint(1, 3), padding=padding(r), use_bias=r.random() < 0.7
        )(x),
        lambda r, x: layers.BatchNormalization(scale=r.random() < 0.7, center=r.random() < 0.7)(x),
        lambda r, x: layers.MaxPooling2D(r.randint(1, 2), strides=r.choice((None, 1, 2)), padding=padding(r))(x),
        lambda r, x: layers.AveragePooling2D(r.randint(1, 2), strides=r.choice((None, 1, 2)), padding=padding(r))(x),
        lambda r, x: layers.ZeroPadding2D(r.choice((1, (1, 2), ((0, 1), (2, 1)))))(x),
        lambda r, x: layers.Cropping2D(r.choice((((0, 1), (1, 0)), (1, 0))))(x),
        lambda r, x: layers.UpSampling2D(r.choice((2, (1, 2))), interpolation=r.choice(("nearest", "bilinear")))(x),
        lambda r, x: layers.ReLU(r.choice((None, 0.5, 6.0)), r.choice((0.0, 0.1)), r.choice((0.0, 0.2)))(x),
        lambda r, x: layers.LeakyReLU(0.2)(x),
        lambda r, x: layers.PReLU(shared_axes=r.choice((None, [1, 2])))(x),
        lambda r, x: layers.ELU(0.7)(x),
        lambda r, x: layers.Activation(activation(r))(x),
        lambda r, x: layers.Softmax(axis=r.choice((-1, 1)))(x),
        lambda r, x: layers.Dropout(0.3)(x),
        lambda r, x: layers.Permute(r.choice(((2, 1, 3), (3, 1, 2))))(x),
        lambda r, x: layers.Rescaling(0.5, offset=0.1)(x),
        lambda r, x: layers.Normalization(axis=-1)(x),
        merged,
        lambda r, x: layers.Concatenate(axis=r.choice((-1, 1)))([x, layers.Conv2D(x.shape[-1], 1)(x)]),
        lambda r, x: layers.Dense(some(r), activation=activation(r))(x),
        nested,
    ]


def _sequence_layers() -> list[_Choice]:
    from keras import layers

    def padding(rng: random.Random) -> str:
        return rng.choice(("same", "valid"))

    return [
        lambda r, x: layers.Conv1D(
            r.randint(1, 5), r.randint(1, 3), strides=r.randint(1, 2), padding=r.choice(("same", "valid", "causal"))
        )(x),
        lambda r, x: layers.SeparableConv1D(r.randint(1, 4), r.randint(1, 3), padding=padding(r))(x),
        lambda r, x: layers.DepthwiseConv1D(r.randint(1, 3), padding=padding(r))(x),
        lambda r, x: layers.Conv1DTranspose(r.randint(1, 3), r.randint(1, 3), r.randint(1, 2), padding=padding(r))(x),
        lambda r, x: layers.MaxPooling1D(2, padding=padding(r))(x),
        lambda r, x: layers.AveragePooling1D(2, padding=padding(r))(x),
        lambda r, x: layers.ZeroPadding1D(r.choice((1, (1, 2))))(x),
        lambda r, x: layers.Cropping1D((1, 0))(x),
        lambda r, x: layers.UpSampling1D(2)(x),
        lambda r, x: layers.BatchNormalization()(x),
    ]


def _head(rng: random.Random, x: _Tensor, spatial: int) -> _Tensor:
    from keras import layers

    if len(x.shape) < 3:
        return x
    pools = {1: layers.GlobalAveragePooling1D, 2: layers.GlobalAveragePooling2D}
    peaks = {1: layers.GlobalMaxPooling1D, 2: layers.GlobalMaxPooling2D}
    heads: list[Callable[[], _Tensor]] = [
        lambda: layers.Dense(3, activation="softmax")(layers.Flatten()(x)),
        lambda: layers.Dense(3)(pools[spatial]()(x)),
        lambda: peaks[spatial](keepdims=rng.random() < 0.5)(x),
        lambda: layers.Reshape((-1, x.shape[-1]))(x),
        lambda: x,
    ]
    return rng.choice(heads)()


def write(folder: Path, seed: int) -> None:
    """Save a model, in one of the two formats, beside its input and answer."""
    model, x = random_model(seed)
    np.savez_compressed(folder / f"model{seed}.npz", x=x, y=model(x, training=False).numpy())
    model.save(folder / f"model{seed}{'.keras' if seed % 2 else '.h5'}")


if __name__ == "__main__":
    for chosen in sys.argv[2:]:
        write(Path(sys.argv[1]), int(chosen))
