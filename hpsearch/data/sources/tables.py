"""A table of labels (CSV) and the picture files that it names."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpsearch.data.catalog import Catalog, Remark, joined_labels, make_catalog, remarks_on
from hpsearch.data.listing import TABLES, list_files
from hpsearch.data.readers import (
    FileReader,
    check_inside,
    is_folder,
    is_regular_file,
    is_there,
)
from hpsearch.data.sources._arrays import parts_of
from hpsearch.data.sources._source import DataSource, SourceOption
from hpsearch.data.sources._table_file import read_table
from hpsearch.data.sources._table_guess import Guess
from hpsearch.data.sources._table_rows import FileIndex, Rows
from hpsearch.data.sources.folders import layout_of
from hpsearch.data.spec import SKIP, DataSpec
from hpsearch.data.words import plural
from hpsearch.errors import DataError
from hpsearch.names import printable


def _table(spec: DataSpec, options: Mapping[str, Any]) -> Catalog:
    path, folder = _places(spec, options)
    # Links that no row means may lead anywhere; one that a row means is refused below.
    index = FileIndex(list_files(folder, refuse_outside=False))
    if not index.listing.images:
        raise DataError(
            f"{printable(str(path))}: there are no images below {printable(str(folder))}"
            f"{index.foreign()}; name their folder with --with images=DIR"
        )
    table = read_table(path, options.get("delimiter"))
    guess = Guess(table, index, options)
    file, split, group, label = guess.file(), guess.split(), guess.group(), guess.label()
    cells = [table.column(name) for name in label]
    found = Rows(table, index, file, folder, skip=spec.on_error == "skip")
    kept, remarks = found.kept, found.remarks
    blank = [row for row in kept if not all(column[row] for column in cells)]
    if blank:
        remarks += remarks_on("rows without label", [found.cells[row] for row in blank])
        without = set(blank)
        kept = [row for row in kept if row not in without]
    values = [[column[row] for column in cells] for row in kept]
    labels, class_parts = joined_labels(values, table.shown)
    paths = [found.paths[row] for row in kept]
    kept, paths, labels = _without_repeats(kept, paths, labels, spec, remarks)
    if not paths:
        raise DataError(f"{table.shown}: no row has both a label and an image")
    groups, parts = (
        None if name is None else [table.column(name)[row] for row in kept]
        for name in (group, split)
    )
    if groups is not None and not all(groups):
        raise DataError(
            f"{table.shown}: column {group!r} is empty for {paths[groups.index('')]!r}, but every "
            "image needs its group"
        )
    unnamed = sorted(set(index.listing.images) - set(found.paths.values()))
    remarks += remarks_on("images that no row names", unnamed)
    told = (*remarks, *index.listing.foreign_remarks())
    notes = [*guess.notes, *(remark.words(3) for remark in told)]
    if is_folder(Path(spec.source)) and "table" not in options:
        notes.insert(0, f"the labels are those of {printable(path.name)} (--with table=)")
    return make_catalog(
        name=printable(
            path.stem if Path(spec.source) == path else Path(spec.source).resolve().name
        ),
        names=paths,
        label_names=labels,
        images=FileReader(folder, paths),
        groups=groups,
        parts=None if parts is None else parts_of(parts, f"{table.shown}, column {split!r}"),
        columns=label if len(label) > 1 else (),
        class_parts=class_parts if len(label) > 1 else None,
        notes=tuple(notes),
        remarks=(*remarks, *(r for r in index.listing.remarks() if r.names != (path.name,))),
    )


def _places(spec: DataSpec, options: Mapping[str, Any]) -> tuple[Path, Path]:
    """The table, and the folder that its images lie below."""
    source = Path(spec.source)
    if is_folder(source):
        layout = layout_of(spec)
        root = layout.root if layout is not None else source
        name = options.get("table") or (layout.table if layout is not None else None)
        if name is None:
            raise DataError(
                f"{source}: there is no table (.csv) in this folder, so options of one (label, "
                "file, table) mean nothing"
            )
        path = root / name
        check_inside(path, source.resolve(), str(name))
    else:
        path = source
    if not (is_there(path) and is_regular_file(path)):
        raise DataError(f"no table at {printable(str(path))}: the file does not exist")
    folder = Path(options["images"]) if "images" in options else path.parent
    if not (is_there(folder) and is_folder(folder)):
        raise DataError(f"there is no folder of images at {printable(str(folder))} (option images)")
    return path, folder


def _without_repeats(
    kept: list[int], paths: list[str], labels: list[str], spec: DataSpec, remarks: list[Remark]
) -> tuple[list[int], list[str], list[str]]:
    """One row for each image; images with two labels are refused, or left out when skipping."""
    labels_of: dict[str, set[str]] = collections.defaultdict(set)
    for path, label in zip(paths, labels, strict=True):
        labels_of[path].add(label)
    torn = sorted(path for path, found in labels_of.items() if len(found) > 1)
    if torn and spec.on_error == "fail":
        have = plural(len(torn), "image has", "images have")
        both = " and ".join(repr(label) for label in sorted(labels_of[torn[0]]))
        raise DataError(
            f"{spec.source}: {have} two labels: {torn[0]!r} is {both}; mend the table, or leave "
            f"them out with {SKIP}"
        )
    remarks += remarks_on("images with two labels", torn)
    seen: set[str] = set(torn)
    result: tuple[list[int], list[str], list[str]] = ([], [], [])
    repeated = []
    for item in zip(kept, paths, labels, strict=True):
        if item[1] in seen:
            repeated.append(item[1])
            continue
        seen.add(item[1])
        result[0].append(item[0])
        result[1].append(item[1])
        result[2].append(item[2])
    remarks += remarks_on("images with two rows", sorted(set(repeated) - set(torn)))
    return result


def _accepts(spec: DataSpec) -> bool:
    path = Path(spec.source)
    if is_folder(path):
        layout = layout_of(spec)
        return layout is not None and layout.kind == "table"
    return path.suffix.lower() in TABLES or (
        path.suffix.lower() == ".txt" and is_regular_file(path)
    )


TABLE = DataSource(
    usage="FILE.csv",
    help="a table that names images and their labels, and perhaps groups; also a folder with one",
    accepts=_accepts,
    catalog=_table,
    options=(
        SourceOption(name="file", help="the column that names the image"),
        SourceOption(
            name="label",
            help="the column of the label, or several, which are joined (gender,aspect)",
            kind="names",
        ),
        SourceOption(name="group", help="the column of the group, such as the person shown"),
        SourceOption(name="split", help="the column of the official split"),
        SourceOption(
            name="images",
            help="the folder of the images; by default that of the table",
            kind="path",
        ),
        SourceOption(name="table", help="which table, where the source is a folder"),
        SourceOption(name="delimiter", help="one character, or tab; by default found out"),
    ),
    is_path=True,
)
