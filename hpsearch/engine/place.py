"""Where searches are kept: a folder of files, and the database that coordinates them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from urllib.parse import quote

import sqlalchemy
from sqlalchemy import URL
from sqlalchemy.exc import ArgumentError

from hpsearch.errors import SearchError
from hpsearch.names import family_label

DATABASE = "hpsearch.db"
SPLIT = "split.npz"

# In the folder of a trial:
CHECKPOINT = "checkpoint.pt"
HISTORY = "history.csv"
BATCHES = "batches.csv"
VALIDATION = "validation.npz"

_DRIVERS = {
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}


@dataclasses.dataclass(frozen=True)
class Place:
    """Where searches are kept.

    Attributes:
        runs: folder of checkpoints and histories; of several machines, one that they share.
        address: of a PostgreSQL database, as `--storage` takes it; None: a SQLite file in `runs`.
            It may hold a password, so it is not shown.
    """

    runs: Path
    address: str | None = dataclasses.field(default=None, repr=False)

    @classmethod
    def of(cls, runs: str | Path, storage: str | None = None) -> Place:
        """The place that `--runs` and `--storage` name.

        Raises:
            SearchError: the address is none of a PostgreSQL database.
        """
        place = cls(Path(runs), storage or None)
        _ = place.url  # refused here rather than in the middle
        return place

    @property
    def is_server(self) -> bool:
        """Whether the database is one that machines share."""
        return self.address is not None

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.runs / DATABASE

    @property
    def private(self) -> Path:
        """The folder of locks and logs."""
        return self.runs / ".hpsearch"

    @property
    def artifacts(self) -> Path:
        """The folder of the files that the dashboard shows (see `artifacts.py`)."""
        return self.private / "artifacts"

    @property
    def url(self) -> URL:
        """The database's address for SQLAlchemy."""
        if self.address is None:
            return URL.create("sqlite", database=str(self.database.resolve()))
        if self.address.count("@") > 1:
            # Where the password ends is anyone's guess then: no part of it may be shown.
            raise SearchError(
                "the storage's address has more than one @: write those in user and password as "
                "%40 (and / as %2F, # as %23, ? as %3F)"
            )
        try:
            url = sqlalchemy.make_url(self.address)
        except (ArgumentError, ValueError):
            url = None
        if url is None or url.drivername not in _DRIVERS:
            kind = "" if url is None else f"; got one that starts with {url.drivername}:"
            raise SearchError(
                "the storage must be the address of a PostgreSQL database, such as "
                f"postgresql://USER@HOST/NAME{kind}"
            )
        return url.set(drivername=_DRIVERS[url.drivername])

    def __str__(self) -> str:
        """For people: no password in it."""
        if self.address is None:
            return str(self.runs)
        url = self.url
        host = f"{url.host or 'localhost'}{f':{url.port}' if url.port else ''}"
        return f"{host}/{url.database or ''}"

    def without_secrets(self, text: str) -> str:
        """`text`, such as an error's, with neither the address nor the password in it."""
        if self.address is None:
            return text
        url = self.url
        passwords = [str(url.password or ""), *_texts(url.query.get("password", ()))]
        # As it is, as addresses have it, and as SQLAlchemy writes them.
        secrets = {form for word in passwords for form in (word, quote(word, safe=""))}
        secrets |= {quote(word, safe=" +") for word in passwords}
        secrets |= {self.address, url.render_as_string(hide_password=False)}
        for secret in sorted(filter(None, secrets), key=len, reverse=True):
            text = text.replace(secret, "***")
        return text


def _texts(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def study_name(search: str, family: str) -> str:
    """The name of a family's study under the search's name."""
    return f"{search}/{family_label(family)}"


def trial_folder(runs: Path, search: str, family: str, number: int) -> Path:
    """Where a trial's files lie."""
    return runs / search / f"{family_label(family)}-{number}"
