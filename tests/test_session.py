from __future__ import annotations

import multiprocessing
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import gristmill as gm
from graphs import Network, random_feeds, small_graph
from gristmill import reference
from gristmill.artefact import save_artefact
from gristmill.compile import CompiledGraph, compile_graph
from gristmill.session import KEPT_PLANS

Array = npt.NDArray[Any]


def expected(feeds: dict[str, Array]) -> list[Array]:
    return list(reference.run(small_graph(), feeds).values())


def assert_close(actual: list[Array] | tuple[Array, ...], feeds: dict[str, Array]) -> None:
    for value, wanted in zip(actual, expected(feeds), strict=True):
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-5)


def test_session_tells_what_it_takes_and_gives() -> None:
    session = gm.InferenceSession(small_graph())
    (x,) = session.get_inputs()
    assert (x.name, x.type, x.shape) == ("x", "tensor(float)", ("n", 3, "h", 8))
    assert [info.name for info in session.get_outputs()] == ["logits", "Relu_0"]
    assert repr(session).startswith("<InferenceSession x: float32[n, 3, h, 8] -> logits")


def test_any_batch_and_size_run() -> None:
    session = gm.InferenceSession(small_graph())
    for n in (1, 2, 0, 3):
        for h in (4, 9, 5, 6, 7):
            feeds = random_feeds(small_graph(), seed=h, n=n, h=h)
            assert_close(session.run(None, feeds), feeds)


def test_files_models_and_artefacts_are_taken(tmp_path: Path) -> None:
    feeds = random_feeds(small_graph(), n=1, h=4)
    path = tmp_path / "m.grist"
    save_artefact(small_graph(), path)
    for source in (path, str(path), path.read_bytes(), gm.Model(small_graph()), gm.load(path)):
        assert_close(gm.InferenceSession(source).run(None, feeds), feeds)


def test_outputs_are_chosen_by_name_and_written_where_asked() -> None:
    session = gm.InferenceSession(small_graph())
    feeds = random_feeds(small_graph(), n=2, h=4)
    y, logits = session.run(["Relu_0", "logits"], feeds)
    assert_close([logits, y], feeds)
    out = np.empty((2, 5), np.float32)
    results = session.run(None, feeds, out=[out, None])
    assert results[0] is out
    assert_close(results, feeds)
    called = session(feeds["x"])
    assert isinstance(called, tuple)
    assert_close(called, feeds)
    assert_close(session(x=feeds["x"]), feeds)  # type: ignore[arg-type]


def test_arrays_in_any_order_and_read_only_ones_are_taken() -> None:
    session = gm.InferenceSession(small_graph())
    feeds = random_feeds(small_graph(), n=2, h=4)
    other = np.asfortranarray(feeds["x"])
    other.flags.writeable = False
    assert_close(session.run(None, {"x": other}), feeds)


def test_an_empty_list_of_names_asks_for_all_outputs() -> None:
    session = gm.InferenceSession(small_graph(), threads=1)
    feeds = random_feeds(small_graph(), n=1, h=4)
    assert_close(session.run([], feeds), feeds)


def test_sessions_run_at_the_level_they_were_given(isa: str) -> None:
    feeds = random_feeds(small_graph(), n=1, h=4)
    gm.set_isa("scalar")
    assert_close(gm.InferenceSession(small_graph(), isa=isa).run(None, feeds), feeds)
    assert gm.get_isa() == "scalar"


def run_pickled(session: gm.InferenceSession, x: Array) -> Array:
    return session.run(["logits"], {"x": x})[0]


def test_sessions_are_pickled() -> None:
    session = gm.InferenceSession(small_graph(), threads=1, isa="scalar", select="heuristic")
    feeds = random_feeds(small_graph(), n=1, h=4)
    again = pickle.loads(pickle.dumps(session))
    assert (again._threads, again._packer.isa, again._select) == (1, "scalar", "heuristic")
    np.testing.assert_array_equal(again.run(None, feeds)[0], session.run(None, feeds)[0])


def test_sessions_work_in_spawned_processes() -> None:
    session = gm.InferenceSession(small_graph(), threads=1)
    x = random_feeds(small_graph(), n=1, h=4)["x"]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        result = pool.submit(run_pickled, session, x).result()
    np.testing.assert_array_equal(result, run_pickled(session, x))


