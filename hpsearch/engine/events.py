"""What happens during a search, for whoever watches it (the live view, a notebook, a test)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from hpsearch.data.decode import Progress
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
        warnings: what looks wrong with the data, in words.
    """

    record: SearchRecord
    device: str
    precision: str
    estimates: tuple[FamilyEstimate, ...]
    resumed: bool
    warnings: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialStarted:
    """A trial begins, or begins again: after an interruption, or in smaller parts where memory was
    short.

    Attributes:
        history: the epochs that it has behind it.
    """

    name: str
    family: str
    chosen_by: str
    params: Mapping[str, ParamValue]
    epochs: int
    history: tuple[EpochResult, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpochFinished:
    """An epoch of the running trial is done."""

    name: str
    result: EpochResult


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialFinished:
    """A trial is complete, pruned or failed."""

    trial: TrialRecord


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataProgress:
    """The data is being decoded, before the search starts."""

    progress: Progress


Event = DataProgress | SearchStarted | TrialStarted | EpochFinished | TrialFinished
