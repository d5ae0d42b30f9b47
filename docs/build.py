"""Makes the documentation: pages of HTML from the Markdown files and from the docstrings of everything public.

    python docs/build.py [--output FOLDER]

It needs nothing but gristmill. A link that leads nowhere, or something public without a docstring, is an error.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from docs_markdown import Page, render
from docs_reference import MODULES, reference
from gristmill import __version__
from gristmill.charts import Html, Section, element, page

_DOCS = Path(__file__).parent
_ROOT = _DOCS.parent
_BESIDE = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "bench/README.md")
_STYLE = (
    "pre{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:.9rem 1.1rem;overflow-x:auto;"
    "font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}"
    "code{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.9em}pre code{font-size:inherit}"
    "p code,li code,td code{background:var(--grid);border-radius:4px;padding:.05em .3em}"
    "nav{display:flex;flex-wrap:wrap;gap:.3rem 1.1rem;border-bottom:1px solid var(--line);padding-bottom:1rem;"
    "margin-bottom:2rem;font-size:.92rem}a{color:var(--own)}nav .here{font-weight:600;color:var(--ink)}"
    "h1{font-size:2rem}h2{margin-top:2.4rem}h3{margin:1.9rem 0 .4rem}li{margin:.25rem 0;max-width:46rem}"
    "td{white-space:normal;vertical-align:top}img{max-width:100%}section{margin-top:0}"
)


@dataclass
class Site:
    """All pages, by the path of their source.

    Attributes:
        sources: Markdown, by a path relative to the repository.
        pages: What rendering found, by the same paths.
        problems: Links that lead nowhere.
    """

    sources: dict[PurePosixPath, str]
    pages: dict[PurePosixPath, Page] = field(default_factory=dict)
    links: list[tuple[PurePosixPath, PurePosixPath, str, str]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def resolve(self, source: PurePosixPath, url: str) -> str | None:
        """The address of a link's target; None for a file of the repository that is no page."""
        if url.startswith(("https://", "http://")):
            return url
        path, _, anchor = url.partition("#")
        target = PurePosixPath(os.path.normpath(source.parent / path)) if path else source
        if target in self.sources:
            self.links.append((source, target, anchor, url))
            return f"{address(target)}{'#' * bool(anchor)}{anchor}"
        if not (_ROOT / target).exists():
            self.problems.append(f"{source}: {url}: there is no such file")
        elif target.suffix == ".svg":
            return target.name
        return None

    def check_anchors(self) -> None:
        """Complain about links to headings that are not there."""
        for source, target, anchor, url in self.links:
            if anchor and anchor not in self.pages[target].anchors:
                self.problems.append(f"{source}: {url}: there is no such heading")


def address(source: PurePosixPath) -> str:
    """The file that a page is written to: all lie in one folder."""
    if source.parent == PurePosixPath("docs"):
        return f"{source.stem}.html"
    return f"{'-'.join([*source.parent.parts, source.stem.lower()])}.html"


def collect() -> Site:
    """The Markdown of all pages."""
    files = [*sorted(_DOCS.glob("*.md")), *(_ROOT / name for name in _BESIDE)]
    sources = {PurePosixPath(file.relative_to(_ROOT).as_posix()): file.read_text(encoding="utf-8") for file in files}
    for module in MODULES:
        sources[PurePosixPath(f"docs/{module}.md")] = reference(module)
    entries = "".join(f"- [{module}]({module}.md)\n" for module in MODULES)
    sources[PurePosixPath("docs/api.md")] = f"# API reference\n\nMade of the docstrings.\n\n{entries}"
    return Site(sources)


def write(site: Site, folder: Path) -> None:
    """Write all pages."""
    folder.mkdir(parents=True, exist_ok=True)
    bodies = {}
    for source, text in site.sources.items():
        site.pages[source] = made = Page(lambda url, source=source: site.resolve(source, url))  # type: ignore[misc]
        bodies[source] = render(text, made)
    site.check_anchors()
    for source, body in bodies.items():
        (folder / address(source)).write_text(_whole(site, source, body), encoding="utf-8")
    for picture in _DOCS.glob("*.svg"):
        (folder / picture.name).write_bytes(picture.read_bytes())


def _whole(site: Site, source: PurePosixPath, body: Html) -> str:
    order = (
        "docs/index.md",
        "docs/guide.md",
        "docs/deploy.md",
        "docs/kernels.md",
        "docs/format.md",
        "docs/ablation.md",
        "docs/api.md",
    )
    entries = []
    for name in map(PurePosixPath, order):
        here = name == source
        entries.append(element("a", site.pages[name].title, href=address(name), class_="here" if here else None))
    content = [element("style", Html(_STYLE)), element("nav", *entries), body]
    if source.stem.startswith("gristmill"):
        inside = [
            element("a", text, href=f"#{anchor}") for level, anchor, text in site.pages[source].headings if level == 2
        ]
        content.insert(2, element("nav", *inside))
    text = page(site.pages[source].title, [Section("", content)], footer=f"gristmill {__version__}")
    return text.replace(f"<header>{element('h1', site.pages[source].title)}</header>", "")


def main() -> int:
    """Write the pages; the exit status is 1 if they cannot be written or a link leads nowhere."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=_ROOT / "build" / "docs", metavar="FOLDER")
    folder = parser.parse_args().output
    site = collect()
    try:
        write(site, folder)
    except OSError as error:
        print(f"{folder} cannot be written: {error.strerror}; --output chooses another folder", file=sys.stderr)
        return 1
    print("\n".join([*site.problems, f"{folder}: {len(site.pages)} pages, {len(site.links)} links between them"]))
    return int(bool(site.problems))


if __name__ == "__main__":
    sys.exit(main())
