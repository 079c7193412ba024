"""The whole check of a data set, and where its result is kept."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hpsearch.data.catalog import BadImage, Catalog
from hpsearch.data.checks.counts import (
    blank_findings,
    class_findings,
    group_findings,
    source_findings,
)
from hpsearch.data.checks.duplicates import exact_duplicates, near_duplicates
from hpsearch.data.checks.findings import (
    CheckReport,
    Finding,
    Shift,
    by_severity,
)
from hpsearch.data.checks.near import near_pairs
from hpsearch.data.checks.shift import (
    LEAST,
    label_shift,
    measure_shift,
    shift_against,
    shift_finding,
    units_of,
)
from hpsearch.data.checks.sizes import size_findings
from hpsearch.data.dataset import (
    PART_WORDS,
    PARTS,
    TEST,
    TRAIN,
    VAL,
    ImageDataset,
    ImagePart,
    Int8Array,
    UInt8Array,
)
from hpsearch.data.progress import Clock, Watch
from hpsearch.data.splits import Split
from hpsearch.data.target import FileSizes, file_sizes
from hpsearch.data.words import plural
from hpsearch.errors import DataError
from hpsearch.files import write_text

_COMPARED = ((TRAIN, VAL), (TRAIN, TEST))


def check_images(
    dataset: ImageDataset,
    split: Split | None = None,
    *,
    whole: ImageDataset | None = None,
    cheap: bool = False,
    watch: Watch | None = None,
) -> CheckReport:
    """Looks for what would make results wrong in the images and their split alone: what it finds
    is true as long as their fingerprints are the same. No model is scored, and of the test images
    nothing but hashes, sizes and cheap features is looked at.

    Args:
        whole: the same images with nothing cut off, to look for near duplicates in.
        cheap: only what costs next to nothing: exact duplicates, classes, groups, blank images.
        watch: is told how far it has come.
    """
    parts = None if split is None else split.membership(len(dataset))
    findings = [
        *class_findings(dataset, parts),
        *group_findings(dataset, parts),
        *blank_findings(dataset),
        *exact_duplicates(dataset, parts),
    ]
    shifts: list[Shift] = []
    if not cheap:
        pairs = near_pairs(whole or dataset, _Teller(watch))
        findings += near_duplicates(dataset, parts, pairs)
        if parts is not None:
            shifts, found = _shifts(dataset, parts)
            findings += found
    return CheckReport(
        data=dataset.fingerprint,
        split=None if split is None else split.fingerprint,
        counts={
            "images": len(dataset),
            "classes": len(dataset.classes),
            **({} if split is None else split.counts),
        },
        findings=by_severity(findings),
        shifts=tuple(shifts),
    )


def with_source(
    report: CheckReport,
    dataset: ImageDataset,
    split: Split | None,
    *,
    catalog: Catalog | None = None,
    sizes: FileSizes | None = None,
    bad: Sequence[BadImage] = (),
    refused: bool = False,
    against: UInt8Array | None = None,
) -> CheckReport:
    """`report`, and what is true of the files as they are today.

    Args:
        catalog: where the images come from, for what the source saw.
        sizes: of the files of `catalog`.
        bad: images that could not be read and are left out of `dataset`.
        refused: `bad` is not left out by a search, but stops it.
        against: uint8 (n, height, width, channels), unlabelled images that a model will meet.

    Raises:
        DataError: `against` has another shape than the images of `dataset`.
    """
    remarks = () if catalog is None else catalog.remarks
    findings = [*source_findings(remarks, bad, refused=refused), *report.findings]
    if catalog is not None and sizes is not None:
        findings += size_findings(catalog, sizes, dataset.shape)
    shifts = list(report.shifts)
    if against is not None:
        parts = None if split is None else split.membership(len(dataset))
        learnt = _part(dataset, parts, TRAIN)
        shift = shift_against(learnt, against, "all" if parts is None else "training")
        if shift is None:
            findings.append(_too_few(learnt, len(against)))
        else:
            shifts.append(shift)
            findings += shift_finding(shift)
    return dataclasses.replace(report, findings=by_severity(findings), shifts=tuple(shifts))


def _too_few(learnt: ImagePart, unlabelled: int) -> Finding:
    """That the images to learn from cannot be compared with so many unlabelled ones."""
    count, what = unlabelled, plural(unlabelled, "unlabelled image")
    if unlabelled >= LEAST:
        count, what = len(learnt), plural(len(learnt), "labelled image")
        if count >= LEAST:
            count = units_of(learnt)
            what = plural(count, "group of labelled images", "groups of labelled images")
    return Finding(
        kind="too few to compare",
        severity="note",
        message=f"{what} {'is' if count == 1 else 'are'} too few to tell whether the unlabelled "
        "images look different",
        count=count,
    )


def sizes_of_files(catalog: Catalog, bad: Sequence[BadImage], watch: Watch | None) -> FileSizes:
    """As `file_sizes`, of those that are not bad, with reports of how far it has come."""
    found = file_sizes(catalog, _Teller(watch).on("looking at the files", len(catalog)))
    names = {image.name for image in bad}
    good = [catalog.names[position] not in names for position in found.positions.tolist()]
    return FileSizes(found.positions[good], found.sizes[good], found.all_gray)


def store_report(report: CheckReport, cache: Path) -> Path:
    """Writes the report on data with a split to its place below the folder `cache`, whole; returns
    the file.

    Raises:
        DataError: it cannot be written.
    """
    path = _place(report.data, report.split, cache)
    text = json.dumps(report.to_dict(), ensure_ascii=True, indent=1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    except OSError as error:
        raise DataError(
            f"the result of the check cannot be written to {path.parent} "
            f"({error.strerror or error}); set HPSEARCH_CACHE to another folder"
        ) from error
    return path


def stored_report(data: str, split: str, cache: Path) -> CheckReport | None:
    """What `store_report` wrote for this data and split (fingerprints).

    Returns:
        None: there is none, or it cannot be read.
    """
    try:
        text = _place(data, split, cache).read_text(encoding="utf-8")
        report = CheckReport.from_dict(json.loads(text))
    except (OSError, ValueError, RecursionError):  # DataError is a ValueError
        return None
    return report if (report.data, report.split) == (data, split) else None


def _place(data: str, split: str | None, cache: Path) -> Path:
    return cache / "checks" / f"{data}-{split}.json"


def _part(dataset: ImageDataset, parts: Int8Array | None, part: int) -> ImagePart:
    return dataset.part(None if parts is None else np.flatnonzero(parts == part))


def _shifts(dataset: ImageDataset, parts: Int8Array) -> tuple[list[Shift], list[Finding]]:
    shifts, findings = [], []
    for first, second in _COMPARED:
        names = PART_WORDS[PARTS[first]], PART_WORDS[PARTS[second]]
        sides = _part(dataset, parts, first), _part(dataset, parts, second)
        findings += label_shift(*sides, names)
        shift = measure_shift(*sides, names)
        if shift is not None:
            shifts.append(shift)
            findings += shift_finding(shift)
    return shifts, findings


class _Teller:
    """Makes `Progress` reports for `watch`, with a clock for each thing that is done."""

    def __init__(self, watch: Watch | None) -> None:
        self._watch = watch or (lambda _: None)
        self._what, self._clock = "", Clock("", 0)

    def __call__(self, what: str, done: int, total: int) -> None:
        if what != self._what:
            self._what, self._clock = what, Clock(what, total)
        self._watch(self._clock.at(done))

    def on(self, what: str, total: int) -> Callable[[int], None]:
        """The same for one thing."""
        return lambda done: self(what, done, total)
