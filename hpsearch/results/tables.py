"""Tables as CSV files that a spreadsheet can open without running anything in them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from hpsearch.files import write_whole

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")

Cell = str | int | float | bool | None


def write_table(path: Path, heads: Sequence[str], rows: Iterable[Sequence[Cell]]) -> None:
    r"""Writes a CSV file (UTF-8), whole or not at all; see `table_text`. Bytes of file names that
    are no text are written out, as in \udcff.
    """
    text = table_text(heads, rows).encode("utf-8", "backslashreplace")

    def write(temporary: Path) -> None:
        temporary.write_bytes(text)

    write_whole(path, write)


def table_text(heads: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A CSV file as text. Numbers keep all their digits, None is an empty cell, truths are 0 and 1,
    and texts are `guarded`.
    """
    buffer = io.StringIO()
    # It puts quotes around what ends a line only where that is in its own line ends.
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow([guarded(text) for text in heads])
    writer.writerows([_plain(cell) for cell in row] for row in rows)
    return buffer.getvalue()


def guarded(text: str) -> str:
    """A text that no spreadsheet takes for a formula: one that begins like one gets an apostrophe
    in front, and so does one that begins with an apostrophe, so that `bare` gives the text back.
    """
    return f"'{text}" if text.startswith((*_FORMULA, "'")) else text


def bare(cell: str) -> str:
    """The text that `guarded` was given."""
    return cell[1:] if cell.startswith("'") else cell


def _plain(cell: Cell) -> str | int | float:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return int(cell)
    return guarded(cell) if isinstance(cell, str) else cell
