"""The protocol of ``python -m pytest bench``: one core, pinned; short, unless ``--full`` is given."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gristmill import kernels
from gristmill.benchmark.suites import bounds_line, pinned
from gristmill.machine import machine

#: Seconds of each benchmark, and of those of ``--full``.
_QUICK, _FULL = 0.15, 1.0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run every benchmark, and each for a second")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "full: takes long; only with --full")
    if not any(argument.startswith("--benchmark-columns") for argument in config.invocation_params.args):
        config.option.benchmark_columns = ["min", "median", "rounds"]
    config.addinivalue_line("markers", "threads: uses several cores, so it is not pinned to one")


def pytest_report_header() -> list[str]:
    """What a figure depends on, and what a core can do now."""
    with pinned():
        bounds = kernels.calibrate(seconds=0.3)
    return [", ".join(f"{name} {value}" for name, value in machine().items()), bounds_line(bounds)]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    full = config.getoption("full")
    timing = pytest.mark.benchmark(max_time=_FULL if full else _QUICK, min_time=1e-4, min_rounds=5, warmup=False)
    for item in items:
        item.add_marker(timing)
        if not full and item.get_closest_marker("full"):
            item.add_marker(pytest.mark.skip(reason="takes long: give --full"))


@pytest.fixture(autouse=True)
def one_core(request: pytest.FixtureRequest) -> Iterator[None]:
    """Pin what is measured to one core, unless it uses several."""
    if request.node.get_closest_marker("threads"):
        yield
        return
    with pinned():
        yield
