"""The store: every source decoded once into a memory map that all searches and workers share.

One folder an entry, named by a hash of the content and of how it was brought to shape:

    images.u8       uint8, (N, height, width, channels), nothing else
    HxW-stretch.u8  the same in another size, made when it was first asked for
    labels.npy      int64, (N,)
    digests.npy     uint8, (N, 16): a hash of each image's pixels
    moments.npy     int64, (N, channels, 2): sums and sums of squares
    entry.json      everything else

An entry appears whole or not at all, and is never changed afterwards but for other sizes. Where
several processes want one that is not there, one makes it and the others wait.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Generator
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from hpsearch.data.catalog import BadImage, Catalog, check_catalog
from hpsearch.data.dataset import (
    ImageDataset,
    ImageShape,
    Int64Array,
    UInt8Array,
    digests_of,
    moments_of,
)
from hpsearch.data.decode import (
    FORMATS,
    MAX_PIXELS,
    Target,
    UnreadableImagesError,
    decode_all,
    decode_catalog,
)
from hpsearch.data.progress import Clock, Progress, Watch
from hpsearch.data.readers import ArrayReader
from hpsearch.data.sources import open_catalog
from hpsearch.data.spec import DataSpec
from hpsearch.data.target import target_of
from hpsearch.data.words import plural, reason_of
from hpsearch.errors import DataError
from hpsearch.files import whole_folder, write_text, write_whole
from hpsearch.names import listed

VERSION = 1
"""Raised when decoding changes what comes out."""

_WRITE_BYTES = 2**23
"""Written at once: the system then keeps the file in large pages, which are read faster."""
SMALL_BYTES = 2**24
"""Arrays that are in memory already, and smaller than this, need no file."""


def cache_folder() -> Path:
    """Where the store is: `HPSEARCH_CACHE`, or hpsearch in the user's folder for such files."""
    if given := os.environ.get("HPSEARCH_CACHE"):
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "hpsearch"


def load_dataset(
    data: DataSpec | str | os.PathLike[str] = "digits", *, watch: Watch | None = None
) -> ImageDataset:
    """The images that `data` names, decoded and brought to one shape.

    The first time they are decoded into the store; afterwards they are mapped from there.

    Args:
        watch: is told how far decoding has come.

    Raises:
        DataError: the data cannot be found or read, or some of its images cannot (all of them
            are listed), or the store cannot be written.
    """
    spec = DataSpec.of(data)
    return load_catalog(open_catalog(spec), spec, watch=watch)


def load_catalog(catalog: Catalog, spec: DataSpec, *, watch: Watch | None = None) -> ImageDataset:
    """As `load_dataset`, of images that are listed already."""
    check_catalog(catalog)
    small = _small_dataset(catalog, spec)
    if small is not None:
        return small
    watch = watch or (lambda _: None)
    cache = cache_folder()
    try:
        key, notes = _key(catalog, spec, cache, watch)
        folder = cache / "entries" / key.text
        if not folder.is_dir():
            with _locked(cache, key.text, watch):
                if not folder.is_dir():
                    _make_entry(folder, catalog, spec, key, watch)
    except OSError as error:
        raise _unwritable(cache, error) from error
    return _open_entry(folder, catalog, spec, notes)


def resized(
    dataset: ImageDataset, size: tuple[int, int], *, watch: Watch | None = None
) -> ImageDataset:
    """`dataset` in another size (height, width): an antialiased copy, which is made once and
    shared where the data set comes from the store. Digests and fingerprint are of its own pixels.
    """
    if size == (dataset.shape.height, dataset.shape.width):
        return dataset
    target = Target(ImageShape(*size, dataset.shape.channels), "stretch")
    watch = watch or (lambda _: None)
    if dataset.folder is None:
        images = np.concatenate(list(_scaled(dataset, target, watch)))
        return dataclasses.replace(dataset, images=images)
    stem = f"{size[0]}x{size[1]}-{target.fit}"
    made_of = Path(getattr(dataset.images, "filename", None) or "images.u8").stem
    if made_of != "images":  # a copy of a copy is another one
        stem = f"{made_of}-{stem}"
    pixels, sums = dataset.folder / f"{stem}.u8", dataset.folder / f"{stem}.moments.npy"
    cache = dataset.folder.parent.parent
    try:
        if not pixels.is_file():
            with _locked(cache, dataset.folder.name, watch):
                if not pixels.is_file():
                    _write_scaled(pixels, sums, dataset, target, watch)
    except OSError as error:
        raise _unwritable(cache, error) from error
    try:
        moments = np.load(sums, allow_pickle=False)
        if moments.shape != (len(dataset), target.shape.channels, 2):
            raise ValueError(f"{sums.name} has the shape {moments.shape}")
        images = _map(pixels, len(dataset), target.shape)
    except Exception as error:  # numpy raises a dozen kinds on damaged files
        raise _damaged(f"the stored copy of {dataset.name}", dataset.folder, error) from None
    return dataclasses.replace(dataset, images=images).knowing(moments=moments)


