import pickle
import traceback
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.engine.place import DATABASE, Place
from hpsearch.engine.spec import StudySpec
from hpsearch.engine.worker_messages import Job
from hpsearch.errors import SearchError

SECRET = "ge+heim{0}"
URL = f"postgresql://me:{quote(SECRET, safe='')}@db.example:5433/searches"


def job(place: Place) -> Job:
    return Job(spec=StudySpec(), place=place, device="cpu", threads=1, number=1, grace=60.0)


def test_without_an_address_it_is_a_file_in_the_folder(tmp_path: Path) -> None:
    for storage in (None, ""):
        place = Place.of(str(tmp_path), storage)
        assert place == Place(tmp_path)
        assert not place.is_server
        assert place.url.drivername == "sqlite"
        assert place.url.database == str(tmp_path / DATABASE)
        assert str(place) == str(tmp_path)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg"])
def test_addresses_of_postgresql(scheme: str) -> None:
    place = Place.of("runs", URL.replace("postgresql", scheme))
    assert place.is_server
    assert place.url.drivername == "postgresql+psycopg"
    assert (place.url.username, place.url.password) == ("me", SECRET)
    assert (place.url.host, place.url.port, place.url.database) == ("db.example", 5433, "searches")
    assert str(place) == "db.example:5433/searches"


@pytest.mark.parametrize(
    ("storage", "shown"),
    [
        (f"mysql://me:{SECRET}@host/name", "starts with mysql:"),
        ("sqlite:///hpsearch.db", "starts with sqlite:"),
        (f"postgresql+asyncpg://me:{SECRET}@host/name", "starts with postgresql[+]asyncpg:"),
        (f"postgresql://me:{SECRET}@host:port/name", "postgresql://USER@HOST/NAME$"),
        (f"me:{SECRET}@host/name", "postgresql://USER@HOST/NAME$"),
        ("runs", "postgresql://USER@HOST/NAME$"),
        ("://", "postgresql://USER@HOST/NAME$"),
    ],
)
def test_other_addresses_are_refused_at_once(storage: str, shown: str) -> None:
    with pytest.raises(SearchError, match=shown) as caught:
        Place.of("runs", storage)
    assert SECRET not in "".join(traceback.format_exception(caught.value, chain=True))
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:s3c@r3t#p/w@host/name",
        "postgresql://me:se?c@r3t@host:5433/name",
        "postgresql://me@r3t:secret@host/name",
        "postgresql://host/name?user=me&password=a@r3t@b",
    ],
)
def test_where_the_password_ends_is_not_guessed(address: str) -> None:
    """SQLAlchemy would take what follows the first @ for the host, and everyone would show it."""
    with pytest.raises(SearchError, match=r"more than one @.*%40") as caught:
        Place.of("runs", address)
    assert "r3t" not in "".join(traceback.format_exception(caught.value, chain=True))


def test_nothing_that_is_shown_has_the_password() -> None:
    place = Place.of("runs", URL)
    for shown in (str(place), repr(place), repr(job(place)), str(job(place)), f"{place!r:.9999}"):
        assert "heim" not in shown
    # What it is needed for: a worker is told it.
    assert pickle.loads(pickle.dumps(job(place))).place.url.password == SECRET


@given(
    password=st.text(st.characters(codec="utf-8", exclude_characters="\0*"), min_size=1),
    around=st.tuples(st.text(), st.text()),
)
def test_texts_lose_the_password_however_it_is_written(
    password: str, around: tuple[str, str]
) -> None:
    quoted = quote(password, safe="")
    for storage in (
        f"postgresql://me:{quoted}@host/name",
        f"postgresql://me@host/name?password={quoted}",
    ):
        place = Place.of("runs", storage)
        rendered = place.url.render_as_string(hide_password=False)
        for secret in (password, quoted, storage, rendered):
            text = place.without_secrets(f"{around[0]} {secret} {around[1]}")
            if len(password) > 3:
                assert password not in text
                assert quoted not in text


def test_other_texts_stay_as_they_are() -> None:
    assert Place.of("runs", URL).without_secrets("no route to host") == "no route to host"
    assert Place("runs").without_secrets(URL) == URL  # type: ignore[arg-type]
    assert Place.of("runs", "postgresql://me@host/name").without_secrets("me") == "me"
