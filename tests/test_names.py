from __future__ import annotations

import os
import string
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import URL, make_url

from hpsearch.names import listed, printable, value_text, without_password


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


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("", "–"),
        ("sgd", "sgd"),
        ("a\nb", "a\\nb"),
        (16384, "16384"),
        (0.0, "0"),
        (1 / 3, "0.3333"),
        (1e-5, "1e-05"),
    ],
)
def test_a_value_is_short_and_can_be_shown(value: object, shown: str) -> None:
    assert value_text(value) == shown


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("runs/digits", "runs/digits"),
        ("mail me@host about a:b", "mail me@host about a:b"),
        ("postgresql://host/db", "postgresql://host/db"),
        ("postgresql://host:5432/db?sslmode=require", "postgresql://host:5432/db?sslmode=require"),
        ("postgresql://me@host:5432/db", "postgresql://me@host:5432/db"),
        ("sqlite:////tmp/a:b@c", "sqlite:////tmp/a:b@c"),
        ("postgresql://me:pw@host/db", "postgresql://me:***@host/db"),
        ("--storage=postgresql+psycopg://me:pw@host", "--storage=postgresql+psycopg://me:***@host"),
        ("postgresql://me:p%40%2Fw@[::1]:5432/db", "postgresql://me:***@[::1]:5432/db"),
        ("postgresql://me:p@ss@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:p/w:x@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:two words@host/db", "postgresql://me:***@host/db"),
        ("postgresql://:pw@host/db", "postgresql://:***@host/db"),
        ("postgresql://h/db?password=pw&user=me", "postgresql://h/db?password=***&user=me"),
        ("postgresql://h/db?user=me&PassWord=a b", "postgresql://h/db?user=me&PassWord=***"),
        ("postgresql://h/db?p%61ssword=pw", "postgresql://h/db?p%61ssword=***"),
        ("postgresql://h/db?sslpassword=a=b?c", "postgresql://h/db?sslpassword=***"),
        (
            "postgresql://a:b@h/db?application_name=x@y",
            "postgresql://a:***@h/db?application_name=x@y",
        ),
        ("from a://b:c@d/ to e://f:g@h/", "from a://b:***@d/ to e://f:***@h/"),
    ],
)
def test_passwords_of_urls_are_hidden(text: str, shown: str) -> None:
    assert without_password(text) == shown
    assert without_password(shown) == shown


# Letters that occur nowhere else in the URLs below: a part that is left would be seen.
SECRET = st.text(st.sampled_from("XYZ :/?#[]&=%+'\"\\@é"), min_size=1)


@given(SECRET)
def test_no_part_of_an_encoded_password_is_left(secret: str) -> None:
    url = URL.create("postgresql", "me", secret, "host", 5432, "db").render_as_string(
        hide_password=False
    )
    assert make_url(url).password == secret
    shown = without_password(f"--storage={url}")
    assert shown == "--storage=postgresql://me:***@host:5432/db"


@given(SECRET.filter(lambda text: "@" not in text), st.sampled_from(["", "to ", "--storage="]))
def test_nor_of_one_that_nobody_encoded(secret: str, before: str) -> None:
    shown = without_password(f"{before}postgresql://me:{secret}@host/db")
    assert shown == f"{before}postgresql://me:***@host/db"


@given(SECRET, st.sampled_from(["password", "PASSWORD", "pass%77ord"]))
def test_nor_of_one_among_the_options(secret: str, key: str) -> None:
    shown = without_password(f"postgresql://host/db?a=b&{key}={urllib.parse.quote(secret)}&c=d")
    assert shown == f"postgresql://host/db?a=b&{key}=***&c=d"


@given(ANY)
def test_a_text_without_a_url_stays_as_it_is(text: str) -> None:
    plain = text.replace("://", "").replace("?", "").replace("&", "")
    assert without_password(plain) == plain


@given(st.text(st.sampled_from(string.ascii_letters[:3] + ":/@?&= *")))
def test_hiding_twice_is_hiding_once(text: str) -> None:
    hidden = without_password(text.replace("a", "://").replace("b", "?password="))
    assert without_password(hidden) == hidden
