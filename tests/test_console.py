from __future__ import annotations

import io

import pytest

from gristmill.console import (
    Cell,
    Console,
    Table,
    activity,
    format_bytes,
    format_rate,
    format_seconds,
    progress,
    status,
    wants_color,
)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class AsciiPipe(io.StringIO):
    encoding = "ascii"


def sample() -> Table:
    table = Table(["layer", "ms"], title="Layers")
    table.add("conv1", Cell("0.42", "green"))
    table.add("fc")
    return table


def test_columns_line_up_and_short_rows_are_filled() -> None:
    lines = sample().render(color=False, unicode=False).split("\n")
    assert lines == ["Layers", "layer    ms", "-----  ----", "conv1  0.42", "fc"]


def test_colour_does_not_change_the_layout() -> None:
    import re

    plain = sample().render(color=False, unicode=True)
    coloured = sample().render(color=True, unicode=True)
    assert "\x1b[32m" in coloured
    assert [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", coloured).split("\n")] == plain.split("\n")


def test_pipe_gets_no_escape_codes() -> None:
    stream = io.StringIO()
    Console(stream).print(Cell("text", "red"))
    assert stream.getvalue() == "text\n"


def test_ascii_stream_gets_ascii() -> None:
    stream = AsciiPipe()
    console = Console(stream)
    console.print(sample())
    console.print("512×3 in 3 µs")
    stream.getvalue().encode("ascii")
    assert "512x3 in 3 us" in stream.getvalue()


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", ""), ("TERM", "dumb")])
def test_environment_turns_colour_off(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert wants_color(Terminal())
    monkeypatch.setenv(variable, value)
    assert not wants_color(Terminal())


def test_activity_replaces_its_text() -> None:
    terminal = Terminal()
    with activity(stream=terminal) as say:
        say("one")
        say("two")
    assert terminal.getvalue() == "one ...\r\x1b[Ktwo ...\r\x1b[K"


def test_status_shows_on_a_terminal_only_and_clears_itself() -> None:
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        with status("measuring", stream=stream):
            pass
    assert terminal.getvalue() == "measuring ...\r\x1b[K"
    assert pipe.getvalue() == ""


def test_progress_counts_what_is_done_and_names_what_it_is_part_of() -> None:
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        with progress("trying", 2, stream=stream) as begin:
            begin("50 %")
            with progress("pruning", 4, stream=stream) as inner:
                for name in "abcd":
                    inner(name)
            begin("75 %")
    lines = terminal.getvalue().split("\r\x1b[K")
    assert [line.split(" ")[-2:] for line in lines if line.startswith("trying ") and ":" not in line] == [
        ["50", "%"],
        ["75", "%"],
    ]
    assert lines[5].startswith("trying 1/2: pruning ")
    assert lines[5].endswith(" 3/4 d")
    assert lines[-1] == ""
    assert pipe.getvalue() == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (format_bytes(0), "0 B"),
        (format_bytes(1023), "1023 B"),
        (format_bytes(1024), "1 KiB"),
        (format_bytes(5 * 2**40), "5 TiB"),
        (format_bytes(5000 * 2**40), "5000 TiB"),
        (format_seconds(0.0), "0 ns"),
        (format_seconds(1.5e-9), "1.5 ns"),
        (format_seconds(9.9996e-4), "1000 µs"),
        (format_seconds(61.0), "61 s"),
        (format_rate(1.234e9, "MAC/s"), "1.23 GMAC/s"),
    ],
)
def test_figures_have_three_digits_and_a_unit(text: str, expected: str) -> None:
    assert text == expected
