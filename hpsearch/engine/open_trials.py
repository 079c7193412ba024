"""What the database says of a search's trials: who runs them, who is dead, how many count."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Literal

from optuna.storages._rdb.models import TrialModel, TrialUserAttributeModel
from optuna.trial import TrialState
from sqlalchemy import Row, exists, func, inspect, select, text
from sqlalchemy.orm import Session

from hpsearch.engine import lease_table
from hpsearch.engine.lease_table import LEASES
from hpsearch.engine.place import Place
from hpsearch.engine.presence import dead
from hpsearch.engine.states import ASIDE
from hpsearch.engine.storage import SearchStorage

GRACE_SECONDS = 60.0
"""After so long without a beat, an owner is taken for dead: its machine vanished, or it hangs."""

BEATS = 6
"""So many signs of life a worker gives within the grace that it has."""

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpenTrial:
    """A trial that is running or waiting, with its lease where it has one."""

    family: str
    trial_id: int
    number: int
    state: TrialState
    lease: Row[tuple[object, ...]]

    @property
    def is_free(self) -> bool:
        """Whether nobody has it, and any worker may."""
        return self.lease.owner is None and not self.lease.paused


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sign:
    """What is known of who runs a trial.

    Attributes:
        idle: "interrupted" or "paused" where nobody does, else empty.
        silent: seconds since the owner's last sign of life.
        owners: how many the trial has had.
    """

    idle: Literal["", "interrupted", "paused"]
    silent: float = 0.0
    owners: int = 1


def idle_trials(
    storage: SearchStorage, place: Place, study_ids: Collection[int]
) -> dict[int, Literal["interrupted", "paused"]]:
    """Of the running trials of some studies those that nobody runs, by the id of the trial."""
    signs = signs_of_life(storage, place, study_ids)
    return {trial_id: sign.idle for trial_id, sign in signs.items() if sign.idle}


def signs_of_life(
    storage: SearchStorage, place: Place, study_ids: Collection[int]
) -> dict[int, Sign]:
    """Who runs the running trials of some studies, by the id of the trial; where they are of a
    version that had no leases, nothing is known.
    """
    if not inspect(storage.engine).has_table(LEASES.name):
        return {}
    with Session(storage.engine) as session, session.begin():
        unfinished = unfinished_trials(session, dict.fromkeys(study_ids, ""))
        time = lease_table.now(session)
    gone = dead(place, {t.lease.owner for t in unfinished if t.lease.owner})
    # While the database was away, nobody could show a sign of life.
    grace = GRACE_SECONDS + storage.away_lately(GRACE_SECONDS)
    return {
        trial.trial_id: _sign(trial, time, gone, grace)
        for trial in unfinished
        if trial.state is TrialState.RUNNING
    }


def _sign(trial: OpenTrial, time: float, gone: Collection[str], grace: float) -> Sign:
    row = trial.lease
    if row.paused:
        return Sign(idle="paused")
    if trial.is_free or why_lost(trial, time, gone, grace):
        return Sign(idle="interrupted")
    return Sign(idle="", silent=max(0.0, time - row.beat), owners=row.token)


def end_times(storage: SearchStorage, study_id: int) -> dict[int, float]:
    """When the trials of a study ended, by their id, on the database's clock."""

    def action() -> dict[int, float]:
        with Session(storage.engine) as session, session.begin():
            rows = session.execute(
                select(LEASES.c.trial_id, LEASES.c.ended)
                .join(TrialModel, TrialModel.trial_id == LEASES.c.trial_id)
                .where(TrialModel.study_id == study_id, LEASES.c.ended.is_not(None))
            )
            return {row.trial_id: row.ended for row in rows}

    return storage.patiently(action)


def unfinished_trials(session: Session, ids: Mapping[int, str]) -> list[OpenTrial]:
    """The running and the waiting trials of some studies, the oldest first.

    Args:
        ids: of the studies, with their families.
    """
    rows = session.execute(
        select(
            TrialModel.study_id, TrialModel.trial_id, TrialModel.number, TrialModel.state, LEASES
        )
        .select_from(TrialModel)
        .outerjoin(LEASES, LEASES.c.trial_id == TrialModel.trial_id)
        .where(TrialModel.study_id.in_(ids))
        .where(TrialModel.state.in_((TrialState.RUNNING, TrialState.WAITING)))
        .order_by(TrialModel.trial_id)
    )
    return [
        OpenTrial(
            family=ids[row.study_id],
            trial_id=row[1],
            number=row.number,
            state=row.state,
            lease=row,
        )
        for row in rows
    ]


def finished_counts(
    session: Session, ids: Mapping[int, str]
) -> tuple[dict[int, int], dict[int, int]]:
    """By study, how many trials ended that count, and how many that do not."""
    aside = exists().where(
        TrialUserAttributeModel.trial_id == TrialModel.trial_id,
        TrialUserAttributeModel.key.in_(ASIDE),
    )
    rows = session.execute(
        select(TrialModel.study_id, aside.label("aside"), func.count())
        .where(TrialModel.study_id.in_(ids), TrialModel.state.in_(_FINISHED))
        .group_by(TrialModel.study_id, text("aside"))
    )
    counts: tuple[dict[int, int], dict[int, int]] = ({}, {})
    for study_id, is_aside, count in rows:
        counts[bool(is_aside)][study_id] = count
    return counts


def why_lost(trial: OpenTrial, time: float, gone: Collection[str], grace: float) -> str:
    """Why the trial's owner is taken for dead; empty where it is not, or where there is none."""
    row = trial.lease
    if row.owner is None:
        return str(row.reason) if row.died else ""
    if row.owner in gone:
        return "its process was killed"
    if time - row.beat > grace:
        return f"no sign of life for {grace:.0f} s: its machine vanished, or it was stopped"
    return ""
