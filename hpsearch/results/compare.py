"""Two models on the same test images: whether one is better, or only the images kind to it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import convolve
from scipy.stats import binom

from hpsearch.data.dataset import Int64Array
from hpsearch.errors import DataError
from hpsearch.results.folder import PREDICTIONS, read_metrics
from hpsearch.results.intervals import Truths, difference_interval, sums_by_group
from hpsearch.results.predictions import Predictions, read_predictions
from hpsearch.results.words import count_seen

LEVEL = 0.05
"""Below such a p-value, and outside of a 95 % interval, a difference counts as one."""

MCNEMAR = "McNemar's exact test"
SIGN_FLIPS = "exact sign-flip test over groups"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two models on the same test images.

    Attributes:
        first, second: their export folders.
        images: how many there are.
        groups: how many groups they are of; None where the data has no groups.
        first_accuracy, second_accuracy: share of right images.
        both_right, only_first_right, only_second_right, both_wrong: how many images.
        method: what `p_value` is of: McNemar's exact test, or where there are groups the same over
            whole groups (see `sign_flip_test`).
        p_value: how often models that are equally good would differ as much as these or more.
        difference: accuracy of the second less that of the first.
        difference_95: its 95 % interval, a bootstrap over images, or over groups where there are
            any; None where it cannot be had, since all differ by the same.
        conclusion: what follows, in a sentence.
        warnings: what makes it unfair, in sentences: images that a model had seen, or the weights
            that it started from.
    """

    first: str
    second: str
    images: int
    groups: int | None
    first_accuracy: float
    second_accuracy: float
    both_right: int
    only_first_right: int
    only_second_right: int
    both_wrong: int
    method: str
    p_value: float
    difference: float
    difference_95: tuple[float, float] | None
    conclusion: str
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return dataclasses.asdict(self)


def compare(first: str | Path, second: str | Path) -> Comparison:
    """Compares the predictions of two exports of models that were tested on the same images.

    Raises:
        DataError: an export without predictions, or the images, their groups or true classes
            differ.
    """
    one, two = _predictions(Path(first)), _predictions(Path(second))
    _check_same(one, two, f"{first} and {second}")
    metrics = {str(folder): read_metrics(Path(folder)) for folder in (first, second)}
    if len({_fingerprint(document) for document in metrics.values()} - {None}) > 1:
        read = [f"{folder} has {_shape(document)}" for folder, document in metrics.items()]
        raise DataError(
            f"{first} and {second} were not tested on the same images: those have the same names, "
            "but other pixels (the fingerprints of their data differ). The same files are other "
            f"images, too, where --size, --fit or --gray is another one: {' and '.join(read)}"
        )
    right_one, right_two = _right(one), _right(two)
    only_first = int((right_one & ~right_two).sum())
    only_second = int((right_two & ~right_one).sum())
    gains = right_two.astype(np.int64) - right_one.astype(np.int64)
    method, p_value = MCNEMAR, sign_flip_test(gains)
    if one.groups is not None:
        method, p_value = SIGN_FLIPS, sign_flip_test(sums_by_group(gains, one.groups)[0])
    interval = difference_interval(right_one, right_two, one.groups)
    return Comparison(
        first=str(first),
        second=str(second),
        images=len(right_one),
        groups=None if one.groups is None else len(set(one.groups)),
        first_accuracy=float(right_one.mean()),
        second_accuracy=float(right_two.mean()),
        both_right=int((right_one & right_two).sum()),
        only_first_right=only_first,
        only_second_right=only_second,
        both_wrong=int((~right_one & ~right_two).sum()),
        method=method,
        p_value=p_value,
        difference=(only_second - only_first) / len(right_one),
        difference_95=interval,
        conclusion=_conclusion(only_first, only_second, p_value, interval, method=method),
        warnings=tuple(text for folder in metrics for text in _seen(folder, metrics[folder])),
    )