def test_many_threads_share_a_session() -> None:
    session = gm.InferenceSession(small_graph(), threads=1)
    many = [random_feeds(small_graph(), seed=seed, n=1 + seed % 3, h=4 + seed % 11) for seed in range(24)]
    single = [session.run(None, feeds) for feeds in many]
    failures: list[str] = []

    def work(start: int) -> None:
        for index in range(200):
            which = (start + index) % len(many)
            for value, wanted in zip(session.run(None, many[which]), single[which], strict=True):
                if not np.array_equal(value, wanted):
                    failures.append(f"feeds {which}")

    workers = [threading.Thread(target=work, args=(start,)) for start in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert failures == []


def test_values_of_inputs_may_decide_about_shapes() -> None:
    net = Network()
    x, shape = net.input("n", 6), net.input("k", name="shape", dtype=np.int64)
    graph = net.graph(net.add("Reshape", net.add("Relu", x), net.add("Abs", shape)), shape)
    session = gm.InferenceSession(graph)
    data = np.arange(12, dtype=np.float32).reshape(2, 6)
    for wanted in ((3, 4), (4, 3), (12,), (2, 1, 6), (3, 4)):
        y, given = session(data, np.array(wanted, np.int64))
        np.testing.assert_array_equal(y, data.reshape(wanted))
        np.testing.assert_array_equal(given, wanted)
    with pytest.raises(gm.UnsupportedOpError, match="shape: the input decides about shapes by 65 values; up to 64"):
        session(data, np.ones(65, np.int64))


def test_profile_names_every_step() -> None:
    session = gm.InferenceSession(small_graph(), threads=1)
    profile = session.profile(random_feeds(small_graph(), n=1, h=4)["x"])
    assert [step.op for step in profile.steps] == ["ConvLayer", "GlobalAveragePool", "LinearLayer"]
    assert profile.steps[0].macs == 4 * 3 * 9 * 4 * 8
    assert profile.milliseconds > 0
    assert "Relu_0" in str(profile)
    with pytest.raises(gm.ArgumentError, match="expected 1 inputs, got 0"):
        session.profile()


@pytest.mark.parametrize("threads", [1, 2])
def test_bounds_are_those_of_the_cores_and_the_element_type(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gristmill.profile._giga_macs", lambda _isa: (100.0, 10.0))
    session = gm.InferenceSession(small_graph(), threads=threads)
    steps = session.profile(random_feeds(small_graph(), n=1, h=4)["x"], runs=1).steps
    assert [step.bound for step in steps if step.macs] == [10.0 * threads] * 2


LONG_RUN = """
import signal
import numpy as np
import gristmill as gm
from gristmill.graph import GraphBuilder

builder = GraphBuilder()
y = builder.input("x", np.float32, (1, 64, 96, 96))
weights = builder.constant("w", np.zeros((64, 64, 3, 3), np.float32))
for _ in range(200):
    y = builder.add("Conv", [y, weights], pads=(1, 1, 1, 1))
session = gm.InferenceSession(builder.build([y]), threads=1, isa="scalar")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
print("ready", flush=True)
try:
    for _ in range(100):
        session(np.zeros((1, 64, 96, 96), np.float32))
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to a child")
def test_an_interrupt_ends_a_long_run() -> None:
    command = [sys.executable, "-c", LONG_RUN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.2)
        sent = time.monotonic()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert (output, errors, process.returncode) == ("interrupted\n", "", 0)
    assert time.monotonic() - sent < 30


def test_initializers_that_are_inputs_too_are_constants(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    kinds = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2]) for name in ("x", "w", "y")]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        "g",
        kinds[:2],
        kinds[2:],
        [numpy_helper.from_array(np.array([1, 2], np.float32), "w")],
    )
    session = gm.InferenceSession(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))
    assert [info.name for info in session.get_inputs()] == ["x"]
    np.testing.assert_array_equal(session(np.ones(2, np.float32)), [2, 3])


def test_scalars_and_empty_tensors_run() -> None:
    net = Network()
    x = net.input(name="x")
    graph = net.graph(net.add("Mul", x, net.constant(2.0)), net.add("Concat", net.input(0, "k", name="z"), axis=0))
    y, z = gm.InferenceSession(graph)(np.array(3, np.float32), np.zeros((0, 4), np.float32))
    assert (y, y.shape, z.shape) == (6, (), (0, 4))


def test_plans_are_kept_for_the_last_shapes_only() -> None:
    session = gm.InferenceSession(small_graph(), threads=1)
    for h in range(4, 4 + 2 * KEPT_PLANS):
        session.run(None, random_feeds(small_graph(), n=1, h=h))
    assert len(session._plans) == KEPT_PLANS
    feeds = random_feeds(small_graph(), n=1, h=4)
    assert_close(session.run(None, feeds), feeds)


def test_threads_that_want_a_plan_at_once_compile_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = gm.InferenceSession(small_graph(), threads=1)
    feeds = random_feeds(small_graph(), n=1, h=4)
    compiled = []

    def slowly(*arguments: Any) -> CompiledGraph:  # noqa: ANN401
        compiled.append(threading.get_ident())
        time.sleep(0.2)
        return compile_graph(*arguments)

    monkeypatch.setattr("gristmill.session.compile_graph", slowly)
    with ThreadPoolExecutor(3) as pool:
        for results in pool.map(lambda _: made.run(None, feeds), range(3)):
            assert_close(results, feeds)
    assert len(compiled) == 1


def test_a_plan_that_a_thread_has_found_is_not_dropped_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    made = gm.InferenceSession(small_graph(), threads=1)
    shapes = [random_feeds(small_graph(), n=1, h=h) for h in range(4, 5 + KEPT_PLANS)]
    for feeds in shapes[:-1]:
        made.run(None, feeds)
    found, dropped = threading.Event(), threading.Event()

    class Slow(OrderedDict[Any, Any]):
        def get(self, key: object, default: object = None) -> object:
            value = super().get(key, default)
            if value is not None and not found.is_set():
                found.set()
                dropped.wait(0.5)
            return value

        def popitem(self, last: bool = True) -> tuple[Any, Any]:
            item = super().popitem(last)
            dropped.set()
            return item

    made._plans = Slow(made._plans)
    with ThreadPoolExecutor(1) as pool:
        runs = []

        def meanwhile(*arguments: Any) -> CompiledGraph:  # noqa: ANN401
            compiled = compile_graph(*arguments)
            runs.append(pool.submit(made.run, None, shapes[0]))
            assert found.wait(10)
            return compiled

        monkeypatch.setattr("gristmill.session.compile_graph", meanwhile)
        assert_close(made.run(None, shapes[-1]), shapes[-1])
        assert_close(runs[0].result(), shapes[0])


def test_weights_are_packed_once_for_all_batches() -> None:
    session = gm.InferenceSession(small_graph(), threads=1)
    for n in (1, 2, 3):
        session.run(None, random_feeds(small_graph(), n=n, h=4))
    assert len(session._packer._packed) == 2


@pytest.mark.parametrize("most", [60, 127])
def test_weights_have_a_form_for_batches_where_that_is_faster(isa: str, most: int) -> None:
    net = Network()
    scale, zero = net.constant(0.05), net.constant(120, np.uint8)
    x = net.add("DequantizeLinear", net.add("QuantizeLinear", net.input("n", 256), scale, zero), scale, zero)
    values = net.constant(net.random.integers(-most, most + 1, (256, 24)), np.int8)
    weights = net.add("DequantizeLinear", values, net.constant(0.01), net.constant(0, np.int8))
    session = gm.InferenceSession(net.graph(net.add("MatMul", x, weights)), threads=1)
    rows = net.random.standard_normal((17, 256)).astype(np.float32)
    (expected,) = session.run(None, {"x": rows[:1]})
    (first,) = session._packer._packed.values()
    for n in (16, 17, 2, 8):
        (y,) = session.run(None, {"x": rows[:n]})
        np.testing.assert_array_equal(y[:1], expected)
    packed = [*session._packer._packed.values()]
    assert first in packed
    forms = [False, True] if isa == "avx2" and most == 60 else [False]
    assert sorted(getattr(p, "batched", False) for p in packed) == forms


def test_what_sessions_do_not_need_is_not_imported() -> None:
    program = (
        "import sys, gristmill; from gristmill.loaders import load; "
        "print(*(name for name in sys.modules if name.startswith('gristmill.')), *dir(gristmill))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert {"gristmill.session", "optimize", "load_weights"} <= set(found)
    for part in ("optimizer", "evaluation", "sequential", "weights", "benchmark", "loaders.keras", "loaders.tflite"):
        assert f"gristmill.{part}" not in found
