"""What programs that print bars share: their options, and a report of tables that ends in one JSON document."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from gristmill.benchmark.bars import Bar, geometric_mean, table
from gristmill.console import Console
from gristmill.machine import machine

__all__ = ["Bar", "Report", "argument_parser", "geometric_mean", "report", "table"]


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
        self._console.print(
            f"{info['cpu']}, level {info['level']}, gristmill {info['gristmill']}, python {info['python']}"
        )

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
