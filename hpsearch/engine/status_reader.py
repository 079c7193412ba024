"""Reads how a search stands from its storage, which disturbs nobody there."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.samplers import BaseSampler
from optuna.storages._rdb.models import TrialModel
from optuna.trial import FrozenTrial
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from hpsearch.engine import lease_table
from hpsearch.engine.database import open_storage
from hpsearch.engine.gpu_note import read_gpu
from hpsearch.engine.lease_table import LEASES
from hpsearch.engine.open_trials import Sign, signs_of_life
from hpsearch.engine.place import Place, study_name
from hpsearch.engine.records import SearchRecord, TrialRecord, objective_of
from hpsearch.engine.remaining import (
    FamilyRemainder,
    RunningTime,
    mean_seconds,
    seconds_left,
)
from hpsearch.engine.samplers import exhausted, make_sampler
from hpsearch.engine.search_reader import choose_search, search_attrs, trial_record
from hpsearch.engine.spec import family_shares
from hpsearch.engine.states import DUPLICATE, FINISHED, INFEASIBLE
from hpsearch.engine.status import RunningTrial, SearchStatus, Standing, State
from hpsearch.engine.storage import SearchStorage
from hpsearch.errors import SearchError
from hpsearch.names import family_label

LULL_SECONDS = 15.0
"""So long after its start, or after the end of a trial, a search is not taken for stopped: its
workers are about to begin with the next trial.
"""


def search_status(
    runs: str | Path = "runs", name: str | None = None, *, storage: str | None = None
) -> SearchStatus:
    """How a search stands: the one called `name`, or the one started last that is no ablation.

    Args:
        runs: the folder of the searches.
        storage: address of their database; None: the file in `runs`.

    Raises:
        SearchError: there is no such search.
    """
    place = Place.of(runs, storage)
    return StatusReader(open_storage(place), place, name).read()


def why_over(record: SearchRecord, studies: Mapping[str, optuna.Study] | None = None) -> str | None:
    """Why nothing is left to do of a search, in words where it is not that all is done; None:
    something is left.

    Args:
        studies: of its families, by their names in the specification; None: they are read where
            they are needed.
    """
    patience = int(record.spec.get("patience", 0))
    if record.finished >= int(record.spec["trials"]):
        return ""
    if patience and record.stale >= patience:
        return f"the last {patience} trials made the best no better (--patience)"
    left = _left(record)
    unfinished = [f for f, count in left.items() if count and family_label(f) in record.families]
    if not unfinished:
        if record.count(DUPLICATE) > record.count(INFEASIBLE):
            return "what was drawn had been measured so often that it gave up: widen the space"
        return "so many configurations were infeasible that it gave up: narrow them"
    if record.spec.get("sampler") == "grid":
        if studies is None:
            studies = _studies(open_storage(record.place), record.name, record.spec)
        if all(exhausted(studies[family]) for family in unfinished):
            return "all combinations of the grid have been tried"
    return None


class StatusReader:
    """Reads how a search stands, as often as one likes: trials that ended are read once.

    Args:
        storage: opened for reading.
        name: of the search; None: the one started last that is no ablation.

    Raises:
        SearchError: there is no such search.
    """

    def __init__(self, storage: SearchStorage, place: Place, name: str | None) -> None:
        self._storage = storage
        self._place = place
        searches = search_attrs(storage)
        self.name = choose_search(searches, place, name)
        self._attrs = searches[self.name]
        self._studies = _studies(storage, self.name, self._attrs["spec"])
        if not self._studies:  # renamed there, they still say which search they were of
            raise SearchError(f"all studies of search {self.name!r} were renamed or deleted")
        self._ended: dict[int, TrialRecord] = {}

    def read(self) -> SearchStatus:
        """How it stands now.

        Raises:
            SearchError: it has been deleted meanwhile, or the database stays away.
        """
        try:
            return self._read()
        except KeyError:
            raise SearchError(
                f"search {self.name!r} was deleted from {self._place}; 'hpsearch status' shows "
                "those that are left"
            ) from None
        except (StorageInternalError, SQLAlchemyError) as error:
            reason = self._place.without_secrets(str(error.__cause__ or error))
            raise SearchError(
                f"the database {self._place} cannot be read: {reason.splitlines()[0]}"
            ) from error

    def _read(self) -> SearchStatus:
        ids = {study._study_id: family for family, study in self._studies.items()}
        # What changes from start to start: how many trials there are to be, for example.
        attrs = {**self._attrs, **self._storage.get_study_user_attrs(next(iter(ids)))}
        trials = {
            family: study.get_trials(deepcopy=False) for family, study in self._studies.items()
        }
        signs = self._storage.patiently(
            lambda: signs_of_life(self._storage, self._place, list(ids))
        )
        record = self._record(attrs, trials, signs)
        running = self._running(attrs["spec"], trials, signs)
        reason = why_over(record, self._studies)
        state = self._state(record, running, attrs["last_started"], is_over=reason is not None)
        return SearchStatus(
            place=self._place,
            name=self.name,
            state=state,
            reason=(reason or "") if state == "over" else "",
            spec=attrs["spec"],
            data=attrs["data"],
            last_started=attrs["last_started"],
            standing=Standing.of(record),
            running=running,
            idle=tuple(t for t in record.trials if t.state in ("interrupted", "paused")),
            seconds_left=_seconds_left(record, running) if running else None,
        )

    def _record(
        self,
        attrs: Mapping[str, Any],
        trials: Mapping[str, Sequence[FrozenTrial]],
        signs: Mapping[int, Sign],
    ) -> SearchRecord:
        """The search, without its test results: those are not looked up here."""
        return SearchRecord(
            place=self._place,
            name=self.name,
            families=tuple(map(family_label, trials)),
            spec=attrs["spec"],
            data=attrs["data"],
            fingerprints=attrs["fingerprints"],
            trials=tuple(
                self._trial(attrs["spec"], family, trial, signs)
                for family, rows in trials.items()
                for trial in rows
            ),
            openings=(),
        )

    def _trial(
        self,
        spec: Mapping[str, Any],
        family: str,
        trial: FrozenTrial,
        signs: Mapping[int, Sign],
    ) -> TrialRecord:
        known = self._ended.get(trial._trial_id)
        if known is not None:
            return known
        sign = signs.get(trial._trial_id)
        record = trial_record(
            self._place,
            self.name,
            family,
            trial,
            objective=objective_of(spec).name,
            idle=sign.idle if sign and not trial.state.is_finished() else "",
        )
        if trial.state.is_finished():
            self._ended[trial._trial_id] = record
        return record

    def _running(
        self,
        spec: Mapping[str, Any],
        trials: Mapping[str, Sequence[FrozenTrial]],
        signs: Mapping[int, Sign],
    ) -> tuple[RunningTrial, ...]:
        found = []
        for family, rows in trials.items():
            for trial in rows:
                sign = signs.get(trial._trial_id)
                if sign is None or sign.idle or trial.state.is_finished():
                    continue
                record = self._trial(spec, family, trial, signs)
                config = record.config
                found.append(
                    RunningTrial(
                        trial=record,
                        epochs=int(spec["epochs"]) if config is None else config.epochs,
                        seconds=_age(trial) if sign.owners == 1 else None,
                        silent=sign.silent,
                        gpu=read_gpu(trial),
                    )
                )
        return tuple(sorted(found, key=lambda row: -(row.seconds or 0.0)))

    def _state(
        self,
        record: SearchRecord,
        running: Sequence[RunningTrial],
        last_started: str,
        *,
        is_over: bool,
    ) -> State:
        if running:
            return "running"
        if is_over:
            return "over"
        ended, beat, now = self._storage.patiently(self._last_signs)
        started = datetime.datetime.fromisoformat(last_started).timestamp()
        if started > max(ended, beat) and now - started < LULL_SECONDS:
            return "starting"
        idle = any(trial.state == "interrupted" for trial in record.trials)
        return "running" if now - ended < LULL_SECONDS and not idle else "stopped"

    def _last_signs(self) -> tuple[float, float, float]:
        """When a trial ended last, when a worker showed itself last, and the time now."""
        ids = [study._study_id for study in self._studies.values()]
        with Session(self._storage.engine) as session, session.begin():
            row = session.execute(
                select(func.max(LEASES.c.ended), func.max(LEASES.c.beat))
                .join(TrialModel, TrialModel.trial_id == LEASES.c.trial_id)
                .where(TrialModel.study_id.in_(ids))
            ).one()
            return row[0] or 0.0, row[1] or 0.0, lease_table.now(session)


def _studies(storage: SearchStorage, name: str, spec: Mapping[str, Any]) -> dict[str, optuna.Study]:
    """The studies of a search, by family as the specification names it."""
    cached = optuna.storages.get_storage(storage)
    stored = {study.study_name for study in storage.get_all_studies()}
    return {
        family: optuna.load_study(
            study_name=study_name(name, family),
            storage=cached,
            sampler=_sampler(spec, family, share),
        )
        for family, share in family_shares(spec["families"], spec["trials"]).items()
        if study_name(name, family) in stored  # one can be deleted in the dashboard
    }


def _sampler(spec: Mapping[str, Any], family: str, share: int) -> BaseSampler | None:
    """The sampler of a family where it is one that can come to an end."""
    if spec.get("sampler") != "grid":
        return None
    return make_sampler(
        "grid",
        spec.get("sampler_options", {}),
        seed=int(spec["seed"]),
        family=family_label(family),
        share=share,
    )


def _age(trial: FrozenTrial) -> float | None:
    if trial.datetime_start is None:
        return None
    return max(0.0, (datetime.datetime.now() - trial.datetime_start).total_seconds())


def _left(record: SearchRecord) -> dict[str, int]:
    """How many trials of each family are not finished, by its name in the specification."""
    return record.left_to_do(family_shares(record.spec["families"], record.spec["trials"]))


def _seconds_left(record: SearchRecord, running: Sequence[RunningTrial]) -> float | None:
    """From the mean of each family's trials, or from the pace of those that run; a family of which
    neither is known takes what the others do.
    """
    left = {family_label(family): count for family, count in _left(record).items()}
    done = [trial for trial in record.trials if trial.state in FINISHED and trial.epochs]
    times = {
        family: [
            _time(row, [t for t in done if t.family == family])
            for row in running
            if row.trial.family == family
        ]
        for family in left
    }
    means = {
        family: mean_seconds([t.seconds for t in done if t.family == family], times[family])
        for family in left
    }
    known = [mean for mean in means.values() if mean is not None]
    if not known:
        return None
    usual = sum(known) / len(known)
    families = []
    for family, count in left.items():
        mean = means[family]
        each = usual if mean is None else mean
        families.append(FamilyRemainder(trials=count, each=each, running=times[family]))
    return seconds_left(families, workers=len(running))


def _time(row: RunningTrial, done: Sequence[TrialRecord]) -> RunningTime:
    """How long a trial has run and still needs: as long as its family's trials took for an epoch,
    or at its own pace.
    """
    epochs = len(row.trial.reported)
    if done:
        pace = sum(trial.seconds for trial in done) / sum(trial.epochs for trial in done)
    elif epochs and row.seconds is not None:
        pace = row.seconds / epochs
    else:
        return RunningTime(spent=row.seconds or 0.0, rest=None)
    return RunningTime(spent=epochs * pace, rest=max(0, row.epochs - epochs) * pace)
