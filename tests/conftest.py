"""What all tests share: the level they run at, deterministic random examples, and the report's header.

``GRISTMILL_REQUIRE_ISA=avx2,...`` makes a run fail unless each level named was exercised.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

import gristmill as gm

_exercised = pytest.StashKey[set[str]]()

for _profile, _examples in (("dev", 50), ("ci", 200)):
    settings.register_profile(
        _profile,
        max_examples=_examples,
        deadline=None,
        derandomize=True,
        database=None,
        print_blob=True,
        # The `isa` fixture is the same for all examples of a test.
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))


@pytest.fixture(params=gm.kernels.compiled_isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """The active level: each compiled one in turn, those this processor lacks as visible skips."""
    level: str = request.param
    if level not in gm.kernels.supported_isas():
        pytest.skip(f"this processor lacks {level}")
    before = gm.get_isa()
    gm.set_isa(level)
    request.config.stash[_exercised].add(level)
    yield level
    gm.set_isa(before)


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_exercised] = set()
    folder = tempfile.TemporaryDirectory(prefix="gristmill-tests-")
    config.add_cleanup(folder.cleanup)
    os.environ["GRISTMILL_CACHE_DIR"] = folder.name


def pytest_report_header() -> str:
    """Say what is tested and on what."""
    compiled, supported = gm.kernels.compiled_isas(), gm.kernels.supported_isas()
    levels = ", ".join(level if level in supported else f"{level} (not on this processor)" for level in compiled)
    return f"gristmill {gm.__version__}; levels: {levels}; {gm.kernels.cpu_info().model}"


def _missing_levels(config: pytest.Config) -> list[str]:
    required = os.environ.get("GRISTMILL_REQUIRE_ISA", "")
    return [level for level in required.split(",") if level and level not in config.stash[_exercised]]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that should have exercised a level and did not."""
    collect_only = session.config.getoption("collectonly")
    if not collect_only and session.exitstatus == pytest.ExitCode.OK and _missing_levels(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name the required levels that no test ran at."""
    if missing := _missing_levels(config):
        terminalreporter.write_line(
            f"FAILED GRISTMILL_REQUIRE_ISA: no test ran at {', '.join(missing)}, which is required", red=True
        )
