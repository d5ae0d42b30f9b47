"""The roofline: what a core can do at each ratio of arithmetic to memory traffic, and what was done."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from gristmill.charts.bars import WIDTH, figure
from gristmill.charts.markup import Html, element, join
from gristmill.charts.plots import Frame, Series, finite, legend
from gristmill.charts.scale import Scale, tick_text

__all__ = ["roofline"]

_HEIGHT = 430.0


def roofline(
    title: str,
    series: Sequence[Series],
    *,
    peaks: Mapping[str, float],
    bandwidths: Mapping[str, float],
    unit: str = "GMAC/s",
    x_title: str = "multiply-adds per byte",
) -> Html:
    """Points under measured roofs, both axes logarithmic.

    Args:
        title: What is shown.
        series: Points of (operations per byte, 10^9 operations per second); they are never joined.
        peaks: Arithmetic bounds in 10^9 operations per second, by name.
        bandwidths: Memory bounds in 10^9 bytes per second, by name.
        unit: Of the vertical axis.
        x_title: Of the horizontal axis.

    Example:
        >>> done = Series("layers", [(20.0, 90.0)], labels=["conv1"])
        >>> "DRAM" in roofline("One core", [done], peaks={"int8": 230.0}, bandwidths={"DRAM": 25.0})
        True
    """
    series = [finite(one) for one in series]
    points = [point for one in series for point in one.points if point[0] > 0 and point[1] > 0]
    top = max(peaks.values())
    ridges = [top / bandwidth for bandwidth in bandwidths.values()]
    xs = [x for x, _ in points]
    x = Scale.fit([*xs, max(ridges) * 2, min(ridges) / 4], 62.0, WIDTH - 24.0, log=True)
    low = min([y for _, y in points] + [min(peaks.values()) / 8])
    y = Scale.fit([low, top, *(value for _, value in points)], _HEIGHT - 46.0, 40.0, log=True)
    frame = Frame(x, y, x_title, unit)
    for name, peak in peaks.items():
        start = min(max(peak / max(bandwidths.values()), x.low), x.high)
        frame.line([(start, peak), (x.high, peak)], "roof")
        frame.text(x.end - 6, y(peak) - 9, f"{name} {tick_text(float(f'{peak:.3g}'))} {unit}", "roof-name", "end")
    for name, bandwidth in bandwidths.items():
        _slope(frame, name, bandwidth, top)
    frame.marks(series)
    return figure(title, WIDTH, _HEIGHT, *legend(series, 62.0, 14.0), join(*frame.parts))


def _slope(frame: Frame, name: str, bandwidth: float, top: float) -> None:
    """The roof of one memory, its name along the line."""
    start = max(frame.x.low, frame.y.low / bandwidth)
    end = min(top / bandwidth, frame.x.high)
    if end <= start:
        return
    frame.line([(start, start * bandwidth), (end, end * bandwidth)], "roof")
    x0, y0 = frame.x(start), frame.y(start * bandwidth)
    angle = math.degrees(math.atan2(frame.y(end * bandwidth) - y0, frame.x(end) - x0))
    place = f"translate({x0:.1f} {y0:.1f}) rotate({angle:.1f})"
    text = f"{name} {tick_text(float(f'{bandwidth:.3g}'))} GB/s"
    frame.parts.append(element("text", text, class_="roof-name", x=14, y=-9, transform=place))
