"""How far a search has come, built up from its events: what the views show."""

from __future__ import annotations

import dataclasses
import datetime
import threading
from collections.abc import Callable, Mapping

from hpsearch.cli.progress import progress_text
from hpsearch.engine.events import (
    DataProgress,
    EpochFinished,
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
from hpsearch.engine.records import SearchRecord, TrialRecord
from hpsearch.engine.remaining import (
    FamilyRemainder,
    RunningTime,
    mean_seconds,
    seconds_left,
)
from hpsearch.engine.states import FINISHED
from hpsearch.engine.status import Standing
from hpsearch.training.epoch import EpochResult

_READING = "reading data and measuring one epoch of each family ..."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Running:
    """A trial that runs.

    Attributes:
        epochs: all that it has behind it.
        begun: when it was begun or taken up here, on the clock of the state.
    """

    started: TrialStarted
    epochs: tuple[EpochResult, ...]
    begun: float


class SearchState:
    """The state of a search.

    A view is redrawn by a thread of its own while others call `take`: what it reads is replaced
    here, never changed in place.

    Attributes:
        now: the time of day.
        waiting, starting: workers that do, and since when on the clock.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        now: Callable[[], datetime.datetime] = datetime.datetime.now,
    ) -> None:
        self.now = now
        self.reading = _READING
        self.started: SearchStarted | None = None
        self.record: SearchRecord | None = None
        self.standing: Standing | None = None
        self.stopping = ""
        self.waiting: Mapping[int, float] = {}
        self.starting: Mapping[int, float] = {}
        self._gone: frozenset[int] = frozenset()
        self._running: dict[str, Running] = {}
        self._seconds: dict[str, tuple[float, ...]] = {}
        self._lock = threading.Lock()
        self._clock = clock
        self._begun = clock()

    def take(self, event: Event) -> Running | None:
        """Takes an event into account; returns the trial that no longer runs by it, if any."""
        with self._lock:
            return self._take(event)

    def _take(self, event: Event) -> Running | None:
        match event:
            case DataProgress(progress=reading):
                is_over = 0 < reading.total <= reading.done
                self.reading = _READING if is_over else progress_text(reading)
            case SearchStarted(record=record):
                self.started, self.record = event, record
                self.standing = Standing.of(record)
            case TrialStarted(name=name, worker=worker, history=history):
                self._alive(worker)
                running = Running(started=event, epochs=history, begun=self._clock())
                self._running = {**self._running, name: running}
            case EpochFinished(name=name, result=result) if name in self._running:
                running = self._running[name]
                running = dataclasses.replace(running, epochs=(*running.epochs, result))
                self._running = {**self._running, name: running}
            case TrialFinished(trial=trial):
                return self._finished(trial)
            case TrialStopped(name=name):
                return self._remove(name)
            case WorkerStarted(worker=worker):
                self._alive(worker)
                self.starting = {**self.starting, worker: self._clock()}
            case WorkerWaits(worker=worker):
                self.waiting = {**self.waiting, worker: self._clock()}
                self.starting = _without(self.starting, worker)
            case WorkerEnded(worker=worker):
                self.waiting = _without(self.waiting, worker)
                self.starting = _without(self.starting, worker)
                self._gone |= {worker}
            case Stopping(reason=reason):
                self.stopping = reason
            case _:
                pass
        return None

    def _alive(self, worker: int) -> None:
        """A worker has one trial at a time, and a new process none of the old one's."""
        self.waiting = _without(self.waiting, worker)
        self.starting = _without(self.starting, worker)
        self._gone -= {worker}
        running = self._running.items()
        self._running = {n: r for n, r in running if r.started.worker != worker}

    def _remove(self, name: str) -> Running | None:
        gone = self._running.get(name)
        self._running = {n: r for n, r in self._running.items() if n != name}
        return gone

    def _finished(self, trial: TrialRecord) -> Running | None:
        gone = self._remove(trial.name)
        if self.record is not None:
            others = (t for t in self.record.trials if t.name != trial.name)
            self.record = dataclasses.replace(self.record, trials=(*others, trial))
            self.standing = Standing.of(self.record)
        if trial.state in FINISHED:
            took = trial.seconds if gone is None else self._clock() - gone.begun
            done = self._seconds.get(trial.family, ())
            self._seconds = {**self._seconds, trial.family: (*done, took)}
        return gone

    @property
    def running(self) -> list[Running]:
        """The trials that run, by the numbers of their workers."""
        alive = (r for r in self._running.values() if r.started.worker not in self._gone)
        return sorted(alive, key=lambda running: running.started.worker)

    @property
    def elapsed(self) -> float:
        """Seconds since this was made."""
        return self._clock() - self._begun

    def since(self, moment: float) -> float:
        """Seconds since a moment on the clock."""
        return self._clock() - moment

    def seconds_left(self) -> float:
        """From the mean of each family's trials here; before the first one from the pace of those
        that run, or from the estimate.
        """
        if self.started is None:
            return 0.0
        running = self.running
        families = []
        for row in self.started.estimates:
            done = self._seconds.get(row.family, ())
            own = [self._time(trial) for trial in running if trial.started.family == row.family]
            mean = mean_seconds(done, own)
            families.append(
                FamilyRemainder(
                    trials=max(0, row.trials - len(done)),
                    each=row.seconds / max(1, row.trials) if mean is None else mean,
                    running=own,
                )
            )
        return seconds_left(families, workers=self.started.workers)

    def _time(self, trial: Running) -> RunningTime:
        """How long a trial has run here, and how long it needs for its other epochs at the same
        pace.
        """
        spent = self._clock() - trial.begun
        here = len(trial.epochs) - len(trial.started.history)
        if not here:
            return RunningTime(spent=spent, rest=None)
        rest = (trial.started.epochs - len(trial.epochs)) * spent / here
        return RunningTime(spent=spent, rest=rest)


def _without(workers: Mapping[int, float], worker: int) -> Mapping[int, float]:
    return {number: since for number, since in workers.items() if number != worker}
