"""Near duplicates: images that were saved again, resized, brightened or cropped a little."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from hpsearch.data.checks.hashing import RealArray, Sketches, close_pairs
from hpsearch.data.checks.likeness import Limits, likeness, limits
from hpsearch.data.dataset import ImageDataset, Int64Array

BoolArray = npt.NDArray[np.bool_]

_LEAST_PIXELS = 64
_LEAST_CONTRAST = 2.0
_LOOKED_AT = 10_000


@dataclasses.dataclass(frozen=True, eq=False)
class NearPairs:
    """Images that are nearly the same, but not exactly.

    Attributes:
        first, second: int64, (n,): row numbers, the most alike first.
        likeness: (n,)
        mirrored: (n,)
        complete: there are no more.
        can_tell: False: images of a class look so much alike that nothing could be looked for.
        all_alike: and usually are nearly copies of each other.
    """

    first: Int64Array
    second: Int64Array
    likeness: RealArray
    mirrored: BoolArray
    complete: bool = True
    can_tell: bool = True
    all_alike: bool = False

    def taken(self, keep: BoolArray) -> NearPairs:
        """Only those where `keep` is true."""
        return dataclasses.replace(
            self,
            first=self.first[keep],
            second=self.second[keep],
            likeness=self.likeness[keep],
            mirrored=self.mirrored[keep],
        )

    def __len__(self) -> int:
        return len(self.first)


def near_pairs(
    dataset: ImageDataset, tell: Callable[[str, int, int], None] = lambda *_: None
) -> NearPairs:
    """The pairs that are nearly the same: hashes that are close, then a careful look at both.

    Mirror images count only where both have the same class: b is no copy of d. Of exact copies
    one is compared, images of one colour and of fewer than 64 pixels are not.

    Args:
        tell: is called with what is done, and how many of how many images are done.
    """
    none = np.empty(0, dtype=np.int64)
    nothing = NearPairs(none, none, np.empty(0, dtype=np.float32), np.empty(0, dtype=np.bool_))
    if dataset.shape.height * dataset.shape.width < _LEAST_PIXELS:
        return nothing
    keys = np.ascontiguousarray(dataset.digests).view(np.uint64)
    rows = np.sort(np.unique(keys, axis=0, return_index=True)[1]).astype(np.int64)
    sketches = Sketches.of(dataset, rows, lambda n: tell("hashing the images", n, len(rows)))
    sketches = sketches.taken(sketches.contrast >= _LEAST_CONTRAST)
    rows = sketches.rows
    if len(rows) < 2:
        return nothing
    least = limits(dataset, rows)
    if not least.can_tell:
        return dataclasses.replace(nothing, can_tell=False, all_alike=least.all_alike)
    straight, mirrored = (
        _verified(dataset, sketches, least, mirror=mirror, tell=tell) for mirror in (False, True)
    )
    return _joined(straight, mirrored)


def _verified(
    dataset: ImageDataset,
    sketches: Sketches,
    least: Limits,
    *,
    mirror: bool,
    tell: Callable[[str, int, int], None],
) -> NearPairs:
    """The pairs whose hashes are close, and which are as alike as copies must be."""
    rows = sketches.rows
    most = max(_LOOKED_AT, len(rows) // 2)
    what = "comparing mirror images" if mirror else "comparing the images"
    close = close_pairs(
        sketches, mirror=mirror, most=most, tell=lambda done: tell(what, done, len(rows))
    )
    first, second = rows[close.first], rows[close.second]
    if mirror:
        same = dataset.labels[first] == dataset.labels[second]
        first, second = first[same], second[same]
    alike = likeness(dataset, first, second, mirror=mirror)
    copies = (alike.whole >= least.whole) & (alike.detail >= least.detail)
    count = int(copies.sum())
    return NearPairs(
        first[copies],
        second[copies],
        alike.whole[copies],
        np.full(count, mirror),
        # The `most` most alike ones were looked at. Where less than half of them are copies, there
        # are hardly any among the others, which are less alike still.
        complete=close.complete or count < most // 2,
    )


def _joined(straight: NearPairs, mirrored: NearPairs) -> NearPairs:
    """Both; a pair that is alike both ways (a symmetric image) counts as straight."""
    known = set(zip(straight.first.tolist(), straight.second.tolist(), strict=True))
    pairs = zip(mirrored.first.tolist(), mirrored.second.tolist(), strict=True)
    new = mirrored.taken(np.array([pair not in known for pair in pairs], dtype=np.bool_))
    order = np.argsort(-np.concatenate([straight.likeness, new.likeness]), kind="stable")
    return NearPairs(
        np.concatenate([straight.first, new.first])[order],
        np.concatenate([straight.second, new.second])[order],
        np.concatenate([straight.likeness, new.likeness])[order],
        np.concatenate([straight.mirrored, new.mirrored])[order],
        complete=straight.complete and mirrored.complete,
    )
