"""What a search shows while it runs: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import dataclasses
import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hpsearch.cli.progress import progress_text
from hpsearch.cli.text import duration, objective_name, objective_value, parameters
from hpsearch.engine.events import (
    DataProgress,
    EpochFinished,
    Event,
    FamilyEstimate,
    SearchStarted,
    TrialFinished,
    TrialStarted,
)
from hpsearch.engine.records import FINISHED, SearchRecord
from hpsearch.names import printable
from hpsearch.training.epoch import EpochResult
from hpsearch.training.objectives import Objective


class View(Protocol):
    """Something that watches a search while it is entered."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def watch(self, event: Event) -> None:
        """Takes note of what happened."""


def make_view(console: Console) -> View:
    """The live view where `console` is a terminal, else plain lines."""
    return LiveView(console) if console.is_terminal else PlainView(console)


def estimate_lines(estimates: tuple[FamilyEstimate, ...]) -> list[str]:
    """One epoch's time by family, and the whole search's; nothing where all is done."""
    if not any(row.trials for row in estimates):
        return []
    each = ", ".join(
        f"{row.family} {duration(row.epoch_seconds)}"
        if row.epoch_seconds >= 1
        else f"{row.family} {1000 * row.epoch_seconds:.0f} ms"
        for row in estimates
        if row.trials
    )
    total = sum(row.seconds for row in estimates)
    trials = sum(row.trials for row in estimates)
    return [
        f"one epoch (measured on each family's default): {each}",
        f"{trials} trials to do: about {duration(total)} without pruning",
    ]


class Progress:
    """The state of a search, built up from its events."""

    def __init__(self) -> None:
        self.reading = "reading data and measuring one epoch of each family ..."
        self.started: SearchStarted | None = None
        self.record: SearchRecord | None = None
        self.running: TrialStarted | None = None
        self.epochs: list[EpochResult] = []
        self._begun = time.monotonic()
        self._trial_begun = 0.0
        self._seconds: dict[str, list[float]] = {}

    def take(self, event: Event) -> None:
        """Takes an event into account."""
        match event:
            case DataProgress(progress=reading):
                self.reading = progress_text(reading)
            case SearchStarted():
                self.started, self.record = event, event.record
            case TrialStarted():
                self.running, self.epochs = event, list(event.history)
                self._trial_begun = time.monotonic()
            case EpochFinished(result=result):
                self.epochs.append(result)
            case TrialFinished(trial=trial) if self.record is not None:
                self.running = None
                others = (t for t in self.record.trials if t.name != trial.name)
                self.record = dataclasses.replace(self.record, trials=(*others, trial))
                took = time.monotonic() - self._trial_begun
                self._seconds.setdefault(trial.family, []).append(took)

    @property
    def elapsed(self) -> float:
        """Seconds since this view was made."""
        return time.monotonic() - self._begun

    def seconds_left(self) -> float:
        """From the mean of each family's trials here, or its estimate before the first one."""
        if self.started is None:
            return 0.0
        left = 0.0
        for row in self.started.estimates:
            done = self._seconds.get(row.family, [])
            each = sum(done) / len(done) if done else row.seconds / max(1, row.trials)
            left += each * max(0, row.trials - len(done))
        if self.running is not None:
            left -= time.monotonic() - self._trial_begun
        return max(0.0, left)


