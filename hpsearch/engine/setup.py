"""Setting a search up: its data, split and studies, made once and recognised afterwards."""

from __future__ import annotations

import dataclasses
import datetime
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage

from hpsearch.config import Precision
from hpsearch.data.dataset import ImageDataset, ImageShape
from hpsearch.data.resident import ResidentData
from hpsearch.data.sources import load_dataset
from hpsearch.data.splits import (
    DevelopmentData,
    Split,
    development_data,
    load_split,
    make_split,
    save_split,
)
from hpsearch.engine.records import SPLIT, search_names, study_name
from hpsearch.engine.samplers import make_pruner, make_sampler
from hpsearch.engine.spec import StudySpec
from hpsearch.engine.storage import DATABASE, open_storage
from hpsearch.errors import SearchError
from hpsearch.families import check_overrides, default_params, space_fingerprint, space_of
from hpsearch.training.device import default_precision


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreparedData:
    """The data of a search, split; what the search works on has no test images."""

    development: DevelopmentData
    split: Split
    fingerprints: Mapping[str, str]
    summary: Mapping[str, Any]

    @property
    def shape(self) -> ImageShape:
        """The shape of one image."""
        return self.development.train.shape

    def resident(self, device: torch.device) -> ResidentData:
        """The training and validation images on `device`."""
        return ResidentData.of(self.development, device)


def prepare_data(spec: StudySpec, stored_split: Path | None) -> PreparedData:
    """Reads the data, splits it, and checks the specification against it; writes nothing.

    Args:
        stored_split: of a search that exists: used again, so that the split stays the same
            under a later version of the library that made it.

    Raises:
        DataError, SpaceError: the data cannot be read or split, or an override does not fit.
    """
    dataset = load_dataset(spec.data)
    check_overrides(spec.families, dataset.shape, spec.overrides)
    if stored_split is not None and stored_split.is_file():
        split = load_split(stored_split)
    else:
        split = make_split(dataset, spec.split)
    return PreparedData(
        development=development_data(dataset, split),
        split=split,
        fingerprints=_fingerprints(spec, dataset, split),
        summary={
            "name": dataset.name,
            "shape": dataclasses.asdict(dataset.shape),
            "classes": list(dataset.classes),
            "counts": split.counts,
        },
    )


def _fingerprints(spec: StudySpec, dataset: ImageDataset, split: Split) -> dict[str, str]:
    spaces = {
        f"space of {name}": space_fingerprint(space_of(name, dataset.shape, spec.overrides))
        for name in spec.families
    }
    return {"data": dataset.fingerprint, "split": split.fingerprint, **spaces}


def peek(runs: Path, name: str) -> dict[str, Any] | None:
    """As `existing_attrs`, where it is not even known whether there is a storage."""
    if not (runs / DATABASE).is_file():
        return None
    return existing_attrs(open_storage(runs), name)


def existing_attrs(storage: RDBStorage, name: str) -> dict[str, Any] | None:
    """The attributes that all studies of a search share, or None where it does not exist."""
    for summary in optuna.get_all_study_summaries(storage=storage, include_best_trial=False):
        if summary.user_attrs.get("ready") and summary.user_attrs["search"] == name:
            return dict(summary.user_attrs)
    return None


def check_same_search(
    spec: StudySpec, data: PreparedData, attrs: Mapping[str, Any], storage: RDBStorage, runs: Path
) -> None:
    """Refuses to go on with a search that was made otherwise.

    Raises:
        SearchError: names every difference and suggests another name.
    """
    stored, asked = attrs["spec"], spec.to_dict()
    differences = [
        f"{field} ({_brief(stored[field])} then, {_brief(asked[field])} now)"
        for field in ("families", "epochs", "split", "seed", "early_stopping")
        if stored[field] != asked[field]
    ]
    if spec.precision not in ("auto", attrs["precision"]):
        differences.append(f"precision ({attrs['precision']} then, {spec.precision} now)")
    for key, now in data.fingerprints.items():
        then = attrs["fingerprints"].get(key)
        # A split or space that follows from a difference named already is not named again.
        if then is not None and then != now and not (key == "split" and differences):
            differences.append(f"{key} (fingerprint {then[:8]} then, {now[:8]} now)")
    if differences:
        names = search_names(storage)
        free = next(n for k in range(2, len(names) + 3) if (n := f"{spec.name}-{k}") not in names)
        raise SearchError(
            f"search {spec.name!r} in {runs} was made with other settings: "
            f"{'; '.join(differences)}; start another search with --name {free}"
        )


def _brief(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return "none" if value is None else str(value)


def resolve_precision(
    spec: StudySpec, attrs: Mapping[str, Any] | None, device: torch.device
) -> Precision:
    """The stored precision of a search that exists, else the asked one or the device's default."""
    if attrs is not None:
        stored: Precision = attrs["precision"]
        return stored
    return default_precision(device) if spec.precision == "auto" else spec.precision


def open_studies(
    spec: StudySpec,
    data: PreparedData,
    storage: RDBStorage,
    *,
    runs: Path,
    precision: Precision,
    exists: bool,
) -> dict[str, optuna.Study]:
    """The study of each family, with its sampler and pruner; made first where `exists` is false.

    A study is marked ready as the last step of making it; one that a crash left without the
    mark holds nothing yet and is made anew.
    """
    if not exists:
        _delete_unfinished(storage, spec)
        (runs / spec.name).mkdir(parents=True, exist_ok=True)
        save_split(runs / spec.name / SPLIT, data.split)
    studies = {}
    for family, share in spec.shares().items():
        name = study_name(spec.name, family)
        policy: dict[str, Any] = {
            "sampler": make_sampler(seed=spec.seed, family=family, share=share),
            "pruner": make_pruner(epochs=spec.epochs, share=share),
        }
        if exists:
            studies[family] = optuna.load_study(study_name=name, storage=storage, **policy)
        else:
            studies[family] = optuna.create_study(
                study_name=name, storage=storage, direction="maximize", **policy
            )
    if not exists:
        for family, study in studies.items():
            attrs = {
                "search": spec.name,
                "family": family,
                "data": dict(data.summary),
                "fingerprints": dict(data.fingerprints),
                "precision": precision,
            }
            for key, value in attrs.items():
                study.set_user_attr(key, value)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                study.set_metric_names(["validation accuracy"])
            for params in default_params(family, data.shape, spec.overrides):
                study.enqueue_trial(params)
    for study in studies.values():
        study.set_user_attr("spec", spec.to_dict())
        study.set_user_attr(
            "last_started", datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
        )
    if not exists:
        for study in reversed(studies.values()):
            study.set_user_attr("ready", True)
    return studies


def _delete_unfinished(storage: RDBStorage, spec: StudySpec) -> None:
    known = {s.study_name for s in optuna.get_all_study_summaries(storage=storage)}
    for family in spec.families:
        if study_name(spec.name, family) in known:
            optuna.delete_study(study_name=study_name(spec.name, family), storage=storage)
