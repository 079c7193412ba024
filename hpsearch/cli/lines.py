"""What the views say of a search and its events, in lines."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpsearch.cli.state import Running, SearchState
from hpsearch.cli.text import (
    duration,
    end_time,
    objective_name,
    objective_value,
    times_text,
)
from hpsearch.data.words import plural
from hpsearch.engine.events import (
    DatabaseAway,
    FamilyEstimate,
    SearchStarted,
    TrialStarted,
    TrialStopped,
    WorkerEnded,
    WorkerStarted,
    WorkerWaits,
)
from hpsearch.engine.records import SearchRecord, TrialRecord
from hpsearch.engine.states import DUPLICATE
from hpsearch.engine.stop import CTRL_C, HANDED_BACK, PAUSED
from hpsearch.names import listed
from hpsearch.training.gpu import GpuLoad
from hpsearch.training.objectives import Objective

if TYPE_CHECKING:
    from hpsearch.engine.search import SearchPlan

DATABASE_AWAY = "the database does not answer; waiting for it"
DATABASE_BACK = "the database is back"

_MOST_RUNNING = 4


def headline(started: SearchStarted) -> str:
    """The search's name, and whether it goes on, or is helped with."""
    state = ", taking part" if started.joins else ", continued" if started.resumed else ""
    return f"search {started.record.name}{state}"


def dataline(data: Mapping[str, Any], where: str) -> str:
    """Data, split, device.

    Args:
        data: as `SearchRecord` has it.
        where: it is searched, or empty.
    """
    shape, counts = data["shape"], data["counts"]
    return (
        f"{data['name']}: {shape['height']}x{shape['width']}x{shape['channels']}, "
        f"{len(data['classes'])} classes, {counts['train']:,} train + {counts['val']:,} validation "
        f"images ({counts['test']:,} test images sealed)" + (f", {where}" if where else "")
    )


def device_text(started: SearchStarted) -> str:
    """Where trials are trained, and with what precision."""
    return f"{started.device} {started.precision}"


def opening_lines(started: SearchStarted) -> list[str]:
    """What was guessed about the data when the search began and what looks wrong with it; by how
    many workers it is run; and how long it may take.
    """
    notes = () if started.resumed else started.record.data["notes"]
    return [*found_lines(notes, started.errors, started.warnings), *time_lines(started)]


def time_lines(started: SearchStarted | SearchPlan) -> list[str]:
    """By how many workers trials are run, and how long it may take."""
    cores = os.cpu_count() if started.device == "cpu" else None
    estimates = estimate_lines(started.estimates, workers=started.workers, cores=cores)
    if not estimates:  # nothing is left for workers to do
        return []
    return [*workers_lines(started.workers, started.threads, started.why), *estimates]


def found_lines(notes: Sequence[str], errors: Sequence[str], warnings: Sequence[str]) -> list[str]:
    """What was found when the data was read and checked."""
    kinds = (("note", notes), ("data error", errors), ("warning", warnings))
    return [f"{kind}: {text}" for kind, texts in kinds for text in texts]


def workers_lines(workers: int, threads: int, why: str = "") -> list[str]:
    """How many workers there are, and why; nothing where that goes without saying."""
    if not workers:
        return [f"trials run one after the other: {why}"] if why else []
    line = f"{plural(workers, 'worker')} with {plural(threads, 'thread')}"
    return [line + (" each" if workers > 1 else "") + (f": {why}" if why else "")]


def estimate_lines(
    estimates: tuple[FamilyEstimate, ...], *, workers: int = 0, cores: int | None = None
) -> list[str]:
    """One epoch's time by family, and the whole search's; nothing where all is done.

    Args:
        cores: that the workers share; more of them are no faster.
    """
    if not any(row.trials for row in estimates):
        return []
    each = ", ".join(
        f"{row.family} {duration(row.epoch_seconds)}"
        if row.epoch_seconds >= 1
        else f"{row.family} {1000 * row.epoch_seconds:.0f} ms"
        for row in estimates
        if row.trials
    )
    trials = sum(row.trials for row in estimates)
    at_once = min(workers, trials, cores or workers)
    total = sum(row.seconds for row in estimates) / max(1, at_once)
    by = f" by {workers} workers" if workers > 1 else ""
    return [
        f"one epoch (measured on each family's default): {each}",
        f"{plural(trials, 'trial')} to do: about {duration(total)}{by} without pruning",
    ]


def goes_on_line(started: TrialStarted) -> str:
    """Where a trial is taken up that was interrupted."""
    return f"{started.name} goes on after epoch {len(started.history)} of {started.epochs}"


def stopped_line(stopped: TrialStopped, running: Running | None) -> str:
    """How far a trial came that others are to go on with, where that is known."""
    where = ""
    if running is not None:
        epochs = len(running.epochs)
        where = f" after epoch {epochs}" if epochs else " before the end of its first epoch"
    if stopped.reason in (HANDED_BACK, PAUSED):
        return f"{stopped.name} {stopped.reason}{where}"
    return f"{stopped.name} stopped{where}: {stopped.reason}"


