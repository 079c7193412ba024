"""The Optuna studies of a search, one a family: made once, and found again."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Mapping
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import NopPruner
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from hpsearch.data.splits import (
    save_split,
)
from hpsearch.engine.estimate import Pace
from hpsearch.engine.place import SPLIT, Place, study_name
from hpsearch.engine.pruners import make_pruner
from hpsearch.engine.samplers import make_sampler
from hpsearch.engine.setup import PreparedData
from hpsearch.engine.spec import StudySpec
from hpsearch.engine.storage import quiet_optuna
from hpsearch.errors import SearchError
from hpsearch.families import first_params
from hpsearch.names import family_label


def create_studies(
    spec: StudySpec,
    data: PreparedData,
    storage: RDBStorage,
    *,
    place: Place,
    paces: Mapping[str, Pace],
    threads: int,
) -> dict[str, optuna.Study]:
    """Makes the study of each family, with the known-good settings waiting to be tried first.

    They are marked ready as the last step; what a crash left without the mark holds no trial
    yet and is made anew.
    """
    names = [study_name(spec.name, family) for family in spec.families]
    for found in storage.get_all_studies():
        if found.study_name in names:
            _delete_unfinished(found.study_name, storage, place)
    (place.runs / spec.name).mkdir(parents=True, exist_ok=True)
    save_split(place.runs / spec.name / SPLIT, data.split)
    with quiet_optuna():
        studies = {
            family: optuna.create_study(
                study_name=study_name(spec.name, family),
                storage=storage,
                directions=[row.direction for row in spec.objectives],
                **_policy(spec, family, share, data),
            )
            for family, share in spec.shares().items()
        }
    for family, study in studies.items():
        attrs = {
            "search": spec.name,
            "family": family_label(family),
            "data": dict(data.summary),
            "fingerprints": dict(data.fingerprints),
            "paces": {family_label(name): pace.decided() for name, pace in paces.items()},
            "threads": threads,
        }
        for key, value in attrs.items():
            study.set_user_attr(key, value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names([row.label for row in spec.objectives])
        for params in first_params(family, data.shape, spec.overrides, spec.first):
            study.enqueue_trial(params)
    _mark_start(spec, studies)
    for study in studies.values():
        study.set_user_attr("ready", True)
    return studies


def _delete_unfinished(name: str, storage: RDBStorage, place: Place) -> None:
    """Deletes a study that a crash left before it was ready."""
    study = optuna.load_study(study_name=name, storage=storage)
    if any(trial.state is not TrialState.WAITING for trial in study.get_trials(deepcopy=False)):
        raise SearchError(
            f"{place} has a study {name!r} that is not of hpsearch; start the search with another "
            "--name"
        )
    optuna.delete_study(study_name=name, storage=storage)


def load_studies(
    spec: StudySpec, data: PreparedData, storage: RDBStorage, *, place: Place, marks: bool = True
) -> dict[str, optuna.Study]:
    """The studies of a search that exists.

    Args:
        marks: write into them that the search was started with `spec`.

    Raises:
        SearchError: one of them was deleted.
    """
    studies = {}
    for family, share in spec.shares().items():
        try:
            studies[family] = optuna.load_study(
                study_name=study_name(spec.name, family),
                storage=storage,
                **_policy(spec, family, share, data),
            )
        except KeyError:
            raise study_deleted(study_name(spec.name, family), place) from None
    if not (place.runs / spec.name / SPLIT).is_file():
        save_split(place.runs / spec.name / SPLIT, data.split)
    if marks:
        _mark_start(spec, studies)
        for study in studies.values():  # the same data may lie elsewhere now
            study.set_user_attr("data", dict(data.summary))
    return studies


def study_deleted(name: str, place: Place) -> SearchError:
    """What to raise where a family's study is gone, which is deleted in the dashboard."""
    return SearchError(
        f"the study {name!r} was deleted from {place}, so the search cannot go on; start another "
        "one with --name"
    )


def _policy(spec: StudySpec, family: str, share: int, data: PreparedData) -> dict[str, Any]:
    least, most = data.epochs[family]
    objectives = len(spec.objectives)
    comparable = least == most and objectives == 1
    return {
        "sampler": make_sampler(
            spec.sampler,
            spec.sampler_options,
            seed=spec.seed,
            family=family_label(family),
            share=share,
            objectives=objectives,
        ),
        "pruner": (
            make_pruner(spec.pruner, spec.pruner_options, epochs=most, share=share)
            if comparable
            else NopPruner()
        ),
    }


def _mark_start(spec: StudySpec, studies: Mapping[str, optuna.Study]) -> None:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
    for study in studies.values():
        study.set_user_attr("spec", spec.to_dict())
        study.set_user_attr("last_started", now)
