"""A table of labels (CSV) and the picture files that it names."""

from __future__ import annotations

import collections
import csv
import dataclasses
import io
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpsearch.data.catalog import Catalog, Remark, make_catalog, remarks_on
from hpsearch.data.decode import SUFFIXES
from hpsearch.data.listing import TABLES, Listing, list_files
from hpsearch.data.readers import FileReader, check_inside, is_folder, is_regular_file
from hpsearch.data.sources._arrays import part_of, parts_of
from hpsearch.data.sources._source import DataSource, SourceOption
from hpsearch.data.sources.folders import joined_labels, layout_of
from hpsearch.data.spec import SKIP, DataSpec
from hpsearch.data.words import plural
from hpsearch.errors import DataError
from hpsearch.names import listed, printable

_DELIMITERS = ",;\t|"
# Names that columns often have, in small letters without separators.
_LABELS = (
    *("label", "labels", "class", "classes", "classname", "category", "target"),
    *("diagnosis", "species", "breed", "y"),
)
_GROUPS = (
    *("group", "groupid", "person", "personid", "subject", "subjectid", "patient", "patientid"),
    *("participant", "individual", "user", "userid", "writer", "author", "donor", "animal", "id"),
)
_SPLITS = ("split", "set", "subset", "partition", "phase")


@dataclasses.dataclass(frozen=True)
class Table:
    """The cells of a CSV file.

    Attributes:
        shown: the file's path, for messages.
        columns: their names; "1", "2", ... where the file has no header.
        rows: the cells, as many in each row as there are columns.
    """

    shown: str
    columns: tuple[str, ...]
    rows: list[list[str]]

    def column(self, name: str) -> list[str]:
        """The cells of a column, without spaces around them.

        Raises:
            DataError: there is none of this name.
        """
        if name not in self.columns:
            raise DataError(
                f"{self.shown}: there is no column {name!r}; it has {listed(self.columns, 30)}"
            )
        position = self.columns.index(name)
        return [row[position].strip() for row in self.rows]


class FileIndex:
    """Finds the picture that a cell means: a path, a name, or a name without its suffix."""

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self._paths = frozenset(listing.images)
        self._by_name: dict[str, list[str]] = collections.defaultdict(list)
        for path in listing.images:
            name = path.rsplit("/", 1)[-1]
            self._by_name[name].append(path)
            if _stem(name) != name:
                self._by_name[_stem(name)].append(path)

    def find(self, cell: str) -> list[str]:
        """All pictures that `cell` can mean; the exact path alone where it is one."""
        wanted = cell.replace("\\", "/").removeprefix("./").strip("/")
        if "/" in wanted and wanted in self._paths:  # the usual case, whatever else has this name
            return [wanted]
        found = self._by_name.get(wanted.rsplit("/", 1)[-1], [])
        if len(found) == 1 and "/" not in wanted:
            return found
        end = "/" + wanted
        matching = [
            path for path in found if f"/{path}".endswith(end) or f"/{_stem(path)}".endswith(end)
        ]
        exact = [path for path in matching if path == wanted]
        return exact or matching


def _stem(path: str) -> str:
    return path.rsplit(".", 1)[0]


def _table(spec: DataSpec, options: Mapping[str, Any]) -> Catalog:
    path, folder = _places(spec, options)
    # Links that no row means may lead anywhere; one that a row means is refused below.
    index = FileIndex(list_files(folder, refuse_outside=False))
    if not index.listing.images:
        raise DataError(
            f"{printable(str(path))}: there are no images below {printable(str(folder))}"
            f"{_foreign(index)}; name their folder with --with images=DIR"
        )
    table = read_table(path, options.get("delimiter"), index)
    guess = _Guess(table, index, options)
    file, split, group, label = guess.file(), guess.split(), guess.group(), guess.label()
    cells = [table.column(name) for name in label]
    found = _Rows(table, index, file, folder, skip=spec.on_error == "skip")
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
    if Path(spec.source).is_dir() and "table" not in options:
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
    if source.is_dir():
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
    if not is_regular_file(path):
        raise DataError(f"no table at {printable(str(path))}: the file does not exist")
    folder = Path(options["images"]) if "images" in options else path.parent
    if not is_folder(folder):
        raise DataError(f"there is no folder of images at {printable(str(folder))} (option images)")
    return path, folder


