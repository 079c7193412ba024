"""Where images come from: a table, one row a kind of source.

To add a source, write a function from a `DataSpec` to a `Catalog` (a list of labelled images
that are not decoded yet) in a file of this folder, and append its row to `SOURCES`; `--data`,
its options, its help and its errors follow from the table.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from hpsearch.data.catalog import Catalog, without_classes
from hpsearch.data.readers import is_there
from hpsearch.data.sources._source import DataSource, SourceOption
from hpsearch.data.sources.digits import DIGITS
from hpsearch.data.sources.folders import CLASS_FOLDERS, FILE_NAMES
from hpsearch.data.sources.glyphs import GLYPHS
from hpsearch.data.sources.hdf5 import HDF5
from hpsearch.data.sources.npz import NPZ
from hpsearch.data.sources.tables import TABLE
from hpsearch.data.sources.zoo import ZOO_SOURCES
from hpsearch.data.spec import DataSpec
from hpsearch.errors import DataError

__all__ = ["SOURCES", "DataSource", "SourceOption", "locate", "open_catalog", "source_of"]

SOURCES: tuple[DataSource, ...] = (
    DIGITS,
    GLYPHS,
    *ZOO_SOURCES,
    CLASS_FOLDERS,
    TABLE,
    FILE_NAMES,
    NPZ,
    HDF5,
)


def source_of(spec: DataSpec) -> DataSource:
    """The row that reads what `spec` names.

    Raises:
        DataError: there is none.
    """
    for source in SOURCES:
        if source.accepts(spec):
            return source
    own = ", ".join(row.usage for row in SOURCES if row not in ZOO_SOURCES)
    close = difflib.get_close_matches(spec.source.lower(), [row.usage for row in SOURCES], 1)
    meant = f"; did you mean {close[0]!r}?" if close else ";"
    found = is_there(Path(spec.source))
    exists = (
        ": no data of a kind that is read" if found else ", and there is no such file or folder"
    )
    raise DataError(
        f"unknown data {spec.source!r}{exists}{meant} --data takes {own}, or a data set of "
        "torchvision such as cifar10 (see 'hpsearch data list')"
    )


def locate(spec: DataSpec) -> DataSpec:
    """`spec` as it can be read from any folder: paths made absolute, names as they are."""
    return source_of(spec).located(spec)


def open_catalog(spec: DataSpec) -> Catalog:
    """Lists the images that `spec` names, without decoding them.

    Raises:
        DataError: no source accepts it, an option is wrong, or the source cannot read it.
    """
    source = source_of(spec)
    catalog = source.catalog(spec, source.read_options(spec))
    return without_classes(catalog, spec.exclude)
