"""HDF5 files that come from anywhere: opened, searched and read without trusting them.

The HDF5 library follows links to other files, reserves what a file declares, and on damage can
loop for ever or crash. What can be seen beforehand is refused here; what it raises itself becomes
one line.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hpsearch.data.readers import is_regular_file, is_there
from hpsearch.data.words import reason_of
from hpsearch.errors import DataError
from hpsearch.names import listed, printable

MAX_CHUNK = 2**28
"""Bytes: the library decompresses whole chunks."""
CHUNK_CACHE = 2**26
_MAX_CHUNKS = 2**24

_MAX_OBJECTS = 10_000
_MAX_DEPTH = 8
_MAX_HOPS = 16
# Deflate, the filter that nearly all files have, makes at most 1,032 bytes of one.
_MAX_RATIO = 2_000
_SMALL = 2**26
_MAX_TEXT = 2**16
_SLICE = 2**24
_SCANNED = 2**30
# The library reads beyond its buffer where their parameters are damaged; images never have them.
_UNSAFE_FILTERS = {5: "nbit", 6: "scaleoffset"}
_HEAP = b"GCOL\x01\0\0\0"


class Hdf5File:
    """An open HDF5 file.

    Attributes:
        path: of the file.
        size: of the file, in bytes.

    Raises:
        DataError: there is none, or it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        if not is_there(path):
            raise DataError(f"no data at {path}: the file does not exist")
        if not is_regular_file(path):
            raise DataError(f"{path}: is no file, but a folder or a device")
        self.path = path
        self._heaps_are_sound = False
        self._links: list[str] = []
        try:
            self.size = path.stat().st_size
            # Without locks: some network drives have none, and nobody writes here.
            self._file = h5py.File(path, "r", locking=False, rdcc_nbytes=CHUNK_CACHE)
        except Exception as error:  # h5py lets half a dozen kinds out on damaged files
            raise DataError(
                f"{path}: cannot be opened as HDF5 ({reason_of(error)}); it is another kind of "
                "file, cut off or damaged: copy or download it again"
            ) from None

    def close(self) -> None:
        """Closes it; what was found in it cannot be read any more."""
        self._file.close()

    def where(self, dataset: str) -> str:
        """How messages name a dataset."""
        return f"{self.path} ({printable(dataset)})"

    @contextlib.contextmanager
    def guarded(self, name: str) -> Iterator[None]:
        """Makes one line of what the library raises while it reads `name`."""
        try:
            yield
        except DataError:
            raise
        except Exception as error:
            raise DataError(
                f"{self.where(name)}: cannot be read ({reason_of(error)}); the file is damaged: "
                "copy or download it again"
            ) from None

    def attribute(self, name: str) -> str | int | None:
        """A text of fixed length or a whole number, and None for everything else: others are
        not read.
        """
        with self.guarded(f"attribute {name}"):
            attributes = self._file.attrs
            if name not in attributes:
                return None
            found = attributes.get_id(name)
            if found.shape != () or found.dtype.kind not in "Siu" or found.dtype.itemsize > 1024:
                return None
            value = attributes[name]
            return value.decode("utf-8") if isinstance(value, bytes) else int(value)

    def has(self, name: str) -> bool:
        """Whether there is a dataset, group or link of this name at the root."""
        with self.guarded(name):
            return bool(self._file.id.links.exists(name.encode()))

    def dataset(self, name: str) -> h5py.Dataset:
        """The dataset at a path, checked.

        Raises:
            DataError: there is none, it is in another file, or is not what it declares.
        """
        with self.guarded(name):
            found = self._resolve(name)
            if not isinstance(found, h5py.Dataset):
                raise DataError(f"{self.where(name)}: is no dataset, but a group or a type")
            self._check(found, name)
            return found

    def datasets(self) -> dict[str, h5py.Dataset]:
        """All datasets by their path, not checked yet; links are not followed.

        Raises:
            DataError: there are too many.
        """
        found: dict[str, h5py.Dataset] = {}
        self._links = []
        with self.guarded("/"):
            seen = set()
            pending = [("", self._file.id)]
            objects = 0
            while pending:
                prefix, group = pending.pop()
                for name in self._names(group):
                    objects += 1
                    if objects > _MAX_OBJECTS or prefix.count("/") > _MAX_DEPTH:
                        raise DataError(
                            f"{self.path}: has more than {_MAX_OBJECTS:,} objects, or groups deep "
                            "in each other; name the datasets with the options images and labels"
                        )
                    path = prefix + _text(name)
                    if group.links.get_info(name).type != h5py.h5l.TYPE_HARD:
                        self._links.append(path)
                        continue
                    address = h5py.h5o.get_info(group, name).addr
                    if address in seen:  # groups may contain each other
                        continue
                    seen.add(address)
                    opened = h5py.h5o.open(group, name)
                    if isinstance(opened, h5py.h5g.GroupID):
                        pending.append((f"{path}/", opened))
                    elif isinstance(opened, h5py.h5d.DatasetID):
                        found[path] = h5py.Dataset(opened)
        return found

    def links(self) -> list[str]:
        """The links that `datasets` did not follow."""
        return self._links

    def texts(self, name: str) -> list[str]:
        """A dataset of texts or whole numbers as a flat list of texts.

        Raises:
            DataError: it is something else, not UTF-8, or holds more than the file can.
        """
        dataset = self.dataset(name)
        with self.guarded(name):
            if dataset.dtype.kind not in "iu" and h5py.check_string_dtype(dataset.dtype) is None:
                raise DataError(f"{self.where(name)}: must be texts, but is {dataset.dtype}")
            if dataset.ndim == 0 or dataset.dtype.itemsize > _MAX_TEXT:
                raise DataError(f"{self.where(name)}: must be a list of short texts")
            step = max(1, _SLICE // _row_bytes(dataset))
            if dataset.dtype.kind == "O":
                # Many elements may mean the same long text.
                step = min(max(2**30 // self.size, 16), 4096)
            result: list[str] = []
            total = 0
            for start in range(0, len(dataset), step):
                for value in dataset[start : start + step].ravel().tolist():
                    text = value if isinstance(value, bytes) else str(value).encode()
                    total += len(text)
                    if len(text) > _MAX_TEXT or (total > self.size and dataset.dtype.kind == "O"):
                        raise DataError(f"{self.where(name)}: has texts of absurd length")
                    result.append(self._decoded(text, name))
        return result

    def numbers(self, name: str) -> Iterator[np.ndarray]:
        """A dataset of numbers, some rows at a time."""
        dataset = self.dataset(name)
        step = max(1, _SLICE // _row_bytes(dataset))
        for start in range(0, len(dataset), step):
            with self.guarded(name):
                values: np.ndarray = dataset[start : start + step]
            yield values

    def _decoded(self, text: bytes, name: str) -> str:
        try:
            return text.decode("utf-8")
        except UnicodeDecodeError:
            raise DataError(
                f"{self.where(name)}: the text {text[:60]!r} is not UTF-8; write it again"
            ) from None

    def _names(self, group: h5py.h5g.GroupID) -> Iterator[bytes]:
        for number in range(min(group.get_num_objs(), _MAX_OBJECTS + 1)):
            yield group.get_objname_by_idx(number)

    def _resolve(self, name: str) -> Any:
        """Goes from link to link, and never into another file."""
        node, parts, hops = self._file.id, _parts(name.encode("utf-8", "surrogateescape")), 0
        while parts:
            part = parts.pop(0)
            if not isinstance(node, h5py.h5g.GroupID) or not node.links.exists(part):
                raise DataError(
                    f"{self.path}: has no dataset {name!r}; it has {self._listed() or 'none'}"
                )
            kind = node.links.get_info(part).type
            if kind == h5py.h5l.TYPE_SOFT:
                hops += 1
                if hops > _MAX_HOPS:
                    raise DataError(f"{self.where(name)}: is a link that leads to itself")
                target = node.links.get_val(part)
                node = self._file.id if target.startswith(b"/") else node
                parts = _parts(target) + parts
                continue
            if kind != h5py.h5l.TYPE_HARD:
                raise DataError(
                    f"{self.where(name)}: is a link to another file, which is not followed; copy "
                    "the data into one file (h5repack or h5copy)"
                )
            node = h5py.h5o.open(node, part)
        return h5py.Dataset(node) if isinstance(node, h5py.h5d.DatasetID) else node

    def _listed(self) -> str:
        with contextlib.suppress(DataError):
            return listed(list(self.datasets()), 20)
        return ""

    def _check(self, dataset: h5py.Dataset, name: str) -> None:
        """Refuses what lies in other files, or declares more than the file can hold."""
        where = self.where(name)
        creation = dataset.id.get_create_plist()
        if creation.get_layout() == h5py.h5d.VIRTUAL or creation.get_external_count():
            raise DataError(
                f"{where}: its data lie in another file, which is not followed; copy them into "
                "one file (h5repack)"
            )
        if dataset.shape is None:
            raise DataError(f"{where}: is empty")
        self._check_filters(creation, where)
        declared = math.prod(dataset.shape) * dataset.id.get_type().get_size()
        if creation.get_layout() == h5py.h5d.CHUNKED:
            held, ratio = self._check_chunks(dataset, where), _MAX_RATIO
            is_filtered = creation.get_nfilters() > 0
        else:
            held, ratio = dataset.id.get_storage_size(), 1
            is_filtered = False
        most = max(held * ratio, _SMALL) if is_filtered else held
        if held > self.size or declared > most:
            raise DataError(
                f"{where}: declares {declared:,} bytes (shape {dataset.shape}), which its "
                f"{min(held, self.size):,} bytes in the file cannot hold; it was not written to "
                "the end, or is damaged"
            )
        if dataset.dtype.kind == "O":
            self._check_heaps()

    def _check_filters(self, creation: Any, where: str) -> None:
        for number in range(creation.get_nfilters()):
            code, _, _, text = creation.get_filter(number)
            name = _UNSAFE_FILTERS.get(code) or printable(text.decode("utf-8", "replace"))
            if code in _UNSAFE_FILTERS or not h5py.h5z.filter_avail(code):
                raise DataError(
                    f"{where}: is packed with the filter {name or code}, which is not read here; "
                    "write it again with gzip (h5repack -f GZIP=4)"
                )

    def _check_chunks(self, dataset: h5py.Dataset, where: str) -> int:
        """How many bytes all chunks have in the file; every chunk must be there."""
        chunk = math.prod(dataset.chunks) * dataset.id.get_type().get_size()
        if chunk > MAX_CHUNK:
            raise DataError(
                f"{where}: has chunks of {chunk:,} bytes, and at most {MAX_CHUNK:,} can be read; "
                "write it again in smaller ones (h5repack -l)"
            )
        count = math.prod(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
        if count > _MAX_CHUNKS:  # to go through them would take for ever
            raise DataError(
                f"{where}: has {count:,} chunks (shape {dataset.shape}), and at most "
                f"{_MAX_CHUNKS:,} can be read; write it again in larger ones (h5repack -l)"
            )
        is_filtered = dataset.id.get_create_plist().get_nfilters() > 0
        # Packing what cannot be packed adds some bytes; checksums take 4.
        low, high = (4, 2 * chunk + 4096) if is_filtered else (chunk, chunk)
        sizes: list[int] = []
        dataset.id.chunk_iter(lambda info: sizes.append(info.size))
        if len(sizes) != count:
            raise DataError(
                f"{where}: has {len(sizes):,} of the {count:,} chunks that its shape "
                f"{dataset.shape} needs; it was not written to the end, or is damaged"
            )
        if sizes and not low <= min(sizes) <= max(sizes) <= high:
            raise DataError(
                f"{where}: has a chunk of {min(sizes):,} or {max(sizes):,} bytes, but unpacked "
                f"they have {chunk:,}; the file is damaged: copy or download it again"
            )
        return sum(sizes)

    def _check_heaps(self) -> None:
        """Refuses heaps (where elements of variable length are) on which the library loops for
        ever: an entry that claims no length. Of large files only the beginning is looked at.
        """
        if self._heaps_are_sound:
            return
        length = min(self.size, _SCANNED)
        with (
            self.path.open("rb") as file,
            mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ) as data,
        ):
            start = data.find(_HEAP)
            while start >= 0:
                end = start + int.from_bytes(data[start + 8 : start + 16], "little")
                if not _is_sound_heap(data, start + 16, end):
                    raise DataError(
                        f"{self.path}: its texts or images of variable length are damaged (heap at "
                        f"byte {start:,}); copy or download it again"
                    )
                start = data.find(_HEAP, start + len(_HEAP))
        self._heaps_are_sound = True


def _is_sound_heap(data: mmap.mmap, entry: int, end: int) -> bool:
    while entry + 16 <= min(end, len(data)):
        length = int.from_bytes(data[entry + 8 : entry + 16], "little")
        is_free = data[entry : entry + 2] == b"\0\0"
        step = length if is_free else 16 + -(-length // 8) * 8
        if not 16 <= step <= end - entry:
            return False
        entry += step
    return True


def _row_bytes(dataset: h5py.Dataset) -> int:
    size: int = math.prod(dataset.shape[1:]) * dataset.dtype.itemsize
    return max(1, size)


def _parts(path: bytes) -> list[bytes]:
    return [part for part in path.split(b"/") if part not in (b"", b".")]


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
