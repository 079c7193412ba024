"""How a search stands, wherever it runs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

from hpsearch.engine.open_trials import BEATS, GRACE_SECONDS
from hpsearch.engine.place import Place
from hpsearch.engine.records import SearchRecord, TrialRecord, objective_of, objectives_of
from hpsearch.engine.states import ASIDE, FINISHED
from hpsearch.training.goals import Objectives
from hpsearch.training.gpu import GpuLoad
from hpsearch.training.objectives import Objective

State = Literal["starting", "running", "stopped", "over"]
"""Of a search: "starting" as long as its workers have no trial yet; "stopped": there is something
left to do, and nobody does it; "over": there is nothing left.
"""

LATE_SECONDS = 2 * GRACE_SECONDS / BEATS
"""After so long without one, a worker's sign of life is late."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FamilyStanding:
    """How a family stands: trials by state, in the order of `FINISHED`, and the best one."""

    family: str
    counts: tuple[int, ...]
    best: TrialRecord | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Standing:
    """How many trials a search has in which state, and the best one."""

    counts: Mapping[str, int]
    finished: int
    best: TrialRecord | None
    families: tuple[FamilyStanding, ...]

    @classmethod
    def of(cls, record: SearchRecord) -> Standing:
        """Counts the trials of `record`."""
        return cls(
            counts={state: record.count(state) for state in (*FINISHED, *ASIDE)},
            finished=record.finished,
            best=record.leader(),
            families=tuple(
                FamilyStanding(
                    family=family,
                    counts=tuple(record.count(state, family) for state in FINISHED),
                    best=record.leader(family),
                )
                for family in record.families
            ),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunningTrial:
    """A trial that a worker runs.

    Attributes:
        trial: as it is stored; its `reported` are the epochs that it has behind it.
        epochs: how many it may have in all.
        seconds: since it was begun; None where a worker has taken it over since.
        silent: seconds since its worker's last sign of life.
        gpu: the load of its GPU, of the last seconds; None where it has none, or told nothing yet.
    """

    trial: TrialRecord
    epochs: int
    seconds: float | None
    silent: float
    gpu: GpuLoad | None

    @property
    def is_silent(self) -> bool:
        """Whether its worker's next sign of life is late: it may hang, or have lost its machine or
        the way to the database.
        """
        return self.silent > LATE_SECONDS

    def to_dict(self) -> dict[str, Any]:
        """In plain JSON types."""
        return {
            "trial": self.trial.name,
            "family": self.trial.family,
            "params": dict(self.trial.params),
            "epochs": self.epochs,
            "values": [_number(value) for _, value in sorted(self.trial.reported.items())],
            "seconds": self.seconds,
            "silent_seconds": self.silent,
            "is_silent": self.is_silent,
            "host": self.trial.host,
            "device": self.trial.device,
            "gpu": None if self.gpu is None else dataclasses.asdict(self.gpu),
        }


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchStatus:
    """How a search stands.

    Attributes:
        reason: why it is over, where it has not all the trials that were asked for; else empty.
        spec, data: as `SearchRecord` has them.
        last_started: the time (ISO, UTC).
        running: the trials that workers run, the oldest first.
        idle: those that nobody runs, and that are to be gone on with: interrupted or paused.
        seconds_left: about; None where that cannot be told yet, or nobody works at it.
    """

    place: Place
    name: str
    state: State
    reason: str
    spec: Mapping[str, Any]
    data: Mapping[str, Any]
    last_started: str
    standing: Standing
    running: tuple[RunningTrial, ...]
    idle: tuple[TrialRecord, ...]
    seconds_left: float | None

    @property
    def objective(self) -> Objective:
        """What trials are ranked by."""
        return objective_of(self.spec)

    @property
    def asked(self) -> int:
        """How many trials were asked for."""
        return int(self.spec["trials"])

    def to_dict(self) -> dict[str, Any]:
        """In plain JSON types."""
        best, objectives = self.standing.best, objectives_of(self.spec)
        return {
            "search": self.name,
            "state": self.state,
            "reason": self.reason,
            "data": self.data["name"],
            "objective": ",".join(row.name for row in objectives),
            "last_started": self.last_started,
            "trials": {
                "asked": self.asked,
                "finished": self.standing.finished,
                **self.standing.counts,
                "running": len(self.running),
            },
            "families": [
                {
                    "family": row.family,
                    **dict(zip(FINISHED, row.counts, strict=True)),
                    "best": _brief(row.best, objectives),
                }
                for row in self.standing.families
            ],
            "best": None
            if best is None
            else {**(_brief(best, objectives) or {}), "params": dict(best.params)},
            "running": [trial.to_dict() for trial in self.running],
            "interrupted": [trial.name for trial in self.idle if trial.state == "interrupted"],
            "paused": [trial.name for trial in self.idle if trial.state == "paused"],
            "seconds_left": self.seconds_left,
        }


def _brief(trial: TrialRecord | None, objectives: Objectives) -> dict[str, Any] | None:
    if trial is None:
        return None
    return {
        "trial": trial.name,
        "value": _number(trial.value),
        "values": {
            row.name: _number(value)
            for row, value in zip(objectives, trial.values, strict=False)  # none, of one objective
        },
        "best_epoch": trial.best_epoch,
        "epochs": trial.epochs,
        "seconds": trial.seconds,
        "parameters": trial.parameters,
    }


def _number(value: float | None) -> float | None:
    """A value as JSON can hold it: null where it is not finite."""
    return value if value is not None and math.isfinite(value) else None
