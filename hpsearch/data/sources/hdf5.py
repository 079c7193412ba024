"""HDF5 files: ours (see `hpsearch.data.hdf5`) and others."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hpsearch.data.catalog import BadImage, Catalog, RawImage, make_catalog
from hpsearch.data.dataset import ImageShape
from hpsearch.data.decode import MAX_PIXELS, open_image
from hpsearch.data.hdf5 import FORMAT, VERSION
from hpsearch.data.readers import OneFileReader
from hpsearch.data.sources._arrays import (
    Layout,
    class_names_of,
    find_layout,
    one_column,
    parts_of,
)
from hpsearch.data.sources._hdf5_file import Hdf5File
from hpsearch.data.sources._hdf5_guess import Guess, Pair, is_encoded, told
from hpsearch.data.sources._source import LAYOUT, DataSource, SourceOption
from hpsearch.data.spec import DataSpec
from hpsearch.errors import DataError
from hpsearch.names import printable

SUFFIXES = frozenset({".h5", ".hdf5", ".he5", ".hdf"})

_BATCH_BYTES = 2**24
_BATCH_IMAGES = 4096
_MOST_BYTES = 2**26
_ENCODED_BATCH = 16
_OTHER_ROLES = ("classes", "groups", "splits", "names")


@dataclasses.dataclass(frozen=True)
class _Images:
    """A dataset of images.

    Attributes:
        layout: how it holds them; None where each element is the content of a picture file.
        batch: how many are best read at once.
        stored: shape and type, as they were when it was listed.
    """

    path: str
    count: int
    layout: Layout | None
    batch: int
    stored: str


class Hdf5Reader(OneFileReader):
    """The images of one or several datasets, in order (see `hpsearch.data.catalog.ImageReader`).

    The file is opened at the first reading, and closed once the last image was read, or a reading
    failed, and no thread is reading any more: as long as it is open, HDF5 remembers what it read,
    even where the file was written again.
    """

    def __init__(self, path: Path, datasets: Sequence[_Images], names: Sequence[str]) -> None:
        super().__init__(path)
        layout = datasets[0].layout
        self.shape: ImageShape | None = layout.shape if layout else None
        self.batch = max(datasets, key=lambda images: images.count).batch
        self._datasets, self._names = datasets, names
        self._lock = threading.Lock()
        self._file: Hdf5File | None = None
        self._opened: list[h5py.Dataset] = []
        self._reading, self._over = 0, False

    def read(self, start: int, stop: int) -> Iterator[RawImage | BadImage]:
        """Arrays are read together; pictures one by one, and opened only.

        Raises:
            DataError: the file is damaged, or values are not what they must be.
        """
        with self._lock:
            self._reading += 1
            # A thread that begins late must not leave the file open behind the last image.
            self._over = self._over and start > 0
        over = True
        try:
            yield from self._read(start, stop)
            over = stop >= len(self._names)
        finally:
            with self._lock:
                self._reading -= 1
                self._over = self._over or over
                if self._over and not self._reading:
                    self._close()

    def _read(self, start: int, stop: int) -> Iterator[RawImage | BadImage]:
        offset = 0
        for number, images in enumerate(self._datasets):
            first, last = max(start - offset, 0), min(stop - offset, images.count)
            if first < last and images.layout is not None:
                values = self._values(number, slice(first, last))
                yield from images.layout.read(values, f"{self.path} ({printable(images.path)})")
            elif first < last:
                for row in range(first, last):
                    content = self._values(number, row)  # bytes, opaque, or an array
                    try:
                        is_bytes = isinstance(content, bytes)
                        yield open_image(content if is_bytes else content.tobytes())
                    except DataError as error:
                        yield BadImage(self._names[offset + row], str(error))
            offset += images.count

    def signature(self) -> str:
        """The file's path, size and times, and what is read from it."""
        return self._with_datasets(super().signature())

    def content_key(self) -> str:
        """SHA-256 over the file, and what is read from it."""
        return self._with_datasets(super().content_key())

    def _with_datasets(self, text: str) -> str:
        datasets = [(images.path, images.layout) for images in self._datasets]
        return hashlib.sha256(f"{text} {datasets!r}".encode(errors="replace")).hexdigest()

    def _values(self, number: int, rows: int | slice) -> Any:
        with self._lock:
            file = self._file = self._file or self._open()
            with file.guarded(self._datasets[number].path):
                return self._opened[number][rows]

    def _close(self) -> None:
        file, self._file, self._opened = self._file, None, []
        if file is not None:
            file.close()

    def _open(self) -> Hdf5File:
        file = Hdf5File(self.path)
        self._opened = [file.dataset(images.path) for images in self._datasets]
        for images, dataset in zip(self._datasets, self._opened, strict=True):
            if _stored(dataset) != images.stored:
                raise DataError(f"{self.path}: has changed since it was listed; start again")
        return file


