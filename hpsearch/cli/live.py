"""What a search shows while it runs: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Protocol, Self

import typer
from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from hpsearch.cli import lines
from hpsearch.cli.layout import FRAME, Layout, Totals, TrialRow, framed
from hpsearch.cli.options import INTERRUPTED, PASSWORD_HINT
from hpsearch.cli.state import Running, SearchState
from hpsearch.cli.text import duration, redraws, say
from hpsearch.data.words import plural
from hpsearch.engine.events import (
    DatabaseAway,
    Event,
    SearchStarted,
    Stopping,
    TrialFinished,
    TrialStarted,
    TrialStopped,
    WorkerEnded,
    WorkerStarted,
    WorkerWaits,
)
from hpsearch.engine.records import SearchRecord
from hpsearch.engine.states import DUPLICATE
from hpsearch.engine.status import Standing
from hpsearch.engine.stop import Terminated
from hpsearch.names import printable, without_password
from hpsearch.training.gpu import GpuMeter
from hpsearch.training.objectives import Objective

QUIET = 60.0
"""After so many seconds without a line, the plain view says how far the search has come."""


class View(Protocol):
    """Something that watches a search while it is entered."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    @property
    def stopping(self) -> str:
        """Why the search was asked to stop, or empty."""

    def watch(self, event: Event) -> None:
        """Takes note of what happened."""


def make_view(console: Console) -> View:
    """The live view where `console` is a terminal that can redraw lines, else plain lines."""
    return LiveView(console) if redraws(console) else PlainView(console)


@contextlib.contextmanager
def watched(console: Console) -> Iterator[View]:
    """Shows a search while the block runs; after Ctrl-C or SIGTERM says how to go on, and exits."""
    try:
        with make_view(console) as view:
            yield view
    except KeyboardInterrupt:
        _say_stopped(console, "stopped")
        raise typer.Exit(INTERRUPTED) from None
    except Terminated:
        _say_stopped(console, "stopped by SIGTERM")
        raise


def _say_stopped(console: Console, how: str) -> None:
    say(
        console,
        f"{how}; finished trials are stored, and the last saved states of those that ran. "
        f"To go on: {command_line(sys.argv[1:])}",
    )


def command_line(arguments: list[str]) -> str:
    """The command with these arguments, as it can be shown to anyone."""
    shown = [without_password(argument) for argument in arguments]
    hint = "" if shown == arguments else PASSWORD_HINT
    return shlex.join(["hpsearch", *shown]) + hint


