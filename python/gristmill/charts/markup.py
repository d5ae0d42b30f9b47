"""HTML that is known to be safe, apart from text that is not."""

from __future__ import annotations

import html
from typing import TypeAlias

__all__ = ["Content", "Html", "element", "join"]


class Html(str):
    """Finished HTML. Plain strings are text and get escaped wherever they meet it."""

    __slots__ = ()


Content: TypeAlias = str | Html


def escaped(content: Content) -> str:
    """Return HTML as it is and text with its special characters escaped."""
    return content if isinstance(content, Html) else html.escape(content)


def join(*parts: Content) -> Html:
    """Return the parts one after the other, text escaped.

    Example:
        >>> join("a < b", Html("<br>"))
        'a &lt; b<br>'
    """
    return Html("".join(map(escaped, parts)))


def element(name: str, *content: Content, **attributes: float | str | None) -> Html:
    """Return an element; a trailing underscore of an attribute is dropped, other underscores become hyphens.

    Numbers are rounded to a hundredth; an attribute of None is left out.

    Example:
        >>> element("text", "5 < 6", class_="tick", x=1 / 3, text_anchor="end", y=None)
        '<text class="tick" x="0.33" text-anchor="end">5 &lt; 6</text>'
    """
    pairs = []
    for key, value in attributes.items():
        if value is None:
            continue
        text = value if isinstance(value, str) else f"{round(value, 2):g}"
        pairs.append(f' {key.rstrip("_").replace("_", "-")}="{html.escape(text)}"')
    return Html(f"<{name}{''.join(pairs)}>{join(*content)}</{name}>")
