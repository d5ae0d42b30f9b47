"""Resize steps against the reference of the onnx package."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest

import gristmill as gm
from gristmill._core import Plan, Tensor
from plans import Array, random_array, run_step

onnx = pytest.importorskip("onnx")


def expected_of(x: Array, sizes: Sequence[int], roi: Sequence[float] | None = None, **attributes: object) -> Array:
    from onnx.reference import ReferenceEvaluator

    helper, types = onnx.helper, onnx.TensorProto
    node = helper.make_node("Resize", ["x", "roi", "", "sizes"], ["y"], **attributes)
    kind = helper.np_dtype_to_tensor_dtype(x.dtype)
    graph = helper.make_graph(
        [node],
        "resize",
        [
            helper.make_tensor_value_info("x", kind, x.shape),
            helper.make_tensor_value_info("roi", types.FLOAT, [None]),
            helper.make_tensor_value_info("sizes", types.INT64, [x.ndim]),
        ],
        [helper.make_tensor_value_info("y", kind, list(sizes))],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
    feeds: Any = {"x": x, "sizes": np.array(sizes), "roi": np.array(roi if roi is not None else [], np.float32)}
    outputs: Any = ReferenceEvaluator(model).run(None, feeds)
    return np.asarray(outputs[0])


def resized(x: Array, sizes: Sequence[int], threads: int = 1, **parameters: object) -> Array:
    def add(plan: Plan, source: Tensor, out: Tensor) -> None:
        plan.resize("r", source, out, **cast(Any, parameters))

    return run_step(add, [x], [(str(x.dtype), sizes)], threads)[0]


_COORDINATES = ["half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"]
_SIZES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((1, 2, 3, 5), (1, 2, 6, 10)),
    ((2, 3, 8, 8), (2, 3, 4, 2)),
    ((1, 1, 4, 4), (1, 1, 1, 1)),
    ((1, 2, 1, 1), (1, 2, 3, 4)),
    ((1, 2, 4, 6), (1, 2, 4, 12)),
    ((2, 3, 5), (2, 3, 10)),
]


@pytest.mark.parametrize("sizes", _SIZES)
@pytest.mark.parametrize("coordinates", _COORDINATES)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_modes(mode: str, coordinates: str, sizes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    x = random_array(np.random.default_rng(1), "float32", sizes[0])
    # One output of pytorch_half_pixel is at 0, where the reference has -0.5.
    known = "asymmetric" if (coordinates, sizes[1][-1]) == ("pytorch_half_pixel", 1) else coordinates
    expected = expected_of(x, sizes[1], mode=mode, coordinate_transformation_mode=known)
    for threads in (1, 2):
        y = resized(x, sizes[1], threads, mode=mode, coordinates=coordinates)
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rounding", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("dtype", ["float32", "uint8", "int8", "int32", "int64", "bool"])
def test_nearest_of_any_type(rounding: str, dtype: str) -> None:
    x = random_array(np.random.default_rng(2), dtype, (1, 2, 5, 4))
    for coordinates in ("half_pixel", "asymmetric"):
        expected = expected_of(
            x.view(np.uint8) if dtype == "bool" else x,
            (1, 2, 10, 16),
            mode="nearest",
            nearest_mode=rounding,
            coordinate_transformation_mode=coordinates,
        )
        y = resized(x, (1, 2, 10, 16), mode="nearest", rounding=rounding, coordinates=coordinates)
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("exclude", [False, True])
def test_cubic_attributes(exclude: bool) -> None:
    x = random_array(np.random.default_rng(3), "float32", (1, 2, 6, 7))
    expected = expected_of(x, (1, 2, 9, 14), mode="cubic", cubic_coeff_a=-0.5, exclude_outside=int(exclude))
    y = resized(x, (1, 2, 9, 14), mode="cubic", cubic_a=-0.5, exclude_outside=exclude)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_crops(mode: str) -> None:
    x = random_array(np.random.default_rng(4), "float32", (1, 1, 8, 8))
    start, end = [0, 0, 0.4, -0.2], [1, 1, 0.8, 1.2]
    expected = expected_of(
        x,
        (1, 1, 5, 6),
        [*start, *end],
        mode=mode,
        coordinate_transformation_mode="tf_crop_and_resize",
        extrapolation_value=9.0,
    )
    y = resized(
        x, (1, 1, 5, 6), mode=mode, coordinates="tf_crop_and_resize", extrapolation=9.0, roi_start=start, roi_end=end
    )
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    assert (y == 9).any()


def test_channels_last_and_volumes() -> None:
    rng = np.random.default_rng(5)
    x = random_array(rng, "float32", (2, 4, 5, 3))
    swapped = resized(np.ascontiguousarray(x.transpose(0, 3, 1, 2)), (2, 3, 8, 10), mode="linear")
    y = resized(x, (2, 8, 10, 3), mode="linear")
    np.testing.assert_allclose(y, swapped.transpose(0, 2, 3, 1), rtol=1e-5, atol=1e-6)
    volume = random_array(rng, "float32", (1, 2, 3, 4, 5))
    expected = expected_of(volume, (1, 2, 6, 8, 5), mode="linear")
    np.testing.assert_allclose(resized(volume, (1, 2, 6, 8, 5), mode="linear"), expected, rtol=1e-5, atol=1e-5)


def test_given_scales_are_used() -> None:
    x = np.arange(10, dtype=np.float32).reshape(1, 1, 10)
    y = resized(x, (1, 1, 6), mode="nearest", coordinates="asymmetric", rounding="floor", scales=[1, 1, 0.65])
    np.testing.assert_array_equal(y[0, 0], np.floor(np.arange(6) / np.float32(0.65)))


def test_a_nan_spoils_only_what_it_weighs_in() -> None:
    x = np.array([[[1, np.nan, 3, 4]]], np.float32)
    np.testing.assert_array_equal(resized(x, (1, 1, 4), mode="linear"), x)
    y = resized(x, (1, 1, 7), mode="linear", coordinates="align_corners")
    np.testing.assert_array_equal(np.isnan(y[0, 0]), [False, True, True, True, False, False, False])


def test_nothing_is_resized_to_nothing() -> None:
    assert resized(np.zeros((0, 2, 3), np.float32), (0, 2, 6), mode="linear").shape == (0, 2, 6)
    assert resized(np.zeros((1, 2, 3), np.float32), (1, 2, 0), mode="linear").shape == (1, 2, 0)


_X: tuple[int, ...] = (1, 1, 4, 4)
_BAD: dict[str, tuple[type[Exception], str, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "mode": (gm.ArgumentError, "mode: unknown name 'area'", _X, (1, 1, 8, 8), {"mode": "area"}),
    "coordinates": (gm.ArgumentError, "coordinates: unknown", _X, (1, 1, 8, 8), {"coordinates": "half"}),
    "rounding": (gm.ArgumentError, "rounding: unknown", _X, (1, 1, 8, 8), {"rounding": "up"}),
    "rank": (gm.ShapeError, "out: expected rank 4", _X, (1, 8, 8), {}),
    "batch": (gm.ShapeError, "last three axes", _X, (2, 1, 8, 8), {}),
    "scales": (gm.ShapeError, "scales: expected one", _X, (1, 1, 8, 8), {"scales": [2.0]}),
    "scale": (gm.ArgumentError, "scales: expected numbers", _X, (1, 1, 8, 8), {"scales": [1.0, 1, 0, 2]}),
    "tiny scale": (gm.ArgumentError, "no finite place", _X, (1, 1, 8, 8), {"scales": [1.0, 1, 1e-45, 2]}),
    "roi": (gm.ShapeError, "roi: expected one", _X, (1, 1, 8, 8), {"coordinates": "tf_crop_and_resize"}),
    "from nothing": (gm.ShapeError, "x: has no elements", (1, 1, 0, 4), (1, 1, 8, 8), {}),
}


@pytest.mark.parametrize("case", _BAD)
def test_bad_resizes_are_refused(case: str) -> None:
    kind, message, shape, out, parameters = _BAD[case]
    with pytest.raises(kind, match="r: .*" + message):
        resized(np.zeros(shape, np.float32), out, **{"mode": "nearest", **parameters})


def test_only_reals_are_interpolated() -> None:
    with pytest.raises(gm.DTypeError, match="x: expected float32"):
        resized(np.zeros(_X, np.uint8), (1, 1, 8, 8), mode="linear")
