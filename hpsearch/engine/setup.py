"""Setting a search up: its data, split and studies, made once and recognised afterwards."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import NopPruner
from optuna.samplers import RandomSampler
from optuna.storages import RDBStorage
from optuna.trial import FixedTrial

from hpsearch.config import Precision, TrainConfig, WeightsConfig
from hpsearch.data.checks.source import data_warnings
from hpsearch.data.dataset import ImageDataset, ImageShape
from hpsearch.data.decode import Progress
from hpsearch.data.preprocessing import input_shape
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
from hpsearch.data.views import DataViews, subset_positions
from hpsearch.engine.records import SPLIT, search_attrs, study_name
from hpsearch.engine.samplers import make_pruner, make_sampler
from hpsearch.engine.spec import StudySpec
from hpsearch.engine.storage import DATABASE, open_storage
from hpsearch.errors import InfeasibleError, SearchError, SpaceError
from hpsearch.families import (
    build_model,
    check_overrides,
    default_params,
    family_label,
    get_family,
    initial_model,
    resolve_weights,
    space_fingerprint,
    space_of,
    suggest_config,
    weights_of,
)
from hpsearch.training.device import default_precision
from hpsearch.training.model import StagedModel
from hpsearch.training.trainer import check_config

SAMPLES = 50
"""Configurations that are tried before a search is refused because none of them fits the data."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreparedData:
    """The data of a search, split; what the search works on are the rows of the other two parts.

    Attributes:
        warnings: what looks wrong with the data, in words.
    """

    development: DevelopmentData
    split: Split
    fingerprints: Mapping[str, str]
    summary: Mapping[str, Any]
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


def peek(runs: Path, name: str) -> Existing | None:
    """As `find_existing`, where it is not even known whether there is a storage."""
    return find_existing(open_storage(runs), name) if (runs / DATABASE).is_file() else None


