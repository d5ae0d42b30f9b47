"""``gm.bench`` and ``gristmill bench``: tables, bounds and break-even of the kernels on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import gristmill as gm
from gristmill import cli
from gristmill.benchmark import TABLES, Bar, Benchmark, bench
from gristmill.benchmark.bars import table
from test_charts import check_page


@pytest.fixture(scope="module")
def found() -> Benchmark:
    return bench(["gemm", "linear", "sparse"], seconds=0.001)


def test_ratios_are_shares_of_bounds_of_the_same_run(found: Benchmark) -> None:
    assert list(found.tables) == ["gemm", "linear", "sparse"]
    for bar in found.tables["gemm"]:
        limit = found.bounds.int8_macs.best if bar.name.startswith("int8") else found.bounds.f32_fmas.best
        assert bar.ratio == pytest.approx(float(bar.figure.split()[0]) / limit, rel=0.02, abs=0.02)
        assert 0 < bar.ratio < 3


def test_sparse_table_and_curve_say_the_same(found: Benchmark) -> None:
    ratios = [ratio for points in found.curve.values() for _, ratio in points]
    assert [bar.ratio for bar in found.tables["sparse"]] == ratios
    # More zeros are less work: whatever the noise, 95 % is faster than 50 %.
    assert all(points[-1][1] > points[0][1] for points in found.curve.values())


def test_page_json_and_text(found: Benchmark) -> None:
    check_page(found.html())
    assert set(json.loads(found.json())) == {"schema", "machine", "bounds", "tables", "curve", "notes"}
    for text in (found.html(), str(found)):
        assert all(bar.name in text for bars in found.tables.values() for bar in bars)


def test_command_writes_json_and_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.html"
    assert cli.main(["bench", "gemm", "--seconds", "0.001", "--json", "--html", str(page)]) == 0
    assert list(json.loads(capsys.readouterr().out)["tables"]) == ["gemm"]
    check_page(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("argv", "message"), [(["gem"], "tables: must be among"), (["--seconds", "-1"], "seconds")])
def test_mistakes_are_one_line(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", *argv]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_one_core_and_the_lowest_level() -> None:
    program = (
        "import os; os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})\n"
        "from gristmill.cli import main; raise SystemExit(main(['bench', 'threads', 'linear', '--seconds', '0.001']))"
    )
    environment = {**os.environ, "GRISTMILL_ISA": "scalar", "HOME": "/proc/nothing"}
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment)
    assert (run.returncode, run.stderr) == (0, "")
    assert "One core is usable here, so two threads are not measured." in run.stdout
    assert "level scalar" in run.stdout
    assert TABLES["linear"] in run.stdout


def test_the_core_is_given_back() -> None:
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("no affinity here")
    before = os.sched_getaffinity(0)
    bench(["linear"], seconds=0.001)
    assert os.sched_getaffinity(0) == before


def test_bars_that_miss_are_red_and_losses_have_an_upper_limit() -> None:
    drawn = table("t", [Bar("a", "", "", 1.0, 2.0), Bar("b", "", "", 1.0, 2.0, at_most=True), Bar("c", "", "", 1.0)])
    assert [row[5].text for row in drawn.rows] == ["missed", "met", ""]
    assert drawn.rows[0][5].style == "red"


def test_package_has_it_by_name() -> None:
    assert gm.bench is bench
