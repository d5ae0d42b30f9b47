"""Levels: what is reported, what can be forced, and what a wrong name does."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import gristmill as gm

_ASCENDING = ["scalar", "avx2", "avx512vnni", "amx", "neon", "neon_dotprod", "neon_i8mm"]


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter in which only these ``GRISTMILL_`` variables are set."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GRISTMILL_")}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=inherited | environment, capture_output=True, text=True, check=False)


def test_levels_are_reported_lowest_first() -> None:
    compiled, supported = gm.kernels.compiled_isas(), gm.kernels.supported_isas()
    assert compiled == [level for level in _ASCENDING if level in compiled]
    assert supported == compiled[: len(supported)]
    assert supported[0] == "scalar"


def test_highest_supported_level_is_the_default() -> None:
    result = run_python("import gristmill as gm; print(gm.get_isa() == gm.kernels.supported_isas()[-1])")
    assert result.stdout == "True\n", result.stderr


def test_environment_forces_a_level(isa: str) -> None:
    result = run_python("import gristmill as gm; print(gm.get_isa())", GRISTMILL_ISA=isa)
    assert result.stdout == f"{isa}\n", result.stderr


@pytest.mark.parametrize("name", ["avx1024", "AVX2", " avx2", "scalar,avx2"])
def test_environment_with_an_unknown_level_is_an_error(name: str) -> None:
    result = run_python("import gristmill", GRISTMILL_ISA=name)
    assert result.returncode == 1
    last_line = result.stderr.splitlines()[-1]
    assert last_line.startswith("gristmill.errors.IsaError: ")
    assert name in last_line


@pytest.mark.parametrize("name", ["avx1024", "AVX2", "", "scalar\0"])
def test_unknown_level_is_an_error(name: str) -> None:
    before = gm.get_isa()
    with pytest.raises(gm.IsaError):
        gm.set_isa(name)
    assert gm.get_isa() == before


def test_foreign_level_is_an_error() -> None:
    foreign = next(level for level in reversed(_ASCENDING) if level not in gm.kernels.supported_isas())
    with pytest.raises(gm.IsaError, match=foreign):
        gm.set_isa(foreign)


@pytest.mark.parametrize("threads", ["0", "-1", "two", "1.5", "²"])
def test_environment_with_a_senseless_thread_count_is_an_error(threads: str) -> None:
    result = run_python("import gristmill", GRISTMILL_NUM_THREADS=threads)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("gristmill.errors.ArgumentError: ")


def test_a_required_level_that_no_test_ran_at_fails_the_run() -> None:
    arguments = ["-q", "-p", "no:cacheprovider", __file__, "-k", "test_environment_forces_a_level"]
    code = f"import sys, pytest; sys.exit(pytest.main({arguments!r}))"
    assert run_python(code, GRISTMILL_REQUIRE_ISA="scalar").returncode == 0
    missing = "neon" if "neon" not in gm.kernels.supported_isas() else "avx2"
    result = run_python(code, GRISTMILL_REQUIRE_ISA=f"scalar,{missing}")
    assert result.returncode == 1
    assert f"no test ran at {missing}, which is required" in result.stdout


def test_import_is_silent() -> None:
    result = run_python("import gristmill")
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
