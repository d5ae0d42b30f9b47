"""Lines and points over two axes, linear or logarithmic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from gristmill.charts.bars import WIDTH, figure
from gristmill.charts.markup import Html, element, join
from gristmill.charts.scale import Scale, tick_text

__all__ = ["Level", "Series", "plot"]

_LEFT, _TOP, _BOTTOM = 62.0, 14.0, 46.0
_RIGHT_EDGE = 24.0
_LETTER, _BOLD_LETTER, _LINE = 6.6, 7.4, 16.0


@dataclass(frozen=True)
class Series:
    """Points of one kind.

    Attributes:
        name: What they are; written at the end of the line, or beside a sample above scattered points.
        points: Their x and y.
        joined: Whether a line goes through them.
        labels: A text for each point: drawn where there is room, and shown by the pointer in any case.
        tone: As of :class:`gristmill.charts.Bar`; by default the next colour of the palette.
    """

    name: str
    points: Sequence[tuple[float, float]]
    joined: bool = True
    labels: Sequence[str] = ()
    tone: str = ""


@dataclass(frozen=True)
class Level:
    """A horizontal line that the rest is judged by, such as a bound or a break-even."""

    value: float
    text: str


def finite(series: Series) -> Series:
    """The series without points that are not finite."""
    labels = [*series.labels, *[series.name] * (len(series.points) - len(series.labels))]
    kept = [(p, label) for p, label in zip(series.points, labels, strict=True) if all(map(math.isfinite, p))]
    return replace(series, points=[p for p, _ in kept], labels=[label for _, label in kept] if series.labels else ())


class Frame:
    """Axes with grid and titles, and what has been drawn inside."""

    def __init__(self, x: Scale, y: Scale, x_title: str, y_title: str) -> None:
        """Draw the axes."""
        self.x, self.y = x, y
        self.parts: list[Html] = []
        self._taken: list[tuple[float, float, float, float]] = []
        for tick in y.ticks():
            at = y(tick)
            self.parts.append(element("line", class_="grid", x1=x.start, x2=x.end, y1=at, y2=at))
            label = element("text", tick_text(tick), class_="tick", x=x.start - 8, y=at, text_anchor="end")
            self.parts.append(label)
        for tick in x.ticks():
            at = x(tick)
            self.parts.append(element("line", class_="grid", x1=at, x2=at, y1=y.start, y2=y.end))
            label = element("text", tick_text(tick), class_="tick", x=at, y=y.start + 15, text_anchor="middle")
            self.parts.append(label)
        self.parts.append(element("line", class_="axis", x1=x.start, x2=x.end, y1=y.start, y2=y.start))
        middle = (x.start + x.end) / 2
        self.parts.append(element("text", x_title, class_="title", x=middle, y=y.start + 37, text_anchor="middle"))
        self.parts.append(
            element("text", y_title, class_="title", transform=f"translate(12 {(y.start + y.end) / 2:g}) rotate(-90)",
                    text_anchor="middle")
        )  # fmt: skip

    def line(self, points: Sequence[tuple[float, float]], style: str) -> None:
        """Draw a line through points given in values."""
        path = "L".join(f"{self.x(x):.1f} {self.y(y):.1f}" for x, y in points)
        self.parts.append(element("path", class_=style, d=f"M{path}"))

    def mark(self, point: tuple[float, float], shape: int, tone: str, note: str) -> None:
        """Draw a point, with a shape for each series so that colours are not needed to tell them apart."""
        x, y = self.x(point[0]), self.y(point[1])
        self._taken.append((x - 5, y - 5, x + 5, y + 5))
        self.parts.append(marker(x, y, shape, tone, note))

    def text(self, x: float, y: float, text: str, style: str, anchor: str = "start") -> bool:
        """Write a text at a pixel if nothing is there; tell whether it was written."""
        width = len(text) * _LETTER
        left = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
        box = (left, y - _LINE / 2, left + width, y + _LINE / 2)
        inside = self.x.start <= box[0] and box[2] <= WIDTH and self.y.end - 8 <= box[1] and box[3] <= self.y.start
        free = all(box[2] <= t[0] or t[2] <= box[0] or box[3] <= t[1] or t[3] <= box[1] for t in self._taken)
        if inside and free:
            self._taken.append(box)
            self.parts.append(element("text", text, class_=style, x=x, y=y, text_anchor=anchor))
        return inside and free

    def marks(self, series: Sequence[Series]) -> None:
        """Draw the points of all series, then the labels that there is room for."""
        for index, one in enumerate(series):
            for point, label in zip(one.points, one.labels or [one.name] * len(one.points), strict=True):
                note = f"{label}: {point[0]:.4g}, {point[1]:.4g}"
                self.mark(point, index, one.tone or f"s{index}", note)
        for one in series:
            for point, label in zip(one.points, one.labels, strict=False):
                self.beside(point, label, "label")

    def along(self, level: Level) -> None:
        """Write a level's text at one of its ends, above or below it, where nothing is."""
        y = self.y(level.value)
        ends = [(self.x.start + 8, "start"), (self.x.end - 8, "end")]
        any(self.text(x, y + side, level.text, "label", anchor) for side in (-10, 11) for x, anchor in ends)

    def beside(self, point: tuple[float, float], text: str, style: str) -> None:
        """Write a text beside a point, on the first side that is free."""
        x, y = self.x(point[0]), self.y(point[1])
        places = [(x + 9, y, "start"), (x - 9, y, "end"), (x, y - 14, "middle"), (x, y + 14, "middle")]
        any(self.text(*place[:2], text, style, place[2]) for place in places)


