"""Shift: whether one set of images looks different from another, told by cheap features.

A logistic regression learns to tell the two sets apart by colours, contrast, sharpness and a
coarse picture, and is tried on images that it has not seen. Where it does no better than chance
(an area under the ROC curve of 0.5), the sets look alike as far as these features go.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hpsearch.data.checks.findings import Finding, Shift
from hpsearch.data.checks.hashing import area_matrix, gray
from hpsearch.data.dataset import FloatArray, ImagePart, Int64Array, UInt8Array
from hpsearch.errors import DataError
from hpsearch.names import listed

MOST = 2000
"""Images of each side that are looked at."""
LEAST, LEAST_GROUPS = 30, 5
"""Fewer images, or groups, on a side tell nothing."""
WORTH_A_WARNING, STRONG = 0.6, 0.75
"""An area under the curve that is surely above these is a warning, or a strong one."""
NO_SHIFT = 0.55
"""An area below this is that of sets that look alike; below 0.5 it is chance, too."""
CERTAINTY = 2.58
"""Standard errors: 99.5% sure that the true value is not below the lower end."""
LABEL_SHIFT, LABEL_DOUBT = 0.1, 0.001
"""The share of images that would need another class, and how probable that may be by chance."""
UNLABELLED = "unlabelled"
"""What the images are called that a model will meet."""
_FOLDS = 5
_BINS = 8
_PIXELS = 1024
_GRID = 4
_TELLING = 0.1

# What a lower value of a feature looks like, and a higher one.
_LOOKS = (
    ("darker", "brighter"),
    ("lower in contrast", "higher in contrast"),
    ("more blurred", "sharper or noisier"),
    ("less colourful", "more colourful"),
    ("less red", "redder"),
    ("less green", "greener"),
    ("less blue", "bluer"),
    ("darker at the borders", "brighter at the borders"),
)


@dataclasses.dataclass(frozen=True, eq=False)
class _Side:
    """Features (n, f) of one of the two sets, and the group of each image where it has one."""

    features: FloatArray
    groups: list[str] | None = None

    @property
    def units(self) -> int:
        """How many images, or groups, it has: what is independent of each other."""
        return len(self.features) if self.groups is None else len(set(self.groups))


def measure_shift(first: ImagePart, second: ImagePart, names: tuple[str, str]) -> Shift | None:
    """How well two parts of a data set can be told apart. Each class weighs the same in both, and
    the images of a group are never learnt from and tried on at once.

    Args:
        names: of the two.

    Returns:
        None: too few images of the same classes, or groups.
    """
    chosen = _of_the_same_classes(first.labels, second.labels)
    sides = [_side(part, taken) for part, taken in zip((first, second), chosen, strict=True)]
    return _measured(sides[0], sides[1], names)


def shift_against(part: ImagePart, images: UInt8Array, name: str = "training") -> Shift | None:
    """How well the images of a data set can be told from others, without labels.

    Args:
        images: uint8 (n, height, width, channels), of the shape of those in `part`.
        name: of the part.

    Returns:
        None: too few images, or groups.

    Raises:
        DataError: images of another shape or dtype.
    """
    expected = part.dataset.images.shape[1:]
    if images.dtype != np.uint8 or images.shape[1:] != expected:
        raise DataError(
            f"images to compare with must be uint8 of shape (n, {', '.join(map(str, expected))}), "
            f"but are {images.dtype} of shape {images.shape}"
        )
    random = np.random.default_rng(0)
    other = np.sort(random.permutation(len(images))[:MOST])
    taken = np.sort(random.permutation(len(part))[:MOST])
    side = _side(part, taken)
    return _measured(side, _Side(image_features(images, other)), (name, UNLABELLED))


def shift_verdict(shift: Shift) -> str:
    """What the measured shift means, in a few words."""
    lower = shift.auc - CERTAINTY * shift.error
    if lower > WORTH_A_WARNING:
        looks = f" ({', '.join(shift.words)})" if shift.words else ""
        return f"{'clearly ' if lower > STRONG else ''}different{looks}"
    if lower > 0.5:
        return "slightly different"
    return "no shift" if shift.auc < NO_SHIFT else "no shift that is certain"


def shift_finding(shift: Shift) -> list[Finding]:
    """A finding where the shift is certain, and not small."""
    lower = shift.auc - CERTAINTY * shift.error
    if lower <= WORTH_A_WARNING:
        return []
    clearly = "clearly " if lower > STRONG else ""
    words = f"; {shift.second} images are {listed(list(shift.words))}" if shift.words else ""
    consequence = {
        "validation": "validation scores do not say how good a model is elsewhere",
        "test": "the test score is that of images unlike those that were learnt from",
        UNLABELLED: "expect worse results on them than on the test images",
    }[shift.second]
    return [
        Finding(
            kind=f"shift from {shift.first} to {shift.second}",
            severity="warning",
            message=f"{shift.first} and {shift.second} images look {clearly}different: a simple "
            f"classifier tells them apart (AUC {shift.auc:.2f} ± {shift.error:.2f}, 0.5 is "
            f"chance){words}: {consequence}",
            count=0,
            names=shift.words,
        )
    ]


def label_shift(first: ImagePart, second: ImagePart, names: tuple[str, str]) -> list[Finding]:
    """A finding where the classes come in other proportions (chi-square test; images of a group
    count as one).

    Args:
        names: of the two.
    """
    from scipy.special import chdtrc  # imported late: it takes time

    if not len(first) or not len(second):
        return []
    table = np.stack(
        [np.bincount(part.labels, minlength=len(first.classes)) for part in (first, second)]
    ).astype(np.float64)
    table = table[:, table.sum(axis=0) > 0]
    present = np.flatnonzero(
        np.bincount(np.concatenate([first.labels, second.labels]), minlength=len(first.classes))
    )
    shares = table / table.sum(axis=1, keepdims=True)
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    chi_square = float(((table - expected) ** 2 / expected).sum())
    images_per_unit = table.sum() / (units_of(first) + units_of(second))
    doubt = float(chdtrc(table.shape[1] - 1, chi_square / images_per_unit))
    distance = float(np.abs(shares[0] - shares[1]).sum() / 2)
    if len(present) < 2 or distance < LABEL_SHIFT or doubt > LABEL_DOUBT:
        return []
    worst = np.argsort(-np.abs(shares[0] - shares[1]), kind="stable")[:3]
    examples = [
        f"{first.classes[present[n]]} {shares[0, n]:.0%} and {shares[1, n]:.0%}" for n in worst
    ]
    return [
        Finding(
            kind=f"other class proportions in {names[1]}",
            severity="warning",
            message=f"the classes come in other proportions in {names[0]} and {names[1]}: "
            f"{distance:.0%} of the images would need another class; {listed(examples)}",
            count=len(present),
            names=tuple(first.classes[present[n]] for n in worst),
        )
    ]


def image_features(images: UInt8Array, rows: Int64Array) -> FloatArray:
    """float64 (n, f): how the images at `rows` look; the first ones as in `_LOOKS`."""
    step = max(1, 2**23 // images[0].nbytes)
    parts = [_features(images[rows[at : at + step]]) for at in range(0, len(rows), step)]
    return np.concatenate(parts)


def _features(images: UInt8Array) -> FloatArray:
    count, height, width, channels = images.shape
    light = gray(images)
    contrast = light.std(axis=(1, 2))
    slopes, bends = _mean_difference(light, 1), _mean_difference(light, 2)
    planes = np.ascontiguousarray(np.moveaxis(images, -1, 1)).reshape(count, channels, -1)
    means = planes.mean(axis=2)
    colours = means[:, [0, channels // 2, channels - 1]] - means.mean(axis=1, keepdims=True)
    colourful = (planes.max(axis=1) - planes.min(axis=1)).mean(axis=1)
    rows, columns = area_matrix(_GRID, height), area_matrix(_GRID, width)
    coarse = rows @ light @ columns.T
    border = light[:, [0, -1]].mean(axis=(1, 2)) + light[:, :, [0, -1]].mean(axis=(1, 2))
    brightness = light.mean(axis=(1, 2))
    looks = [
        brightness,
        contrast,
        np.log((slopes + 0.1) / (contrast + 1.0)),
        colourful,
        *colours.T,
        border / 2 - brightness,
    ]
    # For a coarse histogram some of the pixels will do.
    some = planes[:, :, :: max(1, planes.shape[2] // _PIXELS)] // (256 // _BINS)
    histogram = np.stack([(some == level).mean(axis=2) for level in range(_BINS)], axis=1)
    more = [np.log(bends + 0.1), np.log((bends + 0.1) / (slopes + 0.1))]
    return np.concatenate(
        [
            np.stack([*looks, *more], axis=1),
            means,
            planes.astype(np.float32).std(axis=2),
            histogram.reshape(count, -1),
            coarse.reshape(count, -1),
        ],
        axis=1,
    ).astype(np.float64)


def _mean_difference(light: npt.NDArray[np.float32], order: int) -> npt.NDArray[np.float32]:
    """(n,): mean size of the differences of neighbours (or of these differences) in (n, h, w)."""
    total = np.zeros(len(light), dtype=np.float32)
    for axis in (1, 2):
        if light.shape[axis] > order:
            total += np.abs(np.diff(light, n=order, axis=axis)).mean(axis=(1, 2))
    return total


def _of_the_same_classes(first: Int64Array, second: Int64Array) -> tuple[Int64Array, Int64Array]:
    """Positions in both, drawn at random: the same number of each class, at most `MOST`."""
    random = np.random.default_rng(0)
    size = int(max(first.max(initial=0), second.max(initial=0))) + 1
    counts = np.minimum(np.bincount(first, minlength=size), np.bincount(second, minlength=size))
    if counts.sum() > MOST:
        drawn = np.repeat(np.arange(size), counts)
        counts = np.bincount(random.permutation(drawn)[:MOST], minlength=size)
    chosen = []
    for labels in (first, second):
        order = np.lexsort((random.random(len(labels)), labels))
        ordered = labels[order]
        starts = np.searchsorted(ordered, np.arange(size))
        rank = np.arange(len(labels)) - starts[ordered]
        chosen.append(np.sort(order[rank < counts[ordered]]))
    return chosen[0], chosen[1]


def _side(part: ImagePart, taken: Int64Array) -> _Side:
    rows = part.rows[taken]
    every = part.dataset.groups
    groups = None if every is None else [every[row] for row in rows.tolist()]
    if not len(rows):
        return _Side(np.empty((0, 0)), groups)
    return _Side(image_features(part.dataset.images, rows), groups)


def _measured(first: _Side, second: _Side, names: tuple[str, str]) -> Shift | None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if min(len(first.features), len(second.features)) < LEAST:
        return None
    if min(first.units, second.units) < LEAST_GROUPS:
        return None
    features = np.concatenate([first.features, second.features])
    side = np.repeat([0, 1], [len(first.features), len(second.features)])
    groups = _numbered([*_own_groups(first, "first"), *_own_groups(second, "second")])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=0)
    areas = []
    for learnt, tried in folds.split(features, side, groups):
        if len(set(side[learnt])) == 2 == len(set(side[tried])):
            model.fit(features[learnt], side[learnt])
            scores = model.decision_function(features[tried])
            areas.append(float(roc_auc_score(side[tried], scores)))
    if not areas:
        return None
    area = float(np.mean(areas))
    error = _standard_error(area, first.units, second.units)
    telling = area - CERTAINTY * error > WORTH_A_WARNING
    words = _words(first.features, second.features) if telling else ()
    return Shift(first=names[0], second=names[1], auc=area, error=error, words=words)


def _own_groups(side: _Side, name: str) -> Sequence[tuple[str, str | int]]:
    """The groups; an image without one is a group of its own."""
    if side.groups is None:
        return [(name, number) for number in range(len(side.features))]
    return [("", group) for group in side.groups]


def _numbered(groups: Sequence[tuple[str, str | int]]) -> Int64Array:
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return np.array([numbers[group] for group in groups], dtype=np.int64)


def units_of(part: ImagePart) -> int:
    """How many images, or groups, a part has: what is independent of each other."""
    every = part.dataset.groups
    return len(part) if every is None else len({every[row] for row in part.rows.tolist()})


def _standard_error(area: float, first: int, second: int) -> float:
    """Of an area under the curve (J. A. Hanley and B. J. McNeil, 1982)."""
    # Without one wrong pair among few images the true value is not certain to be 1 either.
    doubt = 0.5 / min(first, second)
    area = min(max(area, doubt), 1 - doubt)
    spread = (
        area * (1 - area)
        + (first - 1) * (area / (2 - area) - area**2)
        + (second - 1) * (2 * area**2 / (1 + area) - area**2)
    )
    return float(np.sqrt(spread / (first * second)))


def _words(first: FloatArray, second: FloatArray) -> tuple[str, ...]:
    """How the second set looks beside the first one: the three most telling features."""
    from sklearn.metrics import roc_auc_score

    side = np.repeat([0, 1], [len(first), len(second)])
    values = np.concatenate([first, second])
    areas = [float(roc_auc_score(side, values[:, n])) for n in range(len(_LOOKS))]
    order = sorted(range(len(areas)), key=lambda n: -abs(areas[n] - 0.5))[:3]
    return tuple(_LOOKS[n][int(areas[n] > 0.5)] for n in order if abs(areas[n] - 0.5) >= _TELLING)
