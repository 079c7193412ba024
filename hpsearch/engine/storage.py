"""The Optuna storage of a runs folder: one SQLite file for all searches in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import optuna
from optuna.storages import RDBStorage
from sqlalchemy import URL, event
from sqlalchemy.exc import SQLAlchemyError

from hpsearch.errors import SearchError

DATABASE = "hpsearch.db"
BUSY_SECONDS = 60


def create_storage(runs: Path) -> RDBStorage:
    """Opens the storage of `runs` for a search; makes the folder and the file if needed.

    Raises:
        SearchError: the folder cannot be made or written, or the file is no Optuna database.
    """
    try:
        runs.mkdir(parents=True, exist_ok=True)
        # Tables are made by one process at a time: two at once fail on a new file.
        with filelock.FileLock(runs / f".{DATABASE}.lock"):
            return _open(runs, write=True)
    except OSError as error:
        raise SearchError(
            f"the runs folder {runs} cannot be written ({error.strerror or error}); "
            "choose another with --runs"
        ) from None


def open_storage(runs: Path, *, write: bool = False) -> RDBStorage:
    """Opens the storage of `runs`, which must exist.

    Args:
        write: take the write lock with each transaction; readers must not, or they lock the
            workers out.

    Raises:
        SearchError: there is none, or the file is no Optuna database.
    """
    if not (runs / DATABASE).is_file():
        raise SearchError(
            f"no searches in {runs}: there is no {DATABASE}; run 'hpsearch search' first, or "
            "name the folder with --runs"
        )
    return _open(runs, write=write)


def _open(runs: Path, *, write: bool) -> RDBStorage:
    path = (runs / DATABASE).resolve()
    url = URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)
    try:
        storage = RDBStorage(
            url.replace("{", "{{").replace("}", "}}"),  # Optuna formats it as a template
            engine_kwargs={"connect_args": {"timeout": BUSY_SECONDS}},
        )
    except (SQLAlchemyError, RuntimeError) as error:
        reason = str(getattr(error, "orig", error)).splitlines()[0]
        raise SearchError(f"{path} cannot be opened as an Optuna database: {reason}") from None

    @event.listens_for(storage.engine, "connect")
    def _connect(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions by itself
        if write:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")  # NORMAL can lose commits at power loss

    @event.listens_for(storage.engine, "begin")
    def _begin(connection: Any) -> None:
        # IMMEDIATE: two writers that both began by reading would deadlock, and claim twice.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    storage.engine.dispose()  # connections made before the listeners were there
    return storage


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Optuna announces each new study on stderr, and the library never prints."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
