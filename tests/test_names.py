from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.names import listed, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("cat", "cat"),
        ("great dane", "great dane"),
        ("ünï 猫 😀", "ünï 猫 😀"),
        ("<b>&amp; [red]", "<b>&amp; [red]"),
        ("back\\slash", "back\\slash"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("two\nlines\r\n\t", "two\\nlines\\r\\n\\t"),
        ("\0\x7f\x85\x9b", "\\x00\\x7f\\x85\\x9b"),
        ("a\u202eb\u2066c\u200bd\ufeff", "a\\u202eb\\u2066c\\u200bd\\ufeff"),
        ("\u2028\u2029\xa0", "\\u2028\\u2029\\xa0"),
        ("\U000e0001", "\\U000e0001"),
        (os.fsdecode(b"latin\xe9"), "latin\\udce9"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_does_not_print_is_written_out(text: str, shown: str) -> None:
    assert printable(text) == shown


# Every character, halves of pairs too.
ANY = st.text(st.characters(exclude_categories=()))


@given(ANY)
def test_everything_becomes_printable(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    shown.encode("utf-8")
    assert printable(shown) == shown
    assert (shown == text) == text.isprintable()


@given(ANY, ANY)
def test_texts_are_written_out_character_by_character(first: str, second: str) -> None:
    assert printable(first + second) == printable(first) + printable(second)


@pytest.mark.parametrize(
    ("count", "most", "shown"),
    [
        (0, 5, ""),
        (1, 5, "n0"),
        (5, 5, "n0, n1, n2, n3, n4"),
        (6, 5, "n0, n1, n2, n3, n4 and 1 more"),
        (3000, 2, "n0, n1 and 2,998 more"),
    ],
)
def test_the_first_names_are_listed(count: int, most: int, shown: str) -> None:
    names = [f"n{number}" for number in range(count)]
    assert listed(names, most) == shown
    assert listed(tuple(names), most) == shown


def test_listed_names_are_printable() -> None:
    assert listed(["a\nb", "\x1b"]) == "a\\nb, \\x1b"
