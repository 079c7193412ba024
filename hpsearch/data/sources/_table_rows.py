"""Which picture each row of a table means."""

from __future__ import annotations

import collections
from pathlib import Path

from hpsearch.data.catalog import Remark, remarks_on
from hpsearch.data.listing import Listing
from hpsearch.data.readers import check_inside
from hpsearch.data.sources._table_file import Table
from hpsearch.data.spec import SKIP
from hpsearch.errors import DataError
from hpsearch.names import listed, printable


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

    def foreign(self) -> str:
        """What may be the reason why images are missing, in parentheses."""
        return "".join(f" ({remark.words(3)})" for remark in self.listing.foreign_remarks())


def _stem(path: str) -> str:
    return path.rsplit(".", 1)[0]


class Rows:
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
                f"below {printable(str(folder))}: {listed(missing, 3)}{index.foreign()}; mend the "
                f"table, or leave them out with {SKIP}"
            )
        self.remarks += remarks_on("rows without image", missing)


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
