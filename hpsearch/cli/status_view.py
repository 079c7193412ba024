"""What is shown of a search that runs elsewhere: a frame on a terminal, plain lines in a file."""

from __future__ import annotations

import datetime
from collections.abc import Iterator

from rich.console import Console, RenderableType
from rich.text import Text

from hpsearch.cli import lines
from hpsearch.cli.curves import curve_of, lead, lead_text
from hpsearch.cli.layout import FRAME, Layout, Totals, TrialRow, framed
from hpsearch.cli.options import place_options
from hpsearch.cli.text import (
    best_epoch,
    duration,
    objective_name,
    objective_value,
    parameters,
)
from hpsearch.engine.states import ASIDE, FINISHED
from hpsearch.engine.status import RunningTrial, SearchStatus
from hpsearch.names import listed, printable

_TITLES = {
    "starting": "its workers are starting",
    "running": "running",
    "stopped": "nobody runs it",
    "over": "over",
}


def headline(status: SearchStatus) -> str:
    """The search's name, and what it does."""
    return f"search {status.name}: {_TITLES[status.state]}"


def framed_status(
    console: Console, status: SearchStatus, now: datetime.datetime, *, is_open: bool, away: bool
) -> RenderableType:
    """All of it in a frame.

    Args:
        is_open: it is redrawn, and fits the terminal.
        away: the database does not answer just now.
    """
    extras = [*_extras(status), *(("next", line) for line in advice(status) if is_open)]
    layout = Layout(
        console=console,
        objective=status.objective,
        data=lines.dataline(status.data, _where(status)),
        totals=_totals(status, now, away=away),
        running=[_row(trial, status) for trial in status.running],
        extras=[(label, Text(printable(text))) for label, text in extras],
        alone=True,
        width=console.width - FRAME,
    )
    return framed(layout, headline(status), is_open=is_open)


def advice(status: SearchStatus) -> list[str]:
    """What can be done next, in lines."""
    place = place_options(status.place)
    if status.state == "stopped":
        command = f"hpsearch worker {status.name}{place}"
        return [f"to go on with it:   {command}, or the search's own command again"]
    if status.state == "over" and status.standing.best is not None:
        return [f"to export the best: hpsearch export {status.name}{place}"]
    return []


def status_lines(status: SearchStatus, now: datetime.datetime) -> Iterator[str]:
    """All of it, where there is no terminal."""
    objective, standing = status.objective, status.standing
    yield f"{headline(status)}, {_progress(status, now)}"
    yield lines.dataline(status.data, _where(status))
    for row in standing.families:
        counts = [f"{n} {name}" for n, name in zip(row.counts, FINISHED, strict=True)]
        if row.best is not None:
            counts.append(f"best {row.best.name} {objective_value(objective, row.best.value)}")
        yield f"{row.family}: {', '.join(counts)}"
    for trial in status.running:
        yield _running_line(trial, status)
    best = standing.best
    if best is not None:
        yield (
            f"best: {best.name} {objective_name(objective)} "
            f"{objective_value(objective, best.value)}, {best_epoch(best)}, "
            f"{best.parameters:,} parameters: {parameters(best.params)}"
        )
    for label, text in _extras(status):
        yield f"{label}: {text}"


def changed_line(status: SearchStatus, now: datetime.datetime) -> str:
    """How it stands in one line, for those who look on without a terminal."""
    best = status.standing.best
    parts = [
        f"[{status.standing.finished}/{status.asked}] {_TITLES[status.state]}"
        + (f": {listed([_brief(t, status) for t in status.running], 4)}" if status.running else ""),
        f"best {best.name} {objective_value(status.objective, best.value)}" if best else "",
        _time(status, now),
    ]
    return "  ".join(part for part in parts if part)


def _totals(status: SearchStatus, now: datetime.datetime, *, away: bool) -> Totals:
    left = status.seconds_left
    return Totals(
        standing=status.standing,
        asked=status.asked,
        running=len(status.running),
        time=_time(status, now),
        brief_time="" if left is None else f"{duration(left)} left",
        warning=lines.DATABASE_AWAY if away else "",
    )


def _progress(status: SearchStatus, now: datetime.datetime) -> str:
    counts = status.standing.counts
    shown = [f"{counts[name]} {name}" for name in (*FINISHED, *ASIDE) if counts[name]]
    parts = [
        f"{status.standing.finished}/{status.asked} trials"
        + (f" ({', '.join(shown)})" if shown else ""),
        f"{len(status.running)} running",
        _time(status, now),
    ]
    return ", ".join(part for part in parts if part)


def _time(status: SearchStatus, now: datetime.datetime) -> str:
    left = status.seconds_left
    return "" if left is None else f"about {lines.left_text(left, now)}"


def _row(running: RunningTrial, status: SearchStatus) -> TrialRow:
    trial = running.trial
    return TrialRow(
        name=trial.name,
        values=curve_of(trial),
        epochs=running.epochs,
        params=trial.params,
        worker=_worker(running, status),
        seconds=running.seconds,
        trouble=_trouble(running),
    )


def _running_line(running: RunningTrial, status: SearchStatus) -> str:
    trial, objective = running.trial, status.objective
    ahead = lead(curve_of(trial), curve_of(status.standing.best), objective)
    parts = [
        _brief(running, status),
        lead_text(ahead, objective, long=True),
        ", ".join(filter(None, (trial.host, trial.device))),
        "" if running.seconds is None else duration(running.seconds),
        _trouble(running),
    ]
    return "running: " + "  ".join(part for part in parts if part)


def _brief(running: RunningTrial, status: SearchStatus) -> str:
    trial = running.trial
    return lines.epoch_text(trial.name, curve_of(trial), running.epochs, status.objective)


def _trouble(running: RunningTrial) -> str:
    return f"silent for {running.silent:.0f} s" if running.is_silent else ""


def _worker(running: RunningTrial, status: SearchStatus) -> str:
    """Where a trial is trained, as far as it is not the same for all."""
    trial, (hosts, devices) = running.trial, _places(status)
    device = trial.device.partition(",")[0].partition(" (")[0]
    parts = (trial.host if len(hosts) > 1 else "", device if len(devices) > 1 else "")
    return " ".join(filter(None, parts))


def _where(status: SearchStatus) -> str:
    """On which machine and device trials run, where that is the same for all."""
    return ", ".join(names[0] for names in _places(status) if len(names) == 1)


def _places(status: SearchStatus) -> tuple[list[str], list[str]]:
    """The machines and the devices that trials run on; one that has just begun tells none yet."""
    trials = [row.trial for row in status.running]
    hosts, devices = {trial.host for trial in trials}, {trial.device for trial in trials}
    return sorted(hosts - {""}), sorted(devices - {""})


def _extras(status: SearchStatus) -> Iterator[tuple[str, str]]:
    """GPUs, trials that nobody runs, and why it is over."""
    gpus = {(row.trial.host, row.gpu.device): row.gpu for row in status.running if row.gpu}
    for (host, _), gpu in gpus.items():  # several trials can share one
        yield "GPU", f"{host} {lines.gpu_text(gpu)}".strip()
    for state in ("interrupted", "paused"):
        names = [trial.name for trial in status.idle if trial.state == state]
        if names:
            yield "left", f"{len(names)} {state}: {listed(names)}"
    if status.reason:
        yield "over", status.reason
