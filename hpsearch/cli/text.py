"""How values and tables are written for people."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from hpsearch.data.words import plural
from hpsearch.names import printable
from hpsearch.training.units import EPOCHS as EPOCHS
from hpsearch.training.units import accuracy as accuracy
from hpsearch.training.units import duration as duration
from hpsearch.training.units import objective_difference as objective_difference
from hpsearch.training.units import objective_value as objective_value
from hpsearch.training.units import scaled as scaled
from hpsearch.training.units import time_of as time_of

if TYPE_CHECKING:
    from hpsearch.engine.records import TrialRecord
    from hpsearch.training.objectives import Objective

_FAR = 10 * 365 * 24 * 60 * 60.0
"""Seconds."""

_NO_EDGE = 10_000
"""Letters a line where nothing has an edge: in a file, and in a pipe."""
_FOLDED = 24
"""A column of texts may become as narrow as this before a whole column has to go."""


def objective_name(objective: Objective) -> str:
    """What stands before its values: validation, validation loss, ..."""
    return "validation" if objective.name == "val_accuracy" else objective.label


def parameters(params: Mapping[str, Any]) -> str:
    """Such as: lr 0.003, batch_size 64."""
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in params.items()
    )


def best_epoch(trial: TrialRecord) -> str:
    """The epoch whose weights are kept, written as that of a trial that runs: epoch 13/20."""
    return "" if trial.best_epoch is None else f"epoch {trial.best_epoch + 1}/{trial.epochs}"


def times_text(times: int) -> str:
    """Such as: once, 2 times."""
    return "once" if times == 1 else f"{times:,} times"


def tested_text(scores: Mapping[str, Any]) -> str:
    """An accuracy with its interval.

    Args:
        scores: of a test, as `metrics.json` has them.
    """
    low, high = scores["accuracy_95"]
    return (
        f"{accuracy(scores['accuracy'])} (errors: {scores['errors']:,} of "
        f"{plural(scores['images'], 'image')}; 95 % interval {accuracy(low)} to {accuracy(high)}, "
        f"{scores['interval']})"
    )


def end_time(seconds: float, now: datetime.datetime) -> str:
    """The time of day after so many seconds, with the date where that is another one; empty where
    it is too far away to be told.
    """
    if not seconds < _FAR:
        return ""
    end = now + datetime.timedelta(seconds=seconds)
    return f"{end:%H:%M}" if end.date() == now.date() else f"{end:%Y-%m-%d %H:%M}"


def say(console: Console, text: str) -> None:
    """Prints one line, whatever is in it."""
    console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def tell(console: Console, text: str) -> None:
    """Prints a paragraph, whatever is in it: a terminal gets lines that end between words."""
    console.print(printable(text), markup=False, highlight=False)


def output() -> Console:
    """The standard output: a table is as wide there as it needs, unless it is a terminal."""
    console = Console()
    return console if console.is_terminal else Console(width=_NO_EDGE)


def redraws(console: Console) -> bool:
    """Whether it is a terminal on which lines can be drawn again."""
    return console.is_terminal and not console.is_dumb_terminal


class FittingTable(Table):
    """A table of which a narrow terminal takes nothing without a word: columns that can be spared
    go, and are named below it; where that is not enough, cells are folded.

    Texts in it are shown as they are, whatever is in them.

    Args:
        spare: columns that can be spared, the first one first.
        whole_first: the first column is not folded as long as there is room.
    """

    def __init__(
        self,
        title: str,
        *,
        left: Sequence[str],
        right: Sequence[str],
        spare: Sequence[str],
        whole_first: bool,
    ) -> None:
        super().__init__(
            title=Text(printable(title), style="bold") if title else None,
            title_justify="left",
            caption_justify="left",
            box=SIMPLE_HEAD,
            padding=0 if title else (0, 1),
        )
        self._spare = tuple(spare)
        for number, name in enumerate(left):
            whole = whole_first and number == 0
            self.add_column(name, no_wrap=whole, overflow="fold")
        for name in right:
            self.add_column(name, justify="right", no_wrap=True, overflow="fold")

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        """Adds a row; a cell that is a `str` has no markup."""
        shown = (Text(printable(cell)) if isinstance(cell, str) else cell for cell in cells)
        super().add_row(*shown, **options)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns, caption = self.columns, self.caption
        try:
            self._fit(console, options)
            yield from super().__rich_console__(console, options)
        finally:
            self.columns, self.caption = columns, caption

    def _fit(self, console: Console, options: ConsoleOptions) -> None:
        gone: list[str] = []
        for name in self._spare:
            if self._least_width(console, options) <= options.max_width:
                break
            gone += [name for column in self.columns if column.header == name]
            self.columns = [column for column in self.columns if column.header != name]
        # Rich finds the cells of a column by its place.
        self.columns = [replace(c, _index=place) for place, c in enumerate(self.columns)]
        if self._least_width(console, options) > options.max_width:
            self.columns = [replace(column, no_wrap=False) for column in self.columns]
        if gone:
            self.caption = f"not shown, for want of room: {', '.join(gone)}"

    def _least_width(self, console: Console, options: ConsoleOptions) -> int:
        """In which no number is folded."""

        def width(column: Column) -> int:
            whole = options.update(max_width=_NO_EDGE)
            cells = (Measurement.get(console, whole, cell) for cell in _cells(column))
            if column.no_wrap:
                return max(cell.maximum for cell in cells)
            return min(_FOLDED, max(cell.minimum for cell in cells))

        _, right, _, left = self.padding
        between = 1 + len(self.columns) * (1 + left + right)  # the box, though it is not seen
        return between + sum(map(width, self.columns))


def _cells(column: Column) -> list[RenderableType]:
    return [column.header, *column.cells]


def make_table(
    title: str = "",
    *,
    left: Sequence[str],
    right: Sequence[str] = (),
    spare: Sequence[str] = (),
) -> FittingTable:
    """An empty table: texts to the left, numbers to the right.

    Args:
        spare: columns that a narrow terminal can do without, the first one first.
    """
    return FittingTable(title, left=left, right=right, spare=spare, whole_first=bool(title))