def sign_flip_test(gains: Int64Array) -> float:
    """The two-sided p-value of a paired test, in its exact form: if both models are equally good,
    either could have given the other's answers, and each gain is as likely to be a loss.

    Of single images, whose gains are 1, 0 and -1, it is McNemar's exact test. Of groups, whose
    images are right and wrong together, a whole group's answers change sides.

    Args:
        gains: (units,): by how many right images the second model has more in each unit.
    """
    sizes, counts = np.unique(np.abs(gains[gains != 0]), return_counts=True)
    # The share of all flips that add up to each sum, from the least possible one up.
    shares = np.ones(1)
    for size, count in zip(sizes, counts, strict=True):
        one_size = np.zeros(2 * size * count + 1)
        one_size[:: 2 * size] = binom.pmf(np.arange(count + 1), count, 0.5)
        shares = np.maximum(convolve(shares, one_size), 0.0)  # by FFT where they are long
    most = len(shares) // 2
    sums = np.abs(np.arange(-most, most + 1))
    return min(1.0, float(shares[sums >= abs(int(gains.sum()))].sum()))


def _predictions(folder: Path) -> Predictions:
    path = folder / PREDICTIONS
    if not path.is_file():
        raise DataError(
            f"{folder} has no {PREDICTIONS}: name the folder of an export (an old one lacks it: "
            "export it again)"
        )
    return read_predictions(path)


def _fingerprint(metrics: Mapping[str, Any]) -> str | None:
    """Of the data that the images are from; None where it is not known."""
    try:
        if "evaluation" in metrics:
            return str(metrics["data"]["fingerprint"])
        return str(metrics["origin"]["data_fingerprint"])
    except (KeyError, TypeError):
        return None


def _shape(metrics: Mapping[str, Any]) -> str:
    """What the files were read as, in words."""
    try:
        images = metrics["data"]["images"]
        gray = ", gray" if images["channels"] == 1 else ""
        return f"{images['height']}x{images['width']} ({images['fit']}{gray})"
    except (KeyError, TypeError):  # of an earlier version
        return "a size that is not known"


def _seen(folder: str, metrics: Mapping[str, Any]) -> list[str]:
    """Whether the model, or the weights that it started from, had seen some of the images."""
    try:
        if "evaluation" in metrics:
            return [f"{folder}: {warning}" for warning in metrics["warnings"]]
        seen = count_seen(metrics)
    except (KeyError, TypeError, AttributeError):
        return []
    if not seen:
        return []
    return [f"the weights that {folder} started from had seen {seen:,} of the images"]


def _right(predictions: Predictions) -> Truths:
    pairs = zip(predictions.true, predictions.predicted, strict=True)
    return np.array([true == predicted for true, predicted in pairs], dtype=np.bool_)


def _check_same(one: Predictions, two: Predictions, folders: str) -> None:
    """Both must be about the same images: McNemar's table pairs them row by row."""
    if len(one.names) != len(two.names):
        raise DataError(
            f"{folders} were not tested on the same images: {len(one.names):,} and "
            f"{len(two.names):,}; compare exports of searches over the same data and split"
        )
    for what, first, second in (
        ("image", one.names, two.names),
        ("true class", one.true, two.true),
        ("group", one.groups, two.groups),
    ):
        if first == second:
            continue
        if first is None or second is None:
            raise DataError(f"{folders} cannot be compared: only one of them has groups")
        row = next(
            row for row, pair in enumerate(zip(first, second, strict=True)) if len({*pair}) > 1
        )
        raise DataError(
            f"{folders} were not tested on the same images: in row {row + 1} the {what} is "
            f"{first[row]!r} in one and {second[row]!r} in the other; "
            "compare exports of searches over the same data and split"
        )


def _conclusion(
    only_first: int,
    only_second: int,
    p_value: float,
    interval: tuple[float, float] | None,
    *,
    method: str,
) -> str:
    if only_first == only_second == 0:
        return "Both are right on the same images: nothing here tells them apart."
    covers = interval is not None and interval[0] <= 0.0 <= interval[1]
    if p_value < LEVEL and not covers:
        better = "second" if only_second > only_first else "first"
        return f"The {better} is better by more than chance explains ({method})."
    return f"Which of the two is better cannot be told from these images ({method})."
