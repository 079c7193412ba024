"""The check of what a user names: from a `DataSpec` to a report, whatever is wrong with it."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from pathlib import Path

import numpy as np

from hpsearch.data.catalog import BadImage, Catalog
from hpsearch.data.checks.counts import unreadable_finding
from hpsearch.data.checks.findings import CheckReport, Finding, by_severity
from hpsearch.data.checks.run import (
    check_images,
    sizes_of_files,
    store_report,
    with_source,
)
from hpsearch.data.checks.sizes import cut_findings
from hpsearch.data.dataset import ImageDataset, UInt8Array, bad_words
from hpsearch.data.decode import Target, decode_all
from hpsearch.data.listing import list_files
from hpsearch.data.progress import Clock, Watch
from hpsearch.data.readers import FileReader, is_folder, is_there
from hpsearch.data.sources import open_catalog
from hpsearch.data.spec import DataSpec
from hpsearch.data.splits import Split, SplitSpec, make_split
from hpsearch.data.store import cache_folder, load_catalog
from hpsearch.data.target import FileSizes
from hpsearch.errors import DataError

MOST_AGAINST = 2_000
"""How many unlabelled images are compared at most."""


def check_source(
    spec: DataSpec,
    split_spec: SplitSpec,
    *,
    against: Path | None = None,
    watch: Watch | None = None,
) -> tuple[CheckReport, ImageDataset]:
    """Checks what `spec` names, stores the report, and returns it with the images.

    Images that cannot be read, and data that cannot be split as asked, are findings.

    Args:
        against: a folder of unlabelled images that the model will meet.

    Raises:
        DataError: the data cannot be found, or none of its images can be read.
    """
    # First, as it is quick to see, and the rest may take long.
    unlabelled = None if against is None else unlabelled_pictures(against)
    lenient = dataclasses.replace(spec, on_error="skip")
    catalog = open_catalog(lenient)
    dataset = load_catalog(catalog, lenient, watch=watch)
    split, refusals = _split(dataset, split_spec)
    sizes, cut = None, list[Finding]()
    if catalog.images.shape is None:
        sizes = sizes_of_files(catalog, dataset.skipped, watch)
        cut = cut_findings(sizes, dataset.shape) if spec.fit == "crop" else []
    whole = _whole(catalog, lenient, dataset, sizes, watch)
    report = check_images(dataset, split, whole=whole, watch=watch)
    # What is stored is true of these images and this split; the rest is true of the files today.
    if split is not None:
        store_report(report, cache_folder())
    images, unread = None, list[Finding]()
    if unlabelled is not None:
        images, unread = _decoded(unlabelled, Target(dataset.shape, spec.fit), watch)
    report = with_source(
        report,
        dataset,
        split,
        catalog=catalog,
        sizes=sizes,
        bad=dataset.skipped,
        refused=spec.on_error == "fail",
        against=images,
    )
    return dataclasses.replace(
        report, findings=by_severity([*refusals, *report.findings, *cut, *unread])
    ), dataset


def _split(dataset: ImageDataset, spec: SplitSpec) -> tuple[Split | None, list[Finding]]:
    try:
        return make_split(dataset, spec), []
    except DataError as error:
        finding = Finding(kind="cannot be split", severity="error", message=str(error), count=1)
        return None, [finding]


def _whole(
    catalog: Catalog,
    spec: DataSpec,
    dataset: ImageDataset,
    sizes: FileSizes | None,
    watch: Watch | None,
) -> ImageDataset | None:
    """The images stretched instead of cropped, where that shows more of them: a copy with other
    proportions is cut elsewhere, and would not be recognised.
    """
    if sizes is None or spec.fit != "crop":
        return None
    proportions = {round(height / width, 2) for height, width in sizes.sizes.tolist()}
    if len(proportions) < 2:
        return None
    size = (dataset.shape.height, dataset.shape.width)
    gray = dataset.shape.channels == 1
    stretched = dataclasses.replace(spec, fit="stretch", size=size, gray=gray)
    return load_catalog(catalog, stretched, watch=watch)


def unlabelled_pictures(folder: Path) -> FileReader:
    """Pictures below a folder, not read yet; of many, 2,000 evenly chosen ones.

    Raises:
        DataError: there is no such folder, or no picture in it.
    """
    if not (is_there(folder) and is_folder(folder)):
        raise DataError(f"--against {folder}: there is no such folder")
    paths = list_files(folder).images
    if not paths:
        raise DataError(f"--against {folder}: there is no picture in this folder")
    return FileReader(folder, paths[:: max(1, -(-len(paths) // MOST_AGAINST))])


def _decoded(
    pictures: FileReader, target: Target, watch: Watch | None
) -> tuple[UInt8Array, list[Finding]]:
    """Unlabelled pictures as `target` says, and a finding on those that cannot be read."""
    clock = Clock("decoding", len(pictures.paths))
    images: list[UInt8Array] = []
    bad: list[BadImage] = []
    with closing(decode_all(pictures, list(pictures.paths), target)) as batches:
        for batch in batches:
            for image in batch:
                if isinstance(image, BadImage):
                    bad.append(image)
                else:
                    images.append(image)
            if watch is not None:
                watch(clock.at(len(images) + len(bad), len(bad)))
    if not images:
        raise DataError(
            f"--against {pictures.root}: none of its pictures can be read: {bad_words(bad)}"
        )
    return np.stack(images), unreadable_finding(bad, "unlabelled image")