def _hdf5(spec: DataSpec, options: Mapping[str, Any]) -> Catalog:
    path = Path(spec.source)
    file = Hdf5File(path)
    try:
        return _catalog(file, options)
    finally:
        file.close()


def _catalog(file: Hdf5File, options: Mapping[str, Any]) -> Catalog:
    is_ours = _is_ours(file)
    notes: list[str] = []
    if is_ours:
        pairs = [Pair(options.get("images", "images"), options.get("labels", "labels"))]
        roles = {role: role for role in _OTHER_ROLES if file.has(role)}
    else:
        guess = Guess(file)
        pairs = guess.pairs(options.get("images"), options.get("labels"))
        roles = guess.others(pairs)
        notes.append(told(pairs, roles))
    roles |= {role: options[role] for role in _OTHER_ROLES if role in options}
    axes = options.get("layout", "NHWC" if is_ours else None)
    datasets = [_images_of(file, pair.images, axes) for pair in pairs]
    if len({images.layout and images.layout.shape for images in datasets}) > 1:
        shapes = ", ".join(images.stored for images in datasets)
        raise DataError(f"{file.path}: the images of all parts must have one shape, not {shapes}")
    layout = datasets[0].layout
    if axes is None and layout is not None and layout.axes == "NCHW":
        notes.append("the images are stored as (image, channel, row, column)")
    count = sum(images.count for images in datasets)
    texts = {role: _texts(file, roles[role], count, role) for role in roles if role != "classes"}
    labels, classes = _labels(file, pairs, datasets, roles.get("classes"))
    parts, names = None, [str(number) for number in range(count)]
    if "splits" in texts:
        parts = parts_of(texts["splits"], file.where(roles["splits"]))
    elif len(pairs) > 1:
        each = list(zip(pairs, datasets, strict=True))
        parts = [pair.part for pair, images in each for _ in range(images.count)]
        names = [f"{pair.part}/{row}" for pair, images in each for row in range(images.count)]
    names = texts.get("names", names)
    columns, class_parts = _class_parts(file, classes) if is_ours else ((), None)
    return make_catalog(
        name=file.path.stem,
        names=names,
        label_names=labels,
        class_order=classes,
        images=Hdf5Reader(file.path, datasets, [printable(name) for name in names]),
        groups=texts.get("groups"),
        parts=parts,
        columns=columns,
        class_parts=class_parts,
        notes=tuple(notes),
    )


def _is_ours(file: Hdf5File) -> bool:
    if file.attribute("format") != FORMAT:
        return False
    version = file.attribute("version")
    if version != VERSION:
        raise DataError(
            f"{file.path}: has version {version} of the format {FORMAT}, but this program reads "
            f"version {VERSION}; use the hpsearch that wrote it, or convert the data again"
        )
    return True


def _images_of(file: Hdf5File, path: str, axes: str | None) -> _Images:
    dataset, where = file.dataset(path), file.where(path)
    with file.guarded(path):
        encoded, shape, dtype = is_encoded(dataset), dataset.shape, dataset.dtype
    if encoded:
        if not shape[0]:
            raise DataError(f"{where}: no images (shape {shape})")
        return _Images(path, shape[0], None, _ENCODED_BATCH, _stored(dataset))
    layout = find_layout(shape, dtype, where, axes)
    if layout.shape.height * layout.shape.width > MAX_PIXELS:
        raise DataError(
            f"{where}: has images of {layout.shape.height}x{layout.shape.width} pixels, more than "
            f"{MAX_PIXELS:,}; make them smaller"
        )
    return _Images(path, shape[0], layout, _batch(dataset), _stored(dataset))


