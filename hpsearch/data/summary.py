"""What a data set consists of, in numbers."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import numpy as np

from hpsearch.data.catalog import Catalog
from hpsearch.data.dataset import PARTS, ImageDataset, ImageShape
from hpsearch.data.splits import Split, SplitSpec, development_data, split_notes
from hpsearch.data.target import probe


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSummary:
    """Counts, sizes, channels, mean and standard deviation.

    Attributes:
        shape: of the images as they are trained on.
        classes: for each class its number of training, validation and test images.
        sizes: how often each original size (height, width) occurs, of at most 20,000 images.
        mean, std: of each channel of the training images, scaled to 0..1.
        groups: how many there are; None where there are none.
        notes: what was guessed, and how the data is split.
    """

    name: str
    fingerprint: str
    shape: ImageShape
    classes: dict[str, tuple[int, int, int]]
    sizes: Counter[tuple[int, int]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    groups: int | None
    notes: tuple[str, ...]

    @property
    def counts(self) -> tuple[int, int, int]:
        """Training, validation and test images."""
        train, val, test = np.array(list(self.classes.values())).sum(axis=0).tolist()
        return train, val, test

    def size_words(self) -> str:
        """The original sizes in words: 480x640, or from 60x80 to 66x80 (7 sizes)."""
        if not self.sizes:
            return "unknown"
        by_area = sorted(self.sizes, key=lambda size: size[0] * size[1])
        if len(by_area) == 1:
            return "{}x{}".format(*by_area[0])
        return "{}x{} to {}x{} ({:,} sizes)".format(*by_area[0], *by_area[-1], len(by_area))

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "shape": dataclasses.asdict(self.shape),
            "images": dict(zip(PARTS, self.counts, strict=True)),
            "classes": {
                name: dict(zip(PARTS, counts, strict=True)) for name, counts in self.classes.items()
            },
            "original_sizes": [
                {"height": height, "width": width, "images": count}
                for (height, width), count in self.sizes.most_common()
            ],
            "train_mean": list(self.mean),
            "train_std": list(self.std),
            "groups": self.groups,
            "notes": list(self.notes),
        }


def summarise(
    catalog: Catalog, dataset: ImageDataset, split: Split, spec: SplitSpec
) -> DataSummary:
    """The summary of a data set that was listed, loaded and split."""
    membership = split.membership(len(dataset))
    table = np.zeros((len(dataset.classes), len(PARTS)), dtype=np.int64)
    used = membership >= 0
    np.add.at(table, (dataset.labels[used], membership[used]), 1)
    mean, std = development_data(dataset, split).train.mean_and_std()
    return DataSummary(
        name=dataset.name,
        fingerprint=dataset.fingerprint,
        shape=dataset.shape,
        classes={
            name: (row[0], row[1], row[2])
            for name, row in zip(dataset.classes, table.tolist(), strict=True)
        },
        sizes=probe(catalog)[0],
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        groups=None if dataset.groups is None else len(set(dataset.groups)),
        notes=(*dataset.notes, *split_notes(dataset, spec)),
    )
