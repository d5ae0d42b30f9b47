"""What has to agree across the code base: versions, type stubs, examples, and the symbols of kernel objects."""

from __future__ import annotations

import doctest
import importlib
import importlib.metadata
import importlib.util
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gristmill as gm
from gristmill import _core
from isa_objects import leaked_symbols, level_objects

_ROOT = Path(__file__).parents[1]
_MODULES = ["gristmill", *(found.name for found in pkgutil.walk_packages(gm.__path__, "gristmill."))]
_LEAKY = "namespace gristmill { inline int helper() { return 1; } int install_dense_avx2() { return helper(); } }"
_TIGHT = "namespace gristmill { static int helper() { return 1; } int install_dense_avx2() { return helper(); } }"


def test_version_is_the_same_everywhere() -> None:
    declared = re.search(r'^version = "(.*)"$', (_ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert declared is not None
    assert gm.__version__ == _core.__version__ == declared[1]


def test_installed_version_is_the_same() -> None:
    try:
        installed = importlib.metadata.version("gristmill")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("gristmill is imported without being installed")
    assert installed == gm.__version__


def test_emulated_tests_cover_every_kernel_file() -> None:
    lines = (_ROOT / "tests/emulation/tests.txt").read_text().splitlines()
    rows = [line.split() for line in lines if not line.startswith("#")]
    level = "avx512vnni"
    files = [path.stem for path in (_ROOT / "cpp/src/kernels" / level).glob("*.cpp")]
    kernels = {stem.removesuffix(f"_{level}") for stem in files if not stem.startswith("install_")}
    assert {row[0] for row in rows} == kernels
    sources = "".join(path.read_text() for path in (_ROOT / "tests/cpp").glob("test_*.cpp"))
    tests = set(re.findall(r"ISA_TEST\((\w+)\)", sources))
    assert {name for row in rows for name in row[1:]} <= tests


def test_package_is_marked_as_typed() -> None:
    assert Path(gm.__file__).with_name("py.typed").is_file()


def test_stubs_agree_with_the_extension() -> None:
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    command = [sys.executable, "-m", "mypy.stubtest", "gristmill._core"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("name", [module for module in _MODULES if not module.endswith("__main__")])
def test_examples_run(name: str) -> None:
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert result.failed == 0


def test_examples_are_found() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples = [test for test in finder.find(importlib.import_module("gristmill.kernels")) if test.examples]
    assert examples


def test_bindings_release_the_lock_in_one_way() -> None:
    folder = _ROOT / "cpp" / "bindings"
    sources = [path for path in folder.iterdir() if path.suffix in {".cpp", ".h"}]
    assert folder / "gil.h" in sources
    others = re.compile(r"gil_scoped_release|PyEval_SaveThread|Py_BEGIN_ALLOW_THREADS")
    users = [path.name for path in sources if others.search(path.read_text())]
    assert users == ["gil.h"]


@pytest.mark.parametrize(("source", "leaks"), [(_LEAKY, ["W gristmill::helper()"]), (_TIGHT, [])])
def test_leaked_inline_functions_are_found(tmp_path: Path, source: str, leaks: list[str]) -> None:
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None or shutil.which("nm") is None:
        pytest.skip("no compiler and nm here")
    path = tmp_path / "CMakeFiles" / "gristmill_avx2.dir" / "dense_avx2.cpp.o"
    path.parent.mkdir(parents=True)
    (tmp_path / "dense_avx2.cpp").write_text(source)
    subprocess.run([compiler, "-O0", "-c", str(tmp_path / "dense_avx2.cpp"), "-o", str(path)], check=True)
    assert level_objects(tmp_path) == [("avx2", path)]
    assert leaked_symbols("avx2", path) == leaks
    assert "T gristmill::install_dense_avx2()" in leaked_symbols("avx512vnni", path)


def test_kernel_objects_leak_nothing() -> None:
    build = os.environ.get("GRISTMILL_BUILD_DIR")
    if build is None:
        pytest.skip("GRISTMILL_BUILD_DIR names no build directory")
    objects = level_objects(Path(build))
    assert objects
    assert {str(path): leaks for level, path in objects if (leaks := leaked_symbols(level, path))} == {}
