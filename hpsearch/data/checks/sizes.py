"""The sizes that pictures have in their files, before they are brought to one shape."""

from __future__ import annotations

from collections import Counter

import numpy as np

from hpsearch.data.catalog import Catalog
from hpsearch.data.checks.findings import Finding, Severity
from hpsearch.data.dataset import ImageShape
from hpsearch.data.target import FileSizes, cut_note
from hpsearch.data.words import percent, plural
from hpsearch.names import listed

TINY = 16
"""A picture with a side of fewer pixels shows next to nothing."""
LONG = 3.0
"""A picture this many times longer than the others usually are (or flatter) is odd."""
ENLARGED = 2.0
"""A picture that was made this many times larger is blurred."""
TELLING = 0.2
"""A gain in accuracy by the size alone that is a warning."""
_LEAST = 20


def cut_findings(found: FileSizes, shape: ImageShape) -> list[Finding]:
    """That bringing the pictures to `shape` cuts off much of them."""
    sizes = Counter((height, width) for height, width in found.sizes.tolist())
    note = cut_note(sizes, (shape.height, shape.width))
    if note is None:
        return []
    return [Finding(kind="cut images", severity="note", message=note, count=len(found.sizes))]


def size_findings(catalog: Catalog, found: FileSizes, shape: ImageShape) -> list[Finding]:
    """Very small pictures, odd proportions, pictures that were enlarged, and sizes that tell the
    class (a model may learn what the camera was instead).

    Args:
        shape: what the pictures are brought to.
    """
    sizes = found.sizes
    if not len(sizes):
        return []
    findings = []
    tiny = sizes.min(axis=1) < TINY
    if min(shape.height, shape.width) >= TINY and tiny.any():
        words = f"fewer than {TINY} pixels high or wide"
        findings.append(_of_files(catalog, found, tiny, "very small images", "warning", words))
    proportions = sizes[:, 1] / sizes[:, 0]
    usual = float(np.median(proportions))
    odd = np.maximum(proportions / usual, usual / proportions) >= LONG
    if odd.any():
        words = f"at least {LONG:g} times longer or flatter than usual (width/height {usual:.2g})"
        findings.append(_of_files(catalog, found, odd, "odd proportions", "warning", words))
    enlarged = ~tiny & (sizes * ENLARGED <= (shape.height, shape.width)).all(axis=1)
    if enlarged.any():
        words = f"less than half of {shape.height}x{shape.width}: enlarged, they are blurred"
        findings.append(_of_files(catalog, found, enlarged, "enlarged images", "note", words))
    return findings + _telling(catalog, found)


def _of_files(
    catalog: Catalog, found: FileSizes, which: np.ndarray, kind: str, severity: Severity, words: str
) -> Finding:
    chosen = np.flatnonzero(which)
    shown = [
        f"{catalog.names[int(found.positions[n])]} ({found.sizes[n, 0]}x{found.sizes[n, 1]})"
        for n in chosen
    ]
    verb = "is" if len(chosen) == 1 else "are"
    return Finding(
        kind=kind,
        severity=severity,
        message=f"{plural(len(chosen), 'image')} of {len(which):,} "
        f"({percent(len(chosen), len(which))}) {verb} {words}: {listed(shown, 5)}",
        count=len(chosen),
        names=tuple(shown[:100]),
    )


def _telling(catalog: Catalog, found: FileSizes) -> list[Finding]:
    """How often the most frequent class among the other pictures of the same size is right."""
    labels = catalog.labels[found.positions]
    if len(labels) < _LEAST:
        return []
    _, size = np.unique(found.sizes, axis=0, return_inverse=True)
    table = np.zeros((int(size.max()) + 1, len(catalog.classes)), dtype=np.int64)
    np.add.at(table, (size.ravel(), labels), 1)
    others = table[size.ravel()].astype(np.float64)
    others[np.arange(len(labels)), labels] -= 1.0
    # Where no other picture has this size, the class that is most frequent in all decides.
    prior = table.sum(axis=0)
    guess = (others + 1e-9 * prior).argmax(axis=1)
    right, always = int((guess == labels).sum()), int(prior.max())
    if (right - always) / len(labels) < TELLING:
        return []
    return [
        Finding(
            kind="size tells the class",
            severity="warning",
            message=f"the size of the file's picture alone tells the class of "
            f"{percent(right, len(labels))} of the images (always answering the most frequent "
            f"class: {percent(always, len(labels))}): a model may learn the source, not the class",
            count=right,
        )
    ]
