"""Markdown to HTML, as far as the documentation uses it: headings, text, lists, tables, code, links and pictures."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from gristmill.charts import Html, element, join

__all__ = ["Page", "render", "slug"]

Resolve = Callable[[str], str | None]

_INLINE = re.compile(
    r"(?P<code>`+)(?P<literal>.+?)(?P=code)"
    r"|(?P<image>!?)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<url>[^)\s]+)\)"
    r"|\*\*(?P<strong>.+?)\*\*"
    r"|(?<![\w*])\*(?P<emphasis>[^*\s](?:[^*]*[^*\s])?)\*(?![\w*])",
    re.DOTALL,
)
_FENCE = re.compile(r"^```(.*)$")
_HEADING = re.compile(r"^(#{1,6}) (.+)$")
_ITEM = re.compile(r"^( *)(-|\d+\.) +(.*)$")
_RULE = re.compile(r"^\|?[\s:|-]+\|[\s:|-]*$")


@dataclass
class Page:
    """A page while it is made.

    Attributes:
        resolve: Gives the address of a link's target, or None for text without a link.
        title: The first heading.
        anchors: What links may point to.
        headings: Level, anchor and text of each heading.
    """

    resolve: Resolve
    title: str = ""
    anchors: set[str] = field(default_factory=set)
    headings: list[tuple[int, str, str]] = field(default_factory=list)


def slug(text: str) -> str:
    """The anchor of a heading, as GitHub makes it.

    Example:
        >>> slug("Choose a sparsity: `gm.optimize`")
        'choose-a-sparsity-gmoptimize'
    """
    return re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-")


def render(text: str, page: Page) -> Html:
    """The HTML of a text; what it has of headings goes to the page."""
    return join(*_blocks(text.splitlines(), page))


def _blocks(lines: list[str], page: Page) -> Iterator[Html]:
    at = 0
    while at < len(lines):
        line = lines[at]
        if not line.strip():
            at += 1
        elif fence := _FENCE.match(line):
            end = next((i for i in range(at + 1, len(lines)) if lines[i].strip() == "```"), len(lines))
            language = fence[1].split()[0] if fence[1].split() else "text"
            yield element("pre", element("code", "\n".join(lines[at + 1 : end]) + "\n", class_=language))
            at = end + 1
        elif heading := _HEADING.match(line):
            yield _heading(len(heading[1]), heading[2], page)
            at += 1
        elif _ITEM.match(line):
            end = _end_of_list(lines, at)
            yield _list(lines[at:end], page)
            at = end
        elif line.startswith("|") and at + 1 < len(lines) and _RULE.match(lines[at + 1]):
            end = next((i for i in range(at, len(lines)) if not lines[i].startswith("|")), len(lines))
            yield _table(lines[at:end], page)
            at = end
        else:
            end = next((i for i in range(at + 1, len(lines)) if _starts_block(lines[i])), len(lines))
            yield element("p", inline("\n".join(lines[at:end]), page))
            at = end


def _starts_block(line: str) -> bool:
    return not line.strip() or any(pattern.match(line) for pattern in (_FENCE, _HEADING, _ITEM)) or line.startswith("|")


def _heading(level: int, text: str, page: Page) -> Html:
    plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", lambda found: found[1] or "", text)
    anchor = base = slug(plain)
    number = 0
    while anchor in page.anchors:
        number += 1
        anchor = f"{base}-{number}"
    page.anchors.add(anchor)
    page.headings.append((level, anchor, plain))
    page.title = page.title or plain
    return element(f"h{level}", inline(text, page), id=anchor)


def _end_of_list(lines: list[str], start: int) -> int:
    """Items follow each other; what is indented, or follows without an empty line, belongs to the item above."""
    at = start + 1
    while at < len(lines):
        follows = at + 1 < len(lines) and (_ITEM.match(lines[at + 1]) or lines[at + 1].startswith("  "))
        if not lines[at].strip():
            if not follows:
                break
        elif not (lines[at].startswith("  ") or _ITEM.match(lines[at])) and not lines[at - 1].strip():
            break
        at += 1
    return at


def _list(lines: list[str], page: Page) -> Html:
    items: list[list[str]] = []
    first = _ITEM.match(lines[0])
    assert first is not None
    for line in lines:
        found = _ITEM.match(line)
        if found and len(found[1]) <= len(first[1]):
            items.append([found[3]])
        else:
            items[-1].append(re.sub(r"^ {1,3}", "", line))
    drawn = []
    for item in items:
        blocks = list(_blocks(item, page))
        single = len(blocks) == 1 and blocks[0].startswith("<p>")
        drawn.append(element("li", Html(blocks[0][3:-4]) if single else join(*blocks)))
    return element("ol" if first[2] != "-" else "ul", *drawn)


def _table(lines: list[str], page: Page) -> Html:
    rows = [_cells(line) for line in lines]
    heads, body = rows[0], rows[2:]
    head = element("tr", *(element("th", inline(cell, page), class_="left", scope="col") for cell in heads))
    drawn = [element("tr", *(element("td", inline(cell, page), class_="left") for cell in row)) for row in body]
    return element("div", element("table", element("thead", head), element("tbody", *drawn)), class_="wide")


def _cells(line: str) -> list[str]:
    """The cells of a row, without the bars around it; a bar in code is none."""
    parts = re.split(r"(`[^`]*`)|\|", line.strip().removeprefix("|").removesuffix("|"))
    cells = [""]
    for text, code in zip(parts[::2], [*parts[1::2], None], strict=False):
        cells[-1] += text or ""
        if code is not None:
            cells[-1] += code
        else:
            cells.append("")
    return [cell.strip() for cell in cells[:-1]]


def inline(text: str, page: Page) -> Html:
    """The HTML of a line's code, links, pictures and emphasis; everything else is text."""
    parts: list[str | Html] = []
    end = 0
    for found in _INLINE.finditer(text):
        parts += [text[end : found.start()], _span(found, page)]
        end = found.end()
    return join(*parts, text[end:])


def _span(found: re.Match[str], page: Page) -> Html:
    if found["literal"] is not None:
        return element("code", found["literal"].strip())
    if found["url"] is not None:
        address = page.resolve(found["url"])
        if found["image"] and address is not None:
            return Html(element("img", src=address, alt=found["text"]).removesuffix("</img>"))
        text = inline(found["text"], page)
        return text if address is None else element("a", text, href=address)
    if found["strong"] is not None:
        return element("strong", inline(found["strong"], page))
    return element("em", inline(found["emphasis"], page))