@dataclasses.dataclass(frozen=True)
class _Key:
    """The name of an entry, the signature of its files, and what its images become."""

    text: str
    signature: str
    target: Target


def _small_dataset(catalog: Catalog, spec: DataSpec) -> ImageDataset | None:
    """Arrays that are in memory and have the right shape, without the store."""
    reader = catalog.images
    if not isinstance(reader, ArrayReader) or reader.images.nbytes > SMALL_BYTES:
        return None
    dataset = ImageDataset(
        name=catalog.name,
        images=reader.images,
        labels=catalog.labels,
        classes=catalog.classes,
        names=catalog.names,
        groups=catalog.groups,
        official=catalog.official,
        columns=catalog.columns,
        class_parts=catalog.class_parts,
        notes=catalog.notes,
    )
    target, _ = target_of(catalog, spec)
    return dataset if target.shape == dataset.shape else None


def _key(catalog: Catalog, spec: DataSpec, cache: Path, watch: Watch) -> tuple[_Key, list[str]]:
    """The entry of a catalog. What it takes long to find out (the content's hash, the pictures'
    sizes) is remembered as long as paths, sizes and times of the files stay the same.
    """
    identity = hashlib.sha256(repr((VERSION, spec.size, spec.fit, spec.gray)).encode())
    identity.update(repr((FORMATS, MAX_PIXELS)).encode())  # they decide what is a bad image
    identity.update(repr((catalog.classes, catalog.columns)).encode())
    identity.update(repr((list(catalog.names), catalog.groups, catalog.class_parts)).encode())
    for array in (catalog.labels, catalog.official):
        identity.update(b"" if array is None else array.tobytes())
    known = identity.hexdigest()
    signature = catalog.images.signature()
    memo = cache / "sources" / f"{_sha(signature, known)}.json"
    try:
        stored = json.loads(memo.read_text(encoding="ascii"))
        target = Target(ImageShape(*stored["shape"]), spec.fit)
        return _Key(stored["entry"], signature, target), stored["notes"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    watch(Progress("looking at the files", 0, len(catalog), 0, 0.0))
    target, notes = target_of(catalog, spec)
    entry = _sha(catalog.images.content_key(), known, str(target.shape))
    text = json.dumps(
        {"entry": entry, "shape": dataclasses.astuple(target.shape), "notes": notes}, indent=1
    )
    with contextlib.suppress(OSError):  # it only saves time: a cache may be read by others, too
        memo.parent.mkdir(parents=True, exist_ok=True)
        write_text(memo, text)
    return _Key(entry, signature, target), notes


def _sha(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:40]


def _make_entry(folder: Path, catalog: Catalog, spec: DataSpec, key: _Key, watch: Watch) -> None:
    target = key.target
    _remove_leftovers(folder)
    check_space(folder.parent.parent, len(catalog) * target.shape.nbytes)
    digests: list[UInt8Array] = []
    moments: list[Int64Array] = []
    with whole_folder(folder, replace=False) as temporary:
        with (temporary / "images.u8").open("wb", buffering=_WRITE_BYTES) as file:

            def write(image: UInt8Array) -> None:
                file.write(image.data)
                digests.append(digests_of(image[np.newaxis]))
                moments.append(moments_of(image[np.newaxis]))

            skip = spec.on_error == "skip"
            kept, bad = decode_catalog(
                catalog, target, write, what="decoding", skip=skip, watch=watch
            )
        if catalog.images.signature() != key.signature:
            raise DataError(f"{catalog.name}: files changed while they were read; start again")
        arrays = {
            "labels": kept.labels,
            "digests": np.concatenate(digests),
            "moments": np.concatenate(moments),
        }
        for name, array in arrays.items():
            np.save(temporary / f"{name}.npy", np.asarray(array), allow_pickle=False)
        document = {
            "version": VERSION,
            "shape": dataclasses.astuple(target.shape),
            "classes": catalog.classes,
            "names": kept.names,
            "groups": kept.groups,
            "official": None if kept.official is None else kept.official.tolist(),
            "columns": catalog.columns,
            "class_parts": catalog.class_parts,
            "skipped": [[image.name, image.reason] for image in bad],
        }
        text = json.dumps(document, ensure_ascii=True)
        (temporary / "entry.json").write_text(text, encoding="ascii")


def _open_entry(folder: Path, catalog: Catalog, spec: DataSpec, notes: list[str]) -> ImageDataset:
    try:
        entry: dict[str, Any] = json.loads((folder / "entry.json").read_text(encoding="ascii"))
        arrays = {
            name: np.load(folder / f"{name}.npy", allow_pickle=False)
            for name in ("labels", "digests", "moments")
        }
        shape = ImageShape(*entry["shape"])
        images = _map(folder / "images.u8", len(arrays["labels"]), shape)
        skipped = [BadImage(name, reason) for name, reason in entry["skipped"]]
        dataset = ImageDataset(
            name=catalog.name,
            images=images,
            labels=arrays["labels"],
            classes=tuple(entry["classes"]),
            names=entry["names"],
            groups=entry["groups"],
            official=None
            if entry["official"] is None
            else np.array(entry["official"], dtype=np.int8),
            columns=tuple(entry["columns"]),
            class_parts=tuple(tuple(parts) for parts in entry["class_parts"]),
            skipped=tuple(skipped),
            folder=folder,
        )
        for name, row in (("digests", (16,)), ("moments", (shape.channels, 2))):
            if arrays[name].shape != (len(dataset), *row):
                raise ValueError(f"{name}.npy has the shape {arrays[name].shape}")
    except Exception as error:  # numpy raises a dozen kinds on damaged files
        raise _damaged(f"the stored copy of {catalog.name}", folder, error) from None
    if skipped and spec.on_error == "fail":  # the entry was made for who left them out
        raise UnreadableImagesError(catalog.name, skipped, len(catalog))
    if skipped:
        count, are = plural(len(skipped), "image"), "is" if len(skipped) == 1 else "are"
        reasons = listed([str(image) for image in skipped], 3)
        notes = [*notes, f"{count} that cannot be read {are} left out: {reasons}"]
    dataset = dataclasses.replace(dataset, notes=(*catalog.notes, *notes))
    return dataset.knowing(moments=arrays["moments"], digests=arrays["digests"])


def _damaged(what: str, folder: Path, error: Exception) -> DataError:
    return DataError(
        f"{what} in {folder} is damaged ({reason_of(error)}); delete that folder, and it will be "
        "made again"
    )


def _map(path: Path, count: int, shape: ImageShape) -> UInt8Array:
    """The file's content as an array; nothing is read yet, and nothing written ever."""
    expected = count * shape.nbytes
    if path.stat().st_size != expected:
        raise ValueError(f"{path.name} has {path.stat().st_size:,} bytes, not {expected:,}")
    return np.memmap(
        path, dtype=np.uint8, mode="c", shape=(count, shape.height, shape.width, shape.channels)
    )


def _scaled(dataset: ImageDataset, target: Target, watch: Watch) -> Generator[UInt8Array]:
    """The images of a data set in another size, some at a time."""
    clock = Clock(f"making {target.shape} copies", len(dataset))
    names = [str(row) for row in range(len(dataset))]
    batches = decode_all(ArrayReader(dataset.images), names, target)
    done = 0
    with closing(batches):
        for batch in batches:
            images = np.stack([image for image in batch if isinstance(image, np.ndarray)])
            done += len(batch)
            watch(clock.at(done))
            yield images


def _write_scaled(
    pixels: Path, sums: Path, dataset: ImageDataset, target: Target, watch: Watch
) -> None:
    check_space(pixels.parent.parent.parent, len(dataset) * target.shape.nbytes)
    for left in pixels.parent.glob(f".{pixels.stem}.*"):  # by a process that died; we hold its lock
        left.unlink(missing_ok=True)
    moments: list[Int64Array] = []

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            for images in _scaled(dataset, target, watch):
                file.write(np.ascontiguousarray(images).data)
                moments.append(moments_of(images))

    def write_sums(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.save(file, np.concatenate(moments), allow_pickle=False)

    # The pixels come last: where they are, the sums are.
    staged = pixels.with_suffix(".staged")
    write_whole(staged, write)
    write_whole(sums, write_sums)
    staged.replace(pixels)


def _locked(cache: Path, key: str, watch: Watch) -> AbstractContextManager[object]:
    """Waits until no other process makes this entry or copies of it. The lock is held when this
    returns, until the block ends; the system frees it if the process dies.
    """
    (cache / "locks").mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(cache / "locks" / f"{key}.lock")
    try:
        return lock.acquire(timeout=0)
    except filelock.Timeout:
        watch(Progress("waiting for another process that decodes the same data", 0, 0, 0, 0.0))
        return lock.acquire()


def _remove_leftovers(folder: Path) -> None:
    """What a process left that died while it made this entry (we hold its lock)."""
    if folder.parent.is_dir():
        for path in folder.parent.glob(f".{folder.name}.*"):
            shutil.rmtree(path, ignore_errors=True)


def check_space(
    folder: Path, needed: int, otherwise: str = "set HPSEARCH_CACHE to another folder"
) -> None:
    """Refuses to begin what will not fit on the disk.

    Args:
        folder: where it goes; it is made.
        needed: bytes.
        otherwise: what the user can do, besides making room or images smaller.

    Raises:
        DataError: there is less room.
    """
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"the decoded images need {needed / 1e6:,.1f} MB, but {folder} has "
            f"{free / 1e6:,.1f} MB left; make room, choose a smaller --size, or {otherwise}"
        )


def _unwritable(cache: Path, error: OSError) -> DataError:
    return DataError(
        f"the store of decoded images in {cache} cannot be used "
        f"({error.strerror or error}); set HPSEARCH_CACHE to another folder"
    )
