"""The table of leases, beside Optuna's own: which worker owns which running trial.

Its times are the database's, in seconds since 1970 (UTC): clocks and time zones of workers do not
matter.
"""

from __future__ import annotations

import dataclasses

from sqlalchemy import (
    Boolean,
    Column,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    select,
    text,
    update,
)
from sqlalchemy.orm import Session

from hpsearch.errors import HpsearchError

_METADATA = MetaData()

LEASES = Table(
    "hpsearch_leases",
    _METADATA,
    # No foreign key: Optuna's dashboard must be able to delete trials.
    Column("trial_id", Integer, primary_key=True, autoincrement=False),
    Column("owner", String(100), index=True),  # none: free, or over
    Column("token", Integer, nullable=False),  # of its owner, one more with each
    Column("beat", Float, nullable=False),  # the owner's last sign of life
    Column("ended", Float),  # when the trial ended
    Column("paused", Boolean, nullable=False),  # free, but to be left alone
    Column("died", Boolean, nullable=False),  # free, since its owner died
    Column("deaths", Integer, nullable=False),  # in a row, without a report between
    Column("reports", Integer, nullable=False),  # how many there were at the last death
    Column("reason", Text, nullable=False),  # why the last owner has it no more
)

_NOW = {
    "sqlite": text("SELECT (julianday('now') - 2440587.5) * 86400.0"),
    "postgresql": text("SELECT extract(epoch FROM clock_timestamp())::float8"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lease:
    """A worker's right to run a trial, until another one has taken it over.

    Attributes:
        trial_id: the storage's.
        token: how many owners the trial has had.
    """

    trial_id: int
    token: int


class LeaseLostError(HpsearchError):
    """The trial is another worker's by now: nothing may be written for it any more."""


def create(engine: Engine) -> None:
    """Makes the table if it is not there."""
    _METADATA.create_all(engine)


def now(session: Session) -> float:
    """The database's clock."""
    return float(session.scalar(_NOW[session.get_bind().dialect.name]) or 0.0)


def check(session: Session, lease: Lease, *, finishes: bool) -> None:
    """Makes sure, until the transaction is over, that `lease` is still its owner's.

    Args:
        finishes: the transaction ends the trial, and so the lease.

    Raises:
        LeaseLostError: it is not.
    """
    row = session.execute(
        select(LEASES.c.token, LEASES.c.owner, LEASES.c.ended)
        .where(LEASES.c.trial_id == lease.trial_id)
        .with_for_update()
    ).one_or_none()
    if row is None or row.token != lease.token or (row.owner is None and row.ended is None):
        raise LeaseLostError("the trial was taken over by another worker")
    if finishes:
        session.execute(
            update(LEASES)
            .where(LEASES.c.trial_id == lease.trial_id)
            .values(owner=None, ended=now(session))
        )
