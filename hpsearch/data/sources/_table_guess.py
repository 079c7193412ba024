"""Which column of a table is what."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpsearch.data.decode import SUFFIXES
from hpsearch.data.sources._arrays import part_of
from hpsearch.data.sources._table_file import Table
from hpsearch.data.sources._table_rows import FileIndex
from hpsearch.errors import DataError
from hpsearch.names import listed, printable

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


class Guess:
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
