"""Exact and near duplicates: within a class, with two labels, and across the split."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from hpsearch.data.checks.findings import Finding, Pair, Severity, image_name
from hpsearch.data.checks.near import NearPairs
from hpsearch.data.dataset import (
    PART_WORDS,
    PARTS,
    TEST,
    TRAIN,
    VAL,
    ImageDataset,
    Int8Array,
    Int64Array,
)
from hpsearch.data.words import percent, plural
from hpsearch.names import printable

WORDS = {PARTS.index(part): word for part, word in PART_WORDS.items()}

MANY = 0.01
"""Near duplicates of more than this share of the test images would make its score wrong."""
MOST_PAIRS = 200
MOST_ROWS = 1000


def exact_duplicates(dataset: ImageDataset, parts: Int8Array | None) -> list[Finding]:
    """Images whose pixels are all equal.

    Args:
        parts: int8, (N,): an index into `PARTS` or `NO_PART`; None where there is no split.
    """
    clusters = list(_clusters(dataset))
    within: list[list[int]] = []
    for cluster in clusters:
        alike: dict[tuple[int, int], list[int]] = {}
        for row in cluster:
            part = 0 if parts is None else int(parts[row])
            alike.setdefault((int(dataset.labels[row]), part), []).append(row)
        within += [rows for rows in alike.values() if len(rows) > 1]
    findings = []
    if within:
        rows = [row for cluster in within for row in cluster]
        findings.append(
            _found(
                dataset,
                parts,
                kind="exact duplicates",
                severity="warning",
                rows=rows,
                pairs=[pair for cluster in within for pair in _chain(cluster)],
                message=f"{_copies(within)}, with the same class{_together(parts)}",
            )
        )
    torn = [cluster for cluster in clusters if len(set(dataset.labels[cluster].tolist())) > 1]
    if torn:
        rows = [row for cluster in torn for row in cluster]
        findings.append(
            _found(
                dataset,
                parts,
                kind="exact duplicates with two labels",
                severity="error",
                rows=rows,
                pairs=[
                    pair for cluster in torn for pair in _first_of_each(cluster, dataset.labels)
                ],
                message=f"{_copies(torn)}, but have different labels: at least one of them is "
                "wrong",
            )
        )
    if parts is not None:
        findings += _exact_leaks(dataset, parts, clusters)
    return findings


def _exact_leaks(
    dataset: ImageDataset, parts: Int8Array, clusters: list[list[int]]
) -> Iterator[Finding]:
    for kind, part, sources, severity, consequence in _LEAKS:
        pairs = []
        for cluster in clusters:
            copies = [row for row in cluster if parts[row] in sources]
            inside = [row for row in cluster if parts[row] == part]
            if copies:
                pairs += [(_partner(row, copies, dataset.labels), row) for row in inside]
        if pairs:
            rows = [row for _, row in pairs]
            total = int((parts == part).sum())
            yield _found(
                dataset,
                parts,
                kind=f"exact duplicates {kind}",
                severity=severity,
                rows=rows,
                pairs=pairs,
                message=f"{len(rows):,} of {total:,} {WORDS[part]} images "
                f"({percent(len(rows), total)}) "
                f"{'is an exact copy' if len(rows) == 1 else 'are exact copies'} of "
                f"{_source_words(sources)} images: {consequence}",
            )


_LEAKS: tuple[tuple[str, int, tuple[int, ...], Severity, str], ...] = (
    ("across the test split", TEST, (TRAIN, VAL), "error", "the test score would be too good"),
    (
        "in training and validation",
        VAL,
        (TRAIN,),
        "warning",
        "validation scores are too good, and the search prefers what learns by heart",
    ),
)


def _copies(clusters: list[list[int]]) -> str:
    """2 images are exact copies of each other; of several clusters with their number."""
    images = plural(sum(map(len, clusters)), "image")
    where = f" in {len(clusters):,} groups" if len(clusters) > 1 else ""
    return f"{images}{where} are exact copies of each other"


def _source_words(sources: tuple[int, ...]) -> str:
    return " or ".join(WORDS[part] for part in sources)


def _together(parts: Int8Array | None) -> str:
    return " (a random split puts some on both sides)" if parts is None else ""


def _clusters(dataset: ImageDataset) -> Iterator[list[int]]:
    """The rows of images that are all equal, where there are at least two."""
    keys = np.ascontiguousarray(dataset.digests).view(np.uint64)
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    ordered = keys[order]
    starts = np.flatnonzero(np.r_[True, (ordered[1:] != ordered[:-1]).any(axis=1)])
    ends = np.r_[starts[1:], len(order)]
    repeated = np.flatnonzero(ends - starts > 1)
    found = [np.sort(order[starts[n] : ends[n]]).tolist() for n in repeated]
    yield from sorted(found)


def _chain(rows: list[int]) -> Iterator[tuple[int, int]]:
    return itertools.pairwise(rows)


def _first_of_each(rows: list[int], labels: Int64Array) -> Iterator[tuple[int, int]]:
    """The first image with the first label, beside the first one of each other label."""
    seen = {int(labels[rows[0]])}
    for row in rows:
        if int(labels[row]) not in seen:
            seen.add(int(labels[row]))
            yield rows[0], row


def _partner(row: int, copies: list[int], labels: Int64Array) -> int:
    """The copy to show beside `row`: of the same class if there is one."""
    return next((copy for copy in copies if labels[copy] == labels[row]), copies[0])


def near_duplicates(
    dataset: ImageDataset, parts: Int8Array | None, pairs: NearPairs
) -> list[Finding]:
    """What `near_pairs` found, as findings.

    Args:
        parts: int8, (N,): an index into `PARTS` or `NO_PART`; None where there is no split.
    """
    if not pairs.can_tell:
        return [_all_alike() if pairs.all_alike else _too_alike()]
    same = dataset.labels[pairs.first] == dataset.labels[pairs.second]
    where = np.zeros(len(dataset), dtype=np.int8) if parts is None else parts
    together = where[pairs.first] == where[pairs.second]
    findings = []
    if len(within := pairs.taken(same & together)):
        rows = np.unique(np.concatenate([within.first, within.second]))
        findings.append(
            _found(
                dataset,
                parts,
                kind="near duplicates",
                # In one part of a split they are only a bit of a waste.
                severity="warning" if parts is None else "note",
                rows=rows.tolist(),
                pairs=within,
                message=f"{_at_least(pairs)}{plural(len(rows), 'image')} are nearly the same as "
                f"another one of the same class ({plural(len(within), 'pair')}{_mirrored(within)})"
                f"{_together(parts)}",
            )
        )
    if len(torn := pairs.taken(~same)):
        rows = np.unique(np.concatenate([torn.first, torn.second]))
        findings.append(
            _found(
                dataset,
                parts,
                kind="near duplicates with two labels",
                severity="warning",
                rows=rows.tolist(),
                pairs=torn,
                message=f"{_at_least(pairs)}{plural(len(rows), 'image')} are nearly the same as "
                f"one of another class ({plural(len(torn), 'pair')}): look whether both labels "
                "are right",
            )
        )
    if parts is not None:
        findings += _near_leaks(dataset, parts, pairs)
    return findings


def _all_alike() -> Finding:
    return Finding(
        kind="near duplicates everywhere",
        severity="warning",
        message="two images of a class are usually nearly the same: a random split has much the "
        "same images on both sides, and scores tell little about others",
        count=0,
    )


def _too_alike() -> Finding:
    return Finding(
        kind="near duplicates",
        severity="note",
        message="the images of a class look so much alike that near duplicates cannot be told "
        "from other images; none were looked for",
        count=0,
    )


def _near_leaks(dataset: ImageDataset, parts: Int8Array, pairs: NearPairs) -> Iterator[Finding]:
    first, second = parts[pairs.first], parts[pairs.second]
    for kind, part, sources, worst, consequence in _LEAKS:
        forth = np.isin(first, sources) & (second == part)
        back = np.isin(second, sources) & (first == part)
        if not (forth | back).any():
            continue
        leak = pairs.taken(forth | back)
        rows = np.unique(np.where(parts[leak.first] == part, leak.first, leak.second))
        total = int((parts == part).sum())
        many = len(rows) > MANY * total
        milder: Severity = "warning" if worst == "error" else "note"
        yield _found(
            dataset,
            parts,
            kind=f"near duplicates {kind}",
            severity=worst if many else milder,
            rows=rows.tolist(),
            pairs=leak,
            message=f"{_at_least(pairs)}{len(rows):,} of {total:,} {WORDS[part]} images "
            f"({percent(len(rows), total)}) {'is' if len(rows) == 1 else 'are'} nearly the same as "
            f"{_source_words(sources)} images{_mirrored(leak)}: {consequence}",
        )


def _at_least(pairs: NearPairs) -> str:
    return "" if pairs.complete else "at least "


def _mirrored(pairs: NearPairs) -> str:
    count = int(pairs.mirrored.sum())
    return f", {count:,} of them mirrored" if count else ""


def _found(
    dataset: ImageDataset,
    parts: Int8Array | None,
    *,
    kind: str,
    severity: Severity,
    message: str,
    rows: list[int],
    pairs: Sequence[tuple[int, int]] | NearPairs,
) -> Finding:
    """A finding with the first pairs, and an example in its message."""
    if isinstance(pairs, NearPairs):
        values = (pairs.first, pairs.second, pairs.likeness, pairs.mirrored)
        shown = list(zip(*(value[:MOST_PAIRS].tolist() for value in values), strict=True))
        sign = "~"
    else:
        shown = [(first, second, 1.0, False) for first, second in pairs[:MOST_PAIRS]]
        sign = "="
    first, second = (printable(image_name(dataset, row)) for row in shown[0][:2])
    return Finding(
        kind=kind,
        severity=severity,
        message=f"{message}; {first} {sign} {second}",
        count=len(rows),
        pairs=tuple(
            Pair(
                first=first,
                second=second,
                likeness=round(alike, 4),
                mirrored=mirror,
                parts=(_part_of(parts, first), _part_of(parts, second)),
            )
            for first, second, alike, mirror in shown
        ),
        rows=tuple(rows[:MOST_ROWS]),
    )


def _part_of(parts: Int8Array | None, row: int) -> str:
    return "" if parts is None or parts[row] < 0 else PARTS[parts[row]]
