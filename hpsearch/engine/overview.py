"""All searches of a place at a glance, without reading their trials."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.storages._rdb.models import TrialModel, TrialValueModel
from optuna.trial import TrialState
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hpsearch.engine.open_trials import finished_counts, signs_of_life
from hpsearch.engine.place import Place, study_name
from hpsearch.engine.records import objective_of
from hpsearch.engine.search_reader import search_attrs
from hpsearch.engine.storage import SearchStorage
from hpsearch.training.objectives import Objective


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchSummary:
    """A search at a glance.

    Attributes:
        finished: trials that count.
        running: trials that a worker runs.
        best: the value of the best complete trial, if there is one.
        last_started: the time (ISO, UTC).
    """

    name: str
    data: str
    objective: Objective
    asked: int
    finished: int
    running: int
    best: float | None
    last_started: str

    def to_dict(self) -> dict[str, Any]:
        """In plain JSON types."""
        return {
            "search": self.name,
            "data": self.data,
            "objective": self.objective.name,
            "asked": self.asked,
            "finished": self.finished,
            "running": self.running,
            "best_value": self.best,
            "last_started": self.last_started,
        }


def search_summaries(storage: SearchStorage, place: Place) -> tuple[SearchSummary, ...]:
    """The searches of a place, the one started last first.

    Args:
        storage: opened for reading.
    """
    searches = search_attrs(storage)
    studies = {study.study_name: study._study_id for study in storage.get_all_studies()}
    ids = {
        name: [
            studies[study]
            for family in attrs["spec"]["families"]
            if (study := study_name(name, family)) in studies
        ]
        for name, attrs in searches.items()
    }
    finished, running, best = storage.patiently(lambda: _numbers(storage, place, ids))
    return tuple(
        _summary(name, attrs, ids[name], finished, running, best)
        for name, attrs in searches.items()
    )


_Counts = Mapping[int, int]
_Extremes = Mapping[int, tuple[float, float]]


def _numbers(
    storage: SearchStorage, place: Place, ids: Mapping[str, Sequence[int]]
) -> tuple[_Counts, _Counts, _Extremes]:
    """By study how many trials are finished and how many are run, and the greatest and the least
    value of those that are complete.
    """
    every = [study_id for own in ids.values() for study_id in own]
    signs = signs_of_life(storage, place, every)
    with Session(storage.engine) as session, session.begin():
        finished, _ = finished_counts(session, dict.fromkeys(every, ""))
        running = collections.Counter(
            row.study_id
            for row in session.execute(
                select(TrialModel.study_id, TrialModel.trial_id).where(
                    TrialModel.trial_id.in_([key for key, sign in signs.items() if not sign.idle])
                )
            )
        )
        rows = session.execute(
            select(
                TrialModel.study_id,
                func.max(TrialValueModel.value),
                func.min(TrialValueModel.value),
            )
            .join(TrialModel, TrialModel.trial_id == TrialValueModel.trial_id)
            .where(TrialModel.study_id.in_(every), TrialModel.state == TrialState.COMPLETE)
            .where(TrialValueModel.objective == 0, TrialValueModel.value.is_not(None))
            .group_by(TrialModel.study_id)
        )
        return finished, running, {row[0]: (row[1], row[2]) for row in rows}


def _summary(
    name: str,
    attrs: Mapping[str, Any],
    ids: Sequence[int],
    finished: _Counts,
    running: _Counts,
    best: _Extremes,
) -> SearchSummary:
    objective = objective_of(attrs["spec"])
    extremes = [best[study_id] for study_id in ids if study_id in best]
    highest = max((high for high, _ in extremes), default=None)
    lowest = min((low for _, low in extremes), default=None)
    return SearchSummary(
        name=name,
        data=attrs["data"]["name"],
        objective=objective,
        asked=int(attrs["spec"]["trials"]),
        finished=sum(finished.get(study_id, 0) for study_id in ids),
        running=sum(running.get(study_id, 0) for study_id in ids),
        best=highest if objective.direction == "maximize" else lowest,
        last_started=attrs["last_started"],
    )
