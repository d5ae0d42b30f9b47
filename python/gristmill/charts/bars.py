"""Horizontal bars, grouped under headings, each with its figure beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gristmill.charts.markup import Html, element, join
from gristmill.charts.scale import Scale, tick_text

__all__ = ["Bar", "bars", "figure", "shortened"]

WIDTH = 840
_ROW, _THICK, _HEADING, _GAP = 27, 17, 30, 10
_LETTER, _MOST_LABEL, _FIGURE = 7.0, 260, 150
_MOST_REACH = 1.25


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        label: What it is, on its left.
        value: Its length.
        text: Its figure, on its right; by default the value and the unit.
        tone: Its colour: ``own``, ``peer``, ``best``, ``loss``, or ``s0`` to ``s7`` of the palette.
        reach: A second value beyond the first, such as the median beyond the minimum, drawn as a thin line; with an
            arrow if it lies far beyond the longest bar.
        note: What the pointer shows above it.
    """

    label: str
    value: float
    text: str = ""
    tone: str = "own"
    reach: float | None = None
    note: str = ""


def shortened(text: str, letters: int) -> str:
    """The text, its middle cut out if it is longer.

    Example:
        >>> shortened("a very long name", 9)
        'a ve…name'
    """
    if len(text) <= letters:
        return text
    return f"{text[: (letters - 1) // 2]}…{text[len(text) - (letters - 1 - (letters - 1) // 2) :]}"


def figure(title: str, width: float, height: float, *content: Html) -> Html:
    """A drawing with a title for those who see it and for those who have it read to them."""
    caption = element("figcaption", title)
    drawing = element("svg", *content, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=title)
    return element("figure", caption, drawing)


def bars(title: str, groups: Mapping[str, Sequence[Bar]] | Sequence[Bar], *, unit: str = "") -> Html:
    """Bars from zero on one linear scale.

    Args:
        title: What is shown, and which direction is better.
        groups: Bars under headings, or bars alone.
        unit: For bars without a text of their own.

    Example:
        >>> "1.5 ms" in bars("Latency", [Bar("dense", 2.0), Bar("sparse", 1.5, tone="best")], unit="ms")
        True
    """
    by_heading = groups if isinstance(groups, Mapping) else {"": groups}
    every = [bar for group in by_heading.values() for bar in group]
    label = min(max((len(bar.label) for bar in every), default=0) * _LETTER + 12, _MOST_LABEL)
    longest = max((bar.value for bar in every), default=0.0) or 1.0
    farthest = max((bar.reach or 0.0 for bar in every), default=0.0)
    scale = Scale(0.0, max(longest, min(farthest, _MOST_REACH * longest)), label, WIDTH - _FIGURE)
    parts: list[Html] = []
    y = 4.0
    for heading, group in by_heading.items():
        if heading:
            parts.append(element("text", heading, class_="heading", x=0, y=y + _HEADING - 11))
            y += _HEADING
        parts.append(element("line", class_="axis", x1=label, x2=label, y1=y - 1, y2=y + _ROW * len(group) + 1))
        for bar in group:
            parts.append(_drawn(bar, scale, y, unit))
            y += _ROW
        y += _GAP
    return figure(title, WIDTH, y, *parts)


def _drawn(bar: Bar, scale: Scale, y: float, unit: str) -> Html:
    top, middle = y + (_ROW - _THICK) / 2, y + _ROW / 2
    end = max(scale(bar.value), scale.start + 1.5)
    shape = f"M{scale.start:g} {top:g}H{max(end - 3, scale.start):.1f}q3 0 3 3v{_THICK - 6}q0 3 -3 3H{scale.start:g}Z"
    text = bar.text or f"{tick_text(float(f'{bar.value:.3g}'))} {unit}".rstrip()
    letters = int((scale.start - 12) / _LETTER + 1)
    parts = [
        element("title", bar.note or f"{bar.label}: {text}"),
        element("text", shortened(bar.label, letters), class_="label", x=scale.start - 9, y=middle, text_anchor="end"),
        element("path", class_=f"fill {bar.tone}", d=shape),
    ]
    if bar.reach is not None and scale(bar.reach) > end:
        reach = scale(bar.reach)
        tip = "m0 -4v8" if bar.reach <= scale.high else "m-4 -4l4 4l-4 4"
        parts.append(element("path", class_="reach", d=f"M{end:.1f} {middle:g}H{reach:.1f}{tip}"))
        end = reach
    parts.append(element("text", text, class_=f"figure {bar.tone}", x=end + 8, y=middle))
    return element("g", join(*parts))
