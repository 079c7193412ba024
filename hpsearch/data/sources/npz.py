"""NumPy archives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hpsearch.data.catalog import Catalog, make_catalog
from hpsearch.data.readers import ArrayReader
from hpsearch.data.sources._arrays import class_names_of, find_layout, parts_of, text_of
from hpsearch.data.sources._source import DataSource
from hpsearch.data.spec import DataSpec
from hpsearch.errors import DataError

_TEXTS = {"groups", "splits", "names"}
_KNOWN = {"images", "labels", "classes", *_TEXTS}


def _npz(spec: DataSpec, _options: Mapping[str, Any]) -> Catalog:
    path = Path(spec.source)
    if not path.exists():
        raise DataError(f"no data at {path}: the file does not exist")
    arrays = _read(path)
    missing = [name for name in ("images", "labels") if name not in arrays]
    if missing:
        raise DataError(
            f"{path}: has no array {missing[0]!r}, only {', '.join(arrays) or 'none'}; "
            "it needs 'images' and 'labels'"
        )
    where = str(path)
    layout = find_layout(arrays["images"].shape, arrays["images"].dtype, where)
    images = layout.read(arrays["images"], where)
    labels, classes = class_names_of(arrays["labels"], arrays.get("classes"), len(images), where)
    texts = {name: _texts(arrays[name], len(images), name, where) for name in _TEXTS & set(arrays)}
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


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if isinstance(archive, np.lib.npyio.NpzFile):
                return {name: archive[name] for name in archive.files if name in _KNOWN}
    except Exception as error:  # numpy, zipfile and zlib raise a dozen kinds on damaged files
        raise DataError(f"{path}: cannot be read as an .npz of plain arrays: {error}") from None
    raise DataError(f"{path}: is not an .npz archive")


NPZ = DataSource(
    usage="FILE.npz",
    help="arrays 'images', 'labels' and optionally 'classes', 'groups', 'splits', 'names'",
    accepts=lambda spec: spec.source.lower().endswith(".npz"),
    catalog=_npz,
    is_path=True,
)