def trial_line(trial: TrialRecord, state: SearchState) -> str:
    """How a trial ended, and how the search stands."""
    record, standing = state.record, state.standing
    if record is None or standing is None:
        return ""
    if trial.state == DUPLICATE:
        return f"{trial.name} {DUPLICATE}  {trial.failure}"
    objective = record.objective
    parts = [
        f"[{standing.finished}/{record.spec['trials']}] {trial.name} {trial.state}",
        f"{objective_name(objective)} {objective_value(objective, trial.value)}",
        f"{plural(trial.epochs, 'epoch')} in {duration(trial.seconds)}",
        trial.failure or trial.note,
        best_text(state),
        f"{duration(state.seconds_left())} left",
    ]
    return "  ".join(part for part in parts if part)


def progress_line(state: SearchState) -> str:
    """How the search stands while no trial ends."""
    record, standing = state.record, state.standing
    if record is None or standing is None:
        return state.reading
    running = state.running
    objective = record.objective
    shown = []
    for trial in running:
        values = [objective.value(result) for result in trial.epochs]
        shown.append(epoch_text(trial.started.name, values, trial.started.epochs, objective))
    parts = [
        f"[{standing.finished}/{record.spec['trials']}] {len(running)} running"
        + (f": {listed(shown, _MOST_RUNNING)}" if shown else ""),
        best_text(state),
        left_text(state.seconds_left(), state.now()),
    ]
    return "  ".join(part for part in parts if part)


def epoch_text(name: str, values: Sequence[float], epochs: int, objective: Objective) -> str:
    """How far a running trial is, such as: cnn-7 epoch 3/20 validation 97.22 %.

    Args:
        values: the objective's, after each epoch that it has behind it.
        epochs: that it may have in all.
    """
    text = f"{name} epoch {len(values)}/{epochs}"
    if values:
        text += f" {objective_name(objective)} {objective_value(objective, values[-1])}"
    return text


def left_text(seconds: float, now: datetime.datetime) -> str:
    """Such as: 4 min 05 s left, ends about 14:31."""
    ends = end_time(seconds, now)
    return f"{duration(seconds)} left" + (f", ends about {ends}" if ends else "")


def best_text(state: SearchState) -> str:
    """Such as: best cnn-7 99.44 %; empty before the first complete trial."""
    if state.record is None or state.standing is None or state.standing.best is None:
        return ""
    best = state.standing.best
    return f"best {best.name} {objective_value(state.record.objective, best.value)}"


def worker_line(event: WorkerStarted | WorkerWaits | WorkerEnded) -> str:
    """What happened to a worker."""
    who = f"worker {event.worker}"
    match event:
        case WorkerStarted(device=device, restarts=restarts) if restarts:
            return f"{who} started again on {device} ({times_text(restarts)} so far)"
        case WorkerStarted(device=device):
            return f"{who} started on {device}"
        case WorkerWaits():
            return f"{who} waits: nothing is left to begin, but trials of others run"
        case WorkerEnded(reason="", restarts=restarts):
            return f"{who} ended" + ("; started again" if restarts else "")
        case WorkerEnded(reason=reason, refused=True):
            return f"{who} cannot work: {reason}"
        case WorkerEnded(reason=reason, restarts=restarts):
            return f"{who} died: {reason}; {'started again' if restarts else 'not started again'}"


def database_line(event: DatabaseAway) -> str:
    """That the database went away or came back, and who saw it."""
    who = f"worker {event.worker}: " if event.worker else ""
    return who + (DATABASE_AWAY if event.away else DATABASE_BACK)


def workers_text(state: SearchState) -> str:
    """The workers that run no trial, and since when; empty where all do."""
    parts = [
        f"{', '.join(map(str, sorted(workers)))} {what} for {duration(state.since(min(begun)))}"
        for what, workers in (("starting", state.starting), ("waiting", state.waiting))
        if (begun := workers.values())
    ]
    return "; ".join(parts)


def gpu_text(load: GpuLoad) -> str:
    """How busy a GPU is, and its memory."""
    busy = "" if load.busy is None else f"{100 * load.busy:.0f} % busy, "
    return (
        f"{load.device}, {load.name}: {busy}{load.used / 2**30:.1f} of {load.total / 2**30:.1f} "
        "GiB taken"
    )


def stopping_line(reason: str) -> str:
    """What happens after the first Ctrl-C, or when the time is up."""
    line = f"stopping ({reason}) at the end of the running epochs"
    return line + ("; Ctrl-C again stops at once" if reason == CTRL_C else "")


def finished_text(record: SearchRecord) -> str:
    """How many trials a search has of those that were asked for."""
    finished = plural(record.finished, "finished trial")
    return f"search {record.name} has {finished} ({record.spec['trials']:,} asked for)"
