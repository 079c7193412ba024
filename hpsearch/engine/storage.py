"""Optuna's storage that waits for its database, and lets only the owner of a trial write to it."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import TrialState
from sqlalchemy import URL, event
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from hpsearch.engine import lease_table
from hpsearch.engine.lease_table import Lease
from hpsearch.engine.place import Place

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
        # Held weakly: a listener lives as long as the class that it is registered with, and would
        # keep that alive in turn, and the storage's connections with it, for ever.
        check = weakref.WeakMethod(self._before_commit)

        def before_commit(session: Session) -> None:
            if (method := check()) is not None:
                method(session)

        event.listen(self.scoped_session.session_factory, "before_commit", before_commit)
        # A server counts connections, and psycopg warns of those that are not closed. What still
        # exists at the end of the process is closed with it.
        weakref.finalize(self, self.engine.dispose).atexit = False

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


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Optuna announces each new study on stderr, and the library never prints."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
