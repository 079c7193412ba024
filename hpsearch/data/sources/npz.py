"""NumPy archives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hpsearch.data.catalog import Catalog, make_catalog
from hpsearch.data.readers import ArrayReader, is_there
from hpsearch.data.sources._arrays import class_names_of, find_layout, parts_of, text_of
from hpsearch.data.sources._source import LAYOUT, DataSource, SourceOption
from hpsearch.data.spec import DataSpec
from hpsearch.errors import DataError
from hpsearch.names import listed

_NEEDED = ("images", "labels")
_TEXTS = ("groups", "splits", "names")


def _npz(spec: DataSpec, options: Mapping[str, Any]) -> Catalog:
    path = Path(spec.source)
    if not is_there(path):
        raise DataError(f"no data at {path}: the file does not exist")
    arrays = _read(path, options)
    where = str(path)
    axes = options.get("layout")
    layout = find_layout(arrays["images"].shape, arrays["images"].dtype, where, axes)
    images = layout.read(arrays["images"], where)
    labels, classes = class_names_of(arrays["labels"], arrays.get("classes"), len(images), where)
    texts = {
        name: _texts(arrays[name], len(images), name, where) for name in _TEXTS if name in arrays
    }
    return make_catalog(
        name=path.stem,
        names=texts.get("names") or [str(number) for number in range(len(images))],
        label_names=labels,
        class_order=classes,
        images=ArrayReader(images),
        groups=texts.get("groups"),
        parts=parts_of(texts["splits"], where) if "splits" in texts else None,
    )


def _texts(values: np.ndarray, count: int, name: str, where: str) -> list[str]:
    if values.shape != (count,):
        raise DataError(
            f"{where}: {name} must have shape ({count},), one for each image, but has "
            f"{values.shape}"
        )
    return [text_of(value, where) for value in values]


def _read(path: Path, options: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays by what they mean: as the user says, else by their names."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            if isinstance(archive, np.lib.npyio.NpzFile):
                chosen = _chosen(path, archive.files, options)
                return {role: archive[name] for role, name in chosen.items()}
    except DataError:
        raise
    except Exception as error:  # numpy, zipfile and zlib raise a dozen kinds on damaged files
        raise DataError(f"{path}: cannot be read as an .npz of plain arrays: {error}") from None
    raise DataError(f"{path}: is not an .npz archive")


def _chosen(path: Path, names: Sequence[str], options: Mapping[str, Any]) -> dict[str, str]:
    chosen = {}
    for role in (*_NEEDED, "classes", *_TEXTS):
        name = options.get(role, role)
        if name in names:
            chosen[role] = name
        elif role in options or role in _NEEDED:
            has = f"only {listed(list(names), 20)}" if names else "nor any other"
            raise DataError(
                f"{path}: has no array {name!r}, {has}; say which holds the {role} with --with "
                f"{role}=ARRAY"
            )
    return chosen


NPZ = DataSource(
    usage="FILE.npz",
    help="arrays 'images', 'labels' and optionally 'classes', 'groups', 'splits', 'names', or "
    "others that are named",
    accepts=lambda spec: spec.source.lower().endswith(".npz"),
    catalog=_npz,
    options=(
        SourceOption(name="images", help="the array of images"),
        SourceOption(name="labels", help="the array of labels"),
        SourceOption(name="classes", help="the array with the names of the classes"),
        SourceOption(name="groups", help="the array that says which images belong together"),
        SourceOption(name="splits", help="the array with train, val or test for each image"),
        SourceOption(name="names", help="the array with a name for each image"),
        LAYOUT,
    ),
    is_path=True,
)
