"""What a search has found, read from its storage: for reports, exports and the live view."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from hpsearch.config import TrainConfig
from hpsearch.engine.storage import open_storage
from hpsearch.errors import CheckpointError, SearchError
from hpsearch.families import family_label
from hpsearch.training.objectives import DEFAULT_OBJECTIVE, Objective, objective_info

CHECKPOINT = "checkpoint.pt"
HISTORY = "history.csv"
BATCHES = "batches.csv"
SPLIT = "split.npz"
CONFIG = "config"
FAILURE = "failure"
INFEASIBLE = "infeasible"
DUPLICATE = "duplicate"
NOTE = "note"
FINISHED = ("complete", "pruned", "failed")
"""What counts as one of the trials that were asked for; the others in ASIDE never trained."""
ASIDE = (INFEASIBLE, DUPLICATE)
"""States of trials that never trained; each is the name of an attribute that says why, too."""

_OPENING = "test_opening:"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """One trial of a search.

    Attributes:
        family: its name, of a user's own file the file's.
        state: "complete", "pruned", "failed", "infeasible", "duplicate" (of a configuration that
            was measured already), "running", "interrupted", "paused" or "waiting".
        chosen_by: "known-good" (tried first), "random" (start-up) or "model" (TPE).
        objective: of the search, by name: a row of the table in `training/objectives.py`.
        value: the objective's, at the epoch whose checkpoint is kept, the trial's best; None
            before the first epoch. Of a trial that was not completed: of its best epoch so far.
        val_accuracy, val_balanced_accuracy, val_macro_f1, val_loss: at the same epoch; the two
            in the middle are None in searches of the first version, too.
        config: what it trains with; None until that is decided.
        failure: why it failed or was infeasible, or empty.
        note: what a user should know of how it was trained, or empty.
        folder: where its checkpoint and history lie.
    """

    runs: Path
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
            return (float("-inf"), float("-inf"))
        return objective_info(self.objective).key_of(self.value, self.val_loss)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TestOpening:
    """One look at the test split."""

    when: str
    trial: str
    purpose: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchRecord:
    """A search with all its trials.

    Attributes:
        families: in the order of the study.
        spec: what was asked for (`StudySpec.to_dict`), as of the last start.
        data: name, source, shape, classes and split counts.
        fingerprints: of data, split and each family's space.
        openings: looks at the test split so far, oldest first.
    """

    runs: Path
    name: str
    families: tuple[str, ...]
    spec: Mapping[str, Any]
    data: Mapping[str, Any]
    fingerprints: Mapping[str, str]
    trials: tuple[TrialRecord, ...]
    openings: tuple[TestOpening, ...]

    @property
    def objective(self) -> Objective:
        """What it is for."""
        return objective_of(self.spec)

    @property
    def folder(self) -> Path:
        """Where the files of the search lie."""
        return self.runs / self.name

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

    @property
    def finished(self) -> int:
        """How many trials ended, one way or another."""
        return sum(trial.state in FINISHED for trial in self.trials)

    def count(self, state: str, family: str | None = None) -> int:
        """How many trials are in a state; of one family only where one is given."""
        return sum(t.state == state and family in (None, t.family) for t in self.trials)

    def trial(self, name: str) -> TrialRecord:
        """The trial called `name`, such as cnn-7.

        Raises:
            SearchError: there is none.
        """
        for trial in self.trials:
            if trial.name == name:
                return trial
        raise SearchError(
            f"search {self.name!r} has no trial {name!r}; trials are called "
            f"{self.families[-1]}-0, {self.families[-1]}-1, ..."
        )


_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def rank(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """The complete ones of `trials`, the best first."""
    complete = (trial for trial in trials if trial.state == "complete")
    return sorted(complete, key=lambda trial: trial.key, reverse=True)


def objective_of(spec: Mapping[str, Any]) -> Objective:
    """The objective of a stored specification; the first version had but one."""
    return objective_info(spec.get("objective", DEFAULT_OBJECTIVE))


def left_to_do(states: Iterable[str], share: int) -> int:
    """How many trials of a family are still to be run, by the states of those that it has.

    Those in ASIDE are not counted, but when they are many, nothing more will be found.
    """
    states = list(states)
    if sum(state in ASIDE for state in states) >= most_aside(share):
        return 0
    return max(0, share - sum(state in FINISHED for state in states))


def most_aside(share: int) -> int:
    """After how many infeasible or doubled configurations a family of so many trials is given
    up.
    """
    return max(20, 5 * share)


def study_name(search: str, family: str) -> str:
    """The name of a family's study under the search's name."""
    return f"{search}/{family_label(family)}"


def trial_folder(runs: Path, search: str, family: str, number: int) -> Path:
    """Where a trial's files lie."""
    return runs / search / f"{family_label(family)}-{number}"


