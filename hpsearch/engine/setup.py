"""Setting a search up: its data, split and studies, made once and recognised afterwards."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import NopPruner
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from hpsearch.config import WeightsConfig
from hpsearch.data.checks.source import data_warnings
from hpsearch.data.dataset import ImageDataset, ImageShape
from hpsearch.data.decode import Progress
from hpsearch.data.sources import locate
from hpsearch.data.splits import (
    DevelopmentData,
    Split,
    development_data,
    load_split,
    make_split,
    save_split,
    split_notes,
)
from hpsearch.data.store import Watch, load_dataset
from hpsearch.data.views import DataViews
from hpsearch.engine.estimate import Pace
from hpsearch.engine.feasibility import why_infeasible
from hpsearch.engine.place import Place, study_name
from hpsearch.engine.pruners import make_pruner
from hpsearch.engine.records import SPLIT, objectives_of, search_attrs
from hpsearch.engine.samplers import make_sampler
from hpsearch.engine.spec import StudySpec
from hpsearch.engine.storage import exists, open_storage, quiet_optuna
from hpsearch.errors import SearchError
from hpsearch.families import (
    Parameter,
    check_overrides,
    family_label,
    get_family,
    resolve_weights,
    space_fingerprint,
    space_of,
    weights_of,
)
from hpsearch.families._first import check_first, first_params


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreparedData:
    """The data of a search, split; what the search works on are the rows of the other two parts.

    Attributes:
        epochs: by family the least and the greatest number that a trial can have.
        spaces: by family what is searched.
        warnings: what looks wrong with the data or the spaces, in words.
    """

    development: DevelopmentData
    split: Split
    fingerprints: Mapping[str, str]
    summary: Mapping[str, Any]
    epochs: Mapping[str, tuple[int, int]]
    spaces: Mapping[str, tuple[Parameter, ...]]
    warnings: tuple[str, ...] = ()

    @property
    def shape(self) -> ImageShape:
        """The shape of one image."""
        return self.development.train.shape

    def views(self, device: torch.device, *, watch: Watch | None = None) -> DataViews:
        """The training and validation images, as trials on `device` ask for them."""
        return DataViews.of(self.development, device, watch=watch)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Existing:
    """A search that exists already: what its studies have in common, and all searches' names."""

    attrs: Mapping[str, Any]
    names: tuple[str, ...]


def find_existing(storage: RDBStorage, name: str) -> Existing | None:
    """The search called `name`, or None where there is none."""
    searches = search_attrs(storage)
    return Existing(attrs=searches[name], names=tuple(searches)) if name in searches else None


def peek(place: Place, name: str) -> Existing | None:
    """As `find_existing`, where it is not even known whether there is a storage."""
    return find_existing(open_storage(place), name) if exists(place) else None


def prepare_data(
    spec: StudySpec,
    existing: Existing | None,
    place: Place,
    *,
    watch: Callable[[Progress], None] | None = None,
) -> PreparedData:
    """Reads the data, splits it, and checks the specification against it and against the search
    that exists under its name; writes nothing.

    The stored split of such a search is used again, so that it stays the same under a later
    version of the library that made it.

    Raises:
        DataError, SpaceError: the data cannot be read or split, or an override does not fit.
        CheckpointError: weights that training is to start from cannot be had.
        SearchError: the search was made with other settings.
    """
    for family in spec.families:
        get_family(family)
    dataset = load_dataset(spec.data_spec, watch=watch)
    if existing is not None and existing.attrs["fingerprints"]["data"] != dataset.fingerprint:
        # Before the rest is looked at: the stored split does not fit other data.
        _check_same_search(spec, {"data": dataset.fingerprint}, existing, place)
    check_overrides(spec.families, dataset.shape, spec.overrides)
    check_first(spec.families, dataset.shape, spec.overrides, spec.first)
    stored = place.runs / spec.name / SPLIT
    if existing is not None and stored.is_file():
        split = load_split(stored)
    else:
        split = make_split(dataset, spec.split)
    spaces = {name: space_of(name, dataset.shape, spec.overrides) for name in spec.families}
    epochs = {name: epochs_of(spec, space) for name, space in spaces.items()}
    fingerprints = _fingerprints(spec, dataset, split, spaces)
    if existing is not None:
        _check_same_search(spec, fingerprints, existing, place)
    development = development_data(dataset, split)
    infeasible = [
        f"what {family_label(family)} tries first cannot be trained: {reason}"
        for family in spec.families
        if (reason := why_infeasible(spec, family, development))
    ]
    return PreparedData(
        development=development,
        split=split,
        fingerprints=fingerprints,
        epochs=epochs,
        spaces=spaces,
        warnings=(
            *data_warnings(dataset, split),
            *_space_warnings(spec, epochs),
            *infeasible,
        ),
        summary={
            "name": dataset.name,
            "source": locate(spec.data_spec).to_dict(),
            "notes": [*dataset.notes, *split_notes(dataset, spec.split)],
            "shape": dataclasses.asdict(dataset.shape),
            "classes": list(dataset.classes),
            "counts": split.counts,
        },
    )


