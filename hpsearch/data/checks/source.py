"""The check of what a user names: from a `DataSpec` to a report, whatever is wrong with it."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from pathlib import Path

import numpy as np

from hpsearch.data.catalog import Catalog
from hpsearch.data.checks.findings import CheckReport, Finding, by_severity
from hpsearch.data.checks.run import (
    check_images,
    sizes_of_files,
    store_report,
    with_source,
)
from hpsearch.data.checks.sizes import cut_findings
from hpsearch.data.dataset import ImageDataset, UInt8Array
from hpsearch.data.decode import Clock, Target, decode_all
from hpsearch.data.listing import list_files
from hpsearch.data.readers import FileReader, is_folder
from hpsearch.data.sources import open_catalog
from hpsearch.data.spec import DataSpec
from hpsearch.data.splits import Split, SplitSpec, make_split
from hpsearch.data.store import Watch, cache_folder, load_catalog
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
    store_report(report, cache_folder())
    report = with_source(
        report,
        dataset,
        split,
        catalog=catalog,
        sizes=sizes,
        bad=dataset.skipped,
        refused=spec.on_error == "fail",
        against=None if against is None else unlabelled_images(against, dataset, spec, watch),
    )
    return dataclasses.replace(
        report, findings=by_severity([*refusals, *report.findings, *cut])
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


def unlabelled_images(
    folder: Path, dataset: ImageDataset, spec: DataSpec, watch: Watch | None = None
) -> UInt8Array:
    """Pictures below a folder, brought to the shape of `dataset` as its own were: uint8
    (n, height, width, channels); of many, 2,000 evenly chosen ones.

    Raises:
        DataError: there is no such folder, or no picture in it that can be read.
    """
    if not is_folder(folder):
        raise DataError(f"--against {folder}: there is no such folder")
    paths = list_files(folder).images
    paths = paths[:: max(1, -(-len(paths) // MOST_AGAINST))]
    reader, clock = FileReader(folder, paths), Clock("decoding", len(paths))
    images: list[UInt8Array] = []
    with closing(decode_all(reader, list(paths), Target(dataset.shape, spec.fit))) as batches:
        for batch in batches:
            images += [image for image in batch if isinstance(image, np.ndarray)]
            if watch is not None:
                watch(clock.at(len(images)))
    if not images:
        raise DataError(f"--against {folder}: there is no picture that can be read")
    return np.stack(images)
