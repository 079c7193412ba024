"""Train, validation and test split: stratified, by group, fingerprinted, stored.

Test images are handed out by `data/sealed.py` only, which only `results/` imports; but for these
two files nothing reads the test indices. A test of the layers checks both.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from hpsearch.checks import JsonConfig
from hpsearch.data.dataset import (
    NO_PART,
    PART_WORDS,
    PARTS,
    FloatArray,
    ImageDataset,
    ImagePart,
    Int8Array,
    Int64Array,
)
from hpsearch.errors import DataError
from hpsearch.files import write_whole

_TRIES = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitSpec(JsonConfig):
    """How to split.

    Attributes:
        val, test: fractions for validation and test, the rest is for training. Of all images; where
            the source has an official test or validation part, of the images outside of it.
        seed: of the drawing.
        official: keep the source's own test and validation part, where it has one.
        by_group: keep the images of a group (a person) together, where the source has groups.
        allow_missing: let a class be absent from a part. Classes of fewer than 3 images are then
            trained on only.
    """

    val: float = 0.2
    test: float = 0.2
    seed: int = 0
    official: bool = True
    by_group: bool = True
    allow_missing: bool = False

    def __post_init__(self) -> None:
        for name in ("val", "test"):
            fraction = getattr(self, name)
            is_number = isinstance(fraction, int | float) and not isinstance(fraction, bool)
            if not is_number or not 0.0 < fraction < 1.0:
                raise DataError(f"split: {name} must be between 0 and 1, but is {fraction!r}")
        if self.val + self.test >= 1.0:
            raise DataError(f"split: val {self.val} and test {self.test} leave nothing to train on")
        if type(self.seed) is not int or not 0 <= self.seed < 2**32:
            raise DataError(
                f"split: seed must be a whole number from 0 to {2**32 - 1}, but is {self.seed!r}"
            )
        for name in ("official", "by_group", "allow_missing"):
            if not isinstance(getattr(self, name), bool):
                raise DataError(
                    f"split: {name} must be true or false, but is {getattr(self, name)!r}"
                )


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Row numbers of a data set, each int64 of shape (n,), no row in two of them."""

    train: Int64Array
    val: Int64Array
    test: Int64Array

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the three lists of row numbers."""
        digest = hashlib.sha256()
        for part in (self.train, self.val, self.test):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part.astype("<i8").tobytes())
        return digest.hexdigest()

    @property
    def counts(self) -> dict[str, int]:
        """How many images each part has."""
        return {"train": len(self.train), "val": len(self.val), "test": len(self.test)}

    def membership(self, n: int) -> Int8Array:
        """int8, (n,): for each of a data set's n images the index of its part in `PARTS`."""
        parts = np.full(n, NO_PART, dtype=np.int8)
        for number, rows in enumerate((self.train, self.val, self.test)):
            parts[rows] = number
        return parts


@dataclasses.dataclass(frozen=True)
class DevelopmentData:
    """What the search and the trainer see: everything but the test split."""

    train: ImagePart
    val: ImagePart


def make_split(dataset: ImageDataset, spec: SplitSpec) -> Split:
    """Splits `dataset`: a function of the data and `spec` alone.

    Each class comes in the same proportions to every part, as far as groups allow.

    Raises:
        DataError: a class has too few images, or groups, to be in every part.
    """
    official = dataset.official if spec.official else None
    rows = np.arange(len(dataset), dtype=np.int64)
    kept = {
        part: np.empty(0, dtype=np.int64) if official is None else rows[official == number]
        for number, part in enumerate(PARTS)
        if part != "train"
    }
    pool = np.setdiff1d(rows, np.concatenate(list(kept.values())), assume_unique=True)
    fractions = {part: getattr(spec, part) for part in kept if not len(kept[part])}
    if not fractions:
        drawn = {"train": pool}
    elif spec.by_group and dataset.groups is not None:
        drawn = _draw_groups(dataset, dataset.groups, pool, fractions, spec)
    else:
        drawn = _draw(dataset, pool, fractions, spec)
    split = Split(**{part: np.sort(drawn.get(part, kept.get(part))) for part in PARTS})  # type: ignore[arg-type]
    _check_parts(dataset, split, spec)
    return split


