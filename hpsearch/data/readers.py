"""The two kinds of image readers that most sources need: picture files, and arrays in memory."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from hpsearch.data.catalog import BadImage, RawImage
from hpsearch.data.dataset import ImageShape, UInt8Array
from hpsearch.data.decode import default_workers, open_image, unavailable
from hpsearch.errors import DataError
from hpsearch.names import printable


class FileReader:
    """Picture files below a folder (see `hpsearch.data.catalog.ImageReader`).

    Args:
        root: of the paths.
        paths: (N,) relative to `root`.
    """

    shape: ImageShape | None = None
    batch = 16

    def __init__(self, root: Path, paths: Sequence[str]) -> None:
        self.root = root
        self.paths = paths

    def read(self, start: int, stop: int) -> Iterator[RawImage | BadImage]:
        """Opens the pictures one by one; decoding is up to the caller."""
        for path in self.paths[start:stop]:
            try:
                yield open_image(self.root / path)
            except DataError as error:
                yield BadImage(path, str(error))
            except OSError as error:
                raise unavailable(path, error) from error

    def signature(self) -> str:
        """SHA-256 over paths, sizes and times."""
        digest = hashlib.sha256(os.fsencode(self.root))
        for path in self.paths:
            digest.update(f"\0{_stat_text(self.root / path)}\0".encode())
            digest.update(os.fsencode(path))
        return digest.hexdigest()

    def content_key(self) -> str:
        """SHA-256 over the content of all files, in order."""
        digest = hashlib.sha256(b"files")
        some = [self.paths[start : start + 256] for start in range(0, len(self.paths), 256)]
        with ThreadPoolExecutor(default_workers()) as pool:
            for part in pool.map(self._digests, some):
                digest.update(part)
        return digest.hexdigest()

    def _digests(self, paths: Sequence[str]) -> bytes:
        return b"".join(file_digest(self.root / path) for path in paths)


class ArrayReader:
    """Images that are in memory already (see `hpsearch.data.catalog.ImageReader`).

    Args:
        images: uint8 (N, height, width, channels).
    """

    batch = 256

    def __init__(self, images: UInt8Array) -> None:
        self.images = images
        self.shape: ImageShape | None = ImageShape(*images.shape[1:])

    def read(self, start: int, stop: int) -> Iterator[RawImage | BadImage]:
        """The images themselves."""
        yield from self.images[start:stop]

    def signature(self) -> str:
        """The content: it is in memory, so it is quick."""
        return self.content_key()

    def content_key(self) -> str:
        """SHA-256 over the array."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images).data)
        return digest.hexdigest()


class OneFileReader:
    """What readers of a single file have in common: its identity."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def signature(self) -> str:
        """The file's path, size and times."""
        return hashlib.sha256(os.fsencode(self.path) + _stat_text(self.path).encode()).hexdigest()

    def content_key(self) -> str:
        """SHA-256 over the file."""
        return file_digest(self.path).hex()


def _stat_text(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:  # reading it will say what is wrong
        return "missing"
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"


def file_digest(path: Path) -> bytes:
    """SHA-256 of a file; of one that cannot be read, of nothing: reading it says why."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return hashlib.sha256().digest()


def is_there(path: Path) -> bool:
    """Whether there is anything at a path; nothing is where a path is too long to be one.

    Raises:
        DataError: that cannot be told: it is in a folder that may not be entered.
    """
    try:
        path.stat()
    except PermissionError:
        raise DataError(
            f"{printable(str(path))} may not be read: allow it to this user (chmod, chown), or "
            "copy the data elsewhere"
        ) from None
    except (OSError, ValueError):
        return False
    return True


def is_regular_file(path: Path) -> bool:
    """A file that reading comes to the end of: no folder, pipe or device; nor one that cannot be
    looked at.
    """
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):  # not there; no file name at all
        return False


def is_folder(path: Path) -> bool:
    """A folder that can be looked at; also of a path that is too long to be one."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError):
        return False


def check_inside(path: Path, root: Path, shown: str) -> None:
    """Refuses a path that leads out of the data's folder, by `..` or by a symbolic link.

    Args:
        root: resolved.
        shown: what the message calls the path.

    Raises:
        DataError: it leads elsewhere.
    """
    try:
        resolved = path.resolve()
    except (RuntimeError, ValueError):  # links in a circle, or no file name: it leads nowhere
        return
    if not resolved.is_relative_to(root):
        raise DataError(
            f"{shown!r} leads out of {printable(str(root))}, to {printable(str(resolved))}; data "
            "must lie below its own folder: copy it there"
        )