def read_table(path: Path, delimiter: str | None, index: FileIndex) -> Table:
    """Reads a CSV file: any of the usual delimiters, encodings and line ends.

    Raises:
        DataError: it is empty, or its rows have different numbers of cells.
    """
    text, shown = _decoded(path), printable(str(path))
    if delimiter is None:
        delimiter = _sniff(text)
    delimiter = {"tab": "\t", "\\t": "\t"}.get(delimiter, delimiter)
    if len(delimiter) != 1:
        raise DataError(f"{shown}: the delimiter must be one character or 'tab', not {delimiter!r}")
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    except (TypeError, ValueError):  # quotes and line ends, from Python 3.13 on
        raise DataError(f"{shown}: {delimiter!r} cannot be the delimiter") from None
    rows: list[list[str]] = []
    try:
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if rows and len(row) != len(rows[0]):
                raise DataError(
                    f"{shown}, line {reader.line_num}: has {len(row)} cells, but the first line "
                    f"has {len(rows[0])} (delimiter {delimiter!r})"
                )
            rows.append(row)
    except csv.Error as error:
        raise DataError(f"{shown}, line {reader.line_num}: {error}") from None
    if not rows:
        raise DataError(f"{shown}: the table is empty")
    # A header may be called like a picture, image.png, but not with its suffix.
    firsts = [cell.strip() for cell in rows[0]]
    if any(Path(cell).suffix.lower() in SUFFIXES and index.find(cell) for cell in firsts if cell):
        columns = tuple(str(number) for number in range(1, len(rows[0]) + 1))
        return Table(shown, columns, rows)
    columns = tuple(cell.strip() for cell in rows[0])
    if len(set(columns)) != len(columns):
        raise DataError(f"{shown}: column names repeat: {listed(columns, 30)}")
    if len(rows) == 1:
        raise DataError(f"{shown}: the table has a header but no rows")
    return Table(shown, columns, rows[1:])


