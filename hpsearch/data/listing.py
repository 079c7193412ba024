"""What lies below a folder: picture files, and what else."""

from __future__ import annotations

import collections
import dataclasses
import heapq
import os
from collections.abc import Iterator
from pathlib import Path

from hpsearch.data.catalog import Remark, remarks_on
from hpsearch.data.decode import FOREIGN, SUFFIXES
from hpsearch.data.readers import check_inside
from hpsearch.errors import DataError
from hpsearch.names import printable

TABLES = (".csv", ".tsv")


@dataclasses.dataclass(frozen=True)
class Listing:
    """The files below a folder, as sorted paths relative to it, with `/` between the parts.

    Attributes:
        images: files whose suffix is that of a picture.
        foreign: files whose suffix is that of a picture of a kind that is not read.
        others: all others but hidden ones.
        outside: links out of the folder that were left out: to folders, or called like pictures.
    """

    root: Path
    images: tuple[str, ...]
    foreign: tuple[str, ...]
    others: tuple[str, ...]
    outside: tuple[str, ...] = ()

    def remarks(self) -> tuple[Remark, ...]:
        """What else lies there, for the check."""
        others = remarks_on(
            "files that are no pictures",
            self.others,
            one="file that is no picture",
            harmless=True,
        )
        return self.foreign_remarks() + others

    def foreign_remarks(self) -> tuple[Remark, ...]:
        """Pictures of kinds that are not read, which whoever reads the others must know."""
        if not self.foreign:
            return ()
        counts = collections.Counter(Path(path).suffix.lower() for path in self.foreign)
        kinds = " and ".join(f"{count:,} {suffix}" for suffix, count in counts.most_common())
        one = len(self.foreign) == 1
        words = ("picture is", "it") if one else ("pictures are", "them")
        counted = f"{kinds} {words[0]} not read, convert {words[1]} to JPEG or PNG"
        return (Remark(kind="pictures that are not read", counted=counted, names=self.foreign),)


def list_files(root: Path, *, refuse_outside: bool = True) -> Listing:
    """Lists what lies below `root`. Links to files and folders inside of it are followed; a
    picture's that leads nowhere is listed, so that reading it says so.

    Args:
        refuse_outside: raise where a symbolic link leads out of `root`; else it is left out.

    Raises:
        DataError: the folder cannot be read, or a symbolic link leads out of it.
    """
    real = root.resolve()
    images: list[str] = []
    foreign: list[str] = []
    others: list[str] = []
    outside: list[str] = []
    seen: set[Path] = set()
    folders, links = [root], list[Path]()
    while folders or links:
        # Links last and in order: each folder is listed once, where it is rather than by a link.
        folder = folders.pop() if folders else heapq.heappop(links)
        if (resolved := folder.resolve()) in seen:
            continue
        seen.add(resolved)
        for entry in _entries(folder):
            path = Path(entry.path)
            relative = path.relative_to(root).as_posix()
            is_link = entry.is_symlink()
            if is_link and not refuse_outside and _leads_out(path, real):
                if path.suffix.lower() in SUFFIXES or path.is_dir():
                    outside.append(relative)
                continue
            if is_link:
                check_inside(path, real, relative)
            found = _followed(entry)
            if found.is_dir():
                if is_link:
                    heapq.heappush(links, path)
                else:
                    folders.append(path)
            elif path.suffix.lower() in SUFFIXES and (
                found.is_file() or (is_link and not path.exists())
            ):
                images.append(relative)
            elif path.suffix.lower() in FOREIGN:
                foreign.append(relative)
            else:
                others.append(relative)
    found_paths = (tuple(sorted(paths)) for paths in (images, foreign, others, outside))
    return Listing(root, *found_paths)


def _leads_out(link: Path, root: Path) -> bool:
    try:
        return not link.resolve().is_relative_to(root)
    except RuntimeError:  # links in a circle: they lead nowhere
        return False


def _followed(entry: os.DirEntry[str]) -> os.DirEntry[str] | Path:
    """To ask what an entry is: of links in a circle, a `Path` says that they are nothing."""
    return Path(entry.path) if entry.is_symlink() else entry


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """What is in a folder but hidden files and what archives of some systems leave."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.name != "__MACOSX":
                    yield entry
    except OSError as error:
        raise DataError(
            f"the folder {printable(str(folder))} cannot be read: {error.strerror}"
        ) from None


def subfolders(root: Path) -> list[Path]:
    """The folders in `root`, links to some included."""
    return [Path(entry.path) for entry in _entries(root) if _followed(entry).is_dir()]


@dataclasses.dataclass(frozen=True)
class Glance:
    """What a folder holds, seen without reading all of it.

    Attributes:
        images: how many pictures are in it, not counting those in its folders.
        with_images: the folders in it that have pictures.
        tables: the tables in it.
    """

    root: Path
    images: int
    with_images: tuple[str, ...]
    tables: tuple[str, ...]


def glance(root: Path) -> Glance:
    """Looks whether `root` and the folders in it have pictures, and for tables in it."""
    entries = sorted(_entries(root), key=lambda entry: entry.name)
    files = [entry.name for entry in entries if _followed(entry).is_file()]
    return Glance(
        root=root,
        images=sum(Path(name).suffix.lower() in SUFFIXES for name in files),
        with_images=tuple(
            entry.name
            for entry in entries
            if _followed(entry).is_dir() and (entry.is_symlink() or _any_image(Path(entry.path)))
        ),
        tables=tuple(name for name in files if Path(name).suffix.lower() in TABLES),
    )


def _any_image(folder: Path, depth: int = 4) -> bool:
    folders = []
    for entry in _entries(folder):
        if entry.is_dir(follow_symlinks=False):
            folders.append(Path(entry.path))
        elif Path(entry.name).suffix.lower() in SUFFIXES:
            return True
    return depth > 0 and any(_any_image(path, depth - 1) for path in folders)
