"""Pages that need nothing else: headings, text, figures, tables and charts in one style, light or dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gristmill.charts.markup import Content, Html, element, join
from gristmill.charts.style import STYLE
from gristmill.console import Table

__all__ = ["Section", "Tile", "folded", "notes", "page", "table", "tiles"]


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it: finished HTML, or text that becomes a paragraph."""

    heading: str
    content: Sequence[Content]


@dataclass(frozen=True)
class Tile:
    """One figure to be seen at a glance.

    Attributes:
        value: The figure, with its unit.
        label: What it is.
        note: What it is compared with.
        tone: ``best``, ``loss``, or nothing.
    """

    value: str
    label: str
    note: str = ""
    tone: str = ""


def tiles(shown: Sequence[Tile]) -> Html:
    """Figures side by side."""
    cards = [
        element(
            "div",
            element("div", tile.label, class_="tile-label"),
            element("div", tile.value, class_=f"tile-value {tile.tone}".rstrip()),
            element("div", tile.note, class_="tile-note"),
            class_="tile",
        )
        for tile in shown
    ]
    return element("div", *cards, class_="tiles")


def table(source: Table, *, best: Sequence[int] = ()) -> Html:
    """A table of the console as HTML; the rows whose numbers are in ``best`` are marked as winners.

    Example:
        >>> rows = Table(["who", "ms"])
        >>> rows.add("<a>", "1")
        >>> "&lt;a&gt;" in table(rows, best=[0])
        True
    """
    align = source.align or "<" + ">" * (len(source.columns) - 1)
    sides = ["left" if side == "<" else "right" for side in align]
    heads = [element("th", name, class_=side, scope="col") for name, side in zip(source.columns, sides, strict=True)]
    rows = []
    for number, cells in enumerate(source.rows):
        drawn = [
            element("td", cell.text, class_=f"{side} {cell.style}".rstrip())
            for cell, side in zip(cells, sides, strict=True)
        ]
        rows.append(element("tr", *drawn, class_="winner" if number in best else None))
    title = [element("caption", source.title)] if source.title else []
    whole = element("table", *title, element("thead", element("tr", *heads)), element("tbody", *rows))
    return element("div", whole, class_="wide")


def notes(lines: Sequence[str]) -> Html:
    """Remarks, one below the other."""
    return element("ul", *(element("li", line) for line in lines), class_="notes")


def folded(summary: str, *content: Content) -> Html:
    """Content that is shown when its summary is clicked."""
    return element("details", element("summary", summary), *map(_block, content))


def page(title: str, sections: Sequence[Section], *, lead: str = "", footer: str = "") -> str:
    """A complete page: no scripts, no fonts, nothing fetched; everything that is not HTML already is escaped.

    Example:
        >>> text = page("A & B", [Section("One", ["1 < 2"])])
        >>> text.startswith("<!doctype html>"), "A &amp; B" in text, "1 &lt; 2" in text
        (True, True, True)
    """
    head = join(
        Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'),
        Html('<meta name="color-scheme" content="light dark">'),
        element("title", title),
        element("style", Html(STYLE)),
    )
    top = element("header", element("h1", title), *([element("p", lead, class_="lead")] if lead else []))
    body = [
        element("section", *([element("h2", one.heading)] if one.heading else []), *map(_block, one.content))
        for one in sections
    ]
    end = [element("footer", footer)] if footer else []
    whole = element("html", element("head", head), element("body", element("main", top, *body, *end)), lang="en")
    return f"<!doctype html>\n{whole}\n"


def _block(content: Content) -> Html:
    return content if isinstance(content, Html) else element("p", content)