def _fingerprints(
    spec: StudySpec,
    dataset: ImageDataset,
    split: Split,
    spaces: Mapping[str, Sequence[Parameter]],
) -> dict[str, str]:
    of_spaces = {f"space of {name}": space_fingerprint(space) for name, space in spaces.items()}
    weights = {
        f"weights {source}{f' of {published}' if published else ''} for {family_label(name)}": (
            resolve_weights(WeightsConfig(source=source), family=name, published=published).sha256
        )
        for name in spec.families
        for source, published in weights_of(name, dataset.shape, spec.overrides)
    }
    files = {
        f"code of {name}": hashlib.sha256(Path(name).read_bytes()).hexdigest()
        for name in spec.families
        if name.endswith(".py")
    }
    return {
        "data": dataset.fingerprint,
        "split": split.fingerprint,
        **of_spaces,
        **weights,
        **files,
    }


def _space_warnings(spec: StudySpec, epochs: Mapping[str, tuple[int, int]]) -> tuple[str, ...]:
    """What a user should know of the objectives and the spaces."""
    if len(spec.objectives) > 1:
        names = ", ".join(row.name for row in spec.objectives)
        return (
            f"several objectives ({names}): no trial is pruned, since Optuna cannot prune them",
        )
    vary = [family_label(name) for name, (least, most) in epochs.items() if least < most]
    if not vary:
        return ()
    return (
        f"epochs are part of the search, so no trial of {', '.join(vary)} is pruned: trials of "
        "different lengths cannot be compared on the way",
    )


def epochs_of(spec: StudySpec, space: Sequence[Parameter]) -> tuple[int, int]:
    """The least and the greatest number of epochs that trials with this space can have."""
    row = next((row for row in space if row.name == "epochs"), None)
    if row is None:
        return spec.epochs, spec.epochs
    return round(row.low) or spec.epochs, round(row.high) or spec.epochs


def _check_same_search(
    spec: StudySpec, fingerprints: Mapping[str, str], existing: Existing, place: Place
) -> None:
    stored, asked = existing.attrs["spec"], spec.to_dict()
    differences = [
        f"{field} ({_brief(stored[field])} then, {_brief(asked[field])} now)"
        for field in ("families", "epochs", "split", "seed", "early_stopping")
        if stored[field] != asked[field]
    ]
    of_old = StudySpec().to_dict()  # what searches of the first versions do not tell
    differences += [
        f"{field.replace('_', ' ')} ({_brief(then)} then, {_brief(asked[field])} now)"
        for field in (
            "sampler",
            "sampler_options",
            "pruner",
            "pruner_options",
            "first",
            "training_seed",
        )
        if (then := stored.get(field, of_old[field])) != asked[field]
    ]
    objective = ",".join(row.name for row in objectives_of(stored))
    if spec.objective != objective:
        differences.append(f"objective ({objective} then, {spec.objective} now)")
    precisions = sorted({pace.precision for pace in stored_paces(existing).values()})
    if spec.precision != "auto" and [spec.precision] != precisions:
        differences.append(f"precision ({' and '.join(precisions)} then, {spec.precision} now)")
    if fingerprints["data"] != existing.attrs["fingerprints"]["data"]:
        then = stored["data"]  # a text in searches of the first version
        differences += [
            f"{field} of the data ({_brief(then[field])} then, {_brief(value)} now)"
            for field, value in asked["data"].items()
            if field != "source" and isinstance(then, dict) and then.get(field) != value
        ]
    for key, now in fingerprints.items():
        then = existing.attrs["fingerprints"].get(key)
        # A split that follows from a difference named already is not named again.
        if then is not None and then != now and not (key == "split" and differences):
            differences.append(f"{key} (fingerprint {then[:8]} then, {now[:8]} now)")
    if differences:
        numbers = range(2, len(existing.names) + 3)
        free = next(n for k in numbers if (n := f"{spec.name}-{k}") not in existing.names)
        raise SearchError(
            f"search {spec.name!r} in {place} was made with other settings: "
            f"{'; '.join(differences)}; give it what it had then to go on with it, or start "
            f"another search with --name {free}"
        )


def _brief(value: Any) -> str:
    if value is None or value in ([], {}):
        return "none"
    if isinstance(value, list) and value and all(isinstance(item, int) for item in value):
        return "x".join(str(item) for item in value)
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return str(value)


def stored_paces(existing: Existing | None) -> dict[str, Pace]:
    """By family, what was decided for a search that exists: precision and measured step."""
    if existing is None:
        return {}
    attrs = existing.attrs
    if "paces" in attrs:
        return {family: Pace(**pace) for family, pace in attrs["paces"].items()}
    # In searches of the first version the precision was one for all.
    families = (family_label(family) for family in attrs["spec"]["families"])
    return {family: Pace(precision=attrs["precision"]) for family in families}


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
