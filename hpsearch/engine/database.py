"""The database of a place: a SQLite file for one machine, PostgreSQL for many."""

from __future__ import annotations

import contextlib
import time
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import filelock
import sqlalchemy
from optuna.exceptions import StorageInternalError
from sqlalchemy import URL, event, text
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from hpsearch.engine import lease_table
from hpsearch.engine.place import Place
from hpsearch.engine.storage import OUTAGE_SECONDS, SearchStorage
from hpsearch.errors import SearchError

BUSY_SECONDS = 20
"""For so long SQLite waits for the lock before the database counts as away."""


def create_storage(place: Place) -> SearchStorage:
    """Opens the storage of `place` for a search; makes the folder and the tables if needed.

    Raises:
        SearchError: the folder cannot be made or written, the server cannot be reached, or there is
            something else than an Optuna database.
    """
    # Tables are made by one process at a time: two at once fail on a new database.
    with locked(place, "database"):
        if not exists(place) and not place.is_server:
            _create_file(place)
        return _open(place, write=True, create=True)


def _create_file(place: Place) -> None:
    """Makes the SQLite file whole: where there is a file, there are all its tables."""
    unfinished = place.private / "new.db"
    unfinished.unlink(missing_ok=True)
    with in_words(place):
        storage = SearchStorage(
            place, create=True, engine_kwargs={}, url=URL.create("sqlite", database=str(unfinished))
        )
        storage.remove_session()
        storage.engine.dispose()
    unfinished.replace(place.database)


def open_storage(place: Place, *, write: bool = False) -> SearchStorage:
    """Opens the storage of `place`, which must exist.

    Args:
        write: take the write lock with each transaction; readers must not, or they lock the
            workers out.

    Raises:
        SearchError: there is none, or it is no Optuna database.
    """
    if not exists(place):
        raise SearchError(
            f"no searches in {place}: there is no database of hpsearch; run 'hpsearch search' "
            "first, or name the folder with --runs, or the database with --storage"
        )
    return _open(place, write=write, create=False)


def wait_for_server(place: Place) -> None:
    """Returns when the server of `place` answers, if it has one; or after `OUTAGE_SECONDS`."""
    deadline = time.monotonic() + OUTAGE_SECONDS
    while place.is_server and time.monotonic() < deadline:
        try:
            with _engine(place).connect():
                return
        except OperationalError as error:
            if any(words in str(error.orig) for words in ("authentication", "does not exist")):
                return  # waiting does not mend that; whoever opens it will say so
            time.sleep(1.0)


def exists(place: Place) -> bool:
    """Whether there is a storage.

    Raises:
        SearchError: the server cannot be reached.
    """
    if not place.is_server:
        return place.database.is_file() and place.database.stat().st_size > 0
    with in_words(place), _engine(place).connect() as connection:
        return sqlalchemy.inspect(connection).has_table(lease_table.LEASES.name)


@contextlib.contextmanager
def locked(place: Place, name: str) -> Iterator[None]:
    """A lock among all processes that use `place`, given back when this one ends, however it
    ends.
    """
    if not place.is_server:
        try:
            place.private.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(place.private / f"{name}.lock")
            lock.acquire()
        except OSError as error:
            raise SearchError(
                f"the runs folder {place.runs} cannot be written ({error.strerror or error}); "
                "choose another with --runs"
            ) from None
        try:
            yield
        finally:
            lock.release()
        return
    key = zlib.crc32(f"hpsearch {name}".encode())
    with in_words(place):
        connection = _engine(place).connect()
        # Not in a transaction, which servers may end that is idle for long.
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": key})
    try:
        yield
    finally:
        # It ends with the connection; where the server was away meanwhile, it has ended already.
        with contextlib.suppress(SQLAlchemyError):
            connection.close()


def _open(place: Place, *, write: bool, create: bool) -> SearchStorage:
    with in_words(place):
        if place.is_server:
            return SearchStorage(place, create=create, engine_kwargs=server_options(place))
        storage = SearchStorage(
            place, create=create, engine_kwargs={"connect_args": {"timeout": BUSY_SECONDS}}
        )

    if write:
        # IMMEDIATE: two writers that both began by reading would deadlock, and claim twice.
        # FULL: NORMAL can lose commits at power loss.
        settings = ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL")
        set_transactions(storage.engine, begin="BEGIN IMMEDIATE", settings=settings)
    else:
        set_transactions(storage.engine, begin="BEGIN")
    return storage


def set_transactions(
    engine: sqlalchemy.Engine, *, begin: str, settings: Sequence[str] = ()
) -> None:
    """How transactions of a SQLite database begin, and what is said first on each connection."""

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions by itself
        for setting in settings:
            connection.execute(setting)

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    engine.dispose()  # connections made before the listeners were there


def server_options(place: Place) -> dict[str, Any]:
    """For SQLAlchemy: how to connect to the server of `place`."""
    asked = place.url.query.get("options", "")
    asked = asked if isinstance(asked, str) else " ".join(asked)
    return {
        "pool_pre_ping": True,  # connections from before a restart of the server
        "isolation_level": "READ COMMITTED",  # a claim sees what others did while it waited
        "connect_args": {
            "options": f"{asked} -c timezone=UTC".strip(),
            "connect_timeout": 10,
            # A server that vanished is noticed within a minute, not after two hours.
            "keepalives_idle": 20,
            "keepalives_interval": 10,
            "keepalives_count": 3,
            "tcp_user_timeout": 60_000,
        },
    }


def _engine(place: Place) -> sqlalchemy.Engine:
    """For a connection or two, not for trials."""
    return sqlalchemy.create_engine(place.url, poolclass=NullPool, **server_options(place))


@contextlib.contextmanager
def in_words(place: Place) -> Iterator[None]:
    """Errors of opening a database as errors that a user understands, without a password."""
    try:
        yield
    except ImportError:
        raise SearchError(
            "a PostgreSQL storage needs psycopg; install it with: pip install 'hpsearch[postgres]'"
        ) from None
    except (SQLAlchemyError, StorageInternalError, RuntimeError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        reason = str(getattr(cause, "orig", cause)).strip().splitlines()[0]
        what = f"the database {place}" if place.is_server else str(place.database)
        raise SearchError(
            f"{what} cannot be opened as an Optuna database: {place.without_secrets(reason)}"
        ) from None


@contextlib.contextmanager
def storage_errors(place: Place) -> Iterator[None]:
    """A full disk, missing rights, or a database that stays away, in words."""
    try:
        yield
    except BrokenPipeError:
        raise  # of whoever watches: the storage has no pipes
    except (OSError, StorageInternalError, SQLAlchemyError) as error:
        raise SearchError(_failure(place, error)) from error


def _failure(place: Place, error: Exception) -> str:
    """Why a search cannot go on, for people."""
    cause = error.__cause__ or error
    reason = getattr(cause, "strerror", None) or str(getattr(cause, "orig", cause))
    reason = place.without_secrets((reason.splitlines() or [type(cause).__name__])[0])
    what = f"the runs folder {place.runs}"
    if place.is_server and not isinstance(error, OSError):
        what = f"the database {place}"
    return (
        f"{what} cannot be written ({reason}); what was finished is stored: mend it, and the same "
        "command goes on"
    )
