"""How alike two images are that have close hashes: the second, careful look.

Both are brought to small thumbnails and laid over each other by least squares (B. D. Lucas and
T. Kanade, An iterative image registration technique, 1981), so that a copy that was cropped a
little matches. What counts is the correlation, which brightness and contrast do not change, of
the thumbnails and of their details: two pictures of the sky agree in the first, not the second.
"""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from hpsearch.data.checks.hashing import RealArray, area_matrix, gray
from hpsearch.data.dataset import ImageDataset, Int64Array, UInt8Array
from hpsearch.data.decode import default_workers

LIKENESS, DETAIL = 0.93, 0.6
"""The correlations of thumbnails, and of their details, that copies reach at least."""
TINY_SIDE, TINY_LIKENESS = 24, 0.985
"""Smaller images than this show too little to go by details."""
CLEAR = 6.0
"""How many standard deviations more alike than two images of a class usually are, copies must
be: where all images look alike (digits, aligned faces), what is above is raised to this."""
TOO_ALIKE = 0.9995
"""Where that would be more, copies cannot be told from other images."""
ALL_ALIKE = 0.9
"""Where two images of a class usually agree so well, each is nearly a copy of the others."""
_SIDE = 32
_LEAST_ALIGNED = 24
_BATCH = 256
_STEPS = 4
_SAMPLE = 1000
_FEW = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Likeness:
    """Of some pairs, each (n,): correlation of the thumbnails, and of their details."""

    whole: RealArray
    detail: RealArray


@dataclasses.dataclass(frozen=True)
class Limits:
    """What copies of each other must reach in a data set.

    Attributes:
        usual: how alike two images of a class usually are, by the lower of both correlations.
    """

    whole: float
    detail: float
    usual: float = 0.0

    @property
    def all_alike(self) -> bool:
        """Two images of a class usually are what would else be called copies."""
        return self.usual >= ALL_ALIKE

    @property
    def can_tell(self) -> bool:
        """Copies are more alike than other images are."""
        return not self.all_alike and max(self.whole, self.detail) <= TOO_ALIKE


def likeness(
    dataset: ImageDataset,
    first: Int64Array,
    second: Int64Array,
    *,
    mirror: bool = False,
    align: bool = True,
) -> Likeness:
    """How alike the images at rows `first` and `second` (n,) are.

    Args:
        mirror: the second one's mirror image is compared.
        align: lay them over each other first; images of less than 24 pixels are too small.
    """
    align = align and min(dataset.images.shape[1:3]) >= _LEAST_ALIGNED

    def compare(start: int) -> Likeness:
        rows = slice(start, start + _BATCH)
        left = thumbnails(dataset.images[first[rows]])
        right = thumbnails(dataset.images[second[rows]])
        if mirror:
            right = right[..., ::-1]
        found = _compared(left, right, None)
        if not align:
            return found
        moved, inside = aligned(left, right)
        # Aligning can go astray, where there is little to hold on to.
        better = _compared(moved, right, inside)
        use = np.minimum(better.whole, better.detail) > np.minimum(found.whole, found.detail)
        return Likeness(
            np.where(use, better.whole, found.whole), np.where(use, better.detail, found.detail)
        )

    with ThreadPoolExecutor(default_workers()) as pool:
        parts = list(pool.map(compare, range(0, len(first), _BATCH)))
    empty = np.empty(0, dtype=np.float32)
    return Likeness(
        np.concatenate([empty, *(part.whole for part in parts)]),
        np.concatenate([empty, *(part.detail for part in parts)]),
    )


def limits(dataset: ImageDataset, rows: Int64Array) -> Limits:
    """What copies must reach, given how alike pairs of images of a class (of `rows`) usually are.

    The usual spread is taken from the middle of what was seen up to one standard deviation above,
    so that the copies that are looked for do not raise it.
    """
    floor = TINY_LIKENESS if min(dataset.images.shape[1:3]) < TINY_SIDE else LIKENESS
    first, second = _some_pairs_of_a_class(dataset.labels[rows])
    if len(first) < 10:
        return Limits(floor, DETAIL)
    found = likeness(dataset, rows[first], rows[second])
    return Limits(
        max(floor, _clearly_above(found.whole)),
        max(DETAIL, _clearly_above(found.detail)),
        float(np.median(np.minimum(found.whole, found.detail))),
    )


