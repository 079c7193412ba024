"""Where images come from: a table, one row a kind of source.

To add a source, write a function from the user's `--data` text to an `ImageDataset` and
append a row to `SOURCES`; `--data`, its help and its errors follow from the table.
"""

from __future__ import annotations

import dataclasses
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
        is_path: the text is a path, which means something else in another folder.
    """

    usage: str
    help: str
    accepts: Callable[[str], bool]
    load: Callable[[str], ImageDataset]
    is_path: bool


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
    if not path.exists():
        raise DataError(f"no data at {path}: the file does not exist")
    arrays = _read_npz(path)
    missing = [name for name in ("images", "labels") if name not in arrays]
    if missing:
        raise DataError(
            f"{path}: has no array {missing[0]!r}, only {', '.join(arrays) or 'none'}; "
            "it needs 'images' and 'labels'"
        )
    images, labels = arrays["images"], arrays["labels"]
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
        raise DataError(
            f"{path}: labels must be whole numbers of shape (N,), but are {labels.dtype} of shape "
            f"{labels.shape}"
        )
    names = arrays.get("classes")
    if names is None:
        highest = int(labels.max(initial=0))
        if highest >= max(2, len(labels)):
            raise DataError(
                f"{path}: the labels go up to {highest}, but there are only {len(labels)} images; "
                "number the classes from 0 without gaps"
            )
        names = np.arange(highest + 1)
    elif names.ndim != 1:
        raise DataError(f"{path}: classes must be a list of names, but has shape {names.shape}")
    return ImageDataset(
        name=path.stem,
        images=images[..., np.newaxis] if images.ndim == 3 else images,
        labels=labels.astype(np.int64),
        classes=tuple(str(name) for name in names),
    )


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if isinstance(archive, np.lib.npyio.NpzFile):
                return {name: archive[name] for name in archive.files}
    except Exception as error:  # numpy, zipfile and zlib raise a dozen kinds on damaged files
        raise DataError(f"{path}: cannot be read as an .npz of plain arrays: {error}") from None
    raise DataError(f"{path}: is not an .npz archive")


SOURCES: tuple[DataSource, ...] = (
    DataSource(
        usage="digits",
        help="1,797 handwritten digits, 8x8 gray, 10 classes (comes with scikit-learn)",
        accepts=lambda spec: spec == "digits",
        load=_load_digits,
        is_path=False,
    ),
    DataSource(
        usage="FILE.npz",
        help="arrays 'images' (uint8, N x H x W [x C]), 'labels' and optionally 'classes'",
        accepts=lambda spec: spec.lower().endswith(".npz"),
        load=_load_npz,
        is_path=True,
    ),
)


def locate(spec: str) -> str:
    """`spec` as it can be read from any folder: paths made absolute, names as they are."""
    return str(Path(spec).resolve()) if _source(spec).is_path else spec


def load_dataset(spec: str) -> ImageDataset:
    """Reads the data set that `spec` names (see `SOURCES`).

    Raises:
        DataError: no source accepts `spec`, or the source cannot read it.
    """
    return _source(spec).load(spec)


def _source(spec: str) -> DataSource:
    for source in SOURCES:
        if source.accepts(spec):
            return source
    if Path(spec).is_dir():
        raise DataError(
            f"{spec!r} is a folder, and folders are not read yet: data/README.md has a few lines "
            "that make an .npz file of one"
        )
    known = "; ".join(f"{source.usage} ({source.help})" for source in SOURCES)
    raise DataError(f"unknown data {spec!r}; --data takes {known}")
