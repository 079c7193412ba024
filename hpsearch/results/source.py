"""The data that a search was made with, found again."""

from __future__ import annotations

import dataclasses
from typing import Any

from hpsearch.config import TrainConfig
from hpsearch.data.checks.run import check_images, stored_report
from hpsearch.data.dataset import ImageDataset
from hpsearch.data.spec import DataSpec
from hpsearch.data.splits import Split, SplitSpec, load_split, make_split
from hpsearch.data.store import cache_folder, load_dataset
from hpsearch.data.words import plural
from hpsearch.engine.place import SPLIT
from hpsearch.engine.records import SearchRecord, TrialRecord
from hpsearch.engine.search_reader import load_search
from hpsearch.errors import DataError
from hpsearch.families._start_images import StartOverlap, start_overlap


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SearchData:
    """The data of a search, and how it is split.

    Attributes:
        record: the search as it was when its data was looked for.
        source: what it is read from.
    """

    record: SearchRecord
    dataset: ImageDataset
    split: Split
    source: DataSpec

    def facts(self) -> dict[str, Any]:
        """What `metrics.json` says of it, as plain JSON types."""
        return {
            "name": self.dataset.name,
            "counts": self.split.counts,
            "images": {**dataclasses.asdict(self.dataset.shape), "fit": self.source.fit},
            "notes": list(self.dataset.notes),
            "errors": data_errors(self.dataset, self.split),
        }

    def start_of(self, config: TrainConfig) -> StartOverlap | None:
        """What the weights had seen of the data that a training starts from; None where it starts
        from none.
        """
        if config.weights is None:
            return None
        return start_overlap(config.weights, self.dataset, self.source)


def search_of(trial: TrialRecord) -> SearchRecord:
    """The trial's search as it is now."""
    return load_search(trial.runs, trial.search, storage=trial.place.address)


def search_data(trial: TrialRecord) -> SearchData:
    """The images and the split of the trial's search.

    Raises:
        DataError: they cannot be read, or are not those of the search any more.
    """
    record = search_of(trial)
    stored = record.data["source"]  # a text in searches of the first version
    source = DataSpec.of(stored) if isinstance(stored, str) else DataSpec.from_dict(stored)
    try:
        dataset = load_dataset(source)
    except DataError as error:
        raise DataError(
            f"the data of search {trial.search!r} cannot be read: {error}. If they were moved, run "
            f"the search's command again with --name {trial.search} and --data where they are now: "
            "it remembers the place"
        ) from error
    then, now = record.fingerprints["data"], dataset.fingerprint
    if now != then:
        images = sum(record.data["counts"].values())
        counts = f"{plural(images, 'image')} then, {len(dataset):,} now"
        if images == len(dataset):
            counts = f"{plural(images, 'image')} then and now, but others; fingerprint {now[:8]}"
        raise DataError(
            f"the data of search {trial.search!r} changed since: {source.source} ({counts}); put "
            "back what was there, or search again with another --name"
        )
    path = record.folder / SPLIT
    split = load_split(path)
    then, now = record.fingerprints["split"], split.fingerprint
    if now != then:
        raise DataError(
            f"{path} is not the split that the search was made with (fingerprint {then[:8]} then, "
            f"{now[:8]} now)"
        )
    return SearchData(record=record, dataset=dataset, split=split, source=source)


def check_same_data(trial: TrialRecord) -> None:
    """Makes sure that a new search on the data of the trial's search has the same images, and the
    same split.

    Raises:
        DataError: it would not.
    """
    data = search_data(trial)
    spec = SplitSpec.from_dict(data.record.spec["split"])
    then, now = data.split.fingerprint, make_split(data.dataset, spec).fingerprint
    if now != then:
        raise DataError(
            f"the split of search {trial.search!r} was drawn by another version of hpsearch or its "
            f"libraries (fingerprint {then[:8]} then, {now[:8]} now), so a new search would not "
            "have the same one; use that version"
        )


def data_errors(dataset: ImageDataset, split: Split) -> list[str]:
    """What is wrong with the data, as the last check of it found, or a cheap one."""
    report = stored_report(dataset.fingerprint, split.fingerprint, cache_folder())
    if report is None:
        report = check_images(dataset, split, cheap=True)
    return [finding.message for finding in report.findings if finding.severity == "error"]
