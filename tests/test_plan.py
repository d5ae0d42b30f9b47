"""Plans: memory, runs, threads, signals, and what is refused."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import pytest

import gristmill as gm
from gristmill import _core, kernels
from gristmill._core import Plan, Tensor
from plans import Array

_F32_4 = ("float32", (4,))


def chain(length: int = 3, size: int = 4) -> Plan:
    """The plan y = x + length, through the arena."""
    kind = ("float32", (size,))
    plan = Plan(8 * size, [kind], [kind])
    one = Tensor.constant(np.ones(1, np.float32))
    at = [Tensor.arena(4 * size * side, *kind) for side in (0, 1)]
    for i in range(length):
        x = Tensor.input(0, *kind) if i == 0 else at[(i - 1) % 2]
        y = Tensor.output(0, *kind) if i == length - 1 else at[i % 2]
        plan.binary(f"add{i}", "add", x, one, y)
    return plan


def test_steps_run_in_order_through_the_arena() -> None:
    x = np.arange(4, dtype=np.float32)
    (y,) = chain(5).run([x])
    np.testing.assert_array_equal(y, x + 5)
    assert chain(2).steps == [("add0", "add"), ("add1", "add")]


def test_outputs_may_be_given() -> None:
    x, out = np.arange(4, dtype=np.float32), np.empty(4, np.float32)
    (y,) = chain().run([x], [out])
    assert y is out
    np.testing.assert_array_equal(out, x + 3)
    (fresh,) = chain().run((x,), [None])
    np.testing.assert_array_equal(fresh, x + 3)


def test_inputs_of_any_layout_are_taken() -> None:
    x = np.arange(8, dtype=np.float32)
    np.testing.assert_array_equal(chain().run([x[::-2]])[0], x[::-2] + 3)
    raw = np.zeros(17, np.uint8)
    misaligned = raw[1:].view(np.float32)
    misaligned[:] = x[:4]
    np.testing.assert_array_equal(chain().run([misaligned])[0], x[:4] + 3)


def test_a_plan_without_steps_or_inputs_runs() -> None:
    assert Plan(0, [], []).run([]) == []
    assert Plan(0, [], []).profile([]) == []


def test_profile_names_every_step() -> None:
    rows = chain(3).profile([np.zeros(4, np.float32)])
    assert [row[:2] for row in rows] == [("add0", "add"), ("add1", "add"), ("add2", "add")]
    assert all(row[2] >= 0 for row in rows)


def test_parts_of_inputs_and_outputs_are_tensors() -> None:
    plan = Plan(0, [_F32_4], [_F32_4])
    for part in range(2):
        half = ("float32", (2,))
        plan.copy("swap", Tensor.input(0, *half, offset=8 * part), Tensor.output(0, *half, offset=8 - 8 * part))
    np.testing.assert_array_equal(plan.run([np.arange(4, dtype=np.float32)])[0], [2, 3, 0, 1])


def test_constants_live_as_long_as_the_plan() -> None:
    class Watched(np.ndarray):
        pass

    array = np.arange(4, dtype=np.float32).view(Watched)
    array.flags.writeable = False
    alive = weakref.ref(array)
    plan = Plan(0, [], [_F32_4])
    plan.copy("copy", Tensor.constant(array), Tensor.output(0, *_F32_4))
    del array
    gc.collect()
    assert alive() is not None
    np.testing.assert_array_equal(plan.run([])[0], [0, 1, 2, 3])
    del plan
    gc.collect()
    assert alive() is None


def test_writeable_constants_are_copied() -> None:
    array = np.arange(4, dtype=np.float32)
    plan = Plan(0, [], [_F32_4])
    plan.copy("copy", Tensor.constant(array), Tensor.output(0, *_F32_4))
    array[:] = 9
    np.testing.assert_array_equal(plan.run([])[0], [0, 1, 2, 3])


def test_weights_outlive_their_python_object_and_serve_many_plans() -> None:
    weights = kernels.PackedLinear(np.array([[1, 2], [3, 4]], np.float32))
    plans = []
    for rows in (1, 3):
        kind = ("float32", (rows, 2))
        plan = Plan(0, [kind], [kind])
        plan.linear("layer", Tensor.input(0, *kind), Tensor.output(0, *kind), weights)
        plans.append(plan)
    del weights
    gc.collect()
    for rows, plan in zip((1, 3), plans, strict=True):
        np.testing.assert_array_equal(plan.run([np.full((rows, 2), 1, np.float32)])[0], [[3, 7]] * rows)


def test_many_threads_run_one_plan_at_once() -> None:
    plan = chain(64, 1000)
    failures: list[int] = []

    def use(seed: int) -> None:
        for i in range(100):
            x = np.full(1000, seed * 1000 + i, np.float32)
            if not np.array_equal(plan.run([x], threads=2)[0], x + 64):
                failures.append(i)

    workers = [threading.Thread(target=use, args=(seed,)) for seed in range(24)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures == []


def slow_plan(steps: int = 400) -> tuple[Plan, Array]:
    """Some seconds of work."""
    kind = ("float32", (1 << 20,))
    plan = Plan(0, [kind], [kind])
    out = Tensor.output(0, *kind)
    plan.copy("begin", Tensor.input(0, *kind), out)
    for i in range(steps):
        plan.unary(f"cos{i}", "cos", out, out)
    return plan, np.zeros(1 << 20, np.float32)


def test_other_threads_run_meanwhile() -> None:
    plan, x = slow_plan(20)
    ticks: list[float] = []
    done = threading.Event()

    def tick() -> None:
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    ticker = threading.Thread(target=tick)
    ticker.start()
    start = time.perf_counter()
    plan.run([x], threads=1)
    end = time.perf_counter()
    done.set()
    ticker.join()
    assert sum(start < t < end for t in ticks) >= 3


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer()")
def test_a_signal_handler_ends_a_run() -> None:
    class StopError(Exception):
        pass

    def stop(*_: object) -> None:
        raise StopError

    plan, x = slow_plan()
    before = signal.signal(signal.SIGALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        start = time.perf_counter()
        with pytest.raises(StopError):
            plan.run([x], threads=1)
        assert time.perf_counter() - start < 1.0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    np.testing.assert_array_equal(chain().run([np.zeros(4, np.float32)])[0], [3] * 4)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork()")
def test_a_plan_runs_in_the_child_of_fork() -> None:
    script = """
        import os, numpy as np
        from gristmill._core import Plan, Tensor
        kind = ("float32", (1 << 18,))
        plan = Plan(0, [kind], [kind])
        plan.unary("neg", "neg", Tensor.input(0, *kind), Tensor.output(0, *kind))
        x = np.ones(1 << 18, np.float32)
        assert (plan.run([x], threads=2)[0] == -1).all()
        child = os.fork()
        if child == 0:
            os._exit(0 if (plan.run([x], threads=2)[0] == -1).all() else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    """
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(script)]
    subprocess.run(command, check=True, timeout=60)


_BAD_RUNS: dict[str, tuple[type[Exception], str, Callable[[Plan], object]]] = {
    "too few": (gm.GristmillError, "expected 1 arrays, got 0", lambda p: p.run([])),
    "too many": (gm.GristmillError, "expected 1 arrays, got 2", lambda p: p.run([np.zeros(4, np.float32)] * 2)),
    "an array": (gm.DTypeError, "list or tuple", lambda p: p.run(cast(Any, np.zeros((1, 4), np.float32)))),
    "float64": (gm.DTypeError, "input 0: expected float32", lambda p: p.run([np.zeros(4)])),
    "no array": (gm.DTypeError, "input 0: expected a numpy array", lambda p: p.run([cast(Any, [0, 0, 0, 0])])),
    "shape": (gm.ShapeError, r"input 0: expected shape \(4,\), got \(5,\)", lambda p: p.run([np.zeros(5, np.float32)])),
    "rank": (gm.ShapeError, "input 0", lambda p: p.run([np.zeros((4, 1), np.float32)])),
    "out dtype": (gm.DTypeError, "output 0", lambda p: p.run([np.zeros(4, np.float32)], [np.zeros(4)])),
    "out shape": (gm.ShapeError, "output 0", lambda p: p.run([np.zeros(4, np.float32)], [np.zeros(3, np.float32)])),
    "out layout": (
        gm.ArgumentError,
        "output 0: is not contiguous",
        lambda p: p.run([np.zeros(4, np.float32)], [np.zeros(8, np.float32)[::2]]),
    ),
    "out read-only": (
        gm.ArgumentError,
        "output 0: is read-only",
        lambda p: p.run([np.zeros(4, np.float32)], [np.frombuffer(bytes(16), np.float32)]),
    ),
    "threads": (gm.ArgumentError, "threads", lambda p: p.run([np.zeros(4, np.float32)], threads=0)),
}


@pytest.mark.parametrize("case", _BAD_RUNS)
def test_bad_runs_are_refused(case: str) -> None:
    kind, message, run = _BAD_RUNS[case]
    with pytest.raises(kind, match=message):
        run(chain())


def test_an_output_may_not_overlap_an_input_or_another_output() -> None:
    x = np.zeros(4, np.float32)
    with pytest.raises(gm.ArgumentError, match="output 0: shares memory"):
        chain().run([x], [x])
    plan = Plan(0, [], [_F32_4, _F32_4])
    with pytest.raises(gm.ArgumentError, match="output 1: shares memory"):
        plan.run([], [x, x])


def test_no_step_is_added_after_a_run() -> None:
    plan = chain()
    plan.run([np.zeros(4, np.float32)])
    with pytest.raises(gm.ArgumentError, match="late: a plan that has run"):
        plan.fill("late", Tensor.output(0, *_F32_4), 1.0)


def add_negation(x: Tensor, out: Tensor) -> None:
    Plan(32, [_F32_4], [_F32_4]).unary("layer7", "neg", x, out)


_ARENA = Tensor.arena(0, *_F32_4)
_BAD_TENSORS: dict[str, tuple[type[Exception], str, Tensor, Tensor]] = {
    "beyond the arena": (gm.LimitError, "layer7: out: .* ends beyond the 32", _ARENA, Tensor.arena(20, *_F32_4)),
    "offset beyond": (gm.LimitError, "layer7: x: .* ends beyond", Tensor.arena(1 << 62, *_F32_4), _ARENA),
    "huge": (
        gm.LimitError,
        "beyond the address space",
        Tensor.arena(0, "float32", (1 << 40, 1 << 40)),
        Tensor.arena(0, "float32", (1 << 40, 1 << 40)),
    ),
    "misaligned": (gm.ArgumentError, "layer7: x: .* not aligned", Tensor.arena(2, *_F32_4), _ARENA),
    "no such input": (gm.ArgumentError, "layer7: x: is number 1 of 1 inputs", Tensor.input(1, *_F32_4), _ARENA),
    "no such output": (gm.ArgumentError, "is number 3 of 1 outputs", _ARENA, Tensor.output(3, *_F32_4)),
    "beyond an input": (gm.LimitError, "layer7: x: .* inputs", Tensor.input(0, *_F32_4, offset=4), _ARENA),
    "beyond an output": (gm.LimitError, "layer7: out: .* outputs", _ARENA, Tensor.output(0, *_F32_4, offset=4)),
    "written input": (gm.ArgumentError, "only the arena and outputs", _ARENA, Tensor.input(0, *_F32_4)),
    "written constant": (gm.ArgumentError, "only the arena", _ARENA, Tensor.constant(np.zeros(4, np.float32))),
    "overlap": (gm.ArgumentError, "layer7: out: shares memory with x", _ARENA, Tensor.arena(8, *_F32_4)),
}


@pytest.mark.parametrize("case", _BAD_TENSORS)
def test_tensors_out_of_place_are_refused(case: str) -> None:
    kind, message, x, out = _BAD_TENSORS[case]
    with pytest.raises(kind, match=message):
        add_negation(x, out)


@pytest.mark.parametrize(
    ("dtype", "shape", "message"),
    [("float64", (1,), "float64"), ("float32", (-1,), "negative"), ("float32", (1.5,), "whole number")],
)
def test_bad_types_are_refused(dtype: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(gm.GristmillError, match=message):
        Tensor.arena(0, dtype, shape)
    with pytest.raises(gm.GristmillError, match=message):
        Plan(0, [(dtype, shape)], [])


def test_constants_of_other_types_are_refused() -> None:
    with pytest.raises(gm.DTypeError, match="float64"):
        Tensor.constant(np.zeros(2))
    with pytest.raises(gm.DTypeError, match="numpy array"):
        Tensor.constant(cast(Any, [1.0]))


def test_impossible_arenas_are_refused() -> None:
    with pytest.raises(gm.LimitError):
        Plan((1 << 63) + 5, [], [])
    with pytest.raises(gm.LimitError):
        Plan(0, [("float32", (1 << 40, 1 << 40))], [])


def test_packed_weights_of_the_wrong_kind_are_refused() -> None:
    kind = ("float32", (1, 1, 1, 1))
    plan = Plan(0, [kind], [kind])
    linear: Any = _core.PackedLinear(np.ones((1, 1), np.float32))
    with pytest.raises(gm.DTypeError, match="PackedConv"):
        plan.conv("c", Tensor.input(0, *kind), Tensor.output(0, *kind), linear)
