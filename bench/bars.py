"""Bars: what a benchmark must reach, and the table and JSON that say whether it did."""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

from gristmill import __version__, kernels
from gristmill.console import Cell, Console, Table


@dataclass(frozen=True)
class Bar:
    """One comparison.

    Attributes:
        name: What was measured.
        figure: The figure itself, with its unit, as text.
        against: The bound or peer of the same run.
        ratio: Ours against it: above 1 is faster than a peer; 1 is exactly at a bound.
        target: The ratio to reach; 0 for a comparison that is only reported.
        alike: Ours against a peer held to the instructions that our kernels use; 0 where there is none.
    """

    name: str
    figure: str
    against: str
    ratio: float
    target: float = 0.0
    alike: float = 0.0

    @property
    def met(self) -> bool:
        """Whether the ratio reaches the target."""
        return self.ratio >= self.target


def geometric_mean(ratios: list[float]) -> float:
    """Return the geometric mean.

    Example:
        >>> geometric_mean([2.0, 8.0])
        4.0
    """
    product = 1.0
    for ratio in ratios:
        product *= ratio ** (1.0 / len(ratios))
    return round(product, 12)


def table(title: str, bars: list[Bar]) -> Table:
    """Return the bars as a table; a missed one is red."""
    held = any(bar.alike for bar in bars)
    columns = ["what", "measured", "against", "ratio", "target", "", *["ratio, like instructions"] * held]
    result = Table(columns, title=title, align="<><>><" + ">" * held)
    for bar in bars:
        verdict = Cell("met", "green") if bar.met else Cell("missed", "red")
        target = f"{bar.target:.2f}" if bar.target else ""
        cells = [bar.name, bar.figure, bar.against, f"{bar.ratio:.2f}", target, verdict if bar.target else ""]
        result.add(*cells, *[f"{bar.alike:.2f}" if bar.alike else ""] * held)
    return result


def machine() -> dict[str, object]:
    """Return what a figure depends on: processor, level, versions."""
    info = kernels.cpu_info()
    return {
        "gristmill": __version__,
        "python": platform.python_version(),
        "cpu": info.model,
        "level": info.active,
        "usable_cores": info.usable_cores,
    }


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with ``--json FILE``."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the figures to FILE")
    return parser


class Report:
    """Prints tables as they come and writes one JSON document at the end."""

    def __init__(self, json_path: Path | None) -> None:
        """Print the machine."""
        self._json_path = json_path
        self._console = Console()
        self._tables: list[tuple[str, list[Bar]]] = []
        info = machine()
        self._console.print(f"{info['cpu']}, level {info['level']}, gristmill {__version__}, python {info['python']}")

    def add(self, title: str, bars: list[Bar]) -> None:
        """Print a table."""
        self._tables.append((title, bars))
        self._console.print()
        self._console.print(table(title, bars))

    def close(self) -> None:
        """Print the count of bars met and missed, and write the JSON document."""
        targets = [bar for _, bars in self._tables for bar in bars if bar.target]
        met = sum(bar.met for bar in targets)
        self._console.print()
        self._console.print(f"{met} of {len(targets)} targets met")
        if self._json_path is None:
            return
        tables = [
            {"title": title, "bars": [asdict(bar) | {"met": bar.met} for bar in bars]} for title, bars in self._tables
        ]
        self._json_path.write_text(json.dumps({"machine": machine(), "tables": tables}, indent=2) + "\n")


def report(title: str, bars: list[Bar], json_path: Path | None) -> None:
    """Print one table, and write the JSON document."""
    one = Report(json_path)
    one.add(title, bars)
    one.close()
