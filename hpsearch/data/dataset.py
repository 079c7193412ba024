"""Images of one shape, in memory or mapped from a file: what everything above takes."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpsearch.errors import DataError
from hpsearch.names import printable

UInt8Array = npt.NDArray[np.uint8]
Int8Array = npt.NDArray[np.int8]
Int64Array = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

# The part of a split that an image belongs to; NO_PART where it belongs to none.
PARTS = ("train", "val", "test")
TRAIN, VAL, TEST = range(len(PARTS))
NO_PART = -1
PART_WORDS = {"train": "training", "val": "validation", "test": "test"}
"""What the parts are called in messages."""

LUMA = (0.299, 0.587, 0.114)
"""How bright the eye sees red, green and blue (ITU-R BT.601)."""

CHUNK_BYTES = 2**25
"""How much of a large array is looked at in one go."""


@dataclasses.dataclass(frozen=True)
class ImageShape:
    """Height and width in pixels, and channels, of one image."""

    height: int
    width: int
    channels: int

    @property
    def nbytes(self) -> int:
        """The bytes of one image of this shape, as uint8."""
        return self.height * self.width * self.channels

    def __str__(self) -> str:
        return f"{self.height}x{self.width}x{self.channels}"


@dataclasses.dataclass(frozen=True)
class BadImage:
    """An image that cannot be used: its name in the source, and why in a few words."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{printable(self.name)}: {printable(self.reason)}"


def bad_words(images: Sequence[BadImage], most: int = 3) -> str:
    """The first of them with the reasons, and how many more there are."""
    first = "; ".join(str(image) for image in images[:most])
    return first if len(images) <= most else f"{first}; and {len(images) - most:,} more"


@dataclasses.dataclass(frozen=True, eq=False)
class ImageDataset:
    """Labelled images.

    Attributes:
        name: a short name, for people.
        images: uint8, (N, height, width, channels) with 1 or 3 channels; may be a memory map.
        labels: int64, (N,): an index into `classes`.
        classes: the names of the classes.
        names: (N,) what each image is called in its source; None where it has no names.
        groups: (N,) who or what must not be on two sides of a split, such as the person shown.
        official: int8, (N,): an index into `PARTS` where the source has an official split, or
            `NO_PART`.
        columns: what the labels were joined from, such as gender and aspect; may be empty.
        class_parts: for each class its value in each of `columns`.
        notes: what was guessed when it was read, in words.
        skipped: images of the source that cannot be read, and are left out.
        folder: where the store has it; None where it is in memory only.

    Raises:
        DataError: shapes, dtypes or labels that do not fit together.
    """

    name: str
    images: UInt8Array
    labels: Int64Array
    classes: tuple[str, ...]
    names: Sequence[str] | None = None
    groups: Sequence[str] | None = None
    official: Int8Array | None = None
    columns: tuple[str, ...] = ()
    class_parts: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()
    skipped: tuple[BadImage, ...] = ()
    folder: Path | None = None

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

        for what, values in (
            ("names", self.names),
            ("groups", self.groups),
            ("official", self.official),
        ):
            if values is not None and len(values) != len(self.images):
                raise DataError(
                    f"{self.name}: there are {len(self.images)} images, but {len(values)} {what}"
                )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> ImageShape:
        """The shape of one image."""
        return ImageShape(*self.images.shape[1:])

    @cached_property
    def digests(self) -> UInt8Array:
        """(N, 16): a hash of the pixels of each image; equal images have equal ones."""
        return np.concatenate([digests_of(chunk) for chunk in self.chunks()])

    @cached_property
    def moments(self) -> Int64Array:
        """(N, channels, 2): the sum of each image's pixels, and that of their squares."""
        return np.concatenate([moments_of(chunk) for chunk in self.chunks()])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over shape, pixels, labels and class names, and groups and official split where
        there are any: changes when any of them does.
        """
        digest = hashlib.sha256()
        digest.update(repr((self.images.shape, self.classes)).encode())
        digest.update(np.ascontiguousarray(self.digests).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        if self.groups is not None:
            digest.update(repr(list(self.groups)).encode())
        if self.official is not None:
            digest.update(np.ascontiguousarray(self.official).data)
        return digest.hexdigest()

    def knowing(self, *, moments: Int64Array, digests: UInt8Array | None = None) -> ImageDataset:
        """Itself, with what is known of its pixels already: to look at all of them takes long."""
        vars(self)["moments"] = moments
        if digests is not None:
            vars(self)["digests"] = digests
        return self

    def chunks(self) -> Iterator[UInt8Array]:
        """The images in order, a part of them at a time."""
        step = max(1, CHUNK_BYTES // self.shape.nbytes)
        for start in range(0, len(self), step):
            yield self.images[start : start + step]

    def part(self, rows: Int64Array | None = None) -> ImagePart:
        """The images at `rows` (int64, (n,)), or all; nothing is copied."""
        return ImagePart(self, np.arange(len(self)) if rows is None else rows)


@dataclasses.dataclass(frozen=True, eq=False)
class ImagePart:
    """Some of a data set's images, left where they are.

    Attributes:
        rows: int64, (n,): which ones, in this order.
    """

    dataset: ImageDataset
    rows: Int64Array

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def labels(self) -> Int64Array:
        """int64, (n,)."""
        return self.dataset.labels[self.rows]

    @property
    def images(self) -> UInt8Array:
        """A copy of them: uint8, (n, height, width, channels)."""
        return self.dataset.images[self.rows]

    @property
    def names(self) -> list[str]:
        """(n,): what each of them is called in its source, or its number there."""
        names = self.dataset.names
        return [str(row) if names is None else names[row] for row in self.rows.tolist()]

    def mean_and_std(self) -> tuple[FloatArray, FloatArray]:
        """float64 (channels,) each: over all pixels, scaled to 0..1."""
        sums = self.dataset.moments[self.rows].sum(axis=0)
        mean, square = sums.T / (len(self) * self.shape.height * self.shape.width)
        mean, square = mean / 255.0, square / 255.0**2
        return mean, np.sqrt(np.maximum(square - mean**2, 0.0))

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.dataset.classes

    @property
    def shape(self) -> ImageShape:
        """The shape of one image."""
        return self.dataset.shape


def digests_of(images: UInt8Array) -> UInt8Array:
    """(n, 16): a hash of each image, of its shape too."""
    prefix = repr(images.shape[1:]).encode()
    texts = [
        hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16, key=prefix).digest()
        for image in images
    ]
    return np.frombuffer(b"".join(texts), dtype=np.uint8).reshape(len(images), 16)


def moments_of(images: UInt8Array) -> Int64Array:
    """(n, channels, 2): sums and sums of squares over each image's pixels."""
    # Whole numbers below 2**53 are exact in float64, and its sums are quicker.
    wide = images.reshape(len(images), -1, images.shape[3]).astype(np.float64)
    sums = np.stack([wide.sum(axis=1), np.einsum("npc,npc->nc", wide, wide)], axis=-1)
    return sums.astype(np.int64)
