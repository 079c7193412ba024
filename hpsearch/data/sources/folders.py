"""Folders of picture files: one folder a class, or the label in the file name.

What a folder holds is found out by looking at it; see `layout_of`.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from hpsearch.data.catalog import Catalog, joined_labels, make_catalog, remarks_on
from hpsearch.data.listing import Glance, Listing, glance, list_files, subfolders
from hpsearch.data.readers import FileReader, check_inside, is_folder
from hpsearch.data.sources._arrays import part_of, parts_of
from hpsearch.data.sources._source import DataSource, SourceOption
from hpsearch.data.spec import SKIP, DataSpec
from hpsearch.data.words import plural
from hpsearch.errors import DataError
from hpsearch.names import listed, printable

# Fields of a pattern that are no part of the label.
_ROLES = frozenset({"group", "split"})
Match = Callable[[str], dict[str, str] | None]


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a folder holds images.

    Attributes:
        kind: "classes", a folder each; "table", a CSV file; "names", the label in file names.
        root: where they are: the folder, or the only folder in it.
        table: the name of the CSV file, if any.
        has_parts: there are train, val and test folders.
    """

    kind: Literal["classes", "table", "names"]
    root: Path
    table: str | None
    has_parts: bool


def layout_of(spec: DataSpec) -> Layout | None:
    """How the folder that `spec` names holds images; None where it is no folder or has none."""
    path = Path(spec.source)
    if not is_folder(path):
        return None
    seen = _unpacked(glance(path))
    parts = [name for name in seen.with_images if part_of(name)]
    train = next((name for name in parts if part_of(name) == "train"), None)
    inner = glance(seen.root / train) if train is not None else None
    # A class can be called train: it has neither classes below it nor other parts beside it.
    has_parts = inner is not None and (len(parts) > 1 or len(inner.with_images) > 1)
    table = seen.tables[0] if seen.tables else None
    if not seen.images and not seen.with_images:
        return None
    folders = inner.with_images if inner and has_parts else seen.with_images
    if "pattern" in spec.options:
        kind: Literal["classes", "table", "names"] = "names"
    elif {"label", "file", "table"} & set(spec.options):
        kind = "table"
    elif 1 < len(folders) > seen.images:  # pictures beside class folders are few, and stray
        kind = "classes"
    elif table is not None:
        kind = "table"
    else:
        kind = "names"
    return Layout(kind, seen.root, table, has_parts)


def _unpacked(seen: Glance) -> Glance:
    """Goes into folders that hold one folder only, as archives make them."""
    root = seen.root
    while len(seen.with_images) == 1 and not seen.images and not seen.tables:
        if part_of(seen.with_images[0]) == "train":
            break
        below = seen.root / seen.with_images[0]
        check_inside(below, root.resolve(), seen.with_images[0])
        inner = glance(below)
        if inner.images and not inner.with_images:
            return inner
        seen = inner
    return seen


def _class_folders(spec: DataSpec, _options: Mapping[str, Any]) -> Catalog:
    layout = _required(spec)
    listing = list_files(layout.root)
    paths: list[str] = []
    labels: list[str] = []
    parts: list[str | None] = []
    stray: list[str] = []
    deep: list[str] = []
    for path in listing.images:
        folders = path.split("/")[:-1]
        part = None
        if layout.has_parts and folders:
            part = part_of(folders[0])
            folders = folders[1:] if part else []
        if not folders:
            stray.append(path)
            continue
        paths.append(path)
        labels.append(folders[0])
        parts.append(part)
        if len(folders) > 1:
            deep.append(path.rpartition("/")[0])
    folders_seen = {path.name for path in subfolders(layout.root)}
    empty = sorted(folders_seen - set(labels)) if not layout.has_parts else []
    return make_catalog(
        name=_name(spec, layout),
        names=paths,
        label_names=labels,
        images=FileReader(layout.root, paths),
        parts=parts,
        notes=_notes(spec, layout, listing) + _place_notes(stray, deep),
        remarks=(
            *listing.remarks(),
            *remarks_on("images outside of class folders", stray),
            *remarks_on("folders without images", empty, harmless=True),
        ),
    )


