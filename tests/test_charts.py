"""Charts and pages: self-contained, well-formed, every text escaped, every figure where it belongs."""

from __future__ import annotations

import itertools
import math
import re
from html.parser import HTMLParser

import pytest

from gristmill import charts
from gristmill.charts import Bar, Level, Section, Series, Tile
from gristmill.charts.scale import Scale
from gristmill.console import Cell, Table

_EVIL = "<script>alert('&\"')</script>"
_VOID = {"meta", "br", "!doctype"}


class _Balance(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check_page(text: str) -> _Balance:
    """Assert that a page is well-formed and asks for nothing from outside."""
    found = _Balance()
    found.feed(text)
    found.close()
    assert found.open == []
    assert not {"script", "link", "img", "iframe"} & set(found.seen)
    assert not re.search(r"https?:|//[a-z]|url\(|@import", text)
    assert not re.search(r"\b(nan|inf)\b", text)
    return found


def _page(word: str) -> str:
    table = Table([word, word], title=word)
    table.add(word, Cell(word, "red"))
    ends = [(1.0, 1.0), (2.0, 3.0)]
    return charts.page(
        word,
        [
            Section(word, [word, charts.tiles([Tile(word, word, word, "best")]), charts.table(table, best=[0])]),
            Section(
                "", [charts.bars(word, {word: [Bar(word, 1.0, word, note=word, reach=2.0)]}), charts.notes([word])]
            ),
            Section("", [charts.plot(word, [Series(word, ends, labels=[word] * 2)], x_title=word, y_title=word)]),
            Section("", [charts.roofline(word, [Series(word, ends)], peaks={word: 9.0}, bandwidths={word: 2.0})]),
            Section("", [charts.folded(word, word)]),
        ],
        lead=word,
        footer=word,
    )


def test_every_text_is_escaped() -> None:
    text = _page(_EVIL)
    check_page(text)
    assert "&lt;script&gt;" in text
    assert check_page(_page("plain")).seen == check_page(text).seen


def test_bars_are_as_long_as_their_values() -> None:
    text = charts.bars("t", [Bar("a", 4.0), Bar("b", 2.0), Bar("c", 0.0)])
    start, *_ = (float(x) for x in re.findall(r'd="M([\d.]+) ', text))
    ends = [float(x) + 3 for x in re.findall(r'd="M[\d.]+ [\d.]+H([\d.]+)q', text)]
    assert ends[1] - start == pytest.approx((ends[0] - start) / 2, abs=0.2)
    assert ends[2] - start == pytest.approx(3, abs=0.2)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("values", [[], [0.0], [7.0], [1e-9, 3e9], [0.5, 0.95], [math.nan, math.inf, 2.0]])
def test_scales_hold_all_values_between_round_ends(values: list[float], log: bool) -> None:
    scale = Scale.fit(values, 0.0, 100.0, log=log)
    known = [v for v in values if math.isfinite(v) and (v > 0 or not log)]
    assert all(scale.low <= v <= scale.high for v in known)
    ticks = scale.ticks()
    assert 2 <= len(ticks) <= 8
    assert ticks == sorted(set(ticks))
    assert all(-1e-6 <= scale(tick) <= 100 + 1e-6 for tick in ticks)


def test_points_that_are_not_finite_are_left_out() -> None:
    odd = Series("odd", [(1.0, math.nan), (math.inf, 2.0), (2.0, 3.0)], labels=["x", "y", "kept"])
    text = charts.plot("t", [odd], x_title="x", y_title="y", y_log=True, levels=[Level(1.0, "even")])
    check_page(charts.page("p", [Section("s", [text])]))
    assert text.count("<title>") == 1
    assert "kept" in text


def test_charts_without_data_are_empty_axes() -> None:
    nothing = [
        charts.bars("t", []),
        charts.plot("t", [Series("none", [])], x_title="x", y_title="y"),
        charts.roofline("t", [], peaks={"int8": 1.0}, bandwidths={"L1": 1.0}),
    ]
    check_page(charts.page("p", [Section("s", nothing)]))


def test_names_at_the_ends_of_lines_do_not_overlap() -> None:
    lines = [Series(f"line {i}", [(0.0, 1.0), (1.0, 5.0 + i / 100)]) for i in range(6)]
    text = charts.plot("t", lines, x_title="x", y_title="y")
    heights = sorted(float(y) for y in re.findall(r'class="name s\d" x="[\d.]+" y="([\d.]+)"', text))
    assert len(heights) == 6
    assert min(b - a for a, b in itertools.pairwise(heights)) >= 15.9