def _draw(
    dataset: ImageDataset, pool: Int64Array, fractions: Mapping[str, float], spec: SplitSpec
) -> dict[str, Int64Array]:
    """Draws each part from `pool`, stratified by class."""
    from sklearn.model_selection import train_test_split

    labels = dataset.labels
    counts = np.bincount(labels[pool], minlength=len(dataset.classes))
    shares = " and ".join(f"a {PART_WORDS[part]} part of {fractions[part]}" for part in fractions)
    wanted = 1 + len(fractions)
    rare = np.flatnonzero(counts < wanted)
    if len(rare) and not spec.allow_missing:
        first = int(rare[counts[rare].argmin()])
        raise DataError(
            f"{dataset.name}: class {dataset.classes[first]!r} has {counts[first]} images, but "
            f"needs at least {wanted}: one each to train{_and_parts(fractions)} "
            "(or --allow-missing)"
        )
    only_trained = pool[np.isin(labels[pool], rare)]
    rest = np.setdiff1d(pool, only_trained, assume_unique=True)
    sizes = {part: max(1, math.ceil(len(pool) * share)) for part, share in fractions.items()}
    classes = len(dataset.classes) - len(rare)
    left = {**sizes, "train": len(rest) - sum(sizes.values())}
    short = min(left, key=lambda part: left[part])
    if left[short] < (1 if spec.allow_missing else classes):
        each = "" if spec.allow_missing else f" of each of {classes} classes"
        change = "lower these fractions" if short == "train" else "raise its fraction"
        raise DataError(
            f"{dataset.name}: {len(pool)} images are too few for {shares}: there would not be one"
            f"{each} in the {PART_WORDS[short]} part; add images or {change}"
        )
    drawn: dict[str, Int64Array] = {}
    for part in sorted(sizes):  # test first, as ever: the same seed gives the same split
        if spec.allow_missing:
            alone = np.bincount(labels[rest])[labels[rest]] == 1
            only_trained, rest = np.concatenate([only_trained, rest[alone]]), rest[~alone]
        by_class: Int64Array | None = labels[rest]
        if min(sizes[part], len(rest) - sizes[part]) < len(np.unique(labels[rest])):
            by_class = None  # too few to take some of each class, which is allowed to be missing
        try:
            rest, drawn[part] = train_test_split(
                rest, test_size=sizes[part], stratify=by_class, random_state=spec.seed
            )
        except ValueError:  # too few of a class are left for the second part
            scarce = np.where(counts < wanted, np.iinfo(counts.dtype).max, counts).argmin()
            raise DataError(
                f"{dataset.name}: class {dataset.classes[scarce]!r} has only {counts[scarce]} "
                f"images, too few for {shares}; add images of it or change the split's fractions "
                "or seed"
            ) from None
    return {**drawn, "train": np.concatenate([rest, only_trained])}


def _draw_groups(
    dataset: ImageDataset,
    groups: Sequence[str],
    pool: Int64Array,
    fractions: Mapping[str, float],
    spec: SplitSpec,
) -> dict[str, Int64Array]:
    """Draws whole groups for each part, so that its classes come as close to their shares as
    they can: group after group, the largest first, goes where it brings most; of several random
    orders the best one is taken.
    """
    names, member = np.unique([groups[row] for row in pool.tolist()], return_inverse=True)
    if len(names) <= len(fractions):
        raise DataError(
            f"{dataset.name}: {len(names)} groups are too few to train{_and_parts(fractions)} "
            "without a group on two sides; split without them (--ignore-groups) or add groups"
        )
    table = np.zeros((len(names), len(dataset.classes)))
    np.add.at(table, (member, dataset.labels[pool]), 1.0)
    shares = np.array([1.0 - sum(fractions.values()), *fractions.values()])
    random = np.random.default_rng(spec.seed)
    targets = np.maximum(shares[:, np.newaxis] * table.sum(axis=0), 1e-9)
    tries = [_assign_groups(table, targets, random) for _ in range(_TRIES)]
    _, _, best = min(tries, key=lambda item: item[:2])
    parts = ("train", *fractions)
    return {part: pool[best[member] == number] for number, part in enumerate(parts)}


def _assign_groups(
    table: FloatArray, targets: FloatArray, random: np.random.Generator
) -> tuple[int, float, Int64Array]:
    """One way to deal groups out: how many classes miss a part, the distance from the targets
    (chi-square), and the part of each group.

    Args:
        table: (groups, classes) images.
        targets: (parts, classes) images that each part should have.
    """
    order = random.permutation(len(table))
    order = order[np.argsort(-table[order].sum(axis=1), kind="stable")]
    dealt = np.zeros_like(targets)
    assigned = np.zeros(len(table), dtype=np.int64)
    for number, group in enumerate(order):
        after = ((dealt + table[group] - targets) ** 2 / targets).sum(axis=1)
        gain = ((dealt - targets) ** 2 / targets).sum(axis=1) - after
        empty = dealt.sum(axis=1) == 0
        if len(order) - number <= empty.sum():  # the last groups are for parts that have none
            gain[~empty] = -np.inf
        # Where two parts gain the same, the emptier one needs it more.
        fullness = dealt.sum(axis=1) / targets.sum(axis=1)
        best = np.lexsort((fullness, -np.round(gain, 9)))[0]
        dealt[best] += table[group]
        assigned[group] = best
    occurs = table.sum(axis=0) > 0
    missing = int((dealt[:, occurs] == 0).sum())
    return missing, float(((dealt - targets) ** 2 / targets).sum()), assigned


