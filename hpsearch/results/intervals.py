"""How sure a share of right images is, and a difference of two: 95 % intervals.

Images of one group (of one person, say) are right and wrong together, so many images of few groups
say less than as many that have nothing to do with each other. Where a data set has groups, whole
groups are drawn, never single images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, t

from hpsearch.data.dataset import Int64Array
from hpsearch.data.words import plural

Truths = npt.NDArray[np.bool_]

FEW_GROUPS = 10
"""With fewer groups than these, drawing groups says little of how they differ."""

_DRAWS = 10_000
_SEED = 0
"""The same images give the same interval each time."""


def accuracy_interval(
    right: Truths, groups: Sequence[str] | None
) -> tuple[tuple[float, float], str]:
    """The interval of the share of right images, and how it was found.

    It is Wilson's where there are no groups, else a bootstrap over groups. Where each group has
    the same share, as where all images are right, drawing groups tells nothing: then it is
    Wilson's for as many images as there are groups.

    Args:
        right: (N,), N at least 1.
        groups: (N,): the group of each image.
    """
    if groups is None:
        return _wilson(float(right.sum()), len(right)), "Wilson"
    units, sizes = sums_by_group(right.astype(np.int64), groups)
    interval = _bootstrap(units, sizes)
    if interval is not None:
        rough = "" if len(units) >= FEW_GROUPS else ", which are few: rough"
        return interval, f"bootstrap over {len(units):,} groups{rough}"
    how = f"Wilson, each of {plural(len(units), 'group')} taken as one image"
    return _wilson(len(units) * float(right.mean()), len(units)), how


def difference_interval(
    first: Truths, second: Truths, groups: Sequence[str] | None
) -> tuple[float, float] | None:
    """The interval of by how much the share of right images is greater in `second`: a bootstrap
    over images, or groups where there are any, that keeps both answers to an image together.

    Args:
        first, second: (N,): which images each model has right.

    Returns:
        None where nothing can be said: all images, or groups, differ by the same.
    """
    gains = second.astype(np.int64) - first.astype(np.int64)
    if groups is None:
        return _bootstrap(gains, np.ones_like(gains))
    return _bootstrap(*sums_by_group(gains, groups))


def _wilson(right: float, images: int) -> tuple[float, float]:
    """Wilson's score interval; the number of right images need not be whole."""
    z = float(norm.ppf(0.975))
    share, part = right / images, z * z / images
    centre = share + part / 2
    half = z * math.sqrt(share * (1 - share) / images + part / (4 * images))
    # Rounding must not put the share itself outside: at 0 and at 1 it is an end.
    low, high = ((centre + sign * half) / (1 + part) for sign in (-1, 1))
    return max(0.0, low) if share > 0 else 0.0, min(1.0, high) if share < 1 else 1.0


def sums_by_group(values: Int64Array, groups: Sequence[str]) -> tuple[Int64Array, Int64Array]:
    """The sum of the values of each group, and how many there are."""
    _, numbers = np.unique(np.asarray(groups, dtype=object), return_inverse=True)
    sums = np.zeros(int(numbers.max()) + 1, dtype=np.int64)
    np.add.at(sums, numbers, values)
    return sums, np.bincount(numbers).astype(np.int64)


def _bootstrap(sums: Int64Array, sizes: Int64Array) -> tuple[float, float] | None:
    """The interval of sum of `sums` / sum of `sizes`, where units (groups, or single images) are
    drawn with replacement; None where all units have the same share.

    Percentiles of the draws are too close together where units are few: they are expanded as
    Hesterberg does (What Teachers Should Know About the Bootstrap, 2015, section 5.2).
    """
    shares = sums / sizes
    if np.all(shares == shares[0]):
        return None
    # Units that are alike are drawn together: how often each kind comes up is multinomial.
    kinds, counts = np.unique(np.stack([sums, sizes], axis=1), axis=0, return_counts=True)
    units = len(sums)
    drawn = np.random.default_rng(_SEED).multinomial(units, counts / units, size=_DRAWS)
    values = (drawn @ kinds[:, 0]) / (drawn @ kinds[:, 1])
    tail = float(norm.cdf(-math.sqrt(units / (units - 1)) * t.ppf(0.975, units - 1)))
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