def _notes(spec: DataSpec, layout: Layout, listing: Listing) -> tuple[str, ...]:
    notes = [remark.words(3) for remark in listing.foreign_remarks()]
    if layout.root != Path(spec.source):
        below = layout.root.relative_to(spec.source).as_posix()
        notes.append(f"the images are in {printable(below)}")
    if layout.has_parts:
        notes.append("its train, val and test folders are taken as the official split")
    if layout.kind == "classes" and layout.table:
        table = printable(layout.table)
        notes.append(f"classes are the folders; for those of the table give {table} itself")
    return tuple(notes)


def _place_notes(stray: list[str], deep: list[str]) -> tuple[str, ...]:
    """About images that lie elsewhere than in a class folder.

    Args:
        stray: images outside of them.
        deep: the folder of each image below them.
    """
    notes = []
    if stray:
        images = plural(len(stray), "image")
        verb = "is" if len(stray) == 1 else "are"
        notes.append(f"{images} outside of class folders {verb} left out: {listed(stray, 3)}")
    if deep:
        lie, are = ("lies", "is") if len(deep) == 1 else ("lie", "are")
        below = sorted(set(deep))
        where = "a folder" if len(below) == 1 else "folders"
        notes.append(
            f"{plural(len(deep), 'image')} {lie} in {where} below the class folders, and {are} "
            f"taken, too: {listed(below, 2)}"
        )
    return tuple(notes)


def _file_names(spec: DataSpec, options: Mapping[str, Any]) -> Catalog:
    layout = _required(spec)
    listing = list_files(layout.root)
    pattern = options.get("pattern")
    notes = _notes(spec, layout, listing)
    if pattern is None:
        match = _guess(listing.images, spec)
        fields: tuple[str, ...] = ("label",)
    else:
        match, fields = compile_pattern(pattern)
    columns = tuple(name for name in fields if name not in _ROLES)
    paths: list[str] = []
    values: list[dict[str, str]] = []
    odd: list[str] = []
    for path in listing.images:
        subject = path if pattern is not None and "/" in pattern else path.rsplit("/", 1)[-1]
        found = match(subject)
        if found is None:
            odd.append(path)
            continue
        paths.append(path)
        values.append(found)
    if odd and (spec.on_error == "fail" or not paths):
        raise DataError(
            f"{spec.source}: the pattern {pattern!r} does not fit {len(odd):,} of "
            f"{len(listing.images):,} files: {listed(odd, 3)}; change it, or leave them out with "
            f"{SKIP}"
        )
    rows = [[row[name] for name in columns] for row in values]
    labels, class_parts = joined_labels(rows, spec.source)
    if pattern is None:
        notes += (
            f"the label is what stands before the number in a file's name: {len(class_parts):,} "
            f"labels, {listed(sorted(class_parts), 3)} (--with pattern=)",
        )
    parts = (
        [part_of(path.split("/")[0]) for path in paths]
        if layout.has_parts
        else parts_of([row.get("split", "") for row in values], f"{spec.source}, field 'split'")
    )
    return make_catalog(
        name=_name(spec, layout),
        names=paths,
        label_names=labels,
        images=FileReader(layout.root, paths),
        groups=[row["group"] for row in values] if "group" in fields else None,
        parts=parts,
        columns=columns if len(columns) > 1 else (),
        class_parts=class_parts if len(columns) > 1 else None,
        notes=notes,
        remarks=listing.remarks() + remarks_on("files that the pattern does not fit", odd),
    )


def compile_pattern(pattern: str) -> tuple[Match, tuple[str, ...]]:
    """A pattern such as '{label}.*.jpg' as a function from a file's name to the values of its
    fields, which is None for a name that it does not fit; and the names of the fields.

    `*` stands for anything; `{group}` and `{split}` name the group and the part of the official
    split; other fields make the label, joined in their order. Each is as short as can be.

    Raises:
        DataError: it has no field, or one that is not understood.
    """
    pieces = re.split(r"(\{[^{}]*\}|\*)", pattern)
    texts, wild = pieces[::2], pieces[1::2]
    fields = [piece[1:-1] for piece in wild if piece != "*"]
    unpaired = [brace for text in texts for brace in "{}" if brace in text]
    bad = [
        f"{{{name}}}"
        for name in fields
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,40}", name) or fields.count(name) > 1
    ]
    if unpaired or bad:
        raise DataError(
            f"pattern {pattern!r}: {[*unpaired, *bad][0]} is not understood; a field is one name "
            "of letters between braces, and no name occurs twice"
        )
    if not set(fields) - _ROLES:
        raise DataError(
            f"pattern {pattern!r} has no {{label}}; write for example '{{label}}.*.jpg'"
        )
    if len(pieces) > 40:
        raise DataError(f"pattern {pattern!r} has too many parts")
    return functools.partial(_match, texts, wild), tuple(fields)


