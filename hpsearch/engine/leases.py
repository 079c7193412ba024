"""Leases on running trials: who runs which one, and who takes it over.

A worker claims a trial and shows with beats that it lives. When it dies, the same trial (number,
parameters, reports) is another's to go on with. When trials are claimed, in one transaction, the
search's budget is looked at, too, so that it is exact however many workers there are.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import logging
import threading
from collections.abc import Collection, Iterator, Mapping

from optuna.storages._rdb.models import (
    StudyModel,
    TrialIntermediateValueModel,
    TrialModel,
)
from optuna.trial import TrialState
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from hpsearch.engine import lease_table
from hpsearch.engine.lease_table import LEASES, Lease
from hpsearch.engine.open_trials import (
    GRACE_SECONDS,
    OpenTrial,
    finished_counts,
    unfinished_trials,
    why_lost,
)
from hpsearch.engine.place import Place
from hpsearch.engine.presence import dead
from hpsearch.engine.states import most_aside
from hpsearch.engine.storage import SearchStorage

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Share:
    """What a family may still have of a search.

    Attributes:
        study_id: the storage's.
        trials: how many of the search's trials are the family's.
        closed: begin no new trial: its space is exhausted.
    """

    study_id: int
    trials: int
    closed: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """A trial to run.

    Attributes:
        lost: why it was not finished by its last owner; empty where it is new or was handed back.
        hopeless: too many owners died with it: it is to be failed.
        deaths: how many in a row, without a report between.
    """

    family: str
    lease: Lease
    lost: str = ""
    hopeless: bool = False
    deaths: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nothing:
    """There is nothing to begin.

    Attributes:
        running: how many trials others run that may still fall to this worker, or make room for
            another one.
    """

    running: int


class Leases:
    """The leases that one worker takes, keeps and gives back.

    Args:
        owner: the worker's name, as `presence.new_owner` makes it.
        grace: seconds without a beat after which an owner is taken for dead.
    """

    def __init__(
        self, storage: SearchStorage, place: Place, owner: str, *, grace: float = GRACE_SECONDS
    ) -> None:
        self._storage = storage
        self._place = place
        self._grace = grace
        self.owner = owner

    def claim(self, shares: Mapping[str, Share], *, attempts: int) -> Claim | Nothing:
        """Takes a trial that was lost or handed back, else a waiting one, else a new one: of the
        family that has had the fewest.

        Args:
            shares: by family.
            attempts: after so many deaths in a row without a report between, a trial is hopeless.
        """

        def action() -> Claim | Nothing:
            with Session(self._storage.engine) as session, session.begin():
                return self._claim(session, shares, attempts)

        return self._storage.patiently(action)

    def _claim(
        self, session: Session, shares: Mapping[str, Share], attempts: int
    ) -> Claim | Nothing:
        ids = {share.study_id: family for family, share in shares.items()}
        # In this order: all who claim do so one after the other ...
        session.execute(
            select(StudyModel.study_id)
            .where(StudyModel.study_id.in_(ids))
            .order_by(StudyModel.study_id)
            .with_for_update()
        ).all()
        # ... and a trial that ends between these two is counted twice rather than not at all.
        unfinished = unfinished_trials(session, ids)
        finished, aside = finished_counts(session, ids)
        running = {
            family: [t for t in unfinished if t.family == family and t.state is TrialState.RUNNING]
            for family in shares
        }
        taken = {
            family: finished.get(share.study_id, 0) + len(running[family])
            for family, share in shares.items()
        }
        order = sorted(shares, key=lambda family: taken[family])  # stable: ties as in the study
        for trial in (trial for family in order for trial in running[family]):
            if trial.lease.owner == self.owner:  # claimed already, and only the answer was lost
                return _claim_of(trial, attempts)
        time = lease_table.now(session)
        gone = dead(self._place, {t.lease.owner for t in unfinished if t.lease.owner})
        # While the database was away, nobody could show a sign of life.
        grace = self._grace + self._storage.away_lately(self._grace)
        for family in order:
            lost_by = {t.trial_id: why_lost(t, time, gone, grace) for t in running[family]}
            held = sum(not t.is_free and not lost_by[t.trial_id] for t in running[family])
            if finished.get(shares[family].study_id, 0) + held >= shares[family].trials:
                continue  # with a lower --trials than before, some are left as they are
            for trial in running[family]:
                lost = lost_by[trial.trial_id]
                if trial.is_free or lost:
                    claim = self._adopt(session, trial, time, lost, attempts)
                    if claim is not None:
                        return claim
        for family in order:
            share = shares[family]
            given_up = aside.get(share.study_id, 0) >= most_aside(share.trials)
            if taken[family] < share.trials and not share.closed and not given_up:
                waiting = (
                    t for t in unfinished if t.family == family and t.state is TrialState.WAITING
                )
                lease = self._begin(session, share.study_id, next(waiting, None), time)
                return Claim(family=family, lease=lease)
        # What still runs of a family that has all its trials, since --trials was more once, is no
        # reason to wait.
        ongoing = (
            trial
            for family, share in shares.items()
            if finished.get(share.study_id, 0) < share.trials
            for trial in running[family]
        )
        return Nothing(running=sum(not trial.lease.paused for trial in ongoing))

    def _begin(
        self, session: Session, study_id: int, waiting: OpenTrial | None, time: float
    ) -> Lease:
        """Makes a new trial, or sets a waiting one running."""
        if waiting is None:
            trial = self._storage._get_prepared_new_trial(study_id, None, session)
        else:
            trial = session.get_one(TrialModel, waiting.trial_id)
            trial.state = TrialState.RUNNING
            trial.datetime_start = datetime.datetime.now()  # as Optuna has it
        session.flush()
        trial_id = int(trial.trial_id)
        # SQLite gives the ids of deleted trials away again: their owners must not pass for its.
        deleted = LEASES.c.trial_id == trial_id
        token = (session.scalar(select(LEASES.c.token).where(deleted)) or 0) + 1
        session.execute(delete(LEASES).where(deleted))
        return self._insert(session, trial_id, time, token=token)

    def _insert(self, session: Session, trial_id: int, time: float, *, token: int = 1) -> Lease:
        session.execute(
            insert(LEASES).values(
                trial_id=trial_id,
                owner=self.owner,
                token=token,
                beat=time,
                paused=False,
                died=False,
                deaths=0,
                reports=0,
                reason="",
            )
        )
        return Lease(trial_id=trial_id, token=token)

    def _adopt(
        self, session: Session, trial: OpenTrial, time: float, lost: str, attempts: int
    ) -> Claim | None:
        """Takes a trial over; None where its owner has come back at this very moment."""
        row = trial.lease
        if row.token is None:  # of an earlier version, which had no leases
            lease = self._insert(session, trial.trial_id, time)
            return Claim(family=trial.family, lease=lease)
        deaths, reports = int(row.deaths), int(row.reports)
        if lost:
            now = session.scalar(
                select(func.count()).where(TrialIntermediateValueModel.trial_id == trial.trial_id)
            )
            got_further = (now or 0) > reports
            deaths, reports = (1 if got_further else deaths + 1), now or 0
        lease = Lease(trial_id=trial.trial_id, token=int(row.token) + 1)
        done = session.execute(
            update(LEASES)
            .where(LEASES.c.trial_id == trial.trial_id, LEASES.c.token == row.token)
            .where(LEASES.c.beat == row.beat, LEASES.c.ended.is_(None))
            .values(
                owner=self.owner,
                token=lease.token,
                beat=time,
                died=False,
                deaths=deaths,
                reports=reports,
                reason=lost,
            )
        )
        if not done.rowcount:  # type: ignore[attr-defined]
            return None
        return Claim(
            family=trial.family,
            lease=lease,
            lost=lost,
            hopeless=bool(lost) and deaths >= attempts,
            deaths=deaths,
        )

    def holds(self, lease: Lease) -> bool:
        """Whether the lease is still its own; also that of a trial that it has ended."""

        def action() -> bool:
            with Session(self._storage.engine) as session, session.begin():
                row = session.execute(
                    select(LEASES).where(LEASES.c.trial_id == lease.trial_id)
                ).one_or_none()
                if row is None or row.token != lease.token:
                    return False
                return row.owner is not None or row.ended is not None

        return self._storage.patiently(action)

    @contextlib.contextmanager
    def kept(self, lease: Lease, *, every: float) -> Iterator[threading.Event]:
        """Within, a thread shows that the owner lives; and the storage lets only the owner write.

        Returns:
            What is set once the lease is another's.
        """
        over, lost = threading.Event(), threading.Event()

        def beats() -> None:
            pause = every
            while not over.wait(pause):
                pause = every
                try:
                    if not self.beat(lease):
                        lost.set()
                        return
                except Exception:  # the database is away: it may be there again in time
                    _log.debug("no beat", exc_info=True)
                    pause = min(every, 1.0)  # before others take the trial for abandoned

        thread = threading.Thread(target=beats, name="beats", daemon=True)
        thread.start()
        try:
            with self._storage.held(lease):
                yield lost
        finally:
            over.set()

    def beat(self, lease: Lease) -> bool:
        """Shows that the owner lives; whether the lease is still its own."""
        with Session(self._storage.engine) as session, session.begin():
            return _touch(session, lease, beat=lease_table.now(session))

    def hand_back(
        self,
        lease: Lease,
        reason: str,
        *,
        pause: bool = False,
        patience: float | None = None,
    ) -> bool:
        """Gives a trial back unfinished, for any worker to go on with; whether it was still its
        own.

        Args:
            pause: only after `resume`.
            patience: at most so many seconds it waits for a database that is away.
        """

        def action() -> bool:
            with Session(self._storage.engine) as session, session.begin():
                return _touch(session, lease, owner=None, paused=pause, reason=reason)

        return self._storage.patiently(action, patience)


def _claim_of(trial: OpenTrial, attempts: int) -> Claim:
    """The claim that a trial's owner was given."""
    row = trial.lease
    return Claim(
        family=trial.family,
        lease=Lease(trial_id=trial.trial_id, token=row.token),
        lost=row.reason,
        hopeless=bool(row.reason) and row.deaths >= attempts,
        deaths=row.deaths,
    )