def marker(x: float, y: float, shape: int, tone: str, note: str = "") -> Html:
    """A circle, square, diamond or triangle."""
    d = (
        f"M{x - 4.5:.1f} {y:.1f}a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0Z",
        f"M{x - 4:.1f} {y - 4:.1f}h8v8h-8Z",
        f"M{x:.1f} {y - 5.5:.1f}l5.5 5.5l-5.5 5.5l-5.5 -5.5Z",
        f"M{x:.1f} {y - 5:.1f}l5.5 9.5h-11Z",
    )[shape % 4]
    return element("path", *([element("title", note)] if note else []), class_=f"fill mark {tone}", d=d)


def legend(series: Sequence[Series], x: float, y: float) -> list[Html]:
    """Samples of the series with their names in a row."""
    parts = []
    for index, one in enumerate(series):
        parts.append(marker(x + 5, y, index, one.tone or f"s{index}"))
        parts.append(element("text", one.name, class_="label", x=x + 16, y=y))
        x += 34 + len(one.name) * _LETTER
    return parts


def plot(
    title: str,
    series: Sequence[Series],
    *,
    x_title: str,
    y_title: str,
    x_log: bool = False,
    y_log: bool = False,
    levels: Sequence[Level] = (),
    height: float = 380.0,
) -> Html:
    """Lines and points over two axes.

    Names stand at the ends of lines; if there are scattered points, in a row above.

    Example:
        >>> chart = plot("Squares", [Series("n²", [(1, 1), (2, 4), (3, 9)])], x_title="n", y_title="n²")
        >>> chart.startswith("<figure>"), "http" in chart
        (True, False)
    """
    series = [finite(one) for one in series]
    scattered = [one for one in series if not one.joined]
    top = _TOP + (26.0 if scattered else 0.0)
    names = max((len(one.name) for one in series if one.joined), default=0) * _BOLD_LETTER
    right = WIDTH - max(_RIGHT_EDGE, names + 16.0)
    points = [point for one in series for point in one.points]
    xs = [x for x, _ in points]
    values = [y for _, y in points] + [level.value for level in levels]
    frame = Frame(
        Scale.fit(xs, _LEFT, right, log=x_log, exact=not scattered),
        Scale.fit(values, height - _BOTTOM, top, log=y_log, zero=not y_log),
        x_title,
        y_title,
    )
    for level in levels:
        frame.line([(frame.x.low, level.value), (frame.x.high, level.value)], "level")
    for index, one in enumerate(series):
        if one.joined and one.points:
            frame.line(one.points, f"stroke {one.tone or f's{index}'}")
    frame.marks(series)
    for level in levels:
        frame.along(level)
    _end_names(frame, series)
    return figure(title, WIDTH, height, *legend(scattered, _LEFT, 12.0), join(*frame.parts))


def _end_names(frame: Frame, series: Sequence[Series]) -> None:
    """The names of lines at their ends, moved apart."""
    ends = [(frame.y(s.points[-1][1]), i, s) for i, s in enumerate(series) if s.joined and s.points]
    ends.sort(key=lambda end: end[:2])
    heights = [end[0] for end in ends]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + _LINE)
    low = frame.y.start
    for i in reversed(range(len(heights))):
        heights[i] = min(heights[i], low)
        low = heights[i] - _LINE
    for height, (_, index, one) in zip(heights, ends, strict=True):
        x = frame.x.end + 10
        frame.parts.append(element("text", one.name, class_=f"name {one.tone or f's{index}'}", x=x, y=height))
