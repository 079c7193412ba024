"""What one trial works on: the images of a search as a configuration asks for them."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict

import numpy as np
import torch

from hpsearch.config import TrainConfig
from hpsearch.data.dataset import ImagePart, ImageShape, Int64Array
from hpsearch.data.preprocessing import Preprocessing, full_size, input_shape, resized_part
from hpsearch.data.progress import Watch
from hpsearch.data.resident import ResidentData, ResidentImages, free_bytes, part_bytes
from hpsearch.data.splits import DevelopmentData
from hpsearch.errors import InfeasibleError

SIZES_KEPT = 4
"""Images are kept in so many sizes at most; the one that was not used for longest goes first."""

_SUBSET_SEED = 0
"""Not the trial's: all trials of a search, and searches of the same split, use the same images."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Sized:
    """The images of a search in one size.

    Attributes:
        part: the training images, of the copy in that size.
        train, val: where batches are drawn from.
        held: bytes of the device's memory that they take.
    """

    part: ImagePart
    train: ResidentImages
    val: ResidentImages
    held: int


@dataclasses.dataclass(frozen=True, eq=False)
class DataViews:
    """What a worker holds: the training and validation images of a search, in every size that its
    trials asked for lately.

    Attributes:
        device: where batches are made.
        watch: is told how far the making of a copy in another size has come.
    """

    development: DevelopmentData
    device: torch.device
    watch: Watch | None = None
    _kept: OrderedDict[tuple[int, int], _Sized] = dataclasses.field(
        default_factory=OrderedDict, init=False, repr=False
    )

    @classmethod
    def of(
        cls, development: DevelopmentData, device: torch.device, *, watch: Watch | None = None
    ) -> DataViews:
        """For trials on `device`; nothing is read or copied yet."""
        return cls(development, device, watch)

    @property
    def shape(self) -> ImageShape:
        """The shape of one image of the data; that of a model's input is `input_shape`'s."""
        return self.development.train.shape

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.development.train.classes

    def view(self, config: TrainConfig) -> ResidentData:
        """The images in the size, with the normalisation and of the number that `config` asks for.

        Trials share the pixels. The training images of a smaller number are among those of a
        larger one, whatever the trial's seed, so that learning curves can be compared.

        Raises:
            ConfigError: the input does not fit the images.
            InfeasibleError: fewer training images than classes.
            DataError: the store cannot be written.
        """
        input_shape(config.input, self.shape)  # refuses, before a copy in another size is made
        sized = self._sized(full_size(config.input, self.shape))
        part, train = sized.part, sized.train
        if 0 < config.train_images < len(part):
            positions = subset_positions(part.labels, config.train_images)
            part = part.dataset.part(part.rows[positions])
            train = train.at(torch.from_numpy(positions))
        return ResidentData(
            train=train,
            val=sized.val,
            classes=self.classes,
            preprocessing=Preprocessing.of(part, config.input),
        )

    def _sized(self, size: tuple[int, int]) -> _Sized:
        if size not in self._kept:
            while len(self._kept) >= SIZES_KEPT:
                self._kept.popitem(last=False)
            self._kept[size] = self._load(size)
        self._kept.move_to_end(size)
        return self._kept[size]

    def _load(self, size: tuple[int, int]) -> _Sized:
        both = self.development
        train = resized_part(both.train, size, watch=self.watch)
        if both.val.dataset is both.train.dataset:  # in memory, it would be another copy
            val = train.dataset.part(both.val.rows)
        else:
            val = resized_part(both.val, size, watch=self.watch)
        needed = part_bytes(train, val)
        copies = self.device.type != "cpu" and self._make_room(needed)
        make = ResidentImages.copied if copies else ResidentImages.mapped
        return _Sized(
            part=train,
            train=make(train, self.device),
            val=make(val, self.device),
            held=needed if copies else 0,
        )

    def _make_room(self, needed: int) -> bool:
        """Drops sizes until images of `needed` bytes fit beside the others; whether they do."""
        # All images together leave more than half of what they could have to the training.
        room = (free_bytes(self.device) + self._held()) / 2
        if needed >= room:
            return False
        while needed + self._held() >= room:
            self._kept.popitem(last=False)
        return True

    def _held(self) -> int:
        return sum(sized.held for sized in self._kept.values())


def subset_positions(labels: Int64Array, n: int) -> Int64Array:
    """Which `n` of some labelled images to use instead of all: drawn at random, once for all.

    Each class that there is gets one image, and beyond that as many as its share of all (divided
    as seats are by Webster's method). Those of a smaller n are among those of a larger one.

    Args:
        labels: int64 (m,), with m >= n.

    Returns:
        int64 (n,), ascending.

    Raises:
        InfeasibleError: there are more classes.
    """
    counts = np.bincount(labels)
    classes = int((counts > 0).sum())
    if n < classes:
        raise InfeasibleError(
            f"train_images {n} are fewer than the {classes} classes; use {classes} or more, or 0 "
            "for all"
        )
    # RandomState draws the same numbers in every version of NumPy.
    shuffled = np.random.RandomState(_SUBSET_SEED).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    starts = np.cumsum(counts) - counts
    rank = np.arange(len(labels)) - starts[labels[by_class]]
    # An image's place in the order in which all are taken: the first of each class, then evenly.
    place = np.where(rank == 0, 0.0, (rank + 0.5) / counts[labels[by_class]])
    taken = by_class[np.argsort(place, kind="stable")[:n]]
    return np.sort(taken)
