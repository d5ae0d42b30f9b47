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
    """

    name: str
    figure: str
    against: str
    ratio: float
    target: float = 0.0

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
    result = Table(["what", "measured", "against", "ratio", "target", ""], title=title, align="<><>><")
    for bar in bars:
        verdict = Cell("met", "green") if bar.met else Cell("missed", "red")
        target = f"{bar.target:.2f}" if bar.target else ""
        result.add(bar.name, bar.figure, bar.against, f"{bar.ratio:.2f}", target, verdict if bar.target else "")
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


def report(title: str, bars: list[Bar], json_path: Path | None) -> None:
    """Print the table and write the JSON document."""
    console = Console()
    info = machine()
    console.print(f"{info['cpu']}, level {info['level']}, gristmill {info['gristmill']}, python {info['python']}")
    console.print(table(title, bars))
    missed = [bar for bar in bars if not bar.met]
    console.print(f"{sum(1 for bar in bars if bar.target) - len(missed)} met, {len(missed)} missed")
    if json_path is not None:
        document = {"title": title, "machine": info, "bars": [asdict(bar) | {"met": bar.met} for bar in bars]}
        json_path.write_text(json.dumps(document, indent=2) + "\n")
