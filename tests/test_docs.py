from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gristmill.cli import build_parser
from snippets import ROOT, blocks, check_prints

PAGES = sorted((ROOT / "docs").glob("*.md"))


def build(docs: Path, output: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(docs / "build.py"), "--output", str(output)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    made = build(ROOT / "docs", folder)
    assert made.returncode == 0, made.stdout + made.stderr
    return folder


def test_site_is_whole(site: Path) -> None:
    names = {path.name for path in site.glob("*.html")}
    assert {"index.html", "guide.html", "deploy.html", "kernels.html", "format.html", "gristmill.html"} <= names
    for path in site.glob("*.html"):
        text = path.read_text(encoding="utf-8")
        for target in re.findall(r'(?:href|src)="([^"#:]+)[#"]', text):
            assert (site / target).is_file(), f"{path.name} points to {target}"


def test_reference_has_everything_public(site: Path) -> None:
    import gristmill as gm

    text = "".join((site / name).read_text(encoding="utf-8") for name in ("gristmill.html", "gristmill.errors.html"))
    for name in gm.__all__:
        if callable(getattr(gm, name)):
            assert f'id="{name.lower()}"' in text
    assert "calibrator" in text


def test_links_that_lead_nowhere_are_errors(tmp_path: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(ROOT / "docs", root / "docs")
    (root / "bench").mkdir()
    for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "bench/README.md", "LICENSE"):
        (root / name).write_text("# Nothing\n")
    page = root / "docs" / "index.md"
    page.write_text("# Index\n\n[gone](gone.md) [no heading](guide.md#nowhere) [good](guide.md#install)\n")
    made = build(root / "docs", tmp_path / "out")
    assert made.returncode == 1
    assert "docs/index.md: gone.md: there is no such file" in made.stdout
    assert "docs/index.md: guide.md#nowhere: there is no such heading" in made.stdout
    assert "#install" not in made.stdout


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_python_examples_run_and_print_what_they_say(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GRISTMILL_CACHE_DIR", str(tmp_path))
    check_prints("\n".join(blocks(path, "python")))


@pytest.mark.parametrize("package", ["dask", "ray"])
def test_examples_of_other_packages_run(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    path = ROOT / "docs" / "deploy.md"
    (code,) = blocks(path, f"python needs={package}")
    check_prints(f"{blocks(path, 'python')[0]}\n{code}")


def test_commands_on_pages_parse() -> None:
    parser = build_parser()
    lines = [
        line for path in [*PAGES, ROOT / "README.md"] for block in blocks(path, "sh") for line in block.splitlines()
    ]
    commands = [line.split("#")[0].split()[1:] for line in lines if line.startswith("gristmill ")]
    assert len(commands) >= 4
    for command in commands:
        parser.parse_args(command)
