"""Train, validation and test split: made once, stratified, fingerprinted, stored.

The test indices are used in `data/sealed.py` only, and that module is imported by
`results/` only; a test of the layers checks both.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from functools import cached_property
from pathlib import Path

import numpy as np

from hpsearch.config import JsonConfig
from hpsearch.data.dataset import ImageDataset, Int64Array
from hpsearch.errors import DataError
from hpsearch.files import write_whole


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitSpec(JsonConfig):
    """How to split: fractions of the whole for validation and test, the rest is for training."""

    val: float = 0.2
    test: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("val", "test"):
            fraction = getattr(self, name)
            if not 0.0 < fraction < 1.0:
                raise DataError(f"split: {name} must be between 0 and 1, but is {fraction!r}")
        if self.val + self.test >= 1.0:
            raise DataError(f"split: val {self.val} and test {self.test} leave nothing to train on")
        if not isinstance(self.seed, int) or not 0 <= self.seed < 2**32:
            raise DataError(
                f"split: seed must be a whole number from 0 to {2**32 - 1}, but is {self.seed!r}"
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


@dataclasses.dataclass(frozen=True)
class DevelopmentData:
    """What the search and the trainer see: everything but the test split."""

    train: ImageDataset
    val: ImageDataset


def make_split(dataset: ImageDataset, spec: SplitSpec) -> Split:
    """Splits `dataset`, each class in the same proportions; a function of data and `spec` alone.

    Raises:
        DataError: a class has too few images to be in every part.
    """
    from sklearn.model_selection import train_test_split

    counts = np.bincount(dataset.labels, minlength=len(dataset.classes))
    rarest = int(counts.argmin())
    if counts[rarest] < 3:
        raise DataError(
            f"{dataset.name}: class {dataset.classes[rarest]!r} has {counts[rarest]} images, "
            "but needs at least 3: one each to train, validate and test"
        )
    rows = np.arange(len(dataset), dtype=np.int64)
    n_test, n_val = (max(1, math.ceil(len(rows) * part)) for part in (spec.test, spec.val))
    if min(n_test, n_val, len(rows) - n_test - n_val) < len(dataset.classes):
        raise DataError(
            f"{dataset.name}: {len(rows)} images are too few to put each of "
            f"{len(dataset.classes)} classes into a validation part of {spec.val} and a test "
            f"part of {spec.test}; add images or raise these fractions"
        )
    try:
        rest, test = train_test_split(
            rows, test_size=n_test, stratify=dataset.labels, random_state=spec.seed
        )
        train, val = train_test_split(
            rest, test_size=n_val, stratify=dataset.labels[rest], random_state=spec.seed
        )
    except ValueError:  # too few of a class are left for the second split
        raise DataError(
            f"{dataset.name}: class {dataset.classes[rarest]!r} has only {counts[rarest]} images, "
            f"too few for a validation part of {spec.val} and a test part of {spec.test}; add "
            "images of it or change the split's fractions or seed"
        ) from None
    split = Split(np.sort(train), np.sort(val), np.sort(test))
    for name, part in (("train", split.train), ("val", split.val), ("test", split.test)):
        absent = np.flatnonzero(np.bincount(dataset.labels[part], minlength=len(counts)) == 0)
        if len(absent):
            raise DataError(
                f"{dataset.name}: class {dataset.classes[absent[0]]!r} has only "
                f"{counts[absent[0]]} images, and none of them fell into the {name} part; add "
                "images of it or change the split's fractions or seed"
            )
    return split


def development_data(dataset: ImageDataset, split: Split) -> DevelopmentData:
    """The training and validation parts of `dataset`."""
    return DevelopmentData(train=dataset.subset(split.train), val=dataset.subset(split.val))


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
