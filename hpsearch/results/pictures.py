"""Picture files as people name them: files, folders, patterns."""

from __future__ import annotations

import dataclasses
import glob
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from hpsearch.data.catalog import BadImage
from hpsearch.data.listing import list_files
from hpsearch.data.readers import is_folder
from hpsearch.errors import DataError

_FOREIGN = "pictures of this kind are not read: convert it to JPEG or PNG"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pictures:
    """What was found.

    Attributes:
        paths: files, in the order of the names given; those of a folder or pattern sorted.
        missing: names that lead to no picture, and pictures in folders of kinds that are not read,
            and why.
        outside: links in folders that were named, which lead out of them and are not followed: to
            folders, or called like pictures.
    """

    paths: tuple[str, ...]
    missing: tuple[BadImage, ...]
    outside: tuple[str, ...] = ()


def find_pictures(given: Iterable[str | os.PathLike[str]]) -> Pictures:
    """The files that some names mean.

    Args:
        given: files, whatever they are called; folders, for the pictures in them and in the
            folders below, but for links that lead out of it; patterns such as photos/*.jpg, or
            photos/**/*.jpg for all below.

    Raises:
        DataError: a folder cannot be read.
    """
    paths: list[str] = []
    missing: list[BadImage] = []
    outside: list[str] = []
    for name in [os.fspath(path) for path in given]:
        foreign: list[str] = []
        try:
            found = list(_found(name, outside, foreign))
        except DataError:
            raise
        except ValueError:  # a null character, which no file name has
            found = []
        paths += found
        missing += [BadImage(path, _FOREIGN) for path in foreign]
        if not found and not foreign:
            missing.append(BadImage(name, _why(name)))
    return Pictures(paths=tuple(paths), missing=tuple(missing), outside=tuple(outside))


def _found(name: str, outside: list[str], foreign: list[str]) -> Iterator[str]:
    """The files; links that lead out of a folder are added to `outside`, and pictures in it of
    kinds that are not read to `foreign`.
    """
    if not name:  # Path would take it for the current folder
        return
    if is_folder(Path(name)):
        listing = list_files(Path(name), refuse_outside=False)
        # Path would drop a leading ./
        outside += [os.path.join(name, path) for path in listing.outside]  # noqa: PTH118
        foreign += [os.path.join(name, path) for path in listing.foreign]  # noqa: PTH118
        yield from (os.path.join(name, path) for path in listing.images)  # noqa: PTH118
    elif os.path.lexists(name):
        yield name
    elif glob.has_magic(name):
        for path in sorted(glob.glob(name, recursive=True)):  # noqa: PTH207 (absolute ones, too)
            if not is_folder(Path(path)):
                yield path


def _why(name: str) -> str:
    if not name:
        return "the name is empty: name a file, a folder (. for the current one) or a pattern"
    if "\0" not in name and is_folder(Path(name)):
        return "there are no pictures in this folder"
    return "nothing matches" if glob.has_magic(name) else "there is no such file"
