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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pictures:
    """What was found.

    Attributes:
        paths: files, in the order of the names given; those of a folder or pattern sorted.
        missing: names that lead to no picture, and why.
    """

    paths: tuple[str, ...]
    missing: tuple[BadImage, ...]


def find_pictures(given: Iterable[str | os.PathLike[str]]) -> Pictures:
    """The files that some names mean.

    Args:
        given: files, whatever they are called; folders, for the pictures in them and in the
            folders below, but for links that lead out of them; patterns such as photos/*.jpg, or
            photos/**/*.jpg for all below.

    Raises:
        DataError: a folder cannot be read.
    """
    paths: list[str] = []
    missing: list[BadImage] = []
    for name in [os.fspath(path) for path in given]:
        try:
            found = list(_found(name))
        except DataError:
            raise
        except ValueError:  # a null character, which no file name has
            found = []
        paths += found
        if not found:
            missing.append(BadImage(name, _why(name)))
    return Pictures(paths=tuple(paths), missing=tuple(missing))


def _found(name: str) -> Iterator[str]:
    if is_folder(Path(name)):
        for path in list_files(Path(name), refuse_outside=False).images:
            yield os.path.join(name, path)  # noqa: PTH118 (Path would drop a leading ./)
    elif os.path.lexists(name):
        yield name
    elif glob.has_magic(name):
        for path in sorted(glob.glob(name, recursive=True)):  # noqa: PTH207 (absolute ones, too)
            if not is_folder(Path(path)):
                yield path


def _why(name: str) -> str:
    if "\0" not in name and is_folder(Path(name)):
        return "there are no pictures in this folder"
    return "nothing matches" if glob.has_magic(name) else "there is no such file"