def trial_state(trial: FrozenTrial) -> str:
    """The state of a trial, as `TrialRecord` has it."""
    if trial.state.is_finished():
        for state in ASIDE:
            if state in trial.user_attrs:
                return state
    return _STATES[trial.state]


def trial_record(
    runs: Path, search: str, family: str, trial: FrozenTrial, *, objective: str
) -> TrialRecord:
    """Reads one trial of a family's study; `objective` is the search's."""
    attrs = trial.user_attrs
    config = attrs.get(CONFIG)
    return TrialRecord(
        runs=runs,
        search=search,
        family=family_label(family),
        number=trial.number,
        state=trial_state(trial),
        chosen_by=attrs.get("chosen_by", ""),
        params=trial.params,
        config=None if config is None else TrainConfig.from_dict(config),
        objective=objective,
        # Without a value of its own it is of the first version, or has no epoch yet.
        value=attrs.get("value", attrs.get("val_accuracy")),
        val_accuracy=attrs.get("val_accuracy"),
        val_balanced_accuracy=attrs.get("val_balanced_accuracy"),
        val_macro_f1=attrs.get("val_macro_f1"),
        val_loss=attrs.get("val_loss"),
        best_epoch=attrs.get("best_epoch"),
        epochs=attrs.get("epochs", len(trial.intermediate_values)),
        seconds=attrs.get("seconds", 0.0),
        parameters=attrs.get("parameters", 0),
        failure=attrs.get(FAILURE, attrs.get(INFEASIBLE, attrs.get(DUPLICATE, ""))),
        note=attrs.get(NOTE, ""),
        folder=trial_folder(runs, search, family, trial.number),
    )


def search_attrs(storage: BaseStorage) -> dict[str, dict[str, Any]]:
    """The attributes that the studies of each search share, the search started last first.

    A search exists as soon as one of its studies is marked ready: the marks are set when all
    of it has been made.
    """
    summaries = optuna.get_all_study_summaries(storage=storage, include_best_trial=False)
    ready = [s.user_attrs for s in summaries if s.user_attrs.get("ready")]
    ready.sort(key=lambda attrs: attrs["last_started"])
    return dict(reversed({attrs["search"]: attrs for attrs in ready}.items()))


def read_search(storage: BaseStorage, runs: Path, name: str) -> SearchRecord:
    """Reads the search called `name`, which must exist."""
    attrs = search_attrs(storage)[name]
    known = {study.study_name for study in optuna.get_all_study_summaries(storage=storage)}
    studies = {
        family_label(family): optuna.load_study(
            study_name=study_name(name, family), storage=storage
        )
        for family in attrs["spec"]["families"]
        if study_name(name, family) in known  # one can be deleted in the dashboard
    }
    openings = [
        TestOpening(**value)
        for study in studies.values()
        for key, value in study.user_attrs.items()
        if key.startswith(_OPENING)
    ]
    return SearchRecord(
        runs=runs,
        name=name,
        families=tuple(studies),
        spec=attrs["spec"],
        data=attrs["data"],
        fingerprints=attrs["fingerprints"],
        trials=tuple(
            trial_record(runs, name, family, trial, objective=objective_of(attrs["spec"]).name)
            for family, study in studies.items()
            for trial in study.get_trials(deepcopy=False)
        ),
        openings=tuple(sorted(openings, key=lambda opening: opening.when)),
    )


def load_search(runs: str | Path = "runs", name: str | None = None) -> SearchRecord:
    """Reads a search from a runs folder: the one called `name`, or the one started last.

    Raises:
        SearchError: there is no such search.
    """
    runs = Path(runs)
    storage = open_storage(runs)
    names = list(search_attrs(storage))
    if not names:
        raise SearchError(f"no searches in {runs} yet; run 'hpsearch search' first")
    if name is not None and name not in names:
        raise SearchError(f"no search {name!r} in {runs}; there are {', '.join(names)}")
    return read_search(storage, runs, name or names[0])


def record_opening(trial: TrialRecord, purpose: str) -> TestOpening:
    """Writes into the study that the test split is opened for `trial`, before it is."""
    when = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
    opening = TestOpening(when=when, trial=trial.name, purpose=purpose)
    study = optuna.load_study(
        study_name=study_name(trial.search, trial.family),
        storage=open_storage(trial.runs, write=True),
    )
    study.set_user_attr(_OPENING + when, dataclasses.asdict(opening))
    return opening


def require_checkpoint(trial: TrialRecord) -> Path:
    """The trial's checkpoint file.

    Raises:
        CheckpointError: it was not kept.
    """
    if trial.checkpoint is not None:
        return trial.checkpoint
    if trial.state == "complete":
        raise CheckpointError(
            f"there is no checkpoint in {trial.folder}: of trial {trial.name} of search "
            f"{trial.search!r} it was not kept (--keep tells of how many of each family it is), or "
            "it was deleted"
        )
    raise CheckpointError(
        f"trial {trial.name} of search {trial.search!r} is {trial.state}, and only complete trials "
        "have a checkpoint"
    )
