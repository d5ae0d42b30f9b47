"""Layer shapes from real models, shared by benchmarks.

Each convolution of ResNet-50 and MobileNetV1 at 224x224 that differs from the others in any figure, with the number of
times the model has it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Conv:
    """One convolution layer: square input, square kernel, 'same' padding as the models have it."""

    model: str
    channels: int
    filters: int
    size: int
    kernel: int
    stride: int
    groups: int = 1
    count: int = 1

    @property
    def padding(self) -> int:
        """Pixels of padding on every side."""
        return self.kernel // 2

    @property
    def out_size(self) -> int:
        """Height and width of the output."""
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def macs(self) -> int:
        """Multiplications of one image."""
        return self.filters * self.channels // self.groups * self.kernel**2 * self.out_size**2

    @property
    def depthwise(self) -> bool:
        """Whether every channel has its own kernel."""
        return self.groups == self.channels

    @property
    def name(self) -> str:
        """A short label: channels to filters, kernel, stride, input size."""
        kind = "dw" if self.depthwise else "conv"
        return f"{kind} {self.channels}-{self.filters} {self.kernel}x{self.kernel}/{self.stride} @{self.size}"


def _resnet50() -> list[Conv]:
    layers = [Conv("resnet50", 3, 64, 224, 7, 2)]
    channels, size = 64, 56
    for width, blocks, stride in [(64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)]:
        for block in range(blocks):
            step = stride if block == 0 else 1
            layers.append(Conv("resnet50", channels, width, size, 1, 1))
            layers.append(Conv("resnet50", width, width, size, 3, step))
            layers.append(Conv("resnet50", width, 4 * width, size // step, 1, 1))
            if block == 0:
                layers.append(Conv("resnet50", channels, 4 * width, size, 1, step))
            channels, size = 4 * width, size // step
    return layers


def _mobilenet_v1() -> list[Conv]:
    layers = [Conv("mobilenetv1", 3, 32, 224, 3, 2)]
    channels, size = 32, 112
    steps = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
    for filters, stride in steps:
        layers.append(Conv("mobilenetv1", channels, channels, size, 3, stride, groups=channels))
        size //= stride
        layers.append(Conv("mobilenetv1", channels, filters, size, 1, 1))
        channels = filters
    return layers


def distinct(layers: list[Conv]) -> list[Conv]:
    """Merge equal layers and count them; order of first appearance."""
    counts: dict[Conv, int] = {}
    for layer in layers:
        counts[layer] = counts.get(layer, 0) + 1
    return [Conv(**{**layer.__dict__, "count": count}) for layer, count in counts.items()]


RESNET50 = distinct(_resnet50())
MOBILENET_V1 = distinct(_mobilenet_v1())

GEMM_SIZES = [(256, 256, 256), (512, 512, 512), (1024, 1024, 1024), (256, 576, 784), (256, 1152, 784), (256, 2304, 196)]
"""(M, K, N): rows of activations are N for a linear layer, lanes for a convolution."""

LINEAR_SIZES = [(2048, 2048), (4096, 4096)]
"""(outputs, inputs) of linear layers run at batch 1."""
