"""The images that a model knows from its search: hashes of them, kept in its export, by which they
are found again among other data.

Images are the same where all pixels are, in the size of the search's data. From its hash no image
can be made again; but who has an image can tell whether it was in the data.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hpsearch.data.dataset import NO_PART, PARTS, ImageDataset, Int8Array, Int64Array
from hpsearch.data.splits import Split
from hpsearch.errors import CheckpointError
from hpsearch.files import write_whole

HASHES = "image_hashes.npz"
"""What the file is called in an export."""

_UInt64Array = npt.NDArray[np.uint64]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class KnownImages:
    """The images of a search.

    Attributes:
        hashes: uint64 (n,): sorted, of the images of each of `PARTS`.
    """

    hashes: tuple[_UInt64Array, ...]

    def parts_of(self, dataset: ImageDataset) -> Int8Array:
        """int8 (N,): for each image of `dataset` an index into `PARTS`, or `NO_PART` where it is
        not known. Of one that is in several parts, the first.
        """
        found = np.full(len(dataset), NO_PART, dtype=np.int8)
        hashes = _hashes(dataset)
        for part in reversed(range(len(PARTS))):
            found[np.isin(hashes, self.hashes[part])] = part
        return found


def write_known_images(path: Path, dataset: ImageDataset, split: Split) -> None:
    """Writes the hashes of all images of a search, 8 bytes each, whole or not at all."""
    hashes = _hashes(dataset)
    parts = split.membership(len(dataset))
    train, val, test = (np.sort(hashes[parts == number]) for number in range(len(PARTS)))

    def write(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.savez(file, train=train, val=val, test=test)

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
            hashes = tuple(archive[part] for part in PARTS)
        if any(array.dtype != np.uint64 or array.ndim != 1 for array in hashes):
            raise ValueError("it has no hashes")
    except Exception as error:  # numpy and zipfile raise a dozen kinds on damaged files
        raise CheckpointError(
            f"{path} is damaged ({error}): export the model again (hpsearch export --force), or "
            "delete this file to do without"
        ) from None
    return KnownImages(hashes=hashes)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Overlap:
    """How much of some data a model knows.

    Attributes:
        parts: int8 (N,): as `KnownImages.parts_of`.
        fitted: the parts of the search that it was trained on.
    """

    parts: Int8Array
    fitted: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many of the images are in each part of the search."""
        return {part: int((self.parts == number).sum()) for number, part in enumerate(PARTS)}

    @property
    def new(self) -> Int64Array:
        """int64 (n,): the rows of the images that nothing was fitted or chosen by. Those of the
        test split are among them.
        """
        chosen = [PARTS.index("train"), PARTS.index("val")]
        rows: Int64Array = np.flatnonzero(~np.isin(self.parts, chosen))
        return rows

    @property
    def warnings(self) -> tuple[str, ...]:
        """What it means for a score, in sentences."""
        counts, total = self.counts, len(self.parts)
        trained = sum(counts[part] for part in self.fitted)
        chosen = sum(counts[part] for part in ("train", "val") if part not in self.fitted)
        what = [f"{trained:,} were trained on"] if trained else []
        what += [f"{chosen:,} the model was chosen by (validation)"] if chosen else []
        warnings = []
        if what:
            meaning = "so this says nothing about new ones"
            if len(self.new):
                meaning = "the score without them is the one to believe"
            warnings.append(f"of {total:,} images {', and '.join(what)}: {meaning}")
        if counts["test"]:
            warnings.append(
                f"of {total:,} images {counts['test']:,} are test images of the model's search: "
                "this look at them is not counted there, so choose nothing by it"
            )
        return tuple(warnings)


def _hashes(dataset: ImageDataset) -> _UInt64Array:
    """(N,): half of each digest. Of a million images and a million others, two are taken for the
    same by chance once in 10 million times.
    """
    return np.ascontiguousarray(dataset.digests[:, :8]).view("<u8").ravel().astype(np.uint64)
