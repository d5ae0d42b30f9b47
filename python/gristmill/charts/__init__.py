"""Charts and pages without any dependency: inline SVG in one HTML file, readable in light and dark.

Example:
    >>> chart = bars("Latency, shorter is better", [Bar("dense", 2.0), Bar("sparse", 0.8, tone="best")], unit="ms")
    >>> text = page("Report", [Section("Speed", [chart, "Measured on one core."])])
    >>> "0.8 ms" in text
    True
"""

from __future__ import annotations

from gristmill.charts.bars import Bar, bars
from gristmill.charts.markup import Content, Html, element, join
from gristmill.charts.page import Section, Tile, folded, notes, page, table, tiles
from gristmill.charts.plots import Level, Series, plot
from gristmill.charts.roofline import roofline

__all__ = [
    "Bar",
    "Content",
    "Html",
    "Level",
    "Section",
    "Series",
    "Tile",
    "bars",
    "element",
    "folded",
    "join",
    "notes",
    "page",
    "plot",
    "roofline",
    "table",
    "tiles",
]
