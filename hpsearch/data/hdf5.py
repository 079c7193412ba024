"""Our HDF5 files: what is in them, and how they are written.

Attributes of the file:

    format        "hpsearch-images"
    version       1
    source        the name of the data that it was made from
    fit           how images got to their shape: "crop", "pad" or "stretch"
    made_by       the program that wrote it, such as "hpsearch 0.1.0"

Datasets, of N images and K classes:

    /images       uint8, (N, height, width, channels), channels 1 (gray) or 3 (RGB)
    /labels       int64, (N,): an index into /classes
    /classes      text, (K,): their names, no two the same
    /names        text, (N,): what each image was called in its source
    /groups       text, (N,), optional: who or what must not be on two sides of a split
    /splits       text, (N,), optional: the official split: "train", "val", "test" or nothing
    /columns      text, (M,), optional: what classes were joined from, such as gender and aspect
    /class_parts  text, (K, M), with /columns: for each class its value in each of them

Texts are UTF-8, padded with zero bytes to the length of the longest: the library loses itself in
damaged texts of variable length, and those have no checksum. Everything here has one. Images are
in chunks of some MB along N, not compressed. The file format is that of HDF5 1.10 (2016).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from hpsearch.data.dataset import ImageShape, Int64Array, UInt8Array

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

FORMAT = "hpsearch-images"
VERSION = 1

_CHUNK_BYTES = 2**22
_LABELS_A_CHUNK = 2**17


class ImageFileWriter:
    """Writes images one by one, and at the end everything else; `image_file` makes one.

    Only one chunk of images is in memory.

    Args:
        do: calls a function, and raises what went wrong with the file meanwhile.
        count: how many images there are at most.
    """

    def __init__(
        self, file: h5py.File, do: Callable[..., None], count: int, shape: ImageShape
    ) -> None:
        self._file, self._do = file, do
        rows = min(count, max(1, _CHUNK_BYTES // shape.nbytes))
        self._chunk = np.empty((rows, shape.height, shape.width, shape.channels), np.uint8)
        self._count, self._filled, self._written = count, 0, 0
        self._do(self._create)

    def add(self, image: UInt8Array) -> None:
        """Takes the next image: (height, width, channels).

        Raises:
            OSError: the file cannot be written.
        """
        self._chunk[self._filled] = image
        self._filled += 1
        if self._filled == len(self._chunk):
            self._do(self._write_chunk)

    def finish(
        self,
        labels: Int64Array,
        texts: Mapping[str, Sequence[str]],
        columns: tuple[str, ...],
        class_parts: Sequence[tuple[str, ...]],
        attributes: Mapping[str, str],
    ) -> None:
        """Writes what belongs to the images that were added.

        Args:
            labels: of each image.
            texts: "classes", "names" and those of the optional ones that there are.
            attributes: of the file, besides format and version.

        Raises:
            OSError: the file cannot be written.
        """
        if self._filled:
            self._do(self._write_chunk)
        self._do(self._describe, labels, texts, columns, class_parts, attributes)

    def _create(self) -> None:
        shape = (self._count, *self._chunk.shape[1:])
        self._file.create_dataset(
            "images", shape, np.uint8, chunks=self._chunk.shape, maxshape=shape, fletcher32=True
        )

    def _write_chunk(self) -> None:
        stop = self._written + self._filled
        self._file["images"][self._written : stop] = self._chunk[: self._filled]
        self._written, self._filled = stop, 0

    def _describe(
        self,
        labels: Int64Array,
        texts: Mapping[str, Sequence[str]],
        columns: tuple[str, ...],
        class_parts: Sequence[tuple[str, ...]],
        attributes: Mapping[str, str],
    ) -> None:
        self._file["images"].resize(self._written, axis=0)
        rows = min(len(labels), _LABELS_A_CHUNK)
        self._file.create_dataset("labels", data=labels, chunks=(rows,), fletcher32=True)
        for name, values in texts.items():
            _write_texts(self._file, name, values)
        if columns:
            _write_texts(self._file, "columns", columns)
            flat = [text for parts in class_parts for text in parts]
            _write_texts(self._file, "class_parts", flat, len(columns))
        self._file.attrs["version"] = VERSION
        for name, text in {"format": FORMAT, **attributes}.items():
            encoded = text.encode()
            kind = h5py.string_dtype("utf-8", max(1, len(encoded)))
            self._file.attrs.create(name, encoded, dtype=kind)


@contextlib.contextmanager
def image_file(path: Path, count: int, shape: ImageShape) -> Iterator[ImageFileWriter]:
    """A new file of at most `count` images of one shape; it is closed when the block ends.

    Raises:
        OSError: it cannot be written.
    """
    # In a thread of its own: Ctrl-C strikes in the main thread, and must not while the library
    # creates or closes the file, which it would leave half open, to crash at exit.
    with _Sink(path) as sink, ThreadPoolExecutor(1, "hdf5") as thread:
        opened: Future[Any] = thread.submit(h5py.File, sink, "w", libver=("v110", "v110"))

        def do(function: Callable[..., None], *args: object) -> None:
            thread.submit(function, *args).result()
            sink.check()

        try:
            yield ImageFileWriter(opened.result(), do, count, shape)
        finally:
            thread.submit(_close, opened).result()
        sink.check()


def _close(opened: Future[Any]) -> None:
    if opened.exception() is None:
        opened.result().close()


class _Sink(io.FileIO):
    """A file that takes everything: the library crashes when it closes a file that it could not
    write to, such as on a full disk. The first error is kept, for `check`.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self._error: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        view = memoryview(data).cast("B")
        done = 0
        try:
            while self._error is None and done < len(view):
                done += super().write(view[done:])
        except OSError as error:
            self._error = error
        return len(view)

    def truncate(self, size: int | None = None, /) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self._error = self._error or error
            return size or 0

    def check(self) -> None:
        """Raises the first error that there was."""
        if self._error is not None:
            raise self._error


def _write_texts(
    file: h5py.File, name: str, texts: Sequence[str], columns: int | None = None
) -> None:
    """Writes texts, in rows of `columns` where that is given."""
    length = max(1, max(len(text.encode()) for text in texts))
    kind = h5py.string_dtype("utf-8", length)
    width = columns or 1
    count = len(texts) // width
    rows = min(count, max(1, _CHUNK_BYTES // (length * width)))
    tail = () if columns is None else (columns,)
    dataset = file.create_dataset(
        name, (count, *tail), kind, chunks=(rows, *tail), compression=1, fletcher32=True
    )
    for start in range(0, count, rows):
        some = [text.encode() for text in texts[start * width : (start + rows) * width]]
        dataset[start : start + rows] = np.array(some, dtype=kind).reshape(-1, *tail)
