"""Copy, fill, gather and cast steps against numpy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gristmill as gm
from gristmill._core import Plan, Tensor
from plans import Array, random_array, run_step

_DTYPES = ["uint8", "int8", "int32", "float32", "int64", "bool"]


def view_of(tensor: Tensor, base: Array, view: Array) -> object:
    """The view of a tensor that a numpy view of an array of its shape is."""
    item = base.itemsize
    offset = (view.__array_interface__["data"][0] - base.__array_interface__["data"][0]) // item
    return tensor.view(view.shape, [s // item for s in view.strides], offset)


def copied(base: Array, make: Callable[[Array], Array], threads: int = 1) -> Array:
    """What a plan makes of a view of an array."""
    view = make(base)

    def add(plan: Plan, x: Tensor, out: Tensor) -> None:
        plan.copy("copy", view_of(x, base, view), out)  # type: ignore[arg-type]

    return run_step(add, [base], [(str(base.dtype), view.shape)], threads)[0]


_VIEWS: dict[str, tuple[Sequence[int], Callable[[Array], Array]]] = {
    "whole": ((3, 4, 5), lambda x: x),
    "scalar": ((), lambda x: x),
    "one element": ((1, 1, 1), lambda x: x),
    "empty": ((3, 0, 5), lambda x: x),
    "reversed": ((7, 5), lambda x: x[::-1, ::-1]),
    "every third, backward": ((40, 3), lambda x: x[::-3]),
    "slice": ((9, 10, 11), lambda x: x[2:7, 3:, 1:10:2]),
    "transposed": ((37, 53), lambda x: x.T),
    "transposed slices": ((5, 37, 53), lambda x: x[:, 1:, 2:].transpose(0, 2, 1)),
    "small transposed": ((3, 2), lambda x: x.T),
    "large transposed": ((300, 500), lambda x: x.T),
    "nchw to nhwc": ((2, 33, 7, 9), lambda x: x.transpose(0, 2, 3, 1)),
    "nhwc to nchw": ((2, 7, 9, 33), lambda x: x.transpose(0, 3, 1, 2)),
    "axes reversed": ((3, 5, 7, 11), lambda x: x.transpose()),
    "backward and transposed": ((30, 40), lambda x: x[::-1].T[::-1]),
    "expanded": ((3, 1, 5), lambda x: np.broadcast_to(x, (2, 3, 6, 5))),
    "expanded scalar": ((1,), lambda x: np.broadcast_to(x, (1000,))),
    "expanded columns": ((30, 1), lambda x: np.broadcast_to(x, (30, 40))),
    "six axes": ((2, 3, 2, 3, 2, 3), lambda x: x.transpose(5, 0, 3, 2, 1, 4)),
}


@pytest.mark.parametrize("dtype", _DTYPES)
@pytest.mark.parametrize("case", _VIEWS)
def test_views_are_copied(case: str, dtype: str) -> None:
    shape, make = _VIEWS[case]
    base = random_array(np.random.default_rng(1), dtype, shape)
    for threads in (1, 3):
        np.testing.assert_array_equal(copied(base, make, threads), make(base))


@given(st.data())
def test_any_transposed_slices_are_copied(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))
    base = random_array(np.random.default_rng(0), data.draw(st.sampled_from(_DTYPES)), shape)
    cuts = tuple(slice(*data.draw(st.tuples(st.none(), st.none(), st.sampled_from([1, 2, 3, -1, -2])))) for _ in shape)
    order = data.draw(st.permutations(range(len(shape))))
    np.testing.assert_array_equal(copied(base, lambda x: x[cuts].transpose(order)), base[cuts].transpose(order))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("axis", [0, 1, 2, 3])
def test_parts_are_written_into_views(axis: int, threads: int) -> None:
    """Concatenation: each part goes to a view of the output."""
    rng = np.random.default_rng(2)
    parts = [random_array(rng, "float32", [3 + i if d == axis else 4 + d for d in range(4)]) for i in range(3)]
    expected = np.concatenate(parts, axis)

    def add(plan: Plan, *tensors: Tensor) -> None:
        *sources, out = tensors
        start = 0
        for x in sources:
            strides = [s // 4 for s in expected.strides]
            plan.copy("part", x, out.view(x.shape, strides, start * strides[axis]))
            start += x.shape[axis]

    np.testing.assert_array_equal(run_step(add, parts, [("float32", expected.shape)], threads)[0], expected)


def test_padding_is_a_fill_and_a_copy() -> None:
    x = random_array(np.random.default_rng(3), "int8", (2, 3, 5, 6))

    def add(plan: Plan, source: Tensor, out: Tensor) -> None:
        plan.fill("pad", out, -7)
        plan.copy("inside", source, out.view(x.shape, (270, 90, 10, 1), 2 * 10 + 1))

    (y,) = run_step(add, [x], [("int8", (2, 3, 9, 10))])
    np.testing.assert_array_equal(y, np.pad(x, [(0, 0), (0, 0), (2, 2), (1, 3)], constant_values=-7))


def test_depth_to_space_is_a_copy() -> None:
    x = random_array(np.random.default_rng(4), "float32", (2, 12, 3, 5))
    expected = x.reshape(2, 2, 2, 3, 3, 5).transpose(0, 3, 4, 1, 5, 2)

    def add(plan: Plan, source: Tensor, out: Tensor) -> None:
        strides = [s // 4 for s in expected.strides]
        plan.copy("dts", source.view(expected.shape, strides), out)

    (y,) = run_step(add, [x], [("float32", expected.shape)])
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("uint8", 255), ("int8", -128), ("int32", -(2**31)), ("int64", 2**62), ("float32", 0.1), ("bool", 1)],
)
def test_fill_writes_a_value_of_any_type(dtype: str, value: float) -> None:
    (y,) = run_step(lambda plan, out: plan.fill("fill", out, value), [], [(dtype, (3, 70))])
    np.testing.assert_array_equal(y, np.full((3, 70), value, dtype))


@pytest.mark.parametrize(("dtype", "value"), [("uint8", -1), ("int8", 128), ("bool", 2), ("int32", 2**31)])
def test_fill_refuses_values_out_of_range(dtype: str, value: int) -> None:
    with pytest.raises(gm.ArgumentError, match="fill: value"):
        run_step(lambda plan, out: plan.fill("fill", out, value), [], [(dtype, (3,))])


_X = Tensor.arena(0, "float32", (4, 5))
_OUT = Tensor.arena(128, "float32", (4, 5))
_BAD_COPIES: dict[str, tuple[type[Exception], str, object, object]] = {
    "dtype": (gm.DTypeError, "out: expected float32", _X, Tensor.arena(128, "int32", (4, 5))),
    "shape": (gm.ShapeError, "out: expected shape", _X, Tensor.arena(128, "float32", (5, 4))),
    "beyond": (gm.LimitError, "x: the view reaches beyond", _X.view((4, 5), (5, 1), 1), _OUT),
    "before": (gm.LimitError, "x: the view reaches beyond", _X.view((4, 5), (-5, 1), 0), _OUT),
    "offset": (gm.LimitError, "x: the view reaches beyond", _X.view((1,), (1,), 20), _OUT.view((1,), (1,))),
    "written beyond": (gm.LimitError, "out: the view reaches", _X, _OUT.view((4, 5), (6, 1))),
    "huge stride": (gm.LimitError, "x", _X.view((4, 5), (2**62, 1)), _OUT),
    "least stride": (gm.LimitError, "x", _X.view((4, 5), (-(2**63), 1)), _OUT),
    "one place": (gm.ArgumentError, "several elements in one place", _X, _OUT.view((4, 5), (0, 1))),
    "crossing": (gm.ArgumentError, "several elements in one place", _X, _OUT.view((4, 5), (2, 1))),
    "strides": (gm.ShapeError, "one stride for each", _X.view((4, 5), (5,)), _OUT),
    "itself": (gm.ArgumentError, "shares memory with x", _X, _X),
    "rank": (gm.LimitError, "17 dimensions", _X.view([1] * 17, [1] * 17), _OUT.view([1] * 17, [1] * 17)),
}


@pytest.mark.parametrize("case", _BAD_COPIES)
def test_bad_copies_are_refused(case: str) -> None:
    kind, message, x, out = _BAD_COPIES[case]
    with pytest.raises(kind, match=message):
        Plan(1024, [], []).copy("c", x, out)  # type: ignore[arg-type]


def test_empty_views_may_lie_anywhere() -> None:
    plan = Plan(256, [], [])
    plan.copy("empty", _X.view((0, 5), (99, 99), 0), _OUT.view((0, 5), (0, 0), 0))
    plan.run([])


@pytest.mark.parametrize("dtype", _DTYPES)
@pytest.mark.parametrize("index_dtype", ["int32", "int64"])
@pytest.mark.parametrize(("shape", "axis"), [((5,), 0), ((5, 7), 1), ((2, 5, 3), 1), ((2, 3, 5), -1), ((5, 0), 0)])
def test_gather_takes_along_an_axis(dtype: str, index_dtype: str, shape: tuple[int, ...], axis: int) -> None:
    rng = np.random.default_rng(5)
    x = random_array(rng, dtype, shape)
    for count in [(), (1,), (4,), (2, 3), (0,)]:
        indices = np.asarray(rng.integers(-5, 5, count), index_dtype)
        expected = np.take(x, indices, axis)

        def add(plan: Plan, source: Tensor, at: Tensor, out: Tensor) -> None:
            plan.gather("gather", source, at, out, axis)

        (y,) = run_step(add, [x, indices], [(dtype, expected.shape)], threads=2)
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("index", [5, -6, 2**40])
def test_gather_refuses_indices_out_of_range_when_it_meets_them(index: int) -> None:
    x = np.zeros((5, 2), np.float32)
    plan = Plan(0, [("float32", (5, 2)), ("int64", (1,))], [("float32", (1, 2))])
    plan.gather(
        "embed", Tensor.input(0, "float32", (5, 2)), Tensor.input(1, "int64", (1,)), Tensor.output(0, "float32", (1, 2))
    )
    with pytest.raises(gm.ArgumentError, match=f"embed: indices: {index} is out of range"):
        plan.run([x, np.array([index])])
    plan.run([x, np.array([4])])


@pytest.mark.parametrize("source", _DTYPES)
@pytest.mark.parametrize("target", _DTYPES)
def test_casts_are_those_of_numpy(source: str, target: str) -> None:
    x = random_array(np.random.default_rng(6), source, (3, 50))
    if source == "float32" and target == "uint8":
        x = np.abs(x)
    (y,) = run_step(lambda plan, x, out: plan.cast("cast", x, out), [x], [(target, x.shape)])
    np.testing.assert_array_equal(y, x.astype(target))


@pytest.mark.parametrize("target", ["uint8", "int8", "int32", "int64"])
def test_casts_of_reals_truncate_and_saturate(target: str) -> None:
    limits = np.iinfo(target)
    x = np.array([np.nan, np.inf, -np.inf, 1e30, -1e30, 1.9, -0.9, 2.0**31, -(2.0**31), 127.99], np.float32)
    (y,) = run_step(lambda plan, x, out: plan.cast("cast", x, out), [x], [(target, x.shape)])
    low, high = int(limits.min), int(limits.max)
    wide = [0 if math.isnan(v) else int(min(max(v, low), high)) for v in x.tolist()]
    np.testing.assert_array_equal(y, np.array(wide, target))


def test_bytes_that_are_no_bool_count_as_true() -> None:
    x = np.array([0, 1, 2, 255], np.uint8).view(np.bool_)
    (y,) = run_step(lambda plan, x, out: plan.cast("cast", x, out), [x], [("int32", (4,))])
    np.testing.assert_array_equal(y, [0, 1, 1, 1])