def _match(texts: Sequence[str], wild: Sequence[str], name: str) -> dict[str, str] | None:
    """The values of a pattern's fields, with `wild` between `texts`.

    A regular expression would do the same, but can take for ever; here what follows a place in
    the name is tried once.
    """
    hopeless: set[tuple[int, int]] = set()

    def rest(number: int, start: int) -> dict[str, str] | None:
        if number == len(wild):
            return {} if start == len(name) else None
        if (number, start) in hopeless:
            return None
        is_field, text = wild[number] != "*", texts[number + 1]
        stop = name.find(text, start + is_field)
        while stop >= 0 and not (is_field and "/" in name[start:stop]):
            found = rest(number + 1, stop + len(text))
            if found is not None:
                return {wild[number][1:-1]: name[start:stop], **found} if is_field else found
            stop = name.find(text, stop + 1)
        hopeless.add((number, start))
        return None

    return rest(0, len(texts[0])) if name.startswith(texts[0]) else None


def _guess(paths: Sequence[str], spec: DataSpec) -> Match:
    """cat.0.jpg, dog_12.png, great_dane-7.jpg: a word, perhaps a separator, a number."""
    regex = re.compile(r"(?P<label>[^/]*?[^\W\d_][^/]*?)[ ._\-(]*\d+\)?\.[^./]+")
    labels = [
        match["label"] if (match := regex.fullmatch(path.rsplit("/", 1)[-1])) else None
        for path in paths
    ]
    distinct = {label for label in labels if label is not None}
    if None in labels or not 2 <= len(distinct) <= max(2, len(paths) // 2):
        examples = listed([path.rsplit("/", 1)[-1] for path in paths], 2)
        raise DataError(
            f"{spec.source}: has images but no class folders and no table, and the label cannot be "
            f"guessed from file names such as {examples}; say where it is, for example "
            "--with pattern='{label}.*.jpg'"
        )
    return lambda name: match.groupdict() if (match := regex.fullmatch(name)) else None


def _required(spec: DataSpec) -> Layout:
    layout = layout_of(spec)
    if layout is None:
        listing = list_files(Path(spec.source), refuse_outside=False)
        also = "".join(f" that are read; {r.words(3)}" for r in listing.foreign_remarks())
        raise DataError(f"{spec.source}: there are no images in this folder{also}")
    return layout


def _name(spec: DataSpec, layout: Layout) -> str:
    return printable(Path(spec.source).resolve().name) or layout.root.name or "folder"


def _is(spec: DataSpec, kind: str) -> bool:
    layout = layout_of(spec)
    return layout is not None and layout.kind == kind


def _is_empty_folder(spec: DataSpec) -> bool:
    return is_folder(Path(spec.source)) and layout_of(spec) is None


CLASS_FOLDERS = DataSource(
    usage="FOLDER",
    help="a folder of images for each class; train, val and test folders above them are the "
    "official split",
    accepts=lambda spec: _is(spec, "classes") or _is_empty_folder(spec),
    catalog=_class_folders,
    is_path=True,
)

FILE_NAMES = DataSource(
    usage="FOLDER of cat.0.jpg",
    help="images whose file names carry the label",
    accepts=lambda spec: _is(spec, "names"),
    catalog=_file_names,
    options=(
        SourceOption(
            name="pattern",
            help="how names are made, such as '{label}.*.jpg'; {group} and {split} have a meaning, "
            "several other fields are joined to the label",
        ),
    ),
    is_path=True,
)