def _check_parts(dataset: ImageDataset, split: Split, spec: SplitSpec) -> None:
    """Every class must be in every part, or the user must allow that it is not."""
    counts = np.bincount(dataset.labels, minlength=len(dataset.classes))
    for part, rows in zip(PARTS, (split.train, split.val, split.test), strict=True):
        if not len(rows):
            raise DataError(f"{dataset.name}: the {PART_WORDS[part]} part is empty")
        absent = np.flatnonzero(np.bincount(dataset.labels[rows], minlength=len(counts)) == 0)
        if not len(absent) or spec.allow_missing:
            continue
        name, count = dataset.classes[absent[0]], counts[absent[0]]
        if _is_official(dataset, spec, part, int(absent[0])):
            raise DataError(
                f"{dataset.name}: class {name!r} has {count} images, but the source's own split "
                f"leaves none for the {PART_WORDS[part]} part; draw all parts anew "
                "(--ignore-official), or allow it with --allow-missing"
            )
        grouped = spec.by_group and dataset.groups is not None
        within = ""
        if grouped and dataset.groups is not None:
            members = np.flatnonzero(dataset.labels == absent[0]).tolist()
            within = f" in {len({dataset.groups[row] for row in members})} groups"
        raise DataError(
            f"{dataset.name}: class {name!r} has only {count} images{within}, and none of them "
            f"fell into the {PART_WORDS[part]} part; add images of it, change the split's "
            "fractions or seed, or allow it with --allow-missing"
        )


def _is_official(dataset: ImageDataset, spec: SplitSpec, part: str, label: int) -> bool:
    """Whether it is the source, not the drawing, that gives a part no image of a class."""
    if not spec.official or dataset.official is None:
        return False
    if part != "train":
        return bool((dataset.official == PARTS.index(part)).any())
    drawn_from = (PARTS.index("train"), NO_PART)
    return not np.isin(dataset.official[dataset.labels == label], drawn_from).any()


def k_folds(dataset: ImageDataset, split: Split, k: int, spec: SplitSpec) -> list[Split]:
    """`k` other ways to divide the training and validation images; the test part stays.

    Each of these images is in one of the k validation parts. Classes are stratified, groups stay
    together (as `spec` says for the split itself).

    Raises:
        DataError: k is not from 2 to the number of images of the smallest class, or of groups.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    pool = np.sort(np.concatenate([split.train, split.val]))
    labels = dataset.labels[pool]
    groups = None
    if spec.by_group and dataset.groups is not None:
        groups = [dataset.groups[row] for row in pool.tolist()]
    counts = np.bincount(labels, minlength=len(dataset.classes))
    present = np.flatnonzero(counts)
    # By group, classes may be absent from a fold, but scikit-learn wants one that need not be.
    decisive = int(
        present[counts[present].argmin() if groups is None else counts[present].argmax()]
    )
    most, limit = int(counts[decisive]), f"images of class {dataset.classes[decisive]!r}"
    if groups is not None and len(set(groups)) <= most:
        most, limit = len(set(groups)), "groups"
    if not isinstance(k, int) or not 2 <= k <= most:
        raise DataError(
            f"{dataset.name}: the number of folds must be from 2 to {most}, the number of "
            f"{limit} outside the test part, but is {k!r}"
        )
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    with warnings.catch_warnings():  # about classes of fewer images than folds
        warnings.simplefilter("ignore", UserWarning)
        folds = kind(n_splits=k, shuffle=True, random_state=spec.seed).split(pool, labels, groups)
        return [Split(pool[train], pool[val], split.test) for train, val in folds]


def split_notes(dataset: ImageDataset, spec: SplitSpec) -> tuple[str, ...]:
    """How the data is split, in words."""
    notes = []
    if spec.official and dataset.official is not None:
        found = {
            part: int((dataset.official == PARTS.index(part)).sum()) for part in ("val", "test")
        }
        notes += [
            f"the official {PART_WORDS[part]} part is kept ({count:,} images)"
            if count
            else f"about {getattr(spec, part):.0%} of the others are drawn as "
            f"{PART_WORDS[part]} part"
            for part, count in found.items()
        ]
    if spec.by_group and dataset.groups is not None:
        count = len(set(dataset.groups))
        notes.append(f"no group is on two sides of what is drawn ({count:,} groups)")
    return tuple(notes)


def _and_parts(fractions: Mapping[str, float]) -> str:
    verbs = {"val": "validate", "test": "test"}
    words = [verbs[part] for part in fractions]
    return f", {words[0]} and {words[1]}" if len(words) == 2 else f" and {words[0]}"


def development_data(dataset: ImageDataset, split: Split) -> DevelopmentData:
    """The training and validation parts of `dataset`."""
    return DevelopmentData(train=dataset.part(split.train), val=dataset.part(split.val))


def save_split(path: Path, split: Split) -> None:
    """Writes the row numbers to an .npz file, whole or not at all."""

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez_compressed(file, train=split.train, val=split.val, test=split.test)

    write_whole(path, write)


def load_split(path: Path) -> Split:
    """Reads what `save_split` wrote.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return Split(archive["train"], archive["val"], archive["test"])
    except Exception as error:  # numpy and zipfile raise a dozen kinds on damaged files
        raise DataError(f"{path}: the stored split cannot be read: {error}") from None