def _decoded(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{printable(str(path))} cannot be read: {error.strerror}") from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ["utf-16"]
    else:
        encodings = ["utf-8-sig", "cp1252", "latin-1"]
    for encoding in encodings:
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise DataError(f"{printable(str(path))}: is no text ({encodings[0]})")


def _sniff(text: str) -> str:
    """The delimiter that splits the first lines into the same number of cells, the most."""
    head = text[:65_536]

    def cells(delimiter: str) -> tuple[bool, int]:
        rows = csv.reader(io.StringIO(head, newline=""), delimiter=delimiter)
        counts = [len(row) for row in itertools.islice(rows, 20) if any(row)]
        if len(counts) > 1 and len(text) > len(head):  # the last one may be cut off
            counts.pop()
        return len(set(counts)) == 1 and counts[0] > 1, min(counts, default=0)

    try:
        return max(_DELIMITERS, key=cells)
    except csv.Error:
        return ","


class _Guess:
    """Which column is what: as the user says, else by names and contents, and then said."""

    def __init__(self, table: Table, index: FileIndex, options: Mapping[str, Any]) -> None:
        self.table, self.index, self.options = table, index, options
        self.notes: list[str] = []
        self._taken: set[str] = set()
        for name in ("file", "group", "split"):
            if name in options:
                self.table.column(options[name])
                self._taken.add(options[name])
        self._taken.update(options.get("label", ()))

    def file(self) -> str:
        """The column whose cells are pictures."""
        if "file" in self.options:
            return str(self.options["file"])
        # Numbers of people or rows can be those of files too: whole names count more.
        hits = {}
        for name in self.table.columns:
            if name not in self._taken:
                found = {cell: self.index.find(cell) for cell in self.table.column(name)[:200]}
                named = {cell for cell, paths in found.items() if paths}
                whole = {cell for cell in named if Path(cell).suffix.lower() in SUFFIXES}
                hits[name] = (len(whole), len(named))
        best = max(hits, key=lambda name: hits[name], default=None)
        if best is None or hits[best] == (0, 0):
            raise DataError(
                f"{self.table.shown}: no column names images below "
                f"{printable(str(self.index.listing.root))}; say "
                "which one does with --with file=COLUMN and where they are with --with images=DIR; "
                f"its columns are {listed(self.table.columns, 30)}"
            )
        return self._said("file", best, f"column {best!r} names the images")

    def label(self) -> tuple[str, ...]:
        """The columns that make the label."""
        if "label" in self.options:
            for name in self.options["label"]:
                self.table.column(name)
            return tuple(self.options["label"])
        chosen = self._by_name(_LABELS, self._few)
        if chosen is None:
            rest = [name for name in self.table.columns if name not in self._taken]
            likely = [name for name in rest if self._few(name)]
            if len(likely) != 1:
                counts = ", ".join(
                    f"{printable(name)} ({len(set(self.table.column(name))):,} values)"
                    for name in self.table.columns[:30]
                )
                raise DataError(
                    f"{self.table.shown}: which column is the label? Say it with --with "
                    f"label=COLUMN, or several to be joined: label=A,B; there are {counts}"
                )
            chosen = likely[0]
        return (self._said("label", chosen, f"column {chosen!r} is the label"),)

    def group(self) -> str | None:
        """The column of what must not be on two sides of a split."""
        if "group" in self.options:
            return str(self.options["group"])
        chosen = self._by_name(_GROUPS, self._repeats)
        if chosen is None:
            return None
        return self._said("group", chosen, f"column {chosen!r} is the group")

    def split(self) -> str | None:
        """The column of the official split."""
        if "split" in self.options:
            return str(self.options["split"])
        chosen = self._by_name(_SPLITS, self._names_parts)
        if chosen is None:
            return None
        return self._said("split", chosen, f"column {chosen!r} is the official split")

    def _said(self, role: str, name: str, note: str) -> str:
        self._taken.add(name)
        self.notes.append(f"{note} (--with {role}=)")
        return name

    def _by_name(self, known: Sequence[str], fits: Callable[[str], bool]) -> str | None:
        free = {
            re.sub(r"[\W_]", "", name.lower()): name
            for name in self.table.columns
            if name not in self._taken
        }
        return next((free[key] for key in known if key in free and fits(free[key])), None)

    def _few(self, name: str) -> bool:
        values = set(self.table.column(name))
        return 2 <= len(values) <= max(2, len(self.table.rows) // 2)

    def _repeats(self, name: str) -> bool:
        values = self.table.column(name)
        return all(values) and 2 <= len(set(values)) <= len(values) / 1.5

    def _names_parts(self, name: str) -> bool:
        values = {value for value in self.table.column(name) if value}
        return bool(values) and all(part_of(value) for value in values)


class _Rows:
    """The image that each row means.

    Attributes:
        cells: what the rows say.
        paths: by row number, where there is an image.
        kept: these row numbers.
        remarks: rows without image.
    """

    def __init__(
        self, table: Table, index: FileIndex, column: str, folder: Path, *, skip: bool
    ) -> None:
        self.cells = table.column(column)
        self.paths: dict[int, str] = {}
        self.remarks: list[Remark] = []
        missing: list[str] = []
        root = folder.resolve()
        for row, cell in enumerate(self.cells):
            found = index.find(cell) if cell else []
            if len(found) == 1:
                self.paths[row] = found[0]
            elif found:
                raise DataError(
                    f"{table.shown}: {cell!r} can mean several images: {listed(found, 3)}; write "
                    f"paths relative to {printable(str(folder))}, or name a folder with --with "
                    "images=DIR"
                )
            else:
                _check_cell(cell, folder, root, table.shown)
                missing.append(cell)
        self.kept = list(self.paths)
        if not self.kept:
            raise DataError(
                f"{table.shown}: none of its {len(self.cells):,} rows names an image below "
                f"{printable(str(folder))} (column {column!r}, such as {listed(self.cells, 2)}); "
                "name their folder with --with images=DIR"
            )
        if missing and not skip:
            name = "names" if len(missing) == 1 else "name"
            raise DataError(
                f"{table.shown}: {len(missing):,} of {len(self.cells):,} rows {name} no image "
                f"below {printable(str(folder))}: {listed(missing, 3)}{_foreign(index)}; mend the "
                f"table, or leave them out with {SKIP}"
            )
        self.remarks += remarks_on("rows without image", missing)


def _foreign(index: FileIndex) -> str:
    """What may be the reason why images are missing."""
    return "".join(f" ({remark.words(3)})" for remark in index.listing.foreign_remarks())


def _check_cell(cell: str, folder: Path, root: Path, table: str) -> None:
    """Refuses a cell that leads out of the folder."""
    if "\0" in cell:
        raise DataError(f"{table}: {cell!r} is no file name")
    try:
        check_inside(folder / cell.replace("\\", "/"), root, cell)
    except DataError as error:
        raise DataError(f"{table}: {error}") from None
    except OSError:  # a name too long to be one
        return


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
    if path.is_dir():
        layout = layout_of(spec)
        return layout is not None and layout.kind == "table"
    return path.suffix.lower() in TABLES or (path.is_file() and path.suffix.lower() == ".txt")


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
