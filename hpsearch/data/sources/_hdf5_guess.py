"""Which datasets of somebody's HDF5 file are the images, and which the labels: by their names, as
far as those are common, and else by shape and type.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import h5py
import numpy as np

from hpsearch.data.dataset import PARTS
from hpsearch.data.sources._arrays import part_of
from hpsearch.data.sources._hdf5_file import Hdf5File
from hpsearch.errors import DataError
from hpsearch.names import listed, printable

# Names that datasets often have, the best first, in small letters.
_IMAGES = ("images", "image", "x", "data", "imgs", "img", "pictures", "pixels")
_LABELS = ("labels", "label", "y", "targets", "target", "category", "class", "ans")
_CLASSES = ("classes", "class_names", "list_classes", "label_names", "category_names")
# What stands in a name besides the part and the role: train_set_x.
_FILLERS = ("set", "orig")


@dataclasses.dataclass(frozen=True)
class Pair:
    """The paths of the datasets of images and of their labels.

    Attributes:
        part: of an official split.
    """

    images: str
    labels: str
    part: str | None = None


class Guess:
    """Finds datasets in a file."""

    def __init__(self, file: Hdf5File) -> None:
        self._file = file
        self._found = dict(sorted(file.datasets().items()))
        # Links have a name only: where they lead is looked at when one is read.
        self._paths = sorted([*self._found, *file.links()])

    def pairs(self, images: str | None, labels: str | None) -> list[Pair]:
        """Images and labels: one pair, or one for each part of an official split.

        Args:
            images, labels: where the user named them.

        Raises:
            DataError: there are none, or it is not clear which ones.
        """
        if images is None and labels is None:
            if whole := self._named_pair(None):
                return [whole]
            parts = [pair for pair in map(self._named_pair, PARTS) if pair]
            if parts:
                return parts
        images = images or self._named(_IMAGES, None, _holds_images) or self._only_images()
        labels = labels or self._named(_LABELS, _meaning(images)[0]) or self._only_labels(images)
        return [Pair(images, labels)]

    def others(self, pairs: list[Pair]) -> dict[str, str]:
        """The paths of classes, groups, splits and names, those that there are."""
        roles = {}
        meant = {path: _meaning(path)[1] for path in self._found}
        for word in _CLASSES:
            paths = [path for path in meant if meant[path] == word and self._lists_texts(path)]
            if paths:
                roles["classes"] = paths[0]
                break
        if len(pairs) == 1:
            folder = pairs[0].images.rpartition("/")
            for role in ("groups", "splits", "names"):
                path = "".join(folder[:2]) + role
                if self._lists_texts(path) and self._count(path) == self._count(pairs[0].images):
                    roles[role] = path
        return roles

    def _named_pair(self, part: str | None) -> Pair | None:
        images, labels = self._named(_IMAGES, part, _holds_images), self._named(_LABELS, part)
        return Pair(images, labels, part) if images and labels else None

    def _named(
        self,
        words: tuple[str, ...],
        part: str | None,
        prefer: Callable[[h5py.Dataset], bool] = lambda _: True,
    ) -> str | None:
        """The dataset of a part with the best name; one of the preferred kind, if any."""
        paths = [path for path in self._paths if _meaning(path)[0] == part]
        paths = [path for path in paths if _meaning(path)[1] in words]
        paths = [path for path in paths if self._is(path, prefer)] or paths
        return min(paths, key=lambda path: words.index(_meaning(path)[1]), default=None)

    def _only_images(self) -> str:
        return self._only([path for path in self._found if self._is(path, _holds_images)], "images")

    def _only_labels(self, images: str) -> str:
        count = self._count(images)
        paths = [path for path in self._found if self._is(path, _holds_labels) and path != images]
        return self._only([path for path in paths if self._count(path) == count], "labels")

    def _only(self, paths: list[str], role: str) -> str:
        if len(paths) == 1:
            return paths[0]
        has = listed(list(self._found), 20) if self._found else "no datasets"
        what = f"{listed(paths)} may all be the {role}" if paths else f"nothing looks like {role}"
        links = self._file.links()
        linked = f"; links to other places are not followed: {listed(links)}" if links else ""
        raise DataError(
            f"{self._file.path}: {what}; name them with --with {role}=PATH; it has {has}{linked}"
        )

    def _is(self, path: str, kind: Callable[[h5py.Dataset], bool]) -> bool:
        dataset = self._found.get(path)
        # Asking a virtual dataset for its shape opens other files.
        if dataset is None or dataset.id.get_create_plist().get_layout() == h5py.h5d.VIRTUAL:
            return False
        with self._file.guarded(path):
            return kind(dataset)

    def _lists_texts(self, path: str) -> bool:
        return self._is(path, lambda found: _holds_labels(found) and found.ndim == 1)

    def _count(self, path: str) -> int:
        shape: tuple[int, ...] = self._file.dataset(path).shape
        return shape[0] if shape else 0


def told(pairs: list[Pair], roles: dict[str, str]) -> str:
    """What was guessed, in words."""
    images = ", ".join(printable(pair.images) for pair in pairs)
    labels = ", ".join(printable(pair.labels) for pair in pairs)
    others = "".join(f", {role} in {printable(path)}" for role, path in roles.items())
    return f"the images are in {images}, the labels in {labels}{others}"


def is_encoded(dataset: h5py.Dataset) -> bool:
    """Whether elements are the contents of picture files: vlen uint8, opaque or strings."""
    return dataset.ndim == 1 and (
        _is_blob(dataset.dtype) or h5py.check_string_dtype(dataset.dtype) is not None
    )


def _is_blob(dtype: np.dtype) -> bool:
    is_opaque = dtype.kind == "V" and dtype.fields is None and dtype.subdtype is None
    return is_opaque or h5py.check_vlen_dtype(dtype) == np.uint8


def _holds_images(dataset: h5py.Dataset) -> bool:
    if dataset.ndim == 1:
        return _is_blob(dataset.dtype)
    return dataset.ndim in (3, 4) and (dataset.dtype == np.uint8 or dataset.dtype.kind == "f")


def _holds_labels(dataset: h5py.Dataset) -> bool:
    is_text = h5py.check_string_dtype(dataset.dtype) is not None
    is_column = dataset.ndim > 0 and all(side == 1 for side in dataset.shape[1:])
    return is_column and (is_text or dataset.dtype.kind in "iub")


def _meaning(path: str) -> tuple[str | None, str]:
    """The part of a split that a path names, and the rest of its last name that means
    something: train_set_x and x/train are both "train" and "x".
    """
    part, words = None, [""]
    for name in path.lower().split("/"):
        tokens = [token for token in re.split(r"[_\-. ]+", name) if token]
        part = next((part_of(token) for token in tokens if part_of(token)), None) or part
        rest = [t for t in tokens if part_of(t) is None and t not in _FILLERS]
        words += ["_".join(rest)] if rest else []
    return part, words[-1]