def _touch(session: Session, lease: Lease, **values: object) -> bool:
    done = session.execute(
        update(LEASES)
        .where(LEASES.c.trial_id == lease.trial_id, LEASES.c.token == lease.token)
        .where(LEASES.c.owner.is_not(None))
        .values(**values)
    )
    return bool(done.rowcount)  # type: ignore[attr-defined]


def resume(storage: SearchStorage, trial_ids: Collection[int]) -> None:
    """Lets paused trials be gone on with, by any worker."""

    def action() -> None:
        with Session(storage.engine) as session, session.begin():
            session.execute(
                update(LEASES).where(LEASES.c.trial_id.in_(trial_ids)).values(paused=False)
            )

    storage.patiently(action)


def release_dead(
    storage: SearchStorage,
    owner: str,
    reason: str,
    *,
    died: bool = True,
    patience: float | None = None,
) -> None:
    """Gives back at once what a worker had that is known to be gone.

    Args:
        died: it counts as a death of the trial's owner; not where the worker was killed on purpose.
        patience: at most so many seconds it waits for a database that is away.
    """

    def action() -> None:
        with Session(storage.engine) as session, session.begin():
            session.execute(
                update(LEASES)
                .where(LEASES.c.owner == owner)
                .values(owner=None, died=died, reason=reason)
            )

    storage.patiently(action, patience)
