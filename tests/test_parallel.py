from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

import gristmill as gm
from gristmill import _core

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="uses Linux facilities")
can_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork()")

# What scripts share: an array, its quantization on one thread, and a check that uses the pool.
_PRELUDE = """
import os, resource, sys, threading, time
import numpy as np
import gristmill as gm
from gristmill import _core
x = np.linspace(-3.0, 3.0, 1 << 18, dtype=np.float32)
expected = gm.kernels.quantize_per_tensor(x, 0.02, 3, np.int8, threads=1)
def works(threads=2):
    ran = _core.bench.time_compute_section(8, 10, threads) > 0
    return ran and np.array_equal(gm.kernels.quantize_per_tensor(x, 0.02, 3, np.int8, threads=threads), expected)
def status_of(child, seconds=10):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.0005)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return "no end after ten seconds"
"""


def run_script(body: str, **environment: str) -> str:
    """Run a script in a fresh interpreter; return its output. A crash, a hang or a word on stderr is a failure."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", _PRELUDE + textwrap.dedent(body)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


@can_fork
def test_children_of_fork_build_their_own_pool() -> None:
    script = """
        assert works() and _core.pool_workers() == 1
        for i in range(200):
            child = os.fork()
            if child == 0:
                forgotten = _core.pool_workers() == 0
                os._exit(0 if forgotten and works() and _core.pool_workers() == 1 else 1)
            assert (status := status_of(child)) == 0, (i, status)
        assert works()
    """
    run_script(script)


@can_fork
def test_forks_while_another_thread_uses_the_pool() -> None:
    script = """
        stop = threading.Event()
        def use():
            while not stop.is_set():
                _core.bench.time_compute_section(32, 20, 2)
        threads = [threading.Thread(target=use) for _ in range(2)]
        for thread in threads: thread.start()
        for i in range(200):
            child = os.fork()
            if child == 0:
                os._exit(0 if works() and _core.pool_workers() == 1 else 1)
            assert (status := status_of(child)) == 0, (i, status)
        stop.set()
        for thread in threads: thread.join()
        assert works()
    """
    run_script(script)


@can_fork
def test_child_of_fork_exits_normally() -> None:
    script = """
        assert works()
        child = os.fork()
        if child == 0:
            assert works()
            sys.exit(7)
        assert status_of(child) == 7
    """
    run_script(script)


def test_several_python_threads_at_once() -> None:
    x = np.linspace(-3.0, 3.0, 1 << 16, dtype=np.float32)
    expected = gm.kernels.quantize_per_tensor(x, 0.02, 3, np.int8, threads=1)
    wrong: list[int] = []

    def use(threads: int) -> None:
        for _ in range(50):
            _core.bench.time_compute_section(16, 5, threads)
            if not np.array_equal(gm.kernels.quantize_per_tensor(x, 0.02, 3, np.int8, threads=threads), expected):
                wrong.append(threads)

    callers = [threading.Thread(target=use, args=(1 + i % 4,)) for i in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(timeout=60)
    assert not any(caller.is_alive() for caller in callers)
    assert wrong == []


def test_interpreter_exits_with_a_living_pool() -> None:
    assert run_script("assert works(4); print(_core.pool_workers())") == "3"


@pytest.mark.parametrize("attempt", range(3))
def test_interpreter_exits_while_daemon_threads_run_sections(attempt: int) -> None:
    script = """
        def use():
            while True: _core.bench.time_compute_section(64, 50, 3)
        for _ in range(3): threading.Thread(target=use, daemon=True).start()
        time.sleep(0.05)
        assert works()
    """
    run_script(script)


@linux
def test_refused_threads_are_done_without() -> None:
    script = """
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 20), before[1]))  # less than one thread's stack
        seconds = _core.bench.time_compute_section(64, 10, 8)
        refused = _core.pool_workers()
        resource.setrlimit(resource.RLIMIT_AS, before)
        assert seconds > 0 and refused == 0, refused
        time.sleep(1.1)  # a refusal is believed for a second
        assert works(8)
        print(_core.pool_workers())
    """
    assert run_script(script) == "7"


@linux
def test_some_refused_threads_leave_the_others() -> None:
    script = """
        import threading
        _, hard = resource.getrlimit(resource.RLIMIT_STACK)
        with open("/proc/self/statm") as file:
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (20 << 20), resource.getrlimit(resource.RLIMIT_AS)[1]))
        assert _core.bench.time_compute_section(64, 10, 200) > 0
        print(_core.pool_workers())
    """
    assert 0 < int(run_script(script)) < 199


@pytest.mark.parametrize("threads", ["1", "3", "256"])
def test_environment_sets_the_threads(threads: str) -> None:
    script = "_core.bench.time_compute_section(300, 1, None); print(gm.get_num_threads(), _core.pool_workers())"
    assert run_script(script, GRISTMILL_NUM_THREADS=threads) == f"{threads} {int(threads) - 1}"


@pytest.mark.parametrize("value", ["0", "-1", "257", "two", "1.5", " 2", "²", "9" * 40])
def test_environment_with_a_bad_value_is_an_error(value: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import gristmill"],
        env={**os.environ, "GRISTMILL_NUM_THREADS": value},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "ArgumentError: GRISTMILL_NUM_THREADS: " in done.stderr


@linux
def test_default_follows_the_affinity() -> None:
    script = """
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        print(gm.kernels.cpu_info().usable_cores, gm.get_num_threads())
    """
    assert run_script(script.replace("gm.get_num_threads()", "_core.get_num_threads()")) == "1 1"


def test_idle_pool_burns_no_time() -> None:
    script = """
        time.sleep(0.3)  # numpy's own threads spin after import
        assert works(4)
        time.sleep(0.05)
        before, ticks = time.process_time(), os.times()
        time.sleep(0.2)
        after, more = time.process_time(), os.times()
        print(after - before, more.user + more.system - ticks.user - ticks.system)
    """
    fine, coarse = map(float, run_script(script).split())
    assert fine < 0.004
    assert round(coarse, 6) <= 0.01  # one tick, less what subtracting floats adds to it


def test_oversubscription_does_not_spin() -> None:
    script = """
        time.sleep(0.3)  # numpy's own threads spin after import
        def seconds(threads):
            start = time.process_time()
            for _ in range(50): _core.bench.time_compute_section(16, 20000, threads)
            return time.process_time() - start
        many = 4 * gm.kernels.cpu_info().usable_cores
        seconds(many)
        print(min(seconds(many) / seconds(1) for _ in range(3)))
    """
    assert float(run_script(script)) < 1.5


def test_set_num_threads_round_trips() -> None:
    before = gm.get_num_threads()
    gm.set_num_threads(5)
    assert gm.get_num_threads() == 5
    gm.set_num_threads(before)


@pytest.mark.parametrize("bad", [0, -1, 257, 10**30])
def test_set_num_threads_refuses(bad: int) -> None:
    before = gm.get_num_threads()
    with pytest.raises(gm.ArgumentError, match="threads: "):
        gm.set_num_threads(bad)
    assert gm.get_num_threads() == before
