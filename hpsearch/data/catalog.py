"""What a source finds before a pixel is decoded: a list of labelled images, and their reader."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from PIL import Image

from hpsearch.data.dataset import (
    NO_PART,
    PARTS,
    ImageShape,
    Int8Array,
    Int64Array,
    UInt8Array,
)
from hpsearch.data.dataset import BadImage as BadImage
from hpsearch.data.words import plural
from hpsearch.errors import DataError
from hpsearch.names import listed, printable

RawImage = Image.Image | UInt8Array
"""A picture that is opened but perhaps not decoded yet, or uint8 (height, width, channels)."""


class ImageReader(Protocol):
    """Reads the images of a source, by position; safe to use from several threads.

    Attributes:
        shape: of every image where the source has them as uint8 arrays of one shape, else None.
        batch: how many images are best read at once.
    """

    shape: ImageShape | None
    batch: int

    def read(self, start: int, stop: int) -> Iterator[RawImage | BadImage]:
        """The images from `start` up to but not including `stop`, one by one."""
        ...

    def signature(self) -> str:
        """Cheap: a text that is another one when the files may have changed (paths, sizes,
        times).
        """
        ...

    def content_key(self) -> str:
        """SHA-256 over the content, in hexadecimal: the same for a copy elsewhere."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Remark:
    """Something odd that a source saw while listing, for `hpsearch data check`.

    Attributes:
        kind: a short fixed name, such as "rows without image".
        counted: how many there are, as a message begins: "1 row without image".
        names: what is concerned.
        harmless: it is good to know, but no images are missing or doubtful.
    """

    kind: str
    counted: str
    names: tuple[str, ...]
    harmless: bool = False

    def words(self, most: int) -> str:
        """1 row without image: a.png; with `most` names at most."""
        return f"{self.counted}: {listed(self.names, most)}"


