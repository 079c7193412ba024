"""The images that a model knows: hashes of them, kept in its export, by which they are found again
among other data.

Images are the same where all pixels are, in the size that the model's data had. From its hash no
image can be made again; but who has an image can tell whether it was in the data.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from hpsearch.data.dataset import NO_PART, PARTS, ImageDataset, ImageShape, Int8Array
from hpsearch.data.decode import Target
from hpsearch.data.spec import Fit
from hpsearch.data.splits import Split
from hpsearch.errors import CheckpointError
from hpsearch.files import write_whole

HASHES = "image_hashes.npz"
"""What the file is called in an export."""

CHOSEN, TRAINED = range(2)
"""What initial weights had seen an image for: they were chosen by it (validation), or trained on
it."""

_USES = ("start-chosen", "start-trained")
_UNKNOWN = "start-unknown"

_UInt64Array = npt.NDArray[np.uint64]
_NOTHING: _UInt64Array = np.empty(0, dtype=np.uint64)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class StartImages:
    """What the weights that a training starts from had seen, and those that these started from.

    Attributes:
        hashes: by what the images were brought to, sorted hashes of those that the weights were
            chosen by, and of those that they were trained on.
        unknown: why not all of it is known, in words; none where it is.
    """

    hashes: Mapping[Target, tuple[_UInt64Array, _UInt64Array]] = dataclasses.field(
        default_factory=dict
    )
    unknown: tuple[str, ...] = ()

    def uses_of(self, count: int, read: Callable[[Target], ImageDataset]) -> Int8Array:
        """int8 (count,): for each image of some data `TRAINED`, `CHOSEN` or `NO_PART`; of one that
        was both, `TRAINED`.

        Args:
            count: of the images.
            read: gives them as a target has them, in the same order.
        """
        found = np.full(count, NO_PART, dtype=np.int8)
        for target, seen in self.hashes.items():
            own = _hashes(read(target))
            for use in (CHOSEN, TRAINED):
                found = np.maximum(found, np.where(np.isin(own, seen[use]), use, NO_PART))
        return found.astype(np.int8)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class KnownImages:
    """The images that a model knows.

    Attributes:
        hashes: uint64 (n,): sorted, of the images of each of `PARTS` of its search.
        start: what the weights had seen that it started from.
    """

    hashes: tuple[_UInt64Array, ...]
    start: StartImages = dataclasses.field(default_factory=StartImages)

    def parts_of(self, dataset: ImageDataset) -> Int8Array:
        """int8 (N,): for each image of `dataset` an index into `PARTS`, or `NO_PART` where it is
        not known. Of one that is in several parts, the first.
        """
        found = np.full(len(dataset), NO_PART, dtype=np.int8)
        hashes = _hashes(dataset)
        for part in reversed(range(len(PARTS))):
            found[np.isin(hashes, self.hashes[part])] = part
        return found

    def as_start(self, target: Target, *, trained_on: Iterable[str]) -> StartImages:
        """What a training has seen that starts from this model.

        Args:
            target: what the images of the model's search were brought to.
            trained_on: which of `PARTS` it was trained on.
        """
        trained_on = tuple(trained_on)
        parts = dict(zip(PARTS, self.hashes, strict=True))
        used = [parts[name] for name in trained_on]
        looked = [parts[name] for name in ("train", "val") if name not in trained_on]
        before = self.start.hashes.get(target, (_NOTHING, _NOTHING))
        now = tuple(
            np.unique(np.concatenate([earlier, *arrays]))
            for earlier, arrays in zip(before, (looked, used), strict=True)
        )
        return StartImages(
            hashes={**self.start.hashes, target: (now[CHOSEN], now[TRAINED])},
            unknown=self.start.unknown,
        )


def write_known_images(
    path: Path, dataset: ImageDataset, split: Split, start: StartImages | None = None
) -> None:
    """Writes the hashes of all images of a search, 8 bytes each, whole or not at all.

    Args:
        start: what the weights had seen that the model started from.
    """
    hashes = _hashes(dataset)
    parts = split.membership(len(dataset))
    arrays: dict[str, Any] = {
        part: np.sort(hashes[parts == number]) for number, part in enumerate(PARTS)
    }
    start = start or StartImages()
    for target, seen in start.hashes.items():
        for name, array in zip(_USES, seen, strict=True):
            arrays[f"{name}-{_target_name(target)}"] = array
    if start.unknown:
        arrays[_UNKNOWN] = np.array(start.unknown, dtype=np.str_)

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)

    write_whole(path, write)


def read_known_images(folder: Path) -> KnownImages | None:
    """What an export knows; None of an older one, which has no such file.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = folder / HASHES
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        unknown = tuple(map(str, arrays.pop(_UNKNOWN, np.array([], dtype=np.str_))))
        if any(array.dtype != np.uint64 or array.ndim != 1 for array in arrays.values()):
            raise ValueError("it has no hashes")
        hashes = tuple(arrays.pop(part) for part in PARTS)
        targets = [name.removeprefix(f"{_USES[0]}-") for name in arrays if _USES[0] in name]
        seen = {
            _target_of(name): (arrays[f"{_USES[0]}-{name}"], arrays[f"{_USES[1]}-{name}"])
            for name in targets
        }
    except Exception as error:  # numpy and zipfile raise a dozen kinds on damaged files
        raise CheckpointError(
            f"{path} is damaged ({error}): export the model again (hpsearch export --force), or "
            "delete this file to do without"
        ) from None
    return KnownImages(hashes=hashes, start=StartImages(hashes=seen, unknown=unknown))


def _target_name(target: Target) -> str:
    shape = target.shape
    return f"{shape.height}x{shape.width}x{shape.channels}-{target.fit}"


def _target_of(name: str) -> Target:
    match = re.fullmatch(r"(\d+)x(\d+)x(\d+)-(\w+)", name)
    fits = {fit: fit for fit in get_args(Fit)}
    if match is None or match[4] not in fits:
        raise ValueError(f"images brought to {name}")
    height, width, channels = (int(match[number]) for number in (1, 2, 3))
    return Target(ImageShape(height, width, channels), fits[match[4]])


def _hashes(dataset: ImageDataset) -> _UInt64Array:
    """(N,): half of each digest. Of a million images and a million others, two are taken for the
    same by chance once in 10 million times.
    """
    return np.ascontiguousarray(dataset.digests[:, :8]).view("<u8").ravel().astype(np.uint64)
