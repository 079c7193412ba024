"""What happens during a search, for whoever watches it (the live view, a notebook, a test)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from hpsearch.data.progress import Progress
from hpsearch.engine.records import SearchRecord, TrialRecord
from hpsearch.families import ParamValue
from hpsearch.training.epoch import EpochResult


@dataclasses.dataclass(frozen=True, kw_only=True)
class FamilyEstimate:
    """How long a family's share takes, measured on its default configuration.

    Attributes:
        trials: still to do.
        epoch_seconds: one epoch's training and validation.
        seconds: all trials with all their epochs; pruning makes it less.
    """

    family: str
    trials: int
    epoch_seconds: float
    seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchStarted:
    """The search is set up, or read again; no trial has run in this process.

    Attributes:
        errors: what would make results wrong, in words.
        warnings: what looks wrong with the data, in words.
        workers: processes that run trials; 0: this one alone.
        threads: of each of them.
        why: why there are so many, where that was measured.
        joins: it was started elsewhere, and this process takes part in it.
    """

    record: SearchRecord
    device: str
    precision: str
    estimates: tuple[FamilyEstimate, ...]
    resumed: bool
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    workers: int = 0
    threads: int = 1
    why: str = ""
    joins: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialStarted:
    """A trial begins, or begins again: after an interruption, or in smaller parts where memory was
    short.

    Attributes:
        history: the epochs that it has behind it.
        worker: the number of the process that runs it, from 1; 0: the search's own process.
    """

    name: str
    family: str
    chosen_by: str
    params: Mapping[str, ParamValue]
    epochs: int
    history: tuple[EpochResult, ...] = ()
    worker: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpochFinished:
    """An epoch of a running trial is done."""

    name: str
    result: EpochResult


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialFinished:
    """A trial is complete, pruned or failed."""

    trial: TrialRecord


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialStopped:
    """A trial no longer runs here, and did not end: another worker, or a later start, goes on with
    it.

    Attributes:
        reason: in words, such as "handed back" or why its worker died.
    """

    name: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkerStarted:
    """A worker process was started, or started again.

    Attributes:
        worker: its number, from 1.
        device: where it trains.
        restarts: how many times it was started before.
    """

    worker: int
    device: str
    restarts: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkerWaits:
    """Nothing is left to begin, but others' trials run: should one of them be lost, this worker
    takes it up.
    """

    worker: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkerEnded:
    """A worker process is gone.

    Attributes:
        reason: why, where it died or cannot work; empty where it had nothing left to do or was told
            to stop.
        refused: it cannot work; to start it again would not mend that.
        restarts: whether it is started again.
    """

    worker: int
    reason: str = ""
    refused: bool = False
    restarts: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatabaseAway:
    """The database does not answer, and is waited for; or it answers again.

    Attributes:
        worker: who waits, from 1; 0: the search's own process.
        away: whether it is away now.
    """

    worker: int
    away: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stopping:
    """The search was asked to stop: running trials are saved and handed back at the end of their
    epoch.

    Attributes:
        reason: in words, such as "Ctrl-C" or "the time is up".
    """

    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataProgress:
    """The data is being decoded, before the search starts."""

    progress: Progress


Event = (
    DataProgress
    | SearchStarted
    | TrialStarted
    | EpochFinished
    | TrialFinished
    | TrialStopped
    | WorkerStarted
    | WorkerWaits
    | WorkerEnded
    | DatabaseAway
    | Stopping
)