class PlainView:
    """A line when the search starts, and one for each trial that ends."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to close."""

    def watch(self, event: Event) -> None:
        """Prints what is worth a line."""
        progress = self._progress
        progress.take(event)
        match event:
            case SearchStarted():
                self._line(f"{headline(event)}: {dataline(event)}")
                for line in (*note_lines(event), *estimate_lines(event.estimates)):
                    self._line(line)
            case TrialStarted(history=history) if history:
                self._line(goes_on_line(event))
            case TrialFinished(trial=trial) if progress.record is not None:
                record = progress.record
                best, objective = record.leader(), record.objective
                parts = [
                    f"[{record.finished}/{record.spec['trials']}] {trial.name} {trial.state}",
                    f"{objective_name(objective)} {objective_value(objective, trial.value)}",
                    f"{trial.epochs} epochs in {duration(trial.seconds)}",
                    trial.failure or trial.note,
                    f"best {best.name} {objective_value(objective, best.value)}" if best else "",
                    f"{duration(progress.seconds_left())} left",
                ]
                self._line("  ".join(part for part in parts if part))

    def _line(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class LiveView:
    """A view that redraws itself: progress, families, the running trial, the best so far."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress()
        self._live = Live(console=console, get_renderable=self.render, refresh_per_second=8)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leaves the last state on the screen, with nothing running any more."""
        self._progress.running = None
        self._live.stop()

    def watch(self, event: Event) -> None:
        """Takes note; the view redraws itself a few times a second."""
        self._progress.take(event)
        lines: list[str] = []
        match event:
            case SearchStarted():
                lines = [*note_lines(event), *estimate_lines(event.estimates)]
            case TrialStarted(history=history) if history:
                lines = [goes_on_line(event)]
            case TrialFinished(trial=trial) if trial.failure:
                lines = [f"{trial.name} {trial.state}: {trial.failure}"]
            case TrialFinished(trial=trial) if trial.note:
                lines = [f"{trial.name}: {trial.note}"]
        for line in lines:  # above the view, where they stay
            self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def render(self) -> RenderableType:
        """The view as it is now."""
        started, record = self._progress.started, self._progress.record
        if started is None or record is None:
            return Text(self._progress.reading, style="dim")
        body = Group(
            Text(dataline(started), style="dim"),
            Text(),
            self._totals(record),
            Text(),
            self._families(record),
            Text(),
            self._trials(record),
        )
        head = Text(headline(started), style="bold")
        return Panel(body, title=head, title_align="left", padding=(0, 1))

    def _totals(self, record: SearchRecord) -> RenderableType:
        progress, total = self._progress, record.spec["trials"]
        left = f", about {duration(progress.seconds_left())} left" if progress.running else ""
        counts = Text.assemble(
            (f"{record.finished}/{total} trials  ", "bold"),
            (f"{record.count('complete')} complete  ", "green"),
            (f"{record.count('pruned')} pruned  ", "yellow"),
            (f"{record.count('failed')} failed  ", "red" if record.count("failed") else "dim"),
            (f"{1 if progress.running else 0} running  ", "cyan"),
            (f"{duration(progress.elapsed)} elapsed{left}", "dim"),
        )
        return Group(counts, ProgressBar(total=max(1, total), completed=record.finished))

    def _families(self, record: SearchRecord) -> Table:
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
        objective = record.objective
        best_value = f"best {objective_name(objective)}"
        for name in ("family", "complete", "pruned", "failed", best_value, "trial"):
            table.add_column(name, justify="left" if name in ("family", "trial") else "right")
        overall = record.leader()
        for family in record.families:
            best = record.leader(family)
            table.add_row(
                family,
                *(str(record.count(state, family)) for state in FINISHED),
                objective_value(objective, best.value if best else None),
                best.name if best else "",
                style="bold green" if best and best is overall else "",
            )
        return table

    def _trials(self, record: SearchRecord) -> Table:
        """The running trial and the best one, their parameters wrapped beside their names."""
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim", no_wrap=True)
        table.add_column()
        running, best, objective = self._progress.running, record.leader(), record.objective
        if running is not None:
            line = Text.assemble((running.name, "bold cyan"), self._epoch_line(running, objective))
            table.add_row("running", line)
            table.add_row("", Text(parameters(running.params), style="dim"))
        if best is not None:
            line = Text.assemble(
                (best.name, "bold green"),
                f"  {objective_name(objective)} {objective_value(objective, best.value)}, "
                f"epoch {best.best_epoch}, "
                f"{best.parameters:,} parameters",
            )
            table.add_row("best", line)
            table.add_row("", Text(parameters(best.params), style="dim"))
        return table

    def _epoch_line(self, running: TrialStarted, objective: Objective) -> str:
        epochs = self._progress.epochs
        if not epochs:
            return f"  epoch 0/{running.epochs}"
        last = epochs[-1]
        best = max(epochs, key=objective.key)
        now, highest = (objective_value(objective, objective.value(r)) for r in (last, best))
        return (
            f"  epoch {last.epoch + 1}/{running.epochs}  {objective_name(objective)} {now} "
            f"(best {highest})  {last.images_per_second:,.0f} images/s"
        )


def headline(started: SearchStarted) -> str:
    """The search's name, and whether it goes on."""
    return f"search {started.record.name}" + (", continued" if started.resumed else "")


def goes_on_line(started: TrialStarted) -> str:
    """Where a trial is taken up that was interrupted."""
    return f"{started.name} goes on after epoch {len(started.history)} of {started.epochs}"


def note_lines(started: SearchStarted) -> list[str]:
    """What was guessed about the data when the search began, and what looks wrong with it."""
    notes = [] if started.resumed else [f"note: {note}" for note in started.record.data["notes"]]
    return [printable(line) for line in (*notes, *(f"warning: {w}" for w in started.warnings))]


def dataline(started: SearchStarted) -> str:
    """Data, split, device."""
    data = started.record.data
    shape, counts = data["shape"], data["counts"]
    return (
        f"{data['name']}: {shape['height']}x{shape['width']}x{shape['channels']}, "
        f"{len(data['classes'])} classes, {counts['train']} train + {counts['val']} validation "
        f"images ({counts['test']} test images sealed), {started.device} {started.precision}"
    )
