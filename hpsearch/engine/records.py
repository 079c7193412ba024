"""What a search has found, for reports, exports and the live view; `search_reader.py` reads it."""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from hpsearch.config import TrainConfig
from hpsearch.engine.ledger import TestOpening, TestResult
from hpsearch.engine.pareto import pareto_front
from hpsearch.engine.place import CHECKPOINT, Place
from hpsearch.engine.states import FINISHED, left_to_do, trial_state
from hpsearch.errors import CheckpointError, SearchError
from hpsearch.names import family_label, listed
from hpsearch.training.goals import Objectives, objective_rows
from hpsearch.training.objectives import DEFAULT_OBJECTIVE, Objective, objective_info

BEST = "best"
"""Instead of a trial's name: the best one."""

FAILURE = "failure"
NOTE = "note"
_WORST = (float("-inf"), float("-inf"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial of a search.

    Attributes:
        family: its name, of a user's own file the file's.
        state: "complete", "pruned", "failed", "infeasible", "duplicate" (of a configuration that
            was measured already), "running", "interrupted", "paused" or "waiting".
        chosen_by: "known-good" (tried first), "model" (by the sampler, which models the trials so
            far) or "random" (at its start, or where it does not model them).
        objective: of the search, the first of several, by name: a row of the table in
            `training/objectives.py`.
        value: the objective's, at the epoch whose checkpoint is kept, the trial's best; None
            before the first epoch. Of a trial that was not completed: of its best epoch so far.
        values: of all objectives, that one's first; empty until it is complete, and where there is
            but one.
        val_accuracy, val_balanced_accuracy, val_macro_f1, val_loss: at the same epoch; the two
            in the middle are None in searches of the first version, too.
        config: what it trains with; None until that is decided.
        images_per_second: that it was trained on, its validation included in the time.
        device: that it was trained on, such as "cpu (2 threads)" or "cuda:0, NVIDIA H100"; empty
            in earlier searches, as `host`.
        host: the name of the machine.
        peak_memory: MiB; on a GPU the most that was allocated there at once, on a CPU the most
            that the process held at the end of an epoch. None where that is not known.
        reported: the objective's value after each epoch, by the epoch's number from 0; also where
            there are no epochs of its own yet, or where it was pruned.
        ended: when, on the clock of the machine that ran it; None: it has not.
        failure: why it failed or was infeasible, or empty.
        note: what a user should know of how it was trained, or empty.
        folder: where its checkpoint and history lie.
    """

    place: Place
    search: str
    family: str
    number: int
    state: str
    chosen_by: str
    params: Mapping[str, Any]
    config: TrainConfig | None
    objective: str
    value: float | None
    val_accuracy: float | None
    val_balanced_accuracy: float | None
    val_macro_f1: float | None
    val_loss: float | None
    best_epoch: int | None
    epochs: int
    seconds: float
    parameters: int
    failure: str
    note: str
    folder: Path
    values: tuple[float, ...] = ()
    images_per_second: float = 0.0
    device: str = ""
    host: str = ""
    peak_memory: float | None = None
    reported: Mapping[int, float] = dataclasses.field(default_factory=dict)
    ended: datetime.datetime | None = None

    @property
    def runs(self) -> Path:
        """The folder of its search's files."""
        return self.place.runs

    @property
    def name(self) -> str:
        """Family and number, such as cnn-7."""
        return f"{self.family}-{self.number}"

    @property
    def checkpoint(self) -> Path | None:
        """The file of its best epoch's weights, or None where it was not kept."""
        path = self.folder / CHECKPOINT
        return path if path.is_file() else None

    @property
    def key(self) -> tuple[float, float]:
        """Trials are ranked by it, as epochs are; the greater the better."""
        if self.value is None or self.val_loss is None:
            return _WORST
        return objective_info(self.objective).key_of(self.value, self.val_loss)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchRecord:
    """A search with all its trials.

    Attributes:
        families: in the order of the study.
        spec: what was asked for (`StudySpec.to_dict`), as of the last start.
        data: name, source, shape, classes and split counts.
        fingerprints: of data, split and each family's space.
        openings: looks at the test split so far, oldest first: those of all searches in this place
            that were made with the same data and split.
        results: what this search's gave, oldest first; a look that was broken off gave nothing.
    """

    place: Place
    name: str
    families: tuple[str, ...]
    spec: Mapping[str, Any]
    data: Mapping[str, Any]
    fingerprints: Mapping[str, str]
    trials: tuple[TrialRecord, ...]
    openings: tuple[TestOpening, ...]
    results: tuple[TestResult, ...] = ()

    @property
    def runs(self) -> Path:
        """The folder of its files."""
        return self.place.runs

    @property
    def objective(self) -> Objective:
        """What trials are ranked by."""
        return objective_of(self.spec)

    @property
    def objectives(self) -> Objectives:
        """All that it is for; what trials are ranked by is the first."""
        return objectives_of(self.spec)

    @property
    def folder(self) -> Path:
        """Where the files of the search lie."""
        return self.place.runs / self.name

    @property
    def best(self) -> TrialRecord:
        """The best complete trial of all families.

        Raises:
            SearchError: no trial is complete.
        """
        leader = self.leader()
        if leader is None:
            states = [trial.state for trial in self.trials if trial.state != "waiting"]
            counts = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
            raise SearchError(
                f"search {self.name!r} has no complete trial yet ({counts or 'no trials'}); "
                "go on with the command that started it, or give it more --trials"
            )
        return leader

    def leader(self, family: str | None = None) -> TrialRecord | None:
        """The best complete trial, if there is one; of one family only where one is given."""
        return next(iter(self.ranked(family)), None)

    def ranked(self, family: str | None = None) -> list[TrialRecord]:
        """Complete trials, the best first; of one family only where one is given."""
        return rank(trial for trial in self.trials if family in (None, trial.family))

    def ranked_families(self) -> list[str]:
        """The families, the one with the best trial first; those without a complete one last."""

        def key(family: str) -> tuple[float, float]:
            leader = self.leader(family)
            return _WORST if leader is None else leader.key

        return sorted(self.families, key=key, reverse=True)

    def pareto(self) -> list[TrialRecord]:
        """Complete trials of all families that no other one dominates: is as good by each
        objective, and better by one; the best by the first objective first.
        """
        ranked = self.ranked()
        points = [trial.values or (trial.value,) for trial in ranked]
        return [ranked[place] for place in pareto_front(self.objectives, points)]

    @property
    def finished(self) -> int:
        """How many trials ended, one way or another."""
        return sum(trial.state in FINISHED for trial in self.trials)

    @property
    def stale(self) -> int:
        """How many trials in a row, up to the last one that ended, made the best no better."""
        ended = [t for t in self.trials if t.state in FINISHED and t.ended is not None]
        ended.sort(key=lambda trial: trial.ended or datetime.datetime.min)
        return count_stale(t.key if t.state == "complete" else _WORST for t in ended)

    def count(self, state: str, family: str | None = None) -> int:
        """How many trials are in a state; of one family only where one is given."""
        return sum(t.state == state and family in (None, t.family) for t in self.trials)

    def left_to_do(self, shares: Mapping[str, int]) -> dict[str, int]:
        """How many trials of each family are not finished; running ones are not.

        Args:
            shares: how many trials each family gets, by its name in the specification.
        """
        states: dict[str, list[str]] = {}
        for trial in self.trials:
            states.setdefault(trial.family, []).append(trial.state)
        return {
            family: left_to_do(states.get(family_label(family), ()), share)
            for family, share in shares.items()
        }

    def trial(self, name: str) -> TrialRecord:
        """The trial called `name`, such as cnn-7, or "best".

        Raises:
            SearchError: there is none.
        """
        if name == BEST:
            return self.best
        for trial in self.trials:
            if trial.name == name:
                return trial
        names = listed([trial.name for trial in self.trials], 6) or "none"
        raise SearchError(f"search {self.name!r} has no trial {name!r}; there are {names}")


def count_stale(keys: Iterable[tuple[float, float]]) -> int:
    """How many of the last trials in a row made the best no better.

    Args:
        keys: by which trials are ranked, in the order in which they ended; of those that were not
            completed one that is no better than any.
    """
    best, stale = _WORST, 0
    for key in keys:
        best, stale = (key, 0) if key > best else (best, stale + 1)
    return stale


def rank(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The complete ones of `trials`, the best first."""
    complete = (trial for trial in trials if trial.state == "complete")
    return sorted(complete, key=lambda trial: trial.key, reverse=True)


def best_first(trials: Iterable[FrozenTrial], objectives: Objectives) -> list[FrozenTrial]:
    """The complete ones of the trials of a study, in the order in which `rank` has them."""
    complete = [trial for trial in trials if trial_state(trial) == "complete"]
    return sorted(complete, key=lambda trial: stored_key(trial, objectives[0]), reverse=True)


def stored_key(trial: FrozenTrial, objective: Objective) -> tuple[float, float]:
    """The key of a trial of a study; of one that is not complete one that is no better than any."""
    if trial_state(trial) != "complete":
        return _WORST
    attrs = trial.user_attrs
    value = attrs.get("value", attrs.get("val_accuracy", math.nan))
    return objective.key_of(value, attrs.get("val_loss", math.nan))


def objective_of(spec: Mapping[str, Any]) -> Objective:
    """What a stored specification ranks trials by: its first objective."""
    return objectives_of(spec)[0]


def objectives_of(spec: Mapping[str, Any]) -> Objectives:
    """The objectives of a stored specification; the first version knew but one."""
    return objective_rows(spec.get("objective", DEFAULT_OBJECTIVE))


def require_checkpoint(trial: TrialRecord) -> Path:
    """The trial's checkpoint file.

    Raises:
        CheckpointError: the trial is not complete, or it was not kept.
    """
    if trial.state != "complete":
        raise CheckpointError(
            f"trial {trial.name} of search {trial.search!r} is {trial.state}, and only complete "
            "trials have a checkpoint"
        )
    if trial.checkpoint is None:
        raise CheckpointError(
            f"there is no checkpoint in {trial.folder}: of trial {trial.name} of search "
            f"{trial.search!r} it was not kept (--keep tells of how many of each family it is), or "
            f"it was deleted; train it again: hpsearch retrain {trial.search} --trial {trial.name}"
        )
    return trial.checkpoint