def thumbnails(images: UInt8Array) -> RealArray:
    """float32 (n, channels, height, width) of at most 32 pixels a side."""
    count, source_height, source_width, channels = images.shape
    height, width = min(_SIDE, source_height), min(_SIDE, source_width)
    rows, columns = area_matrix(height, source_height), area_matrix(width, source_width)
    lower = rows @ images.reshape(count, source_height, -1).astype(np.float32)
    planes = np.moveaxis(lower.reshape(count, height, source_width, channels), -1, 1)
    result: RealArray = np.ascontiguousarray(planes) @ columns.T
    return result


def aligned(moving: RealArray, fixed: RealArray) -> tuple[RealArray, RealArray]:
    """Scales and shifts each of `moving` so that it lies on its partner in `fixed`.

    Args:
        moving, fixed: (n, channels, height, width).

    Returns:
        moved: as `moving`.
        inside: (n, height, width): 1.0 where `moved` comes from within `moving`, else 0.0.
    """
    count, _, height, width = moving.shape
    source, goal = _plain(moving), _plain(fixed)
    soft = tuple(_smooth(side, side / 20) for side in (height, width))
    soft_source, soft_goal = (soft[0] @ image @ soft[1].T for image in (source, goal))
    down, across = _centres(height)[:, np.newaxis], _centres(width)[np.newaxis, :]
    # Scale and shift down, scale and shift across; coordinates run from -1 to 1.
    place = np.tile(np.array([1.0, 0.0, 1.0, 0.0], dtype=np.float32), (count, 1))
    for step in range(_STEPS):
        # The first steps go far: smooth images show the way from there.
        image, target = (soft_source, soft_goal) if step < 2 else (source, goal)
        rows, columns, inside = _samplers(place, height, width)
        now = rows @ image @ columns.transpose(0, 2, 1)
        slope_down = np.gradient(now, axis=1) * np.float32(height / 2)
        slope_across = np.gradient(now, axis=2) * np.float32(width / 2)
        terms = [slope_down * down, slope_down, slope_across * across, slope_across, now]
        design = np.stack([*terms, np.ones_like(now)], axis=1) * inside[:, np.newaxis]
        design = design.reshape(count, 6, -1)
        normal = design @ design.transpose(0, 2, 1)
        size = np.trace(normal, axis1=1, axis2=2)[:, np.newaxis, np.newaxis]
        normal = normal + np.eye(6, dtype=np.float32) * (1e-5 * size + 1e-6)
        solved = np.linalg.solve(normal, design @ target.reshape(count, -1, 1))[..., 0]
        gain = np.where(np.abs(solved[:, 4:5]) > 0.2, solved[:, 4:5], 1.0)
        change = np.clip(solved[:, :4] / gain, -0.12, 0.12)
        place = np.stack(
            [
                place[:, 0] * (1 + change[:, 0]),
                place[:, 1] + place[:, 0] * change[:, 1],
                place[:, 2] * (1 + change[:, 2]),
                place[:, 3] + place[:, 2] * change[:, 3],
            ],
            axis=1,
        ).clip(_FARTHEST[0], _FARTHEST[1])
    rows, columns, inside = _samplers(place, height, width)
    moved: RealArray = rows[:, np.newaxis] @ moving @ columns.transpose(0, 2, 1)[:, np.newaxis]
    return moved, inside


_FARTHEST = np.array([[0.85, -0.13, 0.85, -0.13], [1.18, 0.13, 1.18, 0.13]], dtype=np.float32)


def _compared(left: RealArray, right: RealArray, inside: RealArray | None) -> Likeness:
    """The correlations of pairs of (n, channels, height, width) where `inside` is 1.0."""
    details = tuple(side / 16 for side in left.shape[2:])
    soft = tuple(_smooth(side, reach) for side, reach in zip(left.shape[2:], details, strict=True))
    fine = [image - soft[0] @ image @ soft[1].T for image in (_plain(left), _plain(right))]
    if inside is None:
        inside = np.ones_like(fine[0])
    return Likeness(
        _correlation(left, right, inside[:, np.newaxis]),
        _correlation(fine[0][:, np.newaxis], fine[1][:, np.newaxis], inside[:, np.newaxis]),
    )


