"""Small networks and correlated inputs for tests of the optimizer."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gristmill.graph import Graph, GraphBuilder

Array = npt.NDArray[Any]


def images(count: int, channels: int = 3, size: int = 10, seed: int = 0) -> Array:
    """Smooth random images, so that neighbouring inputs are correlated as in real ones."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((count, channels, size + 4, size + 4)).astype(np.float32)
    smooth = sum(noise[:, :, i : i + size, j : j + size] for i in range(5) for j in range(5)) / np.float32(5)
    return np.ascontiguousarray(smooth, np.float32)


def conv_net(seed: int = 0, *, classes: int = 10, batch: int | str = "n", depthwise: bool = True) -> Graph:
    """Convolutions, one of them depthwise, a residual sum, pooling and a linear layer with few redundant inputs."""
    rng = np.random.default_rng(seed)
    builder = GraphBuilder()

    def weight(name: str, *shape: int) -> str:
        fan = int(np.prod(shape[1:]))
        return builder.constant(name, (rng.standard_normal(shape) * np.sqrt(2 / fan)).astype(np.float32))

    def bias(name: str, count: int) -> str:
        return builder.constant(name, (rng.standard_normal(count) * 0.1).astype(np.float32))

    x = builder.input("x", np.float32, (batch, 3, 10, 10))
    y = builder.add("Conv", [x, weight("w0", 16, 3, 3, 3), bias("b0", 16)], name="stem", pads=(1, 1, 1, 1))
    y = builder.add("Relu", [y])
    if depthwise:
        inputs = [y, weight("w1", 16, 1, 3, 3), bias("b1", 16)]
        y = builder.add("Conv", inputs, name="depthwise", pads=(1, 1, 1, 1), group=16)
        y = builder.add("Relu", [y])
    y = builder.add("Conv", [y, weight("w2", 32, 16, 1, 1), bias("b2", 32)], name="wide")
    start = builder.add("Relu", [y])
    y = builder.add("Conv", [start, weight("w3", 32, 32, 3, 3), bias("b3", 32)], name="inner", pads=(1, 1, 1, 1))
    y = builder.add("Relu", [builder.add("Add", [y, start])])
    y = builder.add("Flatten", [builder.add("MaxPool", [y], kernel_shape=(2, 2), strides=(2, 2))])
    y = builder.add("Gemm", [y, weight("w4", 64, 800), bias("b4", 64)], name="hidden", transB=1)
    y = builder.add("Relu", [y])
    y = builder.add("Gemm", [y, weight("w5", 64, classes), bias("b5", classes)], name="logits")
    return builder.build([y])


def snr(exact: Array, given: Array) -> float:
    """Signal to noise in dB."""
    noise = float(np.square(exact - given, dtype=np.float64).sum())
    return 10 * float(np.log10(float(np.square(exact, dtype=np.float64).sum()) / max(noise, 1e-300)))
