"""Reads a search from its storage: the one that is named, or the one started last."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from hpsearch.config import TrainConfig
from hpsearch.engine.database import open_storage
from hpsearch.engine.hidden import CONFIG, hidden
from hpsearch.engine.ledger import read_openings, read_results
from hpsearch.engine.open_trials import idle_trials
from hpsearch.engine.place import Place, study_name, trial_folder
from hpsearch.engine.records import FAILURE, NOTE, SearchRecord, TrialRecord, objective_of
from hpsearch.engine.states import DUPLICATE, INFEASIBLE, trial_state
from hpsearch.engine.storage import SearchStorage
from hpsearch.errors import SearchError
from hpsearch.names import family_label, listed


def trial_record(
    place: Place, search: str, family: str, trial: FrozenTrial, *, objective: str, idle: str = ""
) -> TrialRecord:
    """Reads one trial of a family's study.

    Args:
        objective: the search's (its first, or all).
        idle: "interrupted" or "paused" where the trial is running, but nobody runs it.
    """
    attrs = trial.user_attrs
    config = hidden(trial, CONFIG)
    return TrialRecord(
        place=place,
        search=search,
        family=family_label(family),
        number=trial.number,
        state=idle or trial_state(trial),
        chosen_by=attrs.get("chosen_by", ""),
        params=trial.params,
        config=None if config is None else TrainConfig.from_dict(config),
        objective=objective.partition(",")[0],
        # Without a value of its own it is of the first version, or has no epoch yet.
        value=attrs.get("value", attrs.get("val_accuracy")),
        values=tuple(attrs.get("values", ())),
        val_accuracy=attrs.get("val_accuracy"),
        val_balanced_accuracy=attrs.get("val_balanced_accuracy"),
        val_macro_f1=attrs.get("val_macro_f1"),
        val_loss=attrs.get("val_loss"),
        best_epoch=attrs.get("best_epoch"),
        epochs=attrs.get("epochs", len(trial.intermediate_values)),
        seconds=attrs.get("seconds", 0.0),
        parameters=attrs.get("parameters", 0),
        images_per_second=attrs.get("images_per_second", 0.0),
        device=attrs.get("device", ""),
        host=attrs.get("host", ""),
        peak_memory=attrs.get("peak_memory_mib"),
        reported=trial.intermediate_values,
        ended=trial.datetime_complete,
        failure=attrs.get(FAILURE, attrs.get(INFEASIBLE, attrs.get(DUPLICATE, ""))),
        note=attrs.get(NOTE, ""),
        folder=trial_folder(place.runs, search, family, trial.number),
    )


def search_attrs(storage: BaseStorage) -> dict[str, dict[str, Any]]:
    """The attributes that the studies of each search share, the search started last first.

    A search exists as soon as one of its studies is marked ready: the marks are set when all
    of it has been made.
    """
    # Optuna's summaries would read all trials of all studies.
    return _by_search(study.user_attrs for study in storage.get_all_studies())


def _by_search(studies: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    ready = sorted(_ready(studies), key=lambda attrs: attrs["last_started"])
    return dict(reversed({attrs["search"]: attrs for attrs in ready}.items()))


def _ready(studies: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    return (attrs for attrs in studies if attrs.get("ready"))


def read_search(storage: SearchStorage, place: Place, name: str) -> SearchRecord:
    """Reads the search called `name`, which must exist."""
    stored = {study.study_name: study.user_attrs for study in storage.get_all_studies()}
    attrs = _by_search(stored.values())[name]
    studies = {
        family_label(family): optuna.load_study(
            study_name=study_name(name, family), storage=storage
        )
        for family in attrs["spec"]["families"]
        if study_name(name, family) in stored  # one can be deleted in the dashboard
    }
    own_attrs = [study.user_attrs for study in studies.values()]
    # Whoever looks at a test split under one name has seen it under all.
    same_split = [other for other in _ready(stored.values()) if _share_test_images(other, attrs)]
    idle = idle_trials(storage, place, [study._study_id for study in studies.values()])
    objective = objective_of(attrs["spec"]).name
    return SearchRecord(
        place=place,
        name=name,
        families=tuple(studies),
        spec=attrs["spec"],
        data=attrs["data"],
        fingerprints=attrs["fingerprints"],
        trials=tuple(
            trial_record(
                place, name, family, trial, objective=objective, idle=idle.get(trial._trial_id, "")
            )
            for family, study in studies.items()
            for trial in study.get_trials(deepcopy=False)
        ),
        openings=read_openings(same_split),
        results=read_results(own_attrs),
    )


def _share_test_images(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether the test images of two searches are the same: in the same data wherever they lie, or
    of the same place in another size.
    """
    prints, others = one["fingerprints"], other["fingerprints"]
    same_data = prints["data"] == others["data"] or _images_of(one) == _images_of(other)
    return prints["split"] == others["split"] and same_data


def _images_of(attrs: Mapping[str, Any]) -> object:
    """Which images a search is about, whatever shape they are brought to."""
    source = attrs["data"]["source"]  # a text in searches of the first version
    shaping = ("size", "fit", "gray")
    return source if isinstance(source, str) else {k: source[k] for k in source if k not in shaping}


def load_search(
    runs: str | Path = "runs", name: str | None = None, *, storage: str | None = None
) -> SearchRecord:
    """Reads a search: the one called `name`, or the one started last that is no ablation.

    Args:
        runs: the folder of the searches.
        storage: address of their database; None: the file in `runs`.

    Raises:
        SearchError: there is no such search.
    """
    place = Place.of(runs, storage)
    database = open_storage(place)
    return read_search(database, place, choose_search(search_attrs(database), place, name))


def choose_search(searches: Mapping[str, Mapping[str, Any]], place: Place, name: str | None) -> str:
    """`name`, which must be a search's; None: the one started last.

    An ablation, which asks what a parameter does and not which model is the best, is chosen by its
    name, or where there is nothing else.

    Args:
        searches: as `search_attrs` gives them.

    Raises:
        SearchError: there is no such search, or none at all.
    """
    if not searches:
        raise SearchError(f"no searches in {place} yet; run 'hpsearch search' first")
    if name is None:
        # Of an ablation all trainings have the same seed.
        own = (n for n in searches if searches[n]["spec"].get("training_seed") is None)
        return next(own, next(iter(searches)))
    if name not in searches:
        near = difflib.get_close_matches(name, searches, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        names = listed(list(searches))
        raise SearchError(f"no search {name!r} in {place}; there are {names}{hint}")
    return name
