"""What gristmill shows on a terminal: tables, figures with units, and what it is busy with.

Output adapts to where it goes. A terminal gets rules and colour; a pipe, ``NO_COLOR`` or ``TERM=dumb`` gets plain text;
an encoding without box-drawing characters gets ASCII.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TextIO

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def wants_color(stream: TextIO) -> bool:
    """Tell whether colour codes make sense on this stream."""
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def _can_encode(stream: TextIO, text: str) -> bool:
    try:
        text.encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


@dataclass(frozen=True)
class Cell:
    """A table cell with a style: one or more of bold, dim, red, green, yellow, cyan, separated by spaces."""

    text: str
    style: str = ""


@dataclass
class Table:
    """A table of strings; columns after the first are aligned right unless ``align`` says otherwise.

    Example:
        >>> table = Table(["layer", "ms"])
        >>> table.add("conv1", "0.42")
        >>> table.add("fc", "11.90")
        >>> print(table.render(color=False, unicode=False))
        layer     ms
        -----  -----
        conv1   0.42
        fc     11.90
    """

    columns: Sequence[str]
    title: str = ""
    align: str = ""
    rows: list[list[Cell]] = field(default_factory=list)

    def add(self, *cells: str | Cell) -> None:
        """Append a row; missing cells at the end stay empty."""
        row = [cell if isinstance(cell, Cell) else Cell(cell) for cell in cells]
        self.rows.append(row + [Cell("")] * (len(self.columns) - len(row)))

    def render(self, *, color: bool, unicode: bool) -> str:
        """Return the table as text."""
        align = self.align or "<" + ">" * (len(self.columns) - 1)
        cells = [[Cell(name, "bold") for name in self.columns], *self.rows]
        widths = [max(len(row[i].text) for row in cells) for i in range(len(self.columns))]
        dash = "─" if unicode else "-"

        def line(row: Sequence[Cell]) -> str:
            parts = [
                _paint(f"{cell.text:{a}{w}}", cell.style, color) for cell, a, w in zip(row, align, widths, strict=True)
            ]
            return "  ".join(parts).rstrip()

        rule = _paint("  ".join(dash * width for width in widths), "dim", color)
        lines = [line(cells[0]), rule, *(line(row) for row in self.rows)]
        if self.title:
            lines.insert(0, _paint(self.title, "bold cyan", color))
        return "\n".join(lines)


def _paint(text: str, style: str, color: bool) -> str:
    if not color or not style:
        return text
    return f"\x1b[{';'.join(_CODES[name] for name in style.split())}m{text}\x1b[0m"


class Console:
    """Writes to one stream, in the way that suits it."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """Write to ``stream``, standard output by default."""
        self.stream = stream if stream is not None else sys.stdout
        self.color = wants_color(self.stream)
        self.unicode = _can_encode(self.stream, "─█✓×")

    def print(self, text: str | Table | Cell = "") -> None:
        """Write a line, a styled line or a table."""
        if isinstance(text, Table):
            text = text.render(color=self.color, unicode=self.unicode)
        elif isinstance(text, Cell):
            text = _paint(text.text, text.style, self.color)
        if not self.unicode:
            text = text.translate(_ASCII)
        self.stream.write(text + "\n")
        self.stream.flush()


_ASCII = str.maketrans({"×": "x", "µ": "u", "–": "-", "·": "*", "→": ">", "✓": "+", "≤": "<", "±": "~", "─": "-"})


@contextmanager
def activity(*, stream: TextIO | None = None) -> Iterator[Callable[[str], None]]:
    """Give the block a function that shows on a terminal what it is busy with, each text in the place of the last.

    Example:
        >>> with activity() as say:
        ...     say("opening the model")
        ...     say("timing it")
    """
    out = stream if stream is not None else sys.stderr
    show = out.isatty()
    clear = ""

    def say(text: str) -> None:
        nonlocal clear
        if show:
            out.write(f"{clear}{text} ...")
            out.flush()
            clear = "\r\x1b[K"

    try:
        yield say
    finally:
        if show:
            out.write("\r\x1b[K")
            out.flush()


@contextmanager
def status(text: str, *, stream: TextIO | None = None) -> Iterator[None]:
    """Show ``text`` on a terminal while the block runs."""
    with activity(stream=stream) as say:
        say(text)
        yield


_BAR = 20
_outer: ContextVar[str] = ContextVar("outer", default="")


@contextmanager
def progress(text: str, total: int, *, stream: TextIO | None = None) -> Iterator[Callable[[str], None]]:
    """Show on a terminal how far the block has come.

    Yields:
        A function to call before each of ``total`` pieces of work, with what that piece is.

    Example:
        >>> from io import StringIO
        >>> terminal = type("Terminal", (StringIO,), {"isatty": lambda self: True})()
        >>> with progress("pruning", 2, stream=terminal) as begin:
        ...     begin("conv1")
        ...     begin("conv2")
        >>> print(*terminal.getvalue().split("\\r\\x1b[K"), sep="\\n")
        <BLANKLINE>
        pruning -------------------- 0/2 conv1
        pruning ##########---------- 1/2 conv2
        <BLANKLINE>
    """
    out = stream if stream is not None else sys.stderr
    show = out.isatty()
    full, empty = ("█", "─") if _can_encode(out, "█─") else ("#", "-")
    done = -1

    def begin(what: str = "") -> None:
        nonlocal done
        done = min(done + 1, total)
        _outer.set(f"{above}{text} {min(done + 1, total)}/{total}: ")
        if not show:
            return
        filled = _BAR * done // max(total, 1)
        line = f"{above}{text} {full * filled}{empty * (_BAR - filled)} {done}/{total} {what}"
        out.write(f"\r\x1b[K{line[: shutil.get_terminal_size().columns - 1]}")
        out.flush()

    above = _outer.get()
    token = _outer.set(above)
    try:
        yield begin
    finally:
        _outer.reset(token)
        if show:
            out.write("\r\x1b[K")
            out.flush()


def _three_digits(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 999.5 else f"{value:.0f}"


def _scaled(value: float, base: float, units: Sequence[str]) -> str:
    power = 0
    while abs(value) >= base and power < len(units) - 1:
        value /= base
        power += 1
    return f"{_three_digits(value)} {units[power]}"


def format_bytes(count: float) -> str:
    """Format a byte count with binary units.

    Example:
        >>> format_bytes(9437184), format_bytes(512)
        ('9 MiB', '512 B')
    """
    return _scaled(count, 1024.0, ("B", "KiB", "MiB", "GiB", "TiB"))


def format_seconds(seconds: float) -> str:
    """Format a duration with the unit that suits it.

    Example:
        >>> format_seconds(0.00123), format_seconds(2.5e-6), format_seconds(12.0)
        ('1.23 ms', '2.5 µs', '12 s')
    """
    if seconds >= 1.0:
        return f"{_three_digits(seconds)} s"
    return _scaled(seconds * 1e9, 1000.0, ("ns", "µs", "ms"))


def format_rate(per_second: float, unit: str) -> str:
    """Format a rate in giga-units per second.

    Example:
        >>> format_rate(94.6e9, "MAC/s")
        '94.6 GMAC/s'
    """
    return f"{_three_digits(per_second / 1e9)} G{unit}"
