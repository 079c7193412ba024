"""What a search works on: its data, split and spaces, read and checked before it starts."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from hpsearch.config import WeightsConfig
from hpsearch.data.checks.run import check_images, stored_report
from hpsearch.data.dataset import ImageDataset, ImageShape
from hpsearch.data.progress import Progress, Watch
from hpsearch.data.sources import locate
from hpsearch.data.splits import (
    DevelopmentData,
    Split,
    development_data,
    load_split,
    make_split,
    split_notes,
)
from hpsearch.data.store import cache_folder, load_dataset
from hpsearch.data.views import DataViews
from hpsearch.engine.existing import Existing, check_same_search
from hpsearch.engine.feasibility import why_infeasible
from hpsearch.engine.place import SPLIT, Place
from hpsearch.engine.spec import StudySpec
from hpsearch.families import (
    Parameter,
    check_first,
    check_overrides,
    get_family,
    resolve_weights,
    space_fingerprint,
    space_of,
    weights_of,
)
from hpsearch.families._start_images import start_warnings
from hpsearch.names import family_label


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreparedData:
    """The data of a search, split; what the search works on are the rows of the other two parts.

    Attributes:
        epochs: by family the least and the greatest number that a trial can have.
        spaces: by family what is searched.
        errors: what would make results wrong, in words.
        warnings: what looks wrong with the data or the spaces, in words.
    """

    development: DevelopmentData
    split: Split
    fingerprints: Mapping[str, str]
    summary: Mapping[str, Any]
    epochs: Mapping[str, tuple[int, int]]
    spaces: Mapping[str, tuple[Parameter, ...]]
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def shape(self) -> ImageShape:
        """The shape of one image."""
        return self.development.train.shape

    def views(self, device: torch.device, *, watch: Watch | None = None) -> DataViews:
        """The training and validation images, as trials on `device` ask for them."""
        return DataViews.of(self.development, device, watch=watch)


def prepare_data(
    spec: StudySpec,
    existing: Existing | None,
    place: Place,
    *,
    look: bool = True,
    watch: Callable[[Progress], None] | None = None,
) -> PreparedData:
    """Reads the data, splits it, and checks the specification against it and against the search
    that exists under its name; writes nothing.

    The stored split of such a search is used again, so that it stays the same under a later
    version of the library that made it.

    Args:
        look: for errors and warnings; not where nobody is told, as in each worker process.

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
        check_same_search(spec, {"data": dataset.fingerprint}, existing, place)
    check_overrides(spec.families, dataset.shape, spec.overrides)
    check_first(spec.families, dataset.shape, spec.overrides, spec.first)
    stored = place.runs / spec.name / SPLIT
    if existing is not None and stored.is_file():
        split = load_split(stored)
    else:
        split = make_split(dataset, spec.split)
    spaces = {name: space_of(name, dataset.shape, spec.overrides) for name in spec.families}
    epochs = {name: epochs_of(spec, space) for name, space in spaces.items()}
    weights = _weights(spec, dataset)
    fingerprints = _fingerprints(spec, dataset, split, spaces, weights)
    if existing is not None:
        check_same_search(spec, fingerprints, existing, place)
    development = development_data(dataset, split)
    errors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    if look:
        errors, of_data = _data_findings(dataset, split)
        warnings = (
            *of_data,
            *start_warnings(weights.values(), dataset, split, spec.data_spec),
            *_space_warnings(spec, epochs),
            *_infeasible_warnings(spec, development),
        )
    return PreparedData(
        development=development,
        split=split,
        fingerprints=fingerprints,
        epochs=epochs,
        spaces=spaces,
        errors=errors,
        warnings=warnings,
        summary={
            "name": dataset.name,
            "source": locate(spec.data_spec).to_dict(),
            "notes": [*dataset.notes, *split_notes(dataset, spec.split)],
            "shape": dataclasses.asdict(dataset.shape),
            "classes": list(dataset.classes),
            "counts": split.counts,
        },
    )


def _weights(spec: StudySpec, dataset: ImageDataset) -> dict[str, WeightsConfig]:
    """What trials can start from, by what its fingerprint is called."""
    return {
        f"weights {source}{f' of {published}' if published else ''} for {family_label(name)}": (
            resolve_weights(WeightsConfig(source=source), family=name, published=published)
        )
        for name in spec.families
        for source, published in weights_of(name, dataset.shape, spec.overrides)
    }


def _fingerprints(
    spec: StudySpec,
    dataset: ImageDataset,
    split: Split,
    spaces: Mapping[str, Sequence[Parameter]],
    weights: Mapping[str, WeightsConfig],
) -> dict[str, str]:
    of_spaces = {f"space of {name}": space_fingerprint(space) for name, space in spaces.items()}
    files = {
        f"code of {name}": hashlib.sha256(Path(name).read_bytes()).hexdigest()
        for name in spec.families
        if name.endswith(".py")
    }
    return {
        "data": dataset.fingerprint,
        "split": split.fingerprint,
        **of_spaces,
        **{name: row.sha256 for name, row in weights.items()},
        **files,
    }


def _data_findings(dataset: ImageDataset, split: Split) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The errors and the warnings of the stored check of this data and split, or of a cheap one."""
    report = stored_report(dataset.fingerprint, split.fingerprint, cache_folder())
    report = report or check_images(dataset, split, cheap=True)
    errors, warnings = (
        tuple(item.message for item in report.findings if item.severity == severity)
        for severity in ("error", "warning")
    )
    return errors, warnings


def _infeasible_warnings(spec: StudySpec, development: DevelopmentData) -> tuple[str, ...]:
    return tuple(
        f"what {family_label(family)} tries first cannot be trained: {reason}"
        for family in spec.families
        if (reason := why_infeasible(spec, family, development))
    )


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
