"""An image data set in memory: what every source gives and everything above takes."""

from __future__ import annotations

import dataclasses
import hashlib
from functools import cached_property

import numpy as np
import numpy.typing as npt

from hpsearch.errors import DataError

UInt8Array = npt.NDArray[np.uint8]
Int64Array = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class ImageShape:
    """Height and width in pixels, and channels, of one image."""

    height: int
    width: int
    channels: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width}x{self.channels}"


@dataclasses.dataclass(frozen=True, eq=False)
class ImageDataset:
    """Labelled images.

    Attributes:
        name: a short name, for people.
        images: uint8, (N, height, width, channels) with 1 or 3 channels.
        labels: int64, (N,): an index into `classes`.
        classes: the names of the classes.

    Raises:
        DataError: shapes, dtypes or labels that do not fit together.
    """

    name: str
    images: UInt8Array
    labels: Int64Array
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise DataError(
                f"{self.name}: images must be uint8 of shape (N, height, width, channels), "
                f"but are {self.images.dtype} of shape {self.images.shape}"
            )
        if self.images.shape[3] not in (1, 3):
            raise DataError(
                f"{self.name}: images must have 1 or 3 channels, but have {self.images.shape[3]}"
            )
        if 0 in self.images.shape:
            raise DataError(f"{self.name}: no images (shape {self.images.shape})")
        if self.labels.dtype != np.int64 or self.labels.shape != self.images.shape[:1]:
            raise DataError(
                f"{self.name}: labels must be int64 of shape ({len(self.images)},), "
                f"but are {self.labels.dtype} of shape {self.labels.shape}"
            )
        if len(self.classes) < 2:
            raise DataError(f"{self.name}: needs at least 2 classes, but has {len(self.classes)}")
        if len(set(self.classes)) != len(self.classes):
            raise DataError(f"{self.name}: class names repeat: {', '.join(self.classes)}")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.classes):
            raise DataError(
                f"{self.name}: labels run from {low} to {high}, but there are "
                f"{len(self.classes)} classes (0 to {len(self.classes) - 1})"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> ImageShape:
        """The shape of one image."""
        return ImageShape(*self.images.shape[1:])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over shape, pixels, labels and class names: changes when any of them does."""
        digest = hashlib.sha256()
        digest.update(repr((self.images.shape, self.classes)).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()

    def subset(self, indices: Int64Array) -> ImageDataset:
        """The images at `indices` (int64, (n,)), in that order, with the same classes."""
        return ImageDataset(self.name, self.images[indices], self.labels[indices], self.classes)
