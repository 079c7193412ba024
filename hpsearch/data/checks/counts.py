"""What can be counted: classes, groups, blank images, and what the source remarked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hpsearch.data.catalog import BadImage, Remark
from hpsearch.data.checks.duplicates import MOST_ROWS, WORDS
from hpsearch.data.checks.findings import Finding, Severity, image_name
from hpsearch.data.dataset import (
    PARTS,
    TEST,
    TRAIN,
    VAL,
    ImageDataset,
    Int8Array,
    Int64Array,
    bad_words,
)
from hpsearch.data.words import percent, plural
from hpsearch.names import listed

FEW, SOME = 10, 50
"""Fewer images of a class than this to learn from are a warning, or a note."""
UNEVEN, SLIGHTLY_UNEVEN = 10.0, 3.0
"""A largest class this many times the smallest one is a warning, or a note."""
BLANK = 1.0
"""Images whose gray levels have a smaller standard deviation than this show nothing."""
MOST_NAMES = 100


def class_findings(dataset: ImageDataset, parts: Int8Array | None) -> list[Finding]:
    """Classes without images, in all or in a part of the split, with few, and imbalance.

    Args:
        parts: int8, (N,): an index into `PARTS` or `NO_PART`; None where there is no split.
    """
    totals = _counts(dataset, dataset.labels)
    findings = []
    if (totals == 0).any():
        findings.append(
            _of_classes(dataset, totals == 0, "classes without images", "warning", "no image")
        )
    if parts is not None:
        for part, severity, consequence in _WITHOUT:
            missing = (totals > 0) & (_counts(dataset, dataset.labels[parts == part]) == 0)
            if missing.any():
                words = f"no {WORDS[part]} image ({consequence})"
                kind = f"classes without {WORDS[part]} images"
                findings.append(_of_classes(dataset, missing, kind, severity, words))
    learnt = totals if parts is None else _counts(dataset, dataset.labels[parts == TRAIN])
    levels: tuple[tuple[int, int, Severity], ...] = ((1, FEW, "warning"), (FEW, SOME, "note"))
    for least, most, severity in levels:
        few = (learnt >= least) & (learnt < most)
        if few.any():
            what = "images" if parts is None else "training images"
            words = f"fewer than {most} {what} (the fewest: {learnt[few].min()})"
            findings.append(
                _of_classes(dataset, few, "classes with few images", severity, words, learnt)
            )
    return findings + _imbalance(dataset, totals)


_WITHOUT: tuple[tuple[int, Severity, str], ...] = (
    (TRAIN, "error", "nothing can be learnt about it"),
    (VAL, "warning", "the search does not see how well it is told"),
    (TEST, "warning", "the test score says nothing about it"),
)


def _counts(dataset: ImageDataset, labels: Int64Array) -> Int64Array:
    return np.bincount(labels, minlength=len(dataset.classes)).astype(np.int64)


def _of_classes(
    dataset: ImageDataset,
    which: np.ndarray,
    kind: str,
    severity: Severity,
    words: str,
    counts: Int64Array | None = None,
) -> Finding:
    numbers = np.flatnonzero(which)
    if counts is not None:
        numbers = numbers[np.argsort(counts[numbers], kind="stable")]
    names = [dataset.classes[number] for number in numbers]
    verb = "has" if len(names) == 1 else "have"
    return Finding(
        kind=kind,
        severity=severity,
        message=f"{plural(len(names), 'class', 'classes')} {verb} {words}: {listed(names, 5)}",
        count=len(names),
        names=tuple(names[:MOST_NAMES]),
    )


def _imbalance(dataset: ImageDataset, totals: Int64Array) -> list[Finding]:
    present = np.flatnonzero(totals)
    if len(present) < 2:
        return []
    largest, smallest = (int(present[f(totals[present])]) for f in (np.argmax, np.argmin))
    ratio = totals[largest] / totals[smallest]
    if ratio < SLIGHTLY_UNEVEN:
        return []
    big, small = dataset.classes[largest], dataset.classes[smallest]
    share = percent(int(totals[largest]), len(dataset))
    return [
        Finding(
            kind="imbalance",
            severity="warning" if ratio >= UNEVEN else "note",
            message=f"class {listed([big])} has {ratio:.3g} times as many images as "
            f"{listed([small])} ({totals[largest]:,} and {totals[smallest]:,}); "
            f"always answering {listed([big])} is right for {share}",
            count=2,
            names=(big, small),
        )
    ]


def blank_findings(dataset: ImageDataset) -> list[Finding]:
    """Images of one colour, or nearly."""
    pixels = dataset.shape.height * dataset.shape.width
    if pixels == 1:  # one pixel is always of one colour
        return []
    sums = dataset.moments.astype(np.float64)
    variance = sums[..., 1] / pixels - (sums[..., 0] / pixels) ** 2
    rows = np.flatnonzero((variance < BLANK**2).all(axis=1)).tolist()
    if not rows:
        return []
    names = [image_name(dataset, row) for row in rows]
    return [
        Finding(
            kind="blank images",
            severity="warning",
            message=f"{plural(len(rows), 'image')} ({percent(len(rows), len(dataset))}) "
            f"{'shows' if len(rows) == 1 else 'show'} nothing but pixels of about the same colour: "
            f"{listed(names, 5)}",
            count=len(rows),
            rows=tuple(rows[:MOST_ROWS]),
        )
    ]


def group_findings(dataset: ImageDataset, parts: Int8Array | None) -> list[Finding]:
    """Groups (such as persons) that are on two sides of the split."""
    if dataset.groups is None or parts is None:
        return []
    names, member = np.unique(np.asarray(dataset.groups, dtype=object), return_inverse=True)
    inside = np.zeros((len(PARTS), len(names)), dtype=np.int64)
    for part in range(len(PARTS)):
        inside[part] = np.bincount(member[parts == part], minlength=len(names))
    sides: tuple[tuple[int, Int64Array, str, Severity, str], ...] = (
        (
            TEST,
            inside[TRAIN] + inside[VAL],
            "training or validation",
            "error",
            "the test score would be too good",
        ),
        (VAL, inside[TRAIN], "training", "warning", "validation scores are too good"),
    )
    findings = []
    for part, outside, others, severity, consequence in sides:
        torn = np.flatnonzero((inside[part] > 0) & (outside > 0))
        if not len(torn):
            continue
        count, total = int(inside[part][torn].sum()), int(inside[part].sum())
        shown = [str(names[number]) for number in torn]
        verb = "is" if len(torn) == 1 else "are"
        findings.append(
            Finding(
                kind=f"groups in {others} and {WORDS[part]}",
                severity=severity,
                message=f"{plural(len(torn), 'group')} {verb} on both sides of the split: "
                f"{count:,} of {total:,} {WORDS[part]} images ({percent(count, total)}) have "
                f"{others} images of the same group, {consequence}: {listed(shown, 5)}",
                count=len(torn),
                names=tuple(shown[:MOST_NAMES]),
            )
        )
    return findings


def unreadable_finding(
    bad: Sequence[BadImage], what: str, *, refused: bool = False
) -> list[Finding]:
    """That pictures cannot be read, where some cannot.

    Args:
        what: they are, in the singular.
        refused: they are not left out by a search, but stop it.
    """
    if not bad:
        return []
    verb = "is" if len(bad) == 1 else "are"
    left_out = "" if refused else f" and {verb} left out"
    so = "; a search refuses them unless --on-error skip" if refused else ""
    return [
        Finding(
            kind=f"unreadable {what}s",
            severity="error" if refused else "warning",
            message=f"{plural(len(bad), what)} cannot be read{left_out}: {bad_words(bad)}{so}",
            count=len(bad),
            names=tuple(str(image) for image in bad[:MOST_NAMES]),
        )
    ]


def source_findings(
    remarks: Sequence[Remark], bad: Sequence[BadImage], *, refused: bool = False
) -> list[Finding]:
    """What the source saw while it listed the images, and what could not be read of them.

    Args:
        refused: `bad` is not left out by a search, but stops it.
    """
    findings = unreadable_finding(bad, "image", refused=refused)
    for remark in remarks:
        if remark.names:
            findings.append(
                Finding(
                    kind=remark.kind,
                    severity="note" if remark.harmless else "warning",
                    message=remark.words(5),
                    count=len(remark.names),
                    names=tuple(listed([name]) for name in remark.names[:MOST_NAMES]),
                )
            )
    return findings