def _correlation(left: RealArray, right: RealArray, inside: RealArray) -> RealArray:
    """(n,): over all pixels and channels of (n, channels, height, width); colours count, as the
    mean is that of all channels.
    """
    weight = inside.sum(axis=(1, 2, 3)) * left.shape[1]
    flat = []
    for image in (left, right):
        mean = (image * inside).sum(axis=(1, 2, 3)) / weight
        flat.append(((image - mean[:, None, None, None]) * inside).reshape(len(image), -1))
    dot = np.einsum("ij,ij->i", flat[0], flat[1])
    size = np.linalg.norm(flat[0], axis=1) * np.linalg.norm(flat[1], axis=1)
    result: RealArray = dot / np.maximum(size, 1e-6)
    return result


def _plain(images: RealArray) -> RealArray:
    """(n, height, width) gray of (n, channels, height, width)."""
    return gray(np.moveaxis(images, 1, -1))


def _centres(size: int) -> RealArray:
    return ((np.arange(size) + 0.5) / size * 2 - 1).astype(np.float32)


def _samplers(place: RealArray, height: int, width: int) -> tuple[RealArray, RealArray, RealArray]:
    """Matrices (n, height, height) and (n, width, width) that interpolate at `place`, and what
    lies inside (n, height, width).
    """
    (rows, valid_rows), (columns, valid_columns) = (
        _sampler(place[:, 0], place[:, 1], height),
        _sampler(place[:, 2], place[:, 3], width),
    )
    inside = valid_rows[:, :, np.newaxis] & valid_columns[:, np.newaxis, :]
    return rows, columns, inside.astype(np.float32)


def _sampler(
    scale: RealArray, shift: RealArray, size: int
) -> tuple[RealArray, npt.NDArray[np.bool_]]:
    at = (scale[:, np.newaxis] * _centres(size) + shift[:, np.newaxis] + 1) / 2 * size - 0.5
    valid = (at >= -0.5) & (at <= size - 0.5)
    distance = np.abs(at.clip(0, size - 1)[:, :, np.newaxis] - np.arange(size, dtype=np.float32))
    return np.maximum(0.0, 1.0 - distance).astype(np.float32), valid


def _smooth(size: int, reach: float) -> RealArray:
    """(size, size): blurs a line with a Gaussian of standard deviation `reach` pixels."""
    distance = np.arange(size)[:, np.newaxis] - np.arange(size)
    weights = np.exp(-0.5 * (distance / reach) ** 2)
    result: RealArray = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return result


def _some_pairs_of_a_class(labels: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Positions of pairs of different images with the same label, drawn at random.

    Among few images the copies that are looked for would be too large a part of the pairs:
    classes of fewer than 8 are left out; where most images are in such, all classes are one.
    """
    counts = np.bincount(labels)
    if counts[counts >= _FEW].sum() < len(labels) / 2:
        labels = np.zeros_like(labels)
    random = np.random.default_rng(0)
    order = np.lexsort((random.random(len(labels)), labels))
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    sizes = np.repeat(counts, counts)
    first = np.flatnonzero(sizes >= _FEW)
    first = random.permutation(first)[:_SAMPLE]
    begin = np.repeat(starts, counts)[first]
    step = 1 + random.integers(0, np.maximum(sizes[first] - 1, 1))
    second = begin + (first - begin + step) % sizes[first]
    return order[first], order[second]


def _clearly_above(values: RealArray) -> float:
    """The correlation that is `CLEAR` standard deviations above the usual one (after Fisher's
    transformation, which makes correlations about normally distributed).
    """
    middle, high = np.quantile(np.arctanh(np.clip(values, -0.99999, 0.99999)), [0.5, 0.84])
    return float(np.tanh(middle + CLEAR * (high - middle)))
