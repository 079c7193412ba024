"""The Optuna storage of a place: a SQLite file for one machine, PostgreSQL for many."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import filelock
import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import TrialState
from sqlalchemy import URL, event, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from hpsearch.engine import lease_table
from hpsearch.engine.lease_table import Lease
from hpsearch.engine.place import Place
from hpsearch.errors import SearchError

BUSY_SECONDS = 20
"""For so long SQLite waits for the lock before the database counts as away."""

OUTAGE_SECONDS = 600
"""For so long a call waits for a database that is away: a restart, a failover."""

_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


class SearchStorage(RDBStorage):
    """Optuna's storage that waits for a database that is away for a while, and lets only the owner
    of a trial write to it.

    The owner is known by its lease, which is looked up in the very transaction that writes: a
    worker that was frozen while another one took its trial over can change nothing.

    Args:
        place: whose database it is.
        create: make tables that are not there; for one process at a time.
        engine_kwargs: for SQLAlchemy.
        url: of another database than the place's.
    """

    def __init__(
        self, place: Place, *, create: bool, engine_kwargs: dict[str, Any], url: URL | None = None
    ) -> None:
        self.tell_away: Callable[[bool], None] = lambda _: None
        """Called with true when the database does not answer, and with false when it does again."""
        self.patience: float | None = None
        """For so many seconds a call waits for a database that is away; None: `OUTAGE_SECONDS`."""
        self._away_since: float | None = None
        self._outage = (0.0, 0.0)  # when the last one ended, and how long it was
        self._held: Lease | None = None
        self._writing = threading.local()
        address = (url or place.url).render_as_string(hide_password=False)
        super().__init__(
            address.replace("{", "{{").replace("}", "}}"),  # Optuna formats it as a template
            engine_kwargs=engine_kwargs,
            skip_table_creation=not create,
        )
        if create:
            lease_table.create(self.engine)
        event.listen(self.scoped_session.session_factory, "before_commit", self._before_commit)

    @contextlib.contextmanager
    def held(self, lease: Lease) -> Iterator[None]:
        """Within, writes to the lease's trial raise `LeaseLostError` once it is another's."""
        self._held = lease
        try:
            yield
        finally:
            self._held = None

    def patiently(self, action: Callable[[], _Result], seconds: float | None = None) -> _Result:
        """Calls `action`, again and again while the database is away.

        Args:
            seconds: at most so long; None: `patience`.
        """
        seconds = self.patience if seconds is None else seconds
        seconds = OUTAGE_SECONDS if seconds is None else seconds
        deadline = None
        while True:
            try:
                result = action()
            except (StorageInternalError, SQLAlchemyError) as error:
                if not _is_away(error) or not seconds:
                    raise
                if deadline is None:
                    deadline = time.monotonic() + seconds
                elif time.monotonic() > deadline:
                    raise
                self._mark(away=True)
                time.sleep(1.0)
            else:
                if deadline is not None:
                    self._mark(away=False)
                return result

    @property
    def is_away(self) -> bool:
        """Whether a call waits for the database now."""
        return self._away_since is not None

    def _mark(self, *, away: bool) -> None:
        """Tells that the database has gone or come back; several threads may find out."""
        now = time.monotonic()
        if away is (self._away_since is not None):
            return
        if self._away_since is not None:
            self._outage = (now, now - self._away_since)
        self._away_since = now if away else None
        _log.warning("the database %s", "does not answer; waiting for it" if away else "is back")
        self.tell_away(away)

    def away_lately(self, within: float) -> float:
        """For how many seconds the database was away, if it came back just now or within the last
        `within` seconds; nobody could write to it then.
        """
        now, (ended, seconds) = time.monotonic(), self._outage
        if self._away_since is not None:  # the call that asks is the first to go through
            return now - self._away_since
        return seconds if seconds and now - ended < within else 0.0

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """As Optuna's; a trial that is finished is nobody's any more."""
        calls = 0

        def write() -> bool:
            nonlocal calls
            calls += 1
            try:
                with self._fenced(trial_id, finishes=state.is_finished()):
                    return RDBStorage.set_trial_state_values(self, trial_id, state, values)
            except UpdateFinishedTrialError:
                # The first time it went through, and only the answer was lost.
                if calls > 1 and self.get_trial(trial_id).state is state:
                    return True
                raise

        return self.patiently(write)

    @contextlib.contextmanager
    def _fenced(self, trial_id: int, *, finishes: bool = False) -> Iterator[None]:
        held = self._held
        self._writing.lease = held if held and held.trial_id == trial_id else None
        self._writing.finishes = finishes
        try:
            yield
        finally:
            self._writing.lease = None

    def _before_commit(self, session: Session) -> None:
        lease = getattr(self._writing, "lease", None)
        if lease is not None:
            lease_table.check(session, lease, finishes=self._writing.finishes)


def _is_away(error: BaseException) -> bool:
    """Whether it may be over when the same is tried again."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) else error
    if not isinstance(cause, DBAPIError):
        return False
    if type(cause.orig).__module__.startswith("sqlite3"):
        return "locked" in str(cause.orig)
    if getattr(cause.orig, "sqlstate", None) == "25006":  # read-only, while another one takes over
        return True
    return cause.connection_invalidated or isinstance(cause, OperationalError | InterfaceError)


def _waiting(name: str, *, fenced: bool) -> Callable[..., Any]:
    """Optuna's method of that name, that waits for a database that is away.

    Args:
        fenced: it writes to the trial that is its first argument.
    """
    method = getattr(RDBStorage, name)

    @functools.wraps(method)
    def call(self: SearchStorage, *args: Any, **kwargs: Any) -> Any:
        def action() -> Any:
            if not fenced:
                return method(self, *args, **kwargs)
            trial_id = kwargs["trial_id"] if "trial_id" in kwargs else args[0]
            with self._fenced(trial_id):
                return method(self, *args, **kwargs)

        return self.patiently(action)

    return call


_FENCED = (
    "set_trial_param",
    "set_trial_intermediate_value",
    "set_trial_user_attr",
    "set_trial_system_attr",
    "_set_trial_param",
)
# What Optuna's cache in front of the storage calls beside its public methods.
_BEHIND_CACHE = ("_create_new_trial", "_get_trials", "_set_trial_param", "_get_best_trial_id")
for _name in (*BaseStorage.__abstractmethods__, *_BEHIND_CACHE):
    if _name not in vars(SearchStorage):
        setattr(SearchStorage, _name, _waiting(_name, fenced=_name in _FENCED))


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
    return sqlalchemy.create_engine(place.url, poolclass=NullPool, **_once(server_options(place)))


def _once(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key != "pool_pre_ping"}


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


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Optuna announces each new study on stderr, and the library never prints."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