class PlainView:
    """A line when the search starts, and one for each thing that happens; in between, now and then
    one that tells how far it has come.
    """

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._state = SearchState(clock)
        self._last = clock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to close."""

    @property
    def stopping(self) -> str:
        """Why the search was asked to stop, or empty."""
        return self._state.stopping

    def watch(self, event: Event) -> None:
        """Prints what is worth a line."""
        state = self._state
        gone = state.take(event)
        match event:
            case SearchStarted():
                data = lines.dataline(event.record.data, lines.device_text(event))
                self._line(f"{lines.headline(event)}, on {data}")
                for line in lines.opening_lines(event):
                    self._line(line)
            case TrialStarted(history=history) if history:
                self._line(lines.goes_on_line(event))
            case TrialStopped():
                self._line(lines.stopped_line(event, gone))
            case TrialFinished(trial=trial) if state.record is not None:
                self._line(lines.trial_line(trial, state))
            case WorkerStarted() | WorkerWaits() | WorkerEnded():
                self._line(lines.worker_line(event))
            case DatabaseAway():
                self._line(lines.database_line(event))
            case Stopping(reason=reason):
                self._line(lines.stopping_line(reason))
            case _ if self._clock() - self._last >= QUIET:
                self._line(lines.progress_line(state))

    def _line(self, text: str) -> None:
        say(self._console, text)
        self._last = self._clock()


class LiveView:
    """A view that redraws itself: progress, families, the running trials, the best so far.

    It has at most as many lines as the terminal: what cannot be shown is counted.
    """

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._state = SearchState(clock)
        self._open = True
        self._stack = contextlib.ExitStack()
        self._meter: GpuMeter | None = None
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
        self._open = False
        self._live.stop()
        self._stack.close()

    @property
    def stopping(self) -> str:
        """Why the search was asked to stop, or empty."""
        return self._state.stopping

    def watch(self, event: Event) -> None:
        """Takes note; the view redraws itself a few times a second."""
        gone = self._state.take(event)
        above: list[str] = []
        match event:
            case SearchStarted():
                above = lines.opening_lines(event)
                self._measure_gpus(event.device.split(", "))
            case TrialStarted(history=history) if history:
                above = [lines.goes_on_line(event)]
            case TrialStopped():
                above = [lines.stopped_line(event, gone)]
            case TrialFinished(trial=trial) if trial.failure and trial.state != DUPLICATE:
                above = [f"{trial.name} {trial.state}: {trial.failure}"]
            case TrialFinished(trial=trial) if trial.note:
                above = [f"{trial.name}: {trial.note}"]
            case WorkerEnded(reason=reason) if reason:
                above = [lines.worker_line(event)]
            case DatabaseAway():
                above = [lines.database_line(event)]
        for line in above:  # above the view, where they stay
            say(self._console, line)

    def _measure_gpus(self, devices: Sequence[str]) -> None:
        if self._open and any(device.startswith("cuda") for device in devices):
            self._meter = self._stack.enter_context(GpuMeter(list(dict.fromkeys(devices))))

    def render(self) -> RenderableType:
        """The view as it is now."""
        state = self._state
        started, record, standing = state.started, state.record, state.standing
        if started is None or record is None or standing is None:
            return Text(state.reading, style="dim")
        running = state.running if self._open else []
        layout = Layout(
            console=self._console,
            objective=record.objective,
            data=lines.dataline(started.record.data, lines.device_text(started)),
            totals=self._totals(record, standing, running),
            running=[self._row(trial, record.objective) for trial in running],
            extras=self._extras() if self._open else (),
            alone=started.workers <= 1,
            width=self._console.width - FRAME,
        )
        return framed(layout, lines.headline(started), is_open=self._open)

    def _row(self, trial: Running, objective: Objective) -> TrialRow:
        started, epochs = trial.started, trial.epochs
        return TrialRow(
            name=started.name,
            values=[objective.value(result) for result in epochs],
            epochs=started.epochs,
            params=started.params,
            speed=epochs[-1].images_per_second if epochs else 0.0,
            worker=f"worker {started.worker}" if started.worker else "",
            seconds=self._state.since(trial.begun),
        )

    def _extras(self) -> list[tuple[str, Text]]:
        """Workers that run no trial, and GPUs."""
        idle = lines.workers_text(self._state)
        extras = [("workers", Text(idle, style="dim"))] if idle else []
        for number, load in enumerate(self._meter.loads if self._meter else ()):
            extras.append(("" if number else "GPU", Text(printable(lines.gpu_text(load)))))
        return extras

    def _totals(
        self,
        record: SearchRecord,
        standing: Standing,
        running: list[Running],
    ) -> Totals:
        state = self._state
        notes = [
            f"{plural(len(workers), 'worker')} {what}"
            for what, workers in (("starting", state.starting), ("waiting", state.waiting))
            if self._open and workers
        ]
        if self._open and not running and standing.finished >= int(record.spec["trials"]):
            notes.append("writing notes and plots ...")
        time, brief = f"{duration(state.elapsed)} elapsed", ""
        if running:
            left = state.seconds_left()
            time += f", about {lines.left_text(left, state.now())}"
            brief = f"{duration(left)} left"
        return Totals(
            standing=standing,
            asked=int(record.spec["trials"]),
            running=len(running),
            notes=notes,
            time=time,
            brief_time=brief,
            warning=lines.stopping_line(state.stopping) if self._open and state.stopping else "",
        )