def prepare_data(
    spec: StudySpec,
    existing: Existing | None,
    runs: Path,
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
        _check_same_search(spec, {"data": dataset.fingerprint}, existing, runs)
    check_overrides(spec.families, dataset.shape, spec.overrides)
    stored = runs / spec.name / SPLIT
    if existing is not None and stored.is_file():
        split = load_split(stored)
    else:
        split = make_split(dataset, spec.split)
    fingerprints = _fingerprints(spec, dataset, split)
    if existing is not None:
        _check_same_search(spec, fingerprints, existing, runs)
    development = development_data(dataset, split)
    infeasible = [
        f"what {family_label(family)} tries first cannot be trained: {reason}"
        for family in spec.families
        if (reason := _try_first(spec, family, development))
    ]
    return PreparedData(
        development=development,
        split=split,
        fingerprints=fingerprints,
        warnings=(
            *data_warnings(dataset, split),
            *_space_warnings(spec, dataset.shape),
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


def _try_first(spec: StudySpec, family: str, development: DevelopmentData) -> str:
    """Makes the model that a family tries first, to find mistakes before anything is written.

    Returns:
        Why it is infeasible, or nothing; the search may find others that are not.
    """
    shape, classes = development.train.shape, len(development.train.classes)
    try:
        config = first_config(spec, family, shape, precision="fp32")
        check_config(config)
        given = input_shape(config.input, shape)
        model = initial_model(config, given, classes)
        model.freeze(config.freeze_depth, config.freeze)
        _check_enough(config, development)
        if family.endswith(".py"):
            _try_own(family, model, given, classes)
    except InfeasibleError as error:
        if not _any_feasible(spec, family, development):
            raise InfeasibleError(
                f"no configuration of {family_label(family)} that was tried fits the data: {error}"
            ) from None
        return str(error)
    return ""


def _check_enough(config: TrainConfig, development: DevelopmentData) -> None:
    if config.train_images:
        subset_positions(development.train.labels, min(config.train_images, len(development.train)))


def _try_own(family: str, model: StagedModel, shape: ImageShape, classes: int) -> None:
    """Runs a user's own model once: its mistakes are those of its file."""
    images = torch.zeros(2, shape.channels, shape.height, shape.width)
    try:
        with torch.no_grad():
            outputs = tuple(model.eval()(images).shape)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise SpaceError(
            f"family file {family}: its model fails on images of {shape}: "
            f"{type(error).__name__}: {reason}"
        ) from error
    if outputs != (2, classes):
        raise SpaceError(
            f"family file {family}: its model gives {outputs} for 2 images, and must give "
            f"{(2, classes)}: one number for each class"
        )


def _any_feasible(spec: StudySpec, family: str, development: DevelopmentData) -> bool:
    """Whether one of some configurations drawn at random can be built."""
    shape, classes = development.train.shape, len(development.train.classes)
    with _quiet_optuna():
        study = optuna.create_study(sampler=RandomSampler(seed=0))
        for _ in range(SAMPLES):
            with contextlib.suppress(InfeasibleError):
                config = suggest_config(
                    family,
                    study.ask(),
                    shape,
                    epochs=spec.epochs,
                    seed=0,
                    precision="fp32",
                    overrides=spec.overrides,
                )
                _check_enough(config, development)
                with torch.device("meta"):
                    build_model(config, input_shape(config.input, shape), classes)
                return True
    return False


def _fingerprints(spec: StudySpec, dataset: ImageDataset, split: Split) -> dict[str, str]:
    spaces = {
        f"space of {name}": space_fingerprint(space_of(name, dataset.shape, spec.overrides))
        for name in spec.families
    }
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
    return {"data": dataset.fingerprint, "split": split.fingerprint, **spaces, **weights, **files}


def _space_warnings(spec: StudySpec, shape: ImageShape) -> tuple[str, ...]:
    """What a user should know of the spaces."""
    ranges = {family_label(name): epochs_of(spec, name, shape) for name in spec.families}
    vary = [name for name, (least, most) in ranges.items() if least < most]
    if not vary:
        return ()
    return (
        f"epochs are part of the search, so no trial of {', '.join(vary)} is pruned: trials of "
        "different lengths cannot be compared on the way",
    )


def first_config(
    spec: StudySpec, family: str, shape: ImageShape, *, precision: Precision
) -> TrainConfig:
    """What a family tries first, under the study's overrides.

    Raises:
        InfeasibleError: it cannot be trained on images of this shape.
    """
    return suggest_config(
        family,
        FixedTrial(default_params(family, shape, spec.overrides)[0]),
        shape,
        epochs=spec.epochs,
        seed=spec.seed,
        precision=precision,
        overrides=spec.overrides,
    )


def epochs_of(spec: StudySpec, family: str, shape: ImageShape) -> tuple[int, int]:
    """The least and the greatest number of epochs that trials of a family can have."""
    rows = space_of(family, shape, spec.overrides)
    row = next((row for row in rows if row.name == "epochs"), None)
    if row is None:
        return spec.epochs, spec.epochs
    return round(row.low) or spec.epochs, round(row.high) or spec.epochs


def _check_same_search(
    spec: StudySpec, fingerprints: Mapping[str, str], existing: Existing, runs: Path
) -> None:
    stored, asked = existing.attrs["spec"], spec.to_dict()
    differences = [
        f"{field} ({_brief(stored[field])} then, {_brief(asked[field])} now)"
        for field in ("families", "epochs", "split", "seed", "early_stopping")
        if stored[field] != asked[field]
    ]
    if spec.precision not in ("auto", existing.attrs["precision"]):
        differences.append(f"precision ({existing.attrs['precision']} then, {spec.precision} now)")
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
            f"search {spec.name!r} in {runs} was made with other settings: "
            f"{'; '.join(differences)}; start another search with --name {free}"
        )


def _brief(value: Any) -> str:
    if isinstance(value, list) and value and all(isinstance(item, int) for item in value):
        return "x".join(str(item) for item in value)
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    return "none" if value is None else str(value)


def resolve_precision(
    spec: StudySpec, existing: Existing | None, device: torch.device
) -> Precision:
    """The stored precision of a search that exists, else the asked one or the device's default."""
    if existing is not None:
        stored: Precision = existing.attrs["precision"]
        return stored
    return default_precision(device) if spec.precision == "auto" else spec.precision


def create_studies(
    spec: StudySpec,
    data: PreparedData,
    storage: RDBStorage,
    *,
    runs: Path,
    precision: Precision,
    threads: int,
) -> dict[str, optuna.Study]:
    """Makes the study of each family, with the known-good settings waiting to be tried first.

    They are marked ready as the last step; what a crash left without the mark holds no trial
    yet and is made anew.
    """
    for summary in optuna.get_all_study_summaries(storage=storage, include_best_trial=False):
        if summary.study_name in (study_name(spec.name, family) for family in spec.families):
            optuna.delete_study(study_name=summary.study_name, storage=storage)
    save_split(runs / spec.name / SPLIT, data.split)
    with _quiet_optuna():
        studies = {
            family: optuna.create_study(
                study_name=study_name(spec.name, family),
                storage=storage,
                direction="maximize",
                **_policy(spec, family, share, data.shape),
            )
            for family, share in spec.shares().items()
        }
    for family, study in studies.items():
        attrs = {
            "search": spec.name,
            "family": family_label(family),
            "data": dict(data.summary),
            "fingerprints": dict(data.fingerprints),
            "precision": precision,
            "threads": threads,
        }
        for key, value in attrs.items():
            study.set_user_attr(key, value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names(["validation accuracy"])
        for params in default_params(family, data.shape, spec.overrides):
            study.enqueue_trial(params)
    _mark_start(spec, studies)
    for study in studies.values():
        study.set_user_attr("ready", True)
    return studies


def load_studies(
    spec: StudySpec, data: PreparedData, storage: RDBStorage, *, runs: Path
) -> dict[str, optuna.Study]:
    """The studies of a search that exists.

    Raises:
        SearchError: one of them was deleted.
    """
    studies = {}
    for family, share in spec.shares().items():
        try:
            studies[family] = optuna.load_study(
                study_name=study_name(spec.name, family),
                storage=storage,
                **_policy(spec, family, share, data.shape),
            )
        except KeyError:
            raise SearchError(
                f"the study {study_name(spec.name, family)!r} was deleted from {runs}, so the "
                "search cannot go on; start another one with --name"
            ) from None
    if not (runs / spec.name / SPLIT).is_file():
        save_split(runs / spec.name / SPLIT, data.split)
    _mark_start(spec, studies)
    return studies


@contextlib.contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Optuna announces each new study on stderr, and the library never prints."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def _policy(spec: StudySpec, family: str, share: int, shape: ImageShape) -> dict[str, Any]:
    least, most = epochs_of(spec, family, shape)
    return {
        "sampler": make_sampler(seed=spec.seed, family=family_label(family), share=share),
        "pruner": make_pruner(epochs=most, share=share) if least == most else NopPruner(),
    }


def _mark_start(spec: StudySpec, studies: Mapping[str, optuna.Study]) -> None:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
    for study in studies.values():
        study.set_user_attr("spec", spec.to_dict())
        study.set_user_attr("last_started", now)
