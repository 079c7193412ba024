"""The parts of the live view, put together so that they fit the terminal."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from hpsearch.cli.state import FamilyStanding, Running, Standing
from hpsearch.cli.text import objective_name, objective_value, parameters
from hpsearch.engine.states import FINISHED
from hpsearch.names import printable
from hpsearch.training.objectives import Objective

_T = TypeVar("_T")

_LABEL = len("running")
_GAP = 2  # columns between two cells
_LEAST = 4  # running trials are shown before the other parts give way
_BARS = "▁▂▃▄▅▆▇█"
_SPARK = 12  # epochs in a sparkline
_OPTIONAL = ("sparkline", "speed", "objective", "best", "worker")
"""What is left out of the rows of running trials where they are too long, the first one first."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """What there is to show, and where.

    Attributes:
        running: the trials that run.
        workers: of the search; 0: its own process alone.
        width: columns that the view can use.
    """

    console: Console
    objective: Objective
    standing: Standing
    running: Sequence[Running]
    workers: int
    width: int

    def body(
        self, data: RenderableType, totals: RenderableType, *, height: int | None
    ) -> RenderableType:
        """All parts in at most `height` lines, where that is possible; None: there is room."""
        families, gap = len(self.standing.families), Text()
        best = self._best(full=True)
        if height is None:
            height = 10**6
        room = height - self._lines(data, totals, best) - 3 - (families + 1)
        if self.workers <= 1 and len(self.running) == 1:
            trials = self._trials(1, full=True)
            fits = room >= self._lines(trials)
        else:
            trials = self._trials(room, full=False)
            fits = room >= min(len(self.running), _LEAST)
        if fits:
            rest = (gap, trials, best) if self.running or self.standing.best else ()
            return Group(data, gap, totals, gap, self._families(families), *rest)
        # No parameters and no empty lines, and what room is left is shared.
        best = self._best(full=False)
        room = height - self._lines(totals, best)
        shown = min(families, room - 1 - min(len(self.running), _LEAST))
        if shown < min(families, 2):  # a head with no row below it
            return Group(totals, self._trials(max(1, room), full=False), best)
        trials = self._trials(room - 1 - shown, full=False)
        return Group(totals, self._families(shown), trials, best)

    def _lines(self, *parts: RenderableType) -> int:
        options = self.console.options.update(width=self.width)
        return sum(len(self.console.render_lines(part, options, pad=False)) for part in parts)

    def _families(self, most: int) -> RenderableType:
        """The families in `most` lines below their head."""
        rows, more = cut(self.standing.families, most)
        best = f"best {objective_name(self.objective)}"
        for gap, heading in ((3, best), (1, best), (1, "best")):
            table = self._family_table(rows, gap, heading)
            measured = Measurement.get(self.console, self.console.options.update(width=999), table)
            if measured.maximum <= self.width:
                break
        return Group(table, Text(f"and {more} more", style="dim")) if more else table

    def _family_table(self, rows: Sequence[FamilyStanding], gap: int, heading: str) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="dim")
        for name in ("family", *FINISHED, heading, "trial"):
            left = name in ("family", "trial")
            table.add_column(name, justify="left" if left else "right", no_wrap=True)
        for row in rows:
            best = row.best
            table.add_row(
                row.family,
                *map(str, row.counts),
                objective_value(self.objective, best.value if best else None),
                best.name if best else "",
                style="bold green" if best and best is self.standing.best else "",
            )
        return table

    def _trials(self, most: int, *, full: bool) -> RenderableType:
        """The running trials in `most` lines; `full`: and their parameters, however long."""
        rows, more = cut(self.running, most)
        parts: list[RenderableType] = []
        for left_out in range(len(_OPTIONAL) + 1):
            shown = frozenset(_OPTIONAL[left_out:])
            cells = [self._cells(trial, shown) for trial in rows]
            widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
            if _LABEL + sum(width + _GAP for width in widths if width) <= self.width:
                break
        if rows:
            table = _grid()
            for number, row in enumerate(cells):
                wide = [cell for cell, width in zip(row, widths, strict=True) if width]
                name = Text(wide[0], style="bold cyan")
                table.add_row("" if number else "running", name, *map(Text, wide[1:]))
            for column in table.columns:
                column.no_wrap = True
            parts.append(table)
        if full:
            parts += [_labelled("", _parameters(row.started.params)) for row in rows]
        if more:
            text = f"and {more} more" if rows else f"{more} trials"
            parts.append(_labelled("" if rows else "running", Text(text, style="dim")))
        return Group(*parts)

    def _cells(self, trial: Running, shown: frozenset[str]) -> tuple[str, ...]:
        """What is told of a running trial; what is not `shown` is empty."""
        started, epochs, objective = trial.started, trial.epochs, self.objective
        at = f"epoch {len(epochs)}/{started.epochs}"
        number = started.worker if "worker" in shown else 0
        worker = f"worker {number}" if number else ""
        if not epochs:
            return (started.name, at, "", "", worker, "")
        value = objective_value(objective, objective.value(epochs[-1]))
        if "objective" in shown:
            value = f"{objective_name(objective)} {value}"
        if "best" in shown:
            highest = objective.value(max(epochs, key=objective.key))
            value += f" (best {objective_value(objective, highest)})"
        speed = f"{epochs[-1].images_per_second:,.0f} images/s" if "speed" in shown else ""
        bars = ""
        if "sparkline" in shown and not self.console.options.ascii_only:
            bars = sparkline([objective.value(result) for result in epochs])
        return (started.name, at, value, speed, worker, bars)

    def _best(self, *, full: bool) -> RenderableType:
        """The best trial; `full`: with its parameters, however long, else in one line."""
        best, objective = self.standing.best, self.objective
        if best is None:
            return Group()
        what = f"{objective_name(objective)} " if full else ""
        line = Text.assemble(
            (best.name, "bold green"),
            f"  {what}{objective_value(objective, best.value)}, epoch {best.best_epoch}, "
            f"{best.parameters:,} parameters",
        )
        if full:
            return Group(_labelled("best", line), _labelled("", _parameters(best.params)))
        line.no_wrap, line.overflow = True, "ellipsis"
        return _labelled("best", line)


def cut(rows: Sequence[_T], most: int) -> tuple[Sequence[_T], int]:
    """The first of `rows`, and how many are left out; a line that tells of those is one of the
    `most`.
    """
    if len(rows) <= most:
        return rows, 0
    shown = max(0, most - 1)
    return rows[:shown], len(rows) - shown


def sparkline(values: Sequence[float], width: int = _SPARK) -> str:
    """The course of `values` as bars between their least and their greatest; at most `width` of
    them, evenly spaced, the last one included. What is not finite is a space.
    """
    count = min(len(values), width)
    picked = [values[(number + 1) * len(values) // count - 1] for number in range(count)]
    finite = [value for value in picked if math.isfinite(value)]
    if not finite:
        return " " * count
    low, span = min(finite), max(finite) - min(finite)
    top = len(_BARS) - 1
    flat = not 0 < span < math.inf
    return "".join(
        _BARS[top // 2 if flat else round((value - low) / span * top)]
        if math.isfinite(value)
        else " "
        for value in picked
    )


def _grid() -> Table:
    table = Table.grid(padding=(0, _GAP))
    table.add_column(style="dim", no_wrap=True, min_width=_LABEL)
    return table


def _labelled(label: str, content: RenderableType) -> Table:
    table = _grid()
    table.add_column()
    table.add_row(label, content)
    return table


def _parameters(params: Mapping[str, object]) -> Text:
    return Text(printable(parameters(params)), style="dim")
