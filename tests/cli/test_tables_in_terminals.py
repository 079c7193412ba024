"""Tables where there is little room, or no edge at all: nothing is lost without a word."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from hpsearch.cli.text import FittingTable, make_table, output

Run = Callable[[str], tuple[int, str, str]]

TRIAL = "mobilenet_v3_small-12"
ROWS = (
    (TRIAL, "known-good", "99.44 %", "0.0312", "1,234,567"),
    ("cnn-0", "model", "95.00 %", "0.1234", "650"),
)


def table_of(title: str = "best trials") -> FittingTable:
    table = make_table(
        title,
        left=("trial", "chosen by"),
        right=("val. acc.", "loss", "params"),
        spare=("params", "loss"),
    )
    for row in ROWS:
        table.add_row(*row)
    return table


def shown(table: FittingTable, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    return lines


def words(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())


@pytest.mark.parametrize("title", ["", "best trials"])
def test_columns_that_can_be_spared_go_one_by_one_and_are_named(title: str) -> None:
    table = table_of(title)
    seen = []
    for width in range(120, 46 if title else 52, -1):
        text = words(shown(table, width))
        assert "99.44 %" in text
        assert TRIAL in text
        gone = re.search(r"not shown, for want of room: (.*)", text)
        seen.append(gone[1] if gone else "")
        assert ("0.0312" in text) == ("loss" not in seen[-1])
        assert ("1,234,567" in text) == ("params" not in seen[-1])
    assert [key for key, _ in itertools.groupby(seen)] == ["", "params", "params, loss"]
    # It is the same table still.
    assert "1,234,567" in words(shown(table, 120))


@given(st.integers(8, 60))
def test_what_has_no_room_at_all_is_folded(width: int) -> None:
    """All letters are there, though in several lines."""
    lines = shown(table_of(), width)
    assert "…" not in "".join(lines)
    letters = sorted("".join(lines))
    for text in (TRIAL, "known-good", "99.44 %"):
        assert not set(text.replace(" ", "")) - set(letters)
    if "not shown" not in words(lines):
        counted = "".join(lines).count
        assert all(counted(digit) >= "".join(map("".join, ROWS)).count(digit) for digit in "079")


def test_texts_are_shown_as_they_are() -> None:
    table = make_table("of [red]me[/red]", left=("name", "more"))
    table.add_row("[bold]a[/bold]\x1b[0m", Text("two\nlines"))
    text = "\n".join(shown(table, 80))
    assert "of [red]me[/red]" in text
    assert "[bold]a[/bold]\\x1b[0m two" in text
    assert "\n" in text.partition("two")[2].partition("lines")[0]


def test_a_file_has_no_edge(capsys: pytest.CaptureFixture[str]) -> None:
    table = make_table(left=("a", "b"))
    table.add_row("x" * 300, "word " * 100)
    output().print(table)
    lines = capsys.readouterr().out.splitlines()
    assert any("x" * 300 in line and line.count("word") == 100 for line in lines)
    assert max(map(len, lines)) < 1000


@pytest.mark.parametrize("command", ["families", "space cnn", "families cnn", "data list"])
def test_a_pipe_gets_whole_rows(run: Run, command: str) -> None:
    code, out, _ = run(command)
    assert code == 0
    assert "…" not in out
    assert "not shown" not in out
    assert max(map(len, out.splitlines())) > 80
