"""Where images come from: a table, one row a kind of source.

To add a source, write a function from the user's `--data` text to an `ImageDataset` and
append a row to `SOURCES`; `--data`, its help and its errors follow from the table.
"""

from __future__ import annotations

import dataclasses
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hpsearch.data.dataset import ImageDataset
from hpsearch.errors import DataError


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSource:
    """One kind of source.

    Attributes:
        usage: what a user writes after `--data`.
        accepts: whether such a text is meant for this source.
        load: reads it; raises `DataError` when it cannot.
    """

    usage: str
    help: str
    accepts: Callable[[str], bool]
    load: Callable[[str], ImageDataset]


def _load_digits(_: str) -> ImageDataset:
    """1,797 handwritten digits of 8x8 pixels and 17 gray levels, from scikit-learn.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
    """
    from sklearn.datasets import load_digits  # imported late: it takes half a second

    bunch = load_digits()
    images = np.rint(bunch.images * (255.0 / 16.0)).astype(np.uint8)[..., np.newaxis]
    return ImageDataset(
        name="digits",
        images=images,
        labels=bunch.target.astype(np.int64),
        classes=tuple(str(name) for name in bunch.target_names),
    )


def _load_npz(spec: str) -> ImageDataset:
    """A NumPy archive: `images` uint8 (N, H, W) or (N, H, W, C), `labels` whole numbers (N,),
    and optionally `classes`, the names in the order of the labels.
    """
    path = Path(spec)
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in ("images", "labels") if name not in archive]
            if missing:
                raise DataError(
                    f"{path}: has no array {missing[0]!r}, only {', '.join(archive) or 'none'}; "
                    "it needs 'images' and 'labels'"
                )
            images, labels = archive["images"], archive["labels"]
            names = archive.get("classes")
    except FileNotFoundError:
        raise DataError(f"no data at {path}: the file does not exist") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: cannot be read as an .npz of plain arrays: {error}") from None
    if not np.issubdtype(labels.dtype, np.integer):
        raise DataError(f"{path}: labels must be whole numbers, but are {labels.dtype}")
    if names is None:
        names = np.arange(int(labels.max(initial=0)) + 1)
    return ImageDataset(
        name=path.stem,
        images=images[..., np.newaxis] if images.ndim == 3 else images,
        labels=labels.astype(np.int64),
        classes=tuple(str(name) for name in names),
    )


SOURCES: tuple[DataSource, ...] = (
    DataSource(
        usage="digits",
        help="1,797 handwritten digits, 8x8 gray, 10 classes (comes with scikit-learn)",
        accepts=lambda spec: spec == "digits",
        load=_load_digits,
    ),
    DataSource(
        usage="FILE.npz",
        help="arrays 'images' (uint8, N x H x W [x C]), 'labels' and optionally 'classes'",
        accepts=lambda spec: spec.lower().endswith(".npz"),
        load=_load_npz,
    ),
)


def locate(spec: str) -> str:
    """`spec` as it can be read from any folder: files by their absolute path, names as they are."""
    path = Path(spec)
    return str(path.resolve()) if path.exists() else spec


def load_dataset(spec: str) -> ImageDataset:
    """Reads the data set that `spec` names (see `SOURCES`).

    Raises:
        DataError: no source accepts `spec`, or the source cannot read it.
    """
    for source in SOURCES:
        if source.accepts(spec):
            return source.load(spec)
    known = "; ".join(f"{source.usage} ({source.help})" for source in SOURCES)
    raise DataError(f"unknown data {spec!r}; --data takes {known}")
