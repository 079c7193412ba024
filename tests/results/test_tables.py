"""CSV tables: what comes out is what went in, and no spreadsheet runs any of it."""

import csv
import io
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from hpsearch.results.tables import bare, guarded, table_text, write_table

texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"))
nasty = st.builds("{}{}".format, st.sampled_from([*"=+-@'\t\r\n", ""]), texts)


@given(nasty)
def test_no_text_begins_like_a_formula_and_all_come_back(text: str) -> None:
    assert not guarded(text).startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert bare(guarded(text)) == text


@given(st.lists(st.tuples(nasty, st.floats(allow_nan=False), st.integers()), max_size=5))
def test_tables_keep_texts_and_numbers(rows: list[tuple[str, float, int]]) -> None:
    text = table_text(("=name", "share", "count"), rows)
    heads, *found = csv.reader(io.StringIO(text, newline=""))
    assert heads == ["'=name", "share", "count"]
    assert [(bare(name), float(share), int(count)) for name, share, count in found] == rows


def test_truths_are_numbers_and_nothing_is_empty(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", ("a", "b", "c"), [(True, None, -1.5)])
    assert (tmp_path / "t.csv").read_bytes() == b"a,b,c\r\n1,,-1.5\r\n"


def test_bytes_of_a_file_name_that_are_no_text_are_written_out(tmp_path: Path) -> None:
    write_table(tmp_path / "t.csv", ("name",), [("im\udcff.png",)])
    assert (tmp_path / "t.csv").read_bytes() == b"name\r\nim\\udcff.png\r\n"