def remarks_on(
    kind: str, names: Sequence[str], *, one: str = "", harmless: bool = False
) -> tuple[Remark, ...]:
    """The remark on `names`, if any.

    Args:
        kind: of several: a word that ends with an "s", and what is said of it.
        one: of a single one, where that has more differences than the "s".
    """
    if not names:
        return ()
    word, _, rest = kind.partition(" ")
    counted = plural(len(names), one or f"{word.removesuffix('s')} {rest}", kind)
    return (Remark(kind=kind, counted=counted, names=tuple(names), harmless=harmless),)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Catalog:
    """Labelled images, not decoded yet.

    Attributes:
        name: a short name of the data, for people.
        classes: the names of the classes.
        labels: int64, (N,): an index into `classes`.
        names: (N,) what each image is called in the source, such as its path below the root.
        images: reads them.
        groups: (N,) who or what must not be on two sides of a split, such as the person shown.
        official: int8, (N,): an index into `PARTS` where the source has an official split, or
            `NO_PART`.
        columns: what the labels were joined from, such as gender and aspect.
        class_parts: for each class its value in each of `columns`.
        notes: what was guessed, in words, to be shown.
        remarks: what is odd.
    """

    name: str
    classes: tuple[str, ...]
    labels: Int64Array
    names: Sequence[str]
    images: ImageReader
    groups: Sequence[str] | None = None
    official: Int8Array | None = None
    columns: tuple[str, ...] = ()
    class_parts: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()
    remarks: tuple[Remark, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def at(self, rows: Sequence[int]) -> Catalog:
        """The images at `rows`, in that order."""
        return dataclasses.replace(
            self,
            labels=self.labels[rows],
            names=[self.names[row] for row in rows],
            images=Selected(self.images, np.array(rows, dtype=np.int64)),
            groups=None if self.groups is None else [self.groups[row] for row in rows],
            official=None if self.official is None else self.official[rows],
        )


def check_catalog(catalog: Catalog) -> None:
    """Refuses what nothing can be learnt from, before anything is decoded.

    Raises:
        DataError: no images, fewer than 2 classes, or class names that repeat.
    """
    if len(catalog) == 0:
        raise DataError(f"{catalog.name}: no images")
    if len(catalog.classes) < 2:
        raise DataError(
            f"{catalog.name}: needs at least 2 classes, but has only {listed(catalog.classes)}"
        )
    if len(set(catalog.classes)) < len(catalog.classes):
        raise DataError(f"{catalog.name}: class names repeat: {listed(catalog.classes, 20)}")


class Selected:
    """The images of another reader at some positions."""

    def __init__(self, reader: ImageReader, rows: Int64Array) -> None:
        self._reader = reader
        self._rows = rows
        self.shape = reader.shape
        self.batch = reader.batch

    def read(self, start: int, stop: int) -> Iterator[RawImage | BadImage]:
        """As `ImageReader.read`; neighbours are read together."""
        rows = self._rows[start:stop]
        breaks = np.flatnonzero(np.diff(rows) != 1) + 1
        for run in np.split(rows, breaks):
            if len(run):
                yield from self._reader.read(int(run[0]), int(run[-1]) + 1)

    def signature(self) -> str:
        """As `ImageReader.signature`; which ones are selected is part of the catalog."""
        return self._reader.signature()

    def content_key(self) -> str:
        """As `ImageReader.content_key`; which ones are selected is part of the catalog."""
        return self._reader.content_key()


def make_catalog(
    *,
    name: str,
    names: Sequence[str],
    label_names: Sequence[str],
    images: ImageReader,
    groups: Sequence[str] | None = None,
    parts: Sequence[str | None] | None = None,
    class_order: Sequence[str] | None = None,
    columns: tuple[str, ...] = (),
    class_parts: dict[str, tuple[str, ...]] | None = None,
    notes: tuple[str, ...] = (),
    remarks: tuple[Remark, ...] = (),
) -> Catalog:
    """A catalog from the label of each image as text.

    Args:
        label_names: (N,) the class of each image.
        parts: (N,) "train", "val", "test" or None, where there is an official split.
        class_order: all classes; by default those that occur, sorted (see `natural_order`).
        class_parts: for each class its value in each of `columns`.
    """
    order = list(class_order) if class_order is not None else natural_order(set(label_names))
    index = {text: number for number, text in enumerate(order)}
    return Catalog(
        name=name,
        classes=tuple(printable(text) for text in order),
        labels=np.array([index[text] for text in label_names], dtype=np.int64),
        names=[printable(text) for text in names],
        images=images,
        groups=None if groups is None else [printable(text) for text in groups],
        official=None
        if parts is None or not any(parts)
        else np.array([PARTS.index(p) if p else NO_PART for p in parts], dtype=np.int8),
        columns=tuple(printable(text) for text in columns),
        class_parts=tuple(tuple(printable(value) for value in class_parts[text]) for text in order)
        if class_parts
        else (),
        notes=notes,
        remarks=remarks,
    )


def joined_labels(
    rows: Sequence[Sequence[str]], where: str
) -> tuple[list[str], dict[str, tuple[str, ...]]]:
    """The label of each row from one or several values: 'male' and 'dorsal left' become
    'male dorsal left'; and for each label its values.

    Raises:
        DataError: different values make the same label.
    """
    labels = [" ".join(row) for row in rows]
    values: dict[str, tuple[str, ...]] = {}
    for label, row in zip(labels, rows, strict=True):
        if values.setdefault(label, tuple(row)) != tuple(row):
            raise DataError(
                f"{where}: the label {label!r} is made of {values[label]!r} and of {tuple(row)!r}; "
                "rename one of them"
            )
    return labels, values


def natural_order(texts: set[str]) -> list[str]:
    """Sorted; where all are whole numbers, by value."""
    if all(text.isascii() and text.isdigit() and len(text) < 19 for text in texts):
        return sorted(texts, key=lambda text: (int(text), text))
    return sorted(texts)


def without_classes(catalog: Catalog, exclude: tuple[str, ...]) -> Catalog:
    """`catalog` without the images and names of some classes.

    Raises:
        DataError: there is no such class.
    """
    if not exclude:
        return catalog
    unknown = [text for text in exclude if text not in catalog.classes]
    if unknown:
        raise DataError(
            f"{catalog.name}: there is no class {unknown[0]!r} to leave out; the classes are "
            f"{listed(catalog.classes, 20)}"
        )
    kept = [n for n, text in enumerate(catalog.classes) if text not in exclude]
    renumbered = np.full(len(catalog.classes), -1, dtype=np.int64)
    renumbered[kept] = np.arange(len(kept))
    left = catalog.at(np.flatnonzero(renumbered[catalog.labels] >= 0).tolist())
    return dataclasses.replace(
        left,
        classes=tuple(catalog.classes[n] for n in kept),
        class_parts=tuple(catalog.class_parts[n] for n in kept) if catalog.class_parts else (),
        labels=renumbered[left.labels],
    )
