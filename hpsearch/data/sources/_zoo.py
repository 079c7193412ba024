"""How a data set of torchvision becomes a source; the data sets themselves are in `zoo`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np

from hpsearch.data.catalog import BadImage, Catalog, ImageReader, RawImage, make_catalog
from hpsearch.data.dataset import ImageShape
from hpsearch.data.readers import ArrayReader, FileReader, OneFileReader
from hpsearch.data.sources._source import DataSource, SourceOption
from hpsearch.data.sources._zoo_listings import Lister, Listing
from hpsearch.data.spec import DataSpec
from hpsearch.errors import DataError
from hpsearch.names import listed, printable

_ROOT = SourceOption(
    name="root", help="the folder that holds its files", kind="path", default="data"
)
_DOWNLOAD = SourceOption(name="download", help="fetch what is missing", kind="flag", default=False)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ZooSet:
    """A data set of torchvision.

    Attributes:
        cls: its class in `torchvision.datasets`; in lower case, what a user writes.
        images: how many it has, as published, with the default options.
        what: what they show, in a few words.
        parts: of the official split (None where there is none), each with what the constructor
            takes for it.
        listing: what an object of the class holds.
        classes: the names, by number; where empty, torchvision's.
        needs: files, and folders with a slash behind, that must be below the root, with options
            in braces.
        origin: where these are to be had.
        downloads: whether torchvision can fetch them.
        options: of the constructor.
        adapt: makes the class to be used out of torchvision's.
        note: what a user should know who has read about it elsewhere.
    """

    cls: str
    images: int
    what: str
    parts: tuple[tuple[str | None, Mapping[str, Any]], ...]
    listing: Lister
    classes: tuple[str, ...] = ()
    needs: tuple[str, ...]
    origin: str
    downloads: bool = True
    options: tuple[SourceOption, ...] = ()
    adapt: Callable[[Any], Any] | None = None
    note: str = ""

    @property
    def name(self) -> str:
        """What a user writes."""
        return self.cls.lower()

    def source(self) -> DataSource:
        """Its row of the table of sources."""
        official = [part for part, _ in self.parts if part not in ("train", None)]
        split = f"; official {' and '.join(official)} split" if official else ""
        return DataSource(
            usage=self.name,
            help=f"{self.images:,} {self.what}{split}",
            accepts=lambda spec: spec.source.lower() == self.name,
            catalog=functools.partial(_catalog, self),
            options=(_ROOT, _DOWNLOAD, *self.options),
            is_path=False,
        )


def _catalog(row: ZooSet, spec: DataSpec, options: Mapping[str, Any]) -> Catalog:
    files = _Files(row, spec, options)
    listings = [(part, files.listing(arguments)) for part, arguments in row.parts]
    names: list[str] = []
    labels: list[str] = []
    parts: list[str | None] = []
    groups: list[str] = []
    order: dict[str, None] = {}
    for part, listing in listings:
        classes = files.class_names(listing)
        order.update(dict.fromkeys(classes))
        labels += [classes[number] for number in listing.labels]
        parts += [part] * len(listing.labels)
        groups += listing.groups or ()
        if isinstance(listing.images, np.ndarray | Path):
            names += [f"{part or row.name}/{number}" for number in range(len(listing.labels))]
        else:
            names += [files.below_root(path) for path in listing.images]
    return make_catalog(
        name=row.name,
        names=names,
        label_names=labels,
        class_order=list(order),
        images=_reader(files.root, [listing for _, listing in listings], names),
        groups=groups or None,
        parts=parts,
        notes=files.notes(len(labels)),
    )


class _Files:
    """The files of a data set below the root."""

    def __init__(self, row: ZooSet, spec: DataSpec, options: Mapping[str, Any]) -> None:
        self.root = Path(options["root"]).resolve()
        self._row = row
        self._given = {option.name: options[option.name] for option in row.options}
        self._is_default = all(options[option.name] == option.default for option in row.options)
        self._download = bool(options["download"]) and row.downloads
        missing = self._missing()
        if missing and not self._download:
            fetch = ", or run again with --download" if row.downloads else " by hand"
            here = _exists(Path(spec.source))
            other = f"; for the folder {spec.source} write --data ./{spec.source}" if here else ""
            raise DataError(
                f"{row.name}: its files are not in {self.root}: put {listed(missing, 4)} there "
                f"(from {row.origin}){fetch}{other}"
            )

    def _missing(self) -> list[str]:
        needs = [need.format(**self._given) for need in self._row.needs]
        return [need for need in needs if not _exists(self.root / need)]

    def listing(self, arguments: Mapping[str, Any]) -> Listing:
        """One part, read by torchvision, or fetched before where the user wants that."""
        from torchvision import datasets  # imported late: it takes a second

        row = self._row
        download = {"download": self._download} if row.downloads else {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of NumPy, over old pickles that are in order
                cls = getattr(datasets, row.cls)
                cls = row.adapt(cls) if row.adapt else cls
                listing = row.listing(cls(str(self.root), **arguments, **self._given, **download))
            labels = [int(label) for label in listing.labels]
        except Exception as error:  # each class lets others out on damaged files
            raise self._failed(error) from None
        images = listing.images
        if isinstance(images, np.ndarray) and (images.ndim != 4 or images.dtype != np.uint8):
            raise self._failed(ValueError(f"images are {images.dtype} of shape {images.shape}"))
        if not isinstance(images, Path) and len(images) != len(labels):
            raise self._failed(ValueError(f"{len(images)} images, {len(labels)} labels"))
        return dataclasses.replace(listing, labels=labels)

    def _failed(self, error: Exception) -> DataError:
        name, root, row = self._row.name, self.root, self._row
        missing = self._missing()
        if missing:
            return DataError(
                f"{name}: cannot be downloaded ({_cause(error)}): put {listed(missing, 4)} into "
                f"{root} by hand (from {row.origin})"
            )
        needs = listed([need.format(**self._given) for need in row.needs], 4)
        again = " or with --download" if row.downloads else ""
        return DataError(
            f"{name}: its files in {root} are damaged or incomplete ({_cause(error)}): remove "
            f"{needs} and fetch them again (from {row.origin}{again})"
        )

    def class_names(self, listing: Listing) -> list[str]:
        """The names of the classes, all different, which the labels are within."""
        names = list(self._row.classes or listing.classes or ())
        twice = {name for name in names if names.count(name) > 1}
        names = [f"{name} ({n})" if name in twice else name for n, name in enumerate(names)]
        low, high = min(listing.labels, default=0), max(listing.labels, default=0)
        if low < 0 or high >= len(names):
            raise self._failed(ValueError(f"labels from {low} to {high}, but {len(names)} classes"))
        return names

    def below_root(self, path: str) -> str:
        """The path relative to the root, with `/` between its parts."""
        folder = str(self.root).rstrip(os.sep) + os.sep
        below = path.removeprefix(folder).replace(os.sep, "/")
        if not path.startswith(folder) or ".." in below.split("/"):
            raise self._failed(ValueError(f"a path leads out of it: {path!r}"))
        return below

    def notes(self, count: int) -> tuple[str, ...]:
        """What the row has to say, and whether all images are there: torchvision does not see it
        everywhere.
        """
        published, notes = self._row.images, [self._row.note] if self._row.note else []
        if count != published and self._is_default:
            notes.append(f"{count:,} images are in {self.root}, but {published:,} were published")
        return tuple(notes)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a folder that may not be entered, or a name too long to be one
        return False


def _reader(root: Path, listings: Sequence[Listing], names: list[str]) -> ImageReader:
    images = [listing.images for listing in listings]
    arrays = [part for part in images if isinstance(part, np.ndarray)]
    if arrays:
        return ArrayReader(np.ascontiguousarray(np.concatenate(arrays)))
    stores = [part for part in images if isinstance(part, Path)]
    if stores:
        return Hdf5Reader(stores, [len(listing.labels) for listing in listings])
    return FileReader(root, names)


def _cause(error: Exception) -> str:
    """What went wrong, in one short line."""
    if isinstance(error, URLError) and isinstance(error.reason, OSError):
        return f"no network: {error.reason.strerror or error.reason}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    network = re.fullmatch(r"<urlopen error (?:\[Errno -?\d+\] )?(.*)>", lines[-1])
    text = f"no network: {network[1]}" if network else lines[-1]
    return "not as published" if "download=True" in text else printable(text)[:120]


class Hdf5Reader:
    """Images that are the array "x" of several HDF5 files, one behind the other (see
    `hpsearch.data.catalog.ImageReader`).

    Args:
        counts: how many are in each file.

    Raises:
        DataError: a file cannot be read, or has another number of images.
    """

    batch = 256

    def __init__(self, paths: Sequence[Path], counts: Sequence[int]) -> None:
        self._files = [OneFileReader(path) for path in paths]
        self._starts = [0, *itertools.accumulate(counts)]
        shapes = {self._shape(path, count) for path, count in zip(paths, counts, strict=True)}
        self.shape: ImageShape | None = shapes.pop() if len(shapes) == 1 else None

    def _shape(self, path: Path, count: int) -> ImageShape:
        with _images_in(path) as images:
            found, dtype = images.shape, images.dtype
            if dtype != np.uint8:
                raise ValueError(f"images are {dtype}")
            shape = ImageShape(*found[1:])
        if found[0] != count:
            raise DataError(f"{path}: has {found[0]} images, but there are {count} labels")
        return shape

    def read(self, start: int, stop: int) -> Iterator[RawImage | BadImage]:
        """The images, uint8, (height, width, channels).

        Raises:
            DataError: a file cannot be read.
        """
        for number, file in enumerate(self._files):
            first, last = self._starts[number], self._starts[number + 1]
            low, high = max(start, first), min(stop, last)
            if low < high:
                with _images_in(file.path) as images:
                    read = images[low - first : high - first]
                yield from read

    def signature(self) -> str:
        """The paths, sizes and times of the files."""
        return _together(file.signature() for file in self._files)

    def content_key(self) -> str:
        """SHA-256 over the content of the files."""
        return _together(file.content_key() for file in self._files)


@contextlib.contextmanager
def _images_in(path: Path) -> Iterator[Any]:
    """The array "x" of an open HDF5 file; makes one line of what goes wrong with it."""
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as file:  # some network drives have no locks
            yield file["x"]
    except Exception as error:  # h5py lets many kinds out on damaged files
        raise DataError(f"{path}: cannot be read ({_cause(error)}): fetch it again") from None


def _together(texts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()
