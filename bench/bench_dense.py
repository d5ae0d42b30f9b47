"""Dense layers: ours beside onnxruntime and OpenVINO, in int8 and float32, one thread.

Run with ``pytest bench/bench_dense.py``; ``python bench/dense_table.py`` prints all layers and the bars.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import peers
from gristmill.benchmark import shapes
from gristmill.benchmark.dense import Layer, gemm_calls

LAYERS = shapes.RESNET50[1:4] + shapes.MOBILENET_V1[1:3]


@pytest.mark.parametrize("who", ["ours", "onnxruntime", "openvino"])
@pytest.mark.parametrize("shape", LAYERS, ids=lambda shape: shape.name)
@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_convolution(benchmark: BenchmarkFixture, dtype: str, shape: shapes.Conv, who: str) -> None:
    benchmark.group = f"{dtype} {shape.name}"
    benchmark.extra_info["macs"] = shape.macs
    layer = Layer.random_s8(shape) if dtype == "int8" else Layer.random_f32(shape)
    if who == "ours":
        call = layer.ours()
    else:
        pytest.importorskip(who)
        build = peers.onnxruntime_call if who == "onnxruntime" else peers.openvino_call
        call = build(peers.conv_model(layer), layer.x)[0]
    benchmark(call)


@pytest.mark.parametrize("size", shapes.GEMM_SIZES, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("dtype", ["int8", "f32"])
def test_product(benchmark: BenchmarkFixture, dtype: str, size: tuple[int, int, int]) -> None:
    benchmark.group = f"product {size}"
    call, giga_macs = gemm_calls(*size)[dtype]
    benchmark.extra_info["macs"] = giga_macs * 1e9
    benchmark(call)
