"""A CSV file as it comes: its encoding, delimiter and header are found out."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
from pathlib import Path, PurePath

from hpsearch.data.decode import SUFFIXES
from hpsearch.errors import DataError
from hpsearch.names import listed, printable

_DELIMITERS = ",;\t|"


@dataclasses.dataclass(frozen=True)
class Table:
    """The cells of a CSV file.

    Attributes:
        shown: the file's path, for messages.
        columns: their names; "1", "2", ... where the file has no header.
        rows: the cells, as many in each row as there are columns.
    """

    shown: str
    columns: tuple[str, ...]
    rows: list[list[str]]

    def column(self, name: str) -> list[str]:
        """The cells of a column, without spaces around them.

        Raises:
            DataError: there is none of this name.
        """
        if name not in self.columns:
            raise DataError(
                f"{self.shown}: there is no column {name!r}; it has {listed(self.columns, 30)}"
            )
        position = self.columns.index(name)
        return [row[position].strip() for row in self.rows]


def read_table(path: Path, delimiter: str | None) -> Table:
    """Reads a CSV file: any of the usual delimiters, encodings and line ends. The first row is the
    header, unless a cell in it is called like the file of a picture.

    Raises:
        DataError: it is empty, or its rows have different numbers of cells.
    """
    text, shown = _decoded(path), printable(str(path))
    if delimiter is None:
        delimiter = _sniff(text)
    delimiter = {"tab": "\t", "\\t": "\t"}.get(delimiter, delimiter)
    if len(delimiter) != 1:
        raise DataError(f"{shown}: the delimiter must be one character or 'tab', not {delimiter!r}")
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    except (TypeError, ValueError):  # quotes and line ends, from Python 3.13 on
        raise DataError(f"{shown}: {delimiter!r} cannot be the delimiter") from None
    rows: list[list[str]] = []
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if rows and len(row) != len(rows[0]):
                raise DataError(
                    f"{shown}, line {reader.line_num}: has {len(row)} cells, but the first line "
                    f"has {len(rows[0])} (delimiter {delimiter!r})"
                )
            rows.append(row)
    except csv.Error as error:
        raise DataError(f"{shown}, line {reader.line_num}: {error}") from None
    if not rows:
        raise DataError(f"{shown}: the table is empty")
    columns = tuple(cell.strip() for cell in rows[0])
    # Whether or not there is such a file: the first row's image may be the one that is missing.
    if any(PurePath(cell).suffix.lower() in SUFFIXES for cell in columns):
        return Table(shown, tuple(str(number) for number in range(1, len(columns) + 1)), rows)
    if len(set(columns)) != len(columns):
        raise DataError(f"{shown}: column names repeat: {listed(columns, 30)}")
    if len(rows) == 1:
        raise DataError(f"{shown}: the table has a header but no rows")
    return Table(shown, columns, rows[1:])


def _decoded(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{printable(str(path))} cannot be read: {error.strerror}") from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ["utf-16"]
    else:
        encodings = ["utf-8-sig", "cp1252", "latin-1"]
    for encoding in encodings:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise DataError(f"{printable(str(path))}: is no text ({encodings[0]})")


def _sniff(text: str) -> str:
    """The delimiter that splits the first lines into the same number of cells, the most."""
    head = text[:65_536]

    def cells(delimiter: str) -> tuple[bool, int]:
        rows = csv.reader(io.StringIO(head, newline=""), delimiter=delimiter)
        counts = [len(row) for row in itertools.islice(rows, 20) if any(row)]
        if len(counts) > 1 and len(text) > len(head):  # the last one may be cut off
            counts.pop()
        return len(set(counts)) == 1 and counts[0] > 1, min(counts, default=0)

    try:
        return max(_DELIMITERS, key=cells)
    except csv.Error:
        return ","