def _batch(dataset: h5py.Dataset) -> int:
    """Whole chunks as far as possible, so that none is unpacked twice, but not too much."""
    row: int = math.prod(dataset.shape[1:]) * dataset.dtype.itemsize
    rows: int = dataset.chunks[0] if dataset.chunks else 1
    if rows * row > _MOST_BYTES:
        return max(1, _MOST_BYTES // row)
    return rows * max(1, min(_BATCH_BYTES // (rows * row), _BATCH_IMAGES // rows))


def _stored(dataset: h5py.Dataset) -> str:
    return f"{dataset.shape} of {dataset.dtype}"


def _texts(file: Hdf5File, path: str, count: int, role: str) -> list[str]:
    shape = file.dataset(path).shape
    if shape != (count,):
        raise DataError(
            f"{file.where(path)}: {role} must have shape ({count},), one for each image, but has "
            f"{shape}"
        )
    return file.texts(path)


def _labels(
    file: Hdf5File, pairs: Sequence[Pair], datasets: Sequence[_Images], classes: str | None
) -> tuple[list[str], list[str] | None]:
    """The class of each image as text, and all classes in their order where they are named."""
    values = [
        _labels_of(file, pair.labels, images.count)
        for pair, images in zip(pairs, datasets, strict=True)
    ]
    where = file.where(pairs[0].labels)
    if len({labels.dtype.kind == "O" for labels in values}) > 1:
        raise DataError(f"{where}: labels are texts in one part, and numbers in another")
    class_names = None
    if classes is not None:
        shape = file.dataset(classes).shape
        if len(shape) != 1:
            raise DataError(
                f"{file.where(classes)}: classes must be a list of names, but has shape {shape}"
            )
        class_names = np.array(file.texts(classes), dtype=object)
    count = sum(images.count for images in datasets)
    return class_names_of(np.concatenate(values), class_names, count, where)


def _labels_of(file: Hdf5File, path: str, count: int) -> np.ndarray:
    """(count,) whole numbers, floats or texts; from one-hot rows the column of the one."""
    dataset, where = file.dataset(path), file.where(path)
    with file.guarded(path):
        shape, dtype = dataset.shape, dataset.dtype
        is_text = h5py.check_string_dtype(dtype) is not None
    width = math.prod(shape[1:])
    if not shape or shape[0] != count or width < 1 or (width > 1 and len(shape) > 2):
        raise DataError(
            f"{where}: labels must have shape ({count},), one for each image, but have {shape}"
        )
    if is_text and width == 1:
        return np.array(file.texts(path), dtype=object)
    if dtype.kind not in "biuf":
        raise DataError(f"{where}: labels must be whole numbers or texts, but are {dtype}")
    return np.concatenate([one_column(values, where) for values in file.numbers(path)])


def _class_parts(
    file: Hdf5File, classes: list[str] | None
) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]] | None]:
    if classes is None or not file.has("columns"):
        return (), None
    columns = tuple(file.texts("columns"))
    shape = file.dataset("class_parts").shape
    if shape != (len(classes), len(columns)):
        raise DataError(
            f"{file.where('class_parts')}: must have shape ({len(classes)}, {len(columns)}), a "
            f"value for each class and column, but has {shape}"
        )
    texts = file.texts("class_parts")
    width = len(columns)
    rows = [tuple(texts[start : start + width]) for start in range(0, len(texts), width)]
    return columns, dict(zip(classes, rows, strict=True))


HDF5 = DataSource(
    usage="FILE.h5",
    help="HDF5: what 'hpsearch data convert' writes, and others with images and labels",
    accepts=lambda spec: Path(spec.source).suffix.lower() in SUFFIXES,
    catalog=_hdf5,
    options=(
        SourceOption(name="images", help="the dataset of images, such as train/x"),
        SourceOption(name="labels", help="the dataset of labels"),
        SourceOption(name="classes", help="the dataset with the names of the classes"),
        SourceOption(name="groups", help="the dataset that says which images belong together"),
        SourceOption(name="splits", help="the dataset with train, val or test for each image"),
        SourceOption(name="names", help="the dataset with a name for each image"),
        LAYOUT,
    ),
    is_path=True,
)
