"""The parts of the view of a search, put together so that they fit the terminal."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TypeVar

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hpsearch.cli.curves import (
    WIDTH,
    best_of,
    curve_of,
    lead,
    lead_text,
    scale_of,
    sparkline,
)
from hpsearch.cli.text import (
    best_epoch,
    duration,
    objective_name,
    objective_value,
    parameters,
)
from hpsearch.engine.states import ASIDE, FINISHED
from hpsearch.engine.status import FamilyStanding, Standing
from hpsearch.names import printable
from hpsearch.training.objectives import Objective

_T = TypeVar("_T")

FRAME = 4
"""Columns of the frame around the view."""

_LABEL = len("running")
_GAP = 2  # columns between two cells
_LEAST = 4  # running trials are shown before the other parts give way
_OPTIONAL = (
    "speed",
    "objective",
    "best",
    "seconds",
    "worker",
    "lead",
    "bars",
    "epoch",
    "trouble",
    "value",
)
"""What is left out of the rows of running trials where they are too long, the first one first."""

_STATE_STYLES = {"complete": "green", "pruned": "yellow", "failed": "red"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrialRow:
    """A trial that runs.

    Attributes:
        values: the objective's, after each epoch that it has behind it.
        epochs: that it may have in all.
        speed: images a second; 0: not known.
        worker: who runs it, or where; may be empty.
        seconds: for which it has run; None: not known.
        trouble: what is not as it should be, or empty; where there is no room, its first word.
    """

    name: str
    values: Sequence[float]
    epochs: int
    params: Mapping[str, object]
    speed: float = 0.0
    worker: str = ""
    seconds: float | None = None
    trouble: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Totals:
    """The search in one line, and a bar.

    Attributes:
        asked: trials in all.
        running: trials that run.
        notes: of workers, for example.
        time: that was taken, and that is left.
        brief_time: the same where there is no room.
        warning: in a line of its own, or empty.
    """

    standing: Standing
    asked: int
    running: int
    notes: Sequence[str] = ()
    time: str = ""
    brief_time: str = ""
    warning: str = ""

    def table(self, *, brief: bool = False) -> RenderableType:
        """All of it; `brief`: no line is folded."""
        counts = self.standing.counts
        parts = [(f"{self.standing.finished}/{self.asked} trials  ", "bold")]
        if not brief:
            for name, style in _STATE_STYLES.items():
                parts.append((f"{counts[name]} {name}  ", style if counts[name] else "dim"))
            parts += [(f"{counts[name]} {name}  ", "dim") for name in ASIDE if counts[name]]
        parts.append((f"{self.running} running  ", "cyan"))
        if not brief:
            parts += [(f"{note}  ", "dim") for note in self.notes]
        parts.append((self.brief_time if brief else self.time, "dim"))
        table = Table.grid(expand=True)
        table.add_column(no_wrap=brief, overflow="ellipsis" if brief else "fold")
        table.add_row(Text.assemble(*parts))
        table.add_row(ProgressBar(total=max(1, self.asked), completed=self.standing.finished))
        if self.warning:
            table.add_row(Text(printable(self.warning), style="bold yellow"))
        return table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """What there is to show, and where.

    Attributes:
        data: a line of what is searched on.
        running: the trials that run.
        extras: lines with their labels, such as of GPUs, where there is room.
        alone: a single running trial is shown with its parameters.
        width: columns that the view can use.
    """

    console: Console
    objective: Objective
    data: str
    totals: Totals
    running: Sequence[TrialRow]
    width: int
    extras: Sequence[tuple[str, Text]] = ()
    alone: bool = False

    @property
    def _standing(self) -> Standing:
        return self.totals.standing

    def body(self, *, height: int | None) -> RenderableType:
        """All parts in at most `height` lines, where that is possible; None: there is room."""
        height = 10**6 if height is None else height
        return (
            self._roomy(height, self.extras)
            or (self._roomy(height, ()) if self.extras else None)
            or self._tight(height)
        )

    def _roomy(self, height: int, extras: Sequence[tuple[str, Text]]) -> RenderableType | None:
        """All parts with lines between; None where there is no room."""
        families, gap = len(self._standing.families), Text()
        data, totals = Text(printable(self.data), style="dim"), self.totals.table()
        more = Group(*(_labelled(label, text) for label, text in extras))
        best = self._best(full=True, bars_at=None)
        room = height - self._lines(data, totals, best, more) - 3 - (families + 1)
        if self.alone and len(self.running) == 1:
            trials, bars_at = self._trials(1, full=True)
            fits = room >= self._lines(trials)
        else:
            trials, bars_at = self._trials(room, full=False)
            fits = room >= min(len(self.running), _LEAST)
        if not fits:
            return None
        best = self._best(full=True, bars_at=bars_at)
        rest = (gap, trials, best, more) if self.running or self._standing.best or extras else ()
        return Group(data, gap, totals, gap, self._families(families), *rest)

    def _tight(self, height: int) -> RenderableType:
        """No parameters and no empty lines, and what room is left is shared."""
        families, best = len(self._standing.families), self._best(full=False, bars_at=None)
        totals = self.totals.table()
        room = height - self._lines(totals, best)
        if room < families + 1 + min(len(self.running), _LEAST):
            totals = self.totals.table(brief=True)
            room = height - self._lines(totals, best)
        shown = min(families, room - 1 - min(len(self.running), _LEAST))
        if shown < min(families, 2):  # a head with no row below it
            trials, bars_at = self._trials(max(1, room), full=False)
            return Group(totals, trials, self._best(full=False, bars_at=bars_at))
        trials, bars_at = self._trials(room - 1 - shown, full=False)
        best = self._best(full=False, bars_at=bars_at)
        return Group(totals, self._families(shown), trials, best)

    def _lines(self, *parts: RenderableType) -> int:
        options = self.console.options.update(width=self.width)
        return sum(len(self.console.render_lines(part, options, pad=False)) for part in parts)

    def _families(self, most: int) -> RenderableType:
        """The families in `most` lines below their head."""
        rows, more = cut(self._standing.families, most)
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
                Text(printable(row.family)),
                *map(str, row.counts),
                objective_value(self.objective, best.value if best else None),
                Text(printable(best.name if best else "")),
                style="bold green" if best and best is self._standing.best else "",
            )
        return table

    def _trials(self, most: int, *, full: bool) -> tuple[RenderableType, int | None]:
        """The running trials in `most` lines, and the column where their bars begin, if they have
        some; `full`: with their parameters, however long.
        """
        rows, more = cut(self.running, most)
        parts: list[RenderableType] = []
        bars_at = None
        if rows:
            cells, widths, shown = self._fitted(rows)
            table = _grid()
            for number, row in enumerate(cells):
                wide = [cell for cell, width in zip(row, widths, strict=True) if width]
                table.add_row("" if number else "running", *wide)
            for column in table.columns:
                column.no_wrap = True
            parts.append(table)
            if "bars" in shown and widths[-2]:
                bars_at = _LABEL + _GAP + sum(width + _GAP for width in widths[:-2] if width)
        if full:
            parts += [_labelled("", _parameters(row.params)) for row in rows]
        if more:
            text = f"and {more} more" if rows else f"{more} trials"
            parts.append(_labelled("" if rows else "running", Text(text, style="dim")))
        return Group(*parts), bars_at

    def _fitted(
        self, rows: Sequence[TrialRow]
    ) -> tuple[list[tuple[Text, ...]], list[int], frozenset[str]]:
        """The cells of running trials, how wide their columns are, and what is shown of all that
        is optional.
        """
        for left_out in range(len(_OPTIONAL) + 1):
            shown = frozenset(_OPTIONAL[left_out:])
            cells = [self._cells(row, shown) for row in rows]
            widths = [max(cell.cell_len for cell in column) for column in zip(*cells, strict=True)]
            if _LABEL + sum(width + _GAP for width in widths if width) <= self.width:
                break
        return cells, widths, shown

    def _cells(self, row: TrialRow, shown: frozenset[str]) -> tuple[Text, ...]:
        """What is told of a running trial; what is not `shown` is empty."""
        objective, values = self.objective, row.values
        at = f"{len(values)}/{row.epochs}"
        value, speed, bars = "", "", ""
        if values and "value" in shown:
            value = objective_value(objective, values[-1])
            if "objective" in shown:
                value = f"{objective_name(objective)} {value}"
            if "best" in shown:
                value += f" (best {objective_value(objective, best_of(values, objective))})"
        if row.speed and "speed" in shown:
            speed = f"{row.speed:,.0f} images/s"
        if values and "bars" in shown and not self.console.options.ascii_only:
            bars = self._bars(values)
        trouble = row.trouble if "trouble" in shown else row.trouble.partition(" ")[0]
        took = "" if row.seconds is None or "seconds" not in shown else duration(row.seconds)
        return (
            Text(printable(row.name), style="bold cyan"),
            Text(f"epoch {at}" if "epoch" in shown else at),
            Text(value),
            self._lead(row, long="objective" in shown) if "lead" in shown else Text(),
            Text(speed),
            Text(printable(row.worker) if "worker" in shown else ""),
            Text(took),
            Text(bars),
            Text(printable(trouble), style="bold yellow"),
        )

    def _lead(self, row: TrialRow, *, long: bool) -> Text:
        """How it stands beside what the best trial had after as many epochs."""
        ahead = lead(row.values, curve_of(self._standing.best), self.objective)
        text = lead_text(ahead, self.objective, long=long)
        return Text(text, style="" if not ahead else "green" if ahead > 0 else "red")

    def _bars(self, values: Sequence[float]) -> str:
        """A course, on the scale that all that are shown have in common; as wide as the longest
        becomes.
        """
        best = curve_of(self._standing.best)
        epochs = max((len(best), *(row.epochs for row in self.running)))
        scale = scale_of((row.values for row in self.running), best, self.objective)
        return sparkline(values, epochs=epochs, scale=scale).ljust(min(epochs, WIDTH))

    def _best(self, *, full: bool, bars_at: int | None) -> RenderableType:
        """The best trial; `full`: with its parameters, however long, else in one line.

        Args:
            bars_at: the column where its course is shown, if there is room.
        """
        best, objective = self._standing.best, self.objective
        if best is None:
            return Group()
        what = f"{objective_name(objective)} " if full else ""
        value = f"{objective_value(objective, best.value)}, {best_epoch(best)}"
        texts = [f"{what}{value}, {best.parameters:,} parameters"]
        texts += [f"{value}, {best.parameters:,} parameters", value]  # to make room for the bars
        lengths = [
            _LABEL + _GAP + cell_len(printable(best.name)) + _GAP + len(text) for text in texts
        ]
        fitting = [n for n, length in enumerate(lengths) if length + _GAP <= (bars_at or 0)]
        number = fitting[0] if fitting else 0
        line = Text.assemble((printable(best.name), "bold green"), " " * _GAP, texts[number])
        if fitting and bars_at:
            line.append(" " * (bars_at - lengths[number]))
            line.append(self._bars(curve_of(best)), style="green")
        if full:
            return Group(_labelled("best", line), _labelled("", _parameters(best.params)))
        line.no_wrap, line.overflow = True, "ellipsis"
        return _labelled("best", line)


def framed(layout: Layout, title: str, *, is_open: bool) -> RenderableType:
    """The parts in a frame.

    Args:
        is_open: it is redrawn, and has at most as many lines as the terminal: what cannot be shown
            is counted.
    """
    height = layout.console.height - 3 if is_open else None
    panel = Panel(
        layout.body(height=height),
        title=Text(printable(title), style="bold"),
        title_align="left",
        padding=(0, 1),
    )
    # The terminal writes ^C where the cursor is. At the end of the border that would begin a
    # line that rich knows nothing of, and its next redrawing would leave the top one behind.
    return Group(panel, Text()) if is_open else panel


def cut(rows: Sequence[_T], most: int) -> tuple[Sequence[_T], int]:
    """The first of `rows`, and how many are left out; a line that tells of those is one of the
    `most`.
    """
    if len(rows) <= most:
        return rows, 0
    shown = max(0, most - 1)
    return rows[:shown], len(rows) - shown


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
