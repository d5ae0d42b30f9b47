"""Trains the convolution network that the package carries, and writes it with its data: ``gristmill/data/digits.npz``.

    python -m pip install scikit-learn
    OPENBLAS_NUM_THREADS=1 python bench/train_digits.py [--output FILE] [--epochs N]

It needs numpy, and scikit-learn for the images; a minute on one idle core. The same numpy on the same processor gives
the same bytes every time. Where BLAS adds in another order, training takes another path, to other weights that are as
good: the held-out accuracy, printed at the end, is what has to agree, within a few images of 800.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_FILE = Path(__file__).parent.parent / "python" / "gristmill" / "data" / "digits.npz"
_HELD_OUT, _BATCH, _RATE, _DECAY, _EPSILON, _SEED = 800, 64, 2e-3, 1e-4, 1e-5, 0
_CHANNELS, _KERNELS = (16, 32, 256, 256), (3, 3, 3, 1)


@dataclass
class Parameter:
    """Values with their gradient and the moments of Adam."""

    value: Array
    gradient: Array = field(default_factory=lambda: np.zeros(0, np.float32))
    mean: Array | float = 0.0
    square: Array | float = 0.0

    def step(self, rate: float, count: int, decay: float) -> None:
        """One step of Adam."""
        self.mean = 0.9 * self.mean + 0.1 * self.gradient
        self.square = 0.99 * self.square + 0.01 * self.gradient**2
        change = (self.mean / (1 - 0.9**count)) / (np.sqrt(self.square / (1 - 0.99**count)) + 1e-8)
        self.value = np.asarray(self.value - rate * (change + decay * self.value), np.float32)


class Conv:
    """A convolution without bias, normalization over the batch, and ReLU; images are (n, rows, columns, channels)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, random: np.random.Generator) -> None:
        self.kernel, taps = kernel, kernel**2 * inputs
        start = random.standard_normal((taps, outputs)) * (2 / taps) ** 0.5
        self.weight = Parameter(start.astype(np.float32))
        self.gain = Parameter(np.ones(outputs, np.float32))
        self.shift = Parameter(np.zeros(outputs, np.float32))
        self.running_mean, self.running_variance = np.zeros(outputs, np.float32), np.ones(outputs, np.float32)

    def forward(self, x: Array, *, training: bool) -> Array:
        """Returns the activations; keeps what the way back needs."""
        n, rows, columns, _ = x.shape
        edge = (self.kernel // 2,) * 2
        padded = np.pad(x, ((0, 0), edge, edge, (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (self.kernel, self.kernel), axis=(1, 2))
        self.taps = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, len(self.weight.value))
        y = self.taps @ self.weight.value
        if training:
            mean, variance = y.mean(0), y.var(0)
            self.running_mean += 0.1 * (mean - self.running_mean)
            self.running_variance += 0.1 * (variance - self.running_variance)
        else:
            mean, variance = self.running_mean, self.running_variance
        self.inverse = 1 / np.sqrt(variance + _EPSILON)
        self.normal = (y - mean) * self.inverse
        self.result = np.maximum(self.normal * self.gain.value + self.shift.value, 0)
        return np.asarray(self.result.reshape(n, rows, columns, -1))

    def backward(self, gradient: Array, *, first: bool) -> Array:
        """Takes the gradient of the result; returns that of the input."""
        n, rows, columns, outputs = gradient.shape
        g = gradient.reshape(-1, outputs) * (self.result > 0)
        self.gain.gradient, self.shift.gradient = (g * self.normal).sum(0), g.sum(0)
        g = g * self.gain.value
        g = (g - g.mean(0) - self.normal * (g * self.normal).mean(0)) * self.inverse
        self.weight.gradient = self.taps.T @ g
        if first:
            return gradient
        size, edge = self.kernel, self.kernel // 2
        taps = (g @ self.weight.value.T).reshape(n, rows, columns, size, size, -1)
        padded = np.zeros((n, rows + 2 * edge, columns + 2 * edge, taps.shape[-1]), np.float32)
        for row, column in np.ndindex(size, size):
            padded[:, row : row + rows, column : column + columns] += taps[:, :, :, row, column]
        return padded[:, edge : edge + rows, edge : edge + columns]


class Network:
    """Convolutions, then means over all pixels and a linear layer."""

    def __init__(self, random: np.random.Generator) -> None:
        sizes = zip((1, *_CHANNELS), _CHANNELS, _KERNELS, strict=False)
        self.convs = [Conv(inputs, outputs, kernel, random) for inputs, outputs, kernel in sizes]
        spread = _CHANNELS[-1] ** -0.5
        self.head = Parameter((random.standard_normal((_CHANNELS[-1], 10)) * spread).astype(np.float32))
        self.bias = Parameter(np.zeros(10, np.float32))

    def parameters(self) -> list[Parameter]:
        """All that is trained."""
        return [p for conv in self.convs for p in (conv.weight, conv.gain, conv.shift)] + [self.head, self.bias]

    def forward(self, images: Array, *, training: bool = False) -> Array:
        """The scores of images of (n, rows, columns)."""
        x = images[..., None]
        for conv in self.convs:
            x = conv.forward(x, training=training)
        self.pixels = x.shape[1:3]
        self.means = x.mean((1, 2))
        return np.asarray(self.means @ self.head.value + self.bias.value)

    def backward(self, gradient: Array) -> None:
        """From the gradient of the scores to those of all parameters."""
        self.head.gradient, self.bias.gradient = self.means.T @ gradient, gradient.sum(0)
        rows, columns = self.pixels
        g = np.asarray(gradient @ self.head.value.T)[:, None, None] / np.float32(rows * columns)
        g = np.broadcast_to(g, (len(g), rows, columns, g.shape[-1]))
        for index in reversed(range(len(self.convs))):
            g = self.convs[index].backward(g, first=index == 0)

    def arrays(self) -> dict[str, Array]:
        """The weights as ONNX lays them out, with the eight significant bits of bfloat16."""
        result: dict[str, Array] = {"head.weight": self.head.value.T, "head.bias": self.bias.value}
        for index, conv in enumerate(self.convs):
            weight = conv.weight.value.reshape(conv.kernel, conv.kernel, -1, len(conv.gain.value))
            result[f"conv{index}.weight"] = weight.transpose(3, 2, 0, 1)
            result[f"norm{index}.scale"], result[f"norm{index}.bias"] = conv.gain.value, conv.shift.value
            result[f"norm{index}.mean"], result[f"norm{index}.variance"] = conv.running_mean, conv.running_variance
        return {name: _rounded(np.ascontiguousarray(value, np.float32)) for name, value in result.items()}


def _rounded(values: Array) -> Array:
    bits = values.view(np.uint32).astype(np.uint64)
    return np.asarray(((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32))


def read_digits() -> tuple[Array, Array]:
    """All images, of whole numbers from 0 to 16, and their labels, in an order of our own."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = np.random.default_rng(_SEED).permutation(len(found.target))
    return found.images.astype(np.uint8)[order], found.target.astype(np.uint8)[order]


def varied(images: Array, random: np.random.Generator) -> Array:
    """Images turned, scaled and shifted a little, each in its own way."""
    n, rows, columns = images.shape
    angle, scale = random.uniform(-0.2, 0.2, (n, 1, 1)), random.uniform(0.9, 1.1, (n, 1, 1))
    down, right = random.uniform(-0.8, 0.8, (2, n, 1, 1))
    y, x = np.mgrid[:rows, :columns] - np.array([(rows - 1) / 2, (columns - 1) / 2])[:, None, None]
    source_y = (np.cos(angle) * y - np.sin(angle) * x) * scale + down + (rows - 1) / 2
    source_x = (np.sin(angle) * y + np.cos(angle) * x) * scale + right + (columns - 1) / 2
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    source_y, source_x = np.clip(source_y + 2, 0, rows + 2.99), np.clip(source_x + 2, 0, columns + 2.99)
    top, left = source_y.astype(int), source_x.astype(int)
    low, high = (source_y - top).astype(np.float32), (source_x - left).astype(np.float32)
    each = np.arange(n)[:, None, None]
    above = padded[each, top, left] * (1 - high) + padded[each, top, left + 1] * high
    below = padded[each, top + 1, left] * (1 - high) + padded[each, top + 1, left + 1] * high
    return np.asarray(above * (1 - low) + below * low, np.float32)


def train(images: Array, labels: Array, epochs: int) -> Network:
    """Minimizes cross entropy with smoothed labels, the rate falling along a cosine."""
    random = np.random.default_rng(_SEED)
    network = Network(random)
    wanted = np.full((len(labels), 10), 0.01, np.float32)
    wanted[np.arange(len(labels)), labels] = 0.91
    total, count = epochs * (len(images) // _BATCH), 0
    for epoch in range(epochs):
        order = random.permutation(len(images))
        loss = 0.0
        for start in range(0, len(images) - _BATCH + 1, _BATCH):
            some = order[start : start + _BATCH]
            scores = network.forward(varied(images[some], random), training=True)
            scores -= scores.max(1, keepdims=True)
            shares = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
            loss -= float((wanted[some] * np.log(shares + 1e-12)).sum())
            network.backward((shares - wanted[some]) / _BATCH)
            count += 1
            rate = _RATE * 0.5 * (1 + np.cos(np.pi * count / total))
            for parameter in network.parameters():
                parameter.step(rate, count, _DECAY if parameter.value.ndim > 1 else 0.0)
        print(f"epoch {epoch + 1} of {epochs}: loss {loss / len(images):.4f}", file=sys.stderr)
    return network


def main() -> None:
    """Train and write, or train and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=_FILE, metavar="FILE")
    parser.add_argument("--epochs", type=int, default=50, metavar="N")
    arguments = parser.parse_args()
    images, labels = read_digits()
    training = slice(_HELD_OUT, None)
    network = train(images[training] / np.float32(16), labels[training], arguments.epochs)
    arrays = network.arrays()
    right = (network.forward(images[:_HELD_OUT] / np.float32(16)).argmax(1) == labels[:_HELD_OUT]).sum()
    print(f"held out: {right} of {_HELD_OUT}")
    arrays |= {"images": images[:_HELD_OUT], "labels": labels[:_HELD_OUT], "calibration": images[training]}
    np.savez_compressed(arguments.output, **arrays)  # type: ignore[arg-type]
    print(f"{arguments.output}: {arguments.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
