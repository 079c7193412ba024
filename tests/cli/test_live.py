"""What people see of a search: events in, texts out."""

from __future__ import annotations

import dataclasses
import datetime
import io
import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from hpsearch import StudySpec
from hpsearch.cli.curves import BARS
from hpsearch.cli.layout import cut
from hpsearch.cli.lines import estimate_lines, time_lines, worker_line, workers_lines
from hpsearch.cli.live import LiveView, PlainView, command_line, make_view, watched
from hpsearch.cli.state import SearchState
from hpsearch.cli.text import end_time
from hpsearch.data.progress import Progress
from hpsearch.engine.events import (
    DatabaseAway,
    DataProgress,
    EpochFinished,
    Event,
    FamilyEstimate,
    SearchStarted,
    Stopping,
    TrialFinished,
    TrialStarted,
    TrialStopped,
    WorkerEnded,
    WorkerStarted,
    WorkerWaits,
)
from hpsearch.engine.place import Place
from hpsearch.engine.records import SearchRecord, TrialRecord
from hpsearch.engine.stop import Terminated
from hpsearch.training.epoch import EpochResult
from hpsearch.training.gpu import GpuLoad

FAMILIES = ("logistic", "mlp", "cnn")
PARAMS = {
    "lr": 0.00123456,
    "batch_size": 64,
    "optimizer": "adamw",
    "weight_decay": 1e-4,
    "dropout_rates": "0.5/0.25",
    "label_smoothing": 0.05,
    "augment": "shift_rotate",
}


CLIMB = {epoch: 0.4 + 0.05 * epoch for epoch in range(12)}
"""Of a best trial: the objective's value by epoch."""


class Meter:
    """Of two GPUs, one of which does not tell how busy it is."""

    loads = tuple(
        GpuLoad(device=f"cuda:{number}", name="NVIDIA H100", busy=busy, used=2**31, total=2**36)
        for number, busy in enumerate((0.97, None))
    )


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def trial(name: str, state: str = "complete", **values: Any) -> TrialRecord:
    family, number = name.rsplit("-", 1)
    given: dict[str, Any] = {
        "value": 0.9,
        "val_loss": 0.1,
        "best_epoch": 11,
        "epochs": 20,
        "seconds": 12.0,
        "failure": "",
        "note": "",
        **values,
    }
    return TrialRecord(
        place=Place(Path("runs")),
        search="digits",
        family=family,
        number=int(number),
        state=state,
        chosen_by="model",
        params=PARAMS,
        config=None,
        objective="val_accuracy",
        val_accuracy=given["value"],
        val_balanced_accuracy=given["value"],
        val_macro_f1=given["value"],
        parameters=12345,
        folder=Path("runs/digits") / name,
        **given,
    )


def search_started(
    *,
    workers: int = 4,
    families: Sequence[str] = FAMILIES,
    trials: Sequence[TrialRecord] = (),
    objective: str = "val_accuracy",
    seconds: float = 100.0,
    **values: Any,
) -> SearchStarted:
    """A search of ten trials a family."""
    spec = StudySpec(families=FAMILIES, trials=10 * len(families), objective=objective).to_dict()
    record = SearchRecord(
        place=Place(Path("runs")),
        name="digits",
        families=tuple(families),
        spec=spec,
        data={
            "name": "digits",
            "shape": {"height": 8, "width": 8, "channels": 1},
            "counts": {"train": 1077, "val": 360, "test": 360},
            "classes": list("0123456789"),
            "notes": [],
        },
        fingerprints={},
        trials=tuple(trials),
        openings=(),
    )
    estimates = tuple(
        FamilyEstimate(family=family, trials=10, epoch_seconds=0.25, seconds=seconds)
        for family in families
    )
    return SearchStarted(
        record=record,
        device="cpu",
        precision="fp32",
        estimates=estimates,
        resumed=False,
        workers=workers,
        **values,
    )


def started(name: str, worker: int = 0, **values: Any) -> TrialStarted:
    return TrialStarted(
        name=name,
        family=name.rsplit("-", 1)[0],
        chosen_by="model",
        params=PARAMS,
        worker=worker,
        **{"epochs": 60, **values},
    )


def result(epoch: int, value: float) -> EpochResult:
    return EpochResult(
        epoch=epoch,
        train_loss=0.1,
        train_accuracy=value,
        train_balanced_accuracy=value,
        train_macro_f1=value,
        val_loss=1 - value,
        val_accuracy=value,
        val_balanced_accuracy=value,
        val_macro_f1=value,
        lr=0.1,
        dropout=0.0,
        seconds=0.1,
        images_per_second=12345.0,
        is_best=True,
        batch_losses=(),
    )


def epoch(name: str, number: int, value: float) -> EpochFinished:
    return EpochFinished(name=name, result=result(number, value))


def epochs(name: str, *values: float) -> list[Event]:
    return [epoch(name, number, value) for number, value in enumerate(values)]


def screen(view: LiveView, width: int = 100, height: int = 50) -> list[str]:
    """The lines of the view, as a terminal of that size shows them."""
    console = view._console
    console.width, console.height = width, height
    with console.capture() as capture:
        console.print(view.render())
    return capture.get().split("\n")[:-1]


def live(*events: Event, clock: Clock | None = None) -> LiveView:
    """A view that was told these events, without its terminal."""
    view = LiveView(Console(file=io.StringIO(), width=100), clock=clock or Clock())
    for event in events:
        view.watch(event)
    return view


def above(view: LiveView) -> str:
    """What the view printed above itself."""
    file = view._console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def plain(*events: Event, clock: Clock | None = None) -> list[str]:
    """The lines of the plain view."""
    console = Console(file=io.StringIO(), width=80)
    with PlainView(console, clock=clock or Clock()) as view:
        for event in events:
            view.watch(event)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


DEATH = "killed by signal 9 (SIGKILL)"

STORY: list[Event] = [
    search_started(why="3.1 times as fast as one", threads=1),
    *(WorkerStarted(worker=number, device="cpu") for number in (1, 2, 3, 4)),
    started("logistic-0", 1),
    started("mlp-0", 2),
    started("cnn-0", 3),
    started("cnn-1", 4),
    *epochs("logistic-0", 0.9, 0.93),
    *epochs("cnn-1", 0.91),
    TrialFinished(trial=trial("logistic-0", value=0.93)),
    TrialFinished(trial=trial("logistic-1", "duplicate", failure="the same as logistic-0")),
    started("logistic-2", 1),
    *epochs("mlp-0", 0.8, 0.85, 0.84),
    WorkerEnded(worker=2, reason=DEATH, restarts=True),
    TrialStopped(name="mlp-0", reason=DEATH),
    WorkerStarted(worker=2, device="cpu", restarts=1),
    started("mlp-0", 2, history=(result(0, 0.8), result(1, 0.85))),
    TrialFinished(trial=trial("cnn-1", "failed", value=None, failure="the loss is not finite")),
    started("mlp-1", 4),
    TrialFinished(trial=trial("mlp-1", "infeasible", value=None, failure="too deep")),
    WorkerWaits(worker=4),
    Stopping(reason="Ctrl-C"),
    *epochs("cnn-0", 0.7),
    TrialStopped(name="cnn-0", reason="handed back"),
    WorkerEnded(worker=3),
    TrialStopped(name="logistic-2", reason="paused"),
]


class TestStory:
    """Four workers: one dies and is started again, others hand back."""

    @pytest.fixture(autouse=True)
    def _many_cores(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "cpu_count", lambda: 8)

    def test_lines_above_the_live_view_are_what_should_stay(self) -> None:
        lines = above(live(*STORY)).splitlines()
        assert lines == [
            "4 workers with 1 thread each: 3.1 times as fast as one",
            "one epoch (measured on each family's default): logistic 250 ms, mlp 250 ms, cnn 250 "
            "ms",
            "30 trials to do: about 1 min 15 s by 4 workers without pruning",
            f"worker 2 died: {DEATH}; started again",
            f"mlp-0 stopped after epoch 3: {DEATH}",
            "mlp-0 goes on after epoch 2 of 60",
            "cnn-1 failed: the loss is not finite",
            "mlp-1 infeasible: too deep",
            "cnn-0 handed back after epoch 1",
            "logistic-2 paused before the end of its first epoch",
        ]

    def test_plain_lines_tell_everything(self) -> None:
        lines = plain(*STORY)
        assert lines[0].startswith("search digits, on digits: 8x8x1, 10 classes")
        assert lines[4:8] == [f"worker {number} started on cpu" for number in (1, 2, 3, 4)]
        assert lines[8].startswith(
            "[1/30] logistic-0 complete  validation 93.00 %  20 epochs in 12.0 s  "
            "best logistic-0 93.00 %  "
        )
        assert lines[9:14] == [
            "logistic-1 duplicate  the same as logistic-0",
            f"worker 2 died: {DEATH}; started again",
            f"mlp-0 stopped after epoch 3: {DEATH}",
            "worker 2 started again on cpu (once so far)",
            "mlp-0 goes on after epoch 2 of 60",
        ]
        assert lines[14].startswith("[2/30] cnn-1 failed  validation –  ")
        assert lines[15].startswith("[2/30] mlp-1 infeasible")  # not counted
        assert lines[16:] == [
            "worker 4 waits: nothing is left to begin, but trials of others run",
            "stopping (Ctrl-C) at the end of the running epochs; Ctrl-C again stops at once",
            "cnn-0 handed back after epoch 1",
            "worker 3 ended",
            "logistic-2 paused before the end of its first epoch",
        ]

    def test_each_running_trial_has_its_row(self) -> None:
        lines = screen(live(*STORY[:12]), 140)
        rows = [" ".join(line.strip("│").split()) for line in lines]
        assert any(re.match(r"0/30 trials 0 complete 0 pruned 0 failed 4 running", r) for r in rows)
        at = rows.index(
            "running logistic-0 epoch 2/60 validation 93.00 % (best 93.00 %) 12,345 images/s "
            "worker 1 0.0 s █"
        )
        assert rows[at + 1 : at + 4] == [
            "mlp-0 epoch 0/60 worker 2 0.0 s",
            "cnn-0 epoch 0/60 worker 3 0.0 s",
            "cnn-1 epoch 1/60 validation 91.00 % (best 91.00 %) 12,345 images/s worker 4 0.0 s ▃",
        ]

    def test_after_a_death_and_a_restart(self) -> None:
        at = next(i for i, event in enumerate(STORY) if isinstance(event, WorkerEnded))
        text = "\n".join(screen(live(*STORY[: at + 1])))
        assert "3 running" in text
        assert "worker 2" not in text
        text = "\n".join(screen(live(*STORY[: at + 3])))
        assert "3 running" in text
        text = "\n".join(screen(live(*STORY[: at + 4]), 120))
        assert "4 running" in text
        assert re.search(r"mlp-0\s+epoch 2/60\s+validation 85.00 % .* worker 2", text)

    def test_what_waits_and_that_it_stops_is_shown(self) -> None:
        at = next(i for i, event in enumerate(STORY) if isinstance(event, Stopping))
        text = "\n".join(screen(live(*STORY[:at]), 120))
        assert "1 worker waiting" in text
        assert "stopping" not in text
        text = "\n".join(screen(live(*STORY[: at + 1])))
        assert "stopping (Ctrl-C) at the end of the running epochs; Ctrl-C again stops" in text
        text = "\n".join(screen(live(*STORY)))
        assert "2/30 trials  1 complete  0 pruned  1 failed  1 infeasible  1 duplicate" in text
        assert "1 running" in text

    def test_at_the_end_nothing_runs(self) -> None:
        view = live(*STORY)
        with view:
            pass
        lines = screen(view)
        assert "0 running" in "\n".join(lines)
        assert not re.search("waiting|stopping|epoch 2/60", "\n".join(lines))
        assert lines[-1].startswith("╰")
        assert view.stopping == "Ctrl-C"


@pytest.mark.parametrize("families", [1, 3, 12])
@pytest.mark.parametrize("workers", [0, 4, 16])
@pytest.mark.parametrize(
    ("width", "height"),
    [(60, 24), (80, 24), (100, 24), (120, 60), (60, 12), (40, 10), (200, 60)],
)
def test_it_fits_every_terminal(width: int, height: int, workers: int, families: int) -> None:
    names = [f"family{number}" for number in range(families)]
    view = live(
        search_started(workers=workers, families=names, objective="val_balanced_accuracy"),
        TrialFinished(trial=trial(f"{names[0]}-99", reported=CLIMB)),
        WorkerStarted(worker=98, device="cuda:0"),
        WorkerWaits(worker=99),
    )
    view._meter = Meter()
    for number in range(max(1, workers)):
        name = f"{names[number % families]}-{number}"
        view.watch(started(name, number + 1 if workers else 0))
        for event in epochs(name, *(0.5 + 0.01 * n for n in range(number + 1))):
            view.watch(event)
    view.watch(Stopping(reason="Ctrl-C"))
    lines = screen(view, width, height)
    assert len(lines) <= height
    assert {len(line) for line in lines[:-1]} == {width}
    assert lines[-1] == ""  # where the terminal echoes ^C
    text = "\n".join(lines)
    running = max(1, workers)
    assert f"{running} running" in text
    # Every trial and family has a row, or is counted.
    shown = len(set(re.findall(r"(family\d+-\d+)\s+(?:epoch )?\d+/60", text)))
    hidden = [int(number) for number in re.findall(r"\band (\d+) more ", text)]
    rows = sum(re.match(r"│ family\d+ ", line) is not None for line in lines)
    assert shown >= 1
    assert shown + rows + sum(hidden) == running + (families if "family  " in text else 0)
    assert (shown, rows) == (running, families) or height < 60
    if height >= 24 and families <= 3:
        assert shown >= min(running, 3)
    end = r"\W+12/20" if width > 40 else "…"  # counted as those that run
    assert re.search(rf"best +family0-99\b.*epoch{end}", text, flags=re.DOTALL)


def test_more_workers_than_cores_are_not_taken_to_be_faster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    by_two = time_lines(search_started(workers=2))[-1]
    assert " by 2 workers " in by_two
    assert time_lines(search_started(workers=64))[-1] == by_two.replace("by 2", "by 64")


def test_what_is_done_after_the_last_trial_is_said() -> None:
    events = [TrialFinished(trial=trial(f"mlp-{number}")) for number in range(30)]
    view = live(search_started(), *events[:-1])
    assert "writing" not in "\n".join(screen(view))
    view.watch(events[-1])
    (line,) = (line for line in screen(view) if "30/30 trials" in line)
    assert "writing notes and plots ..." in line
    view.__exit__(None, None, None)
    assert "writing" not in "\n".join(screen(view))


class TestBesideTheBest:
    """Running trials on the scale of the best one, and by how much they are ahead of it."""

    EVENTS: tuple[Event, ...] = (
        search_started(workers=3),
        TrialFinished(trial=trial("cnn-7", value=0.95, reported=CLIMB)),
        started("mlp-1", 1, epochs=12),
        *epochs("mlp-1", 0.3, 0.4, 0.47),
        started("mlp-2", 2, epochs=12),
        *epochs("mlp-2", 0.5, 0.7, 0.6),
        started("mlp-3", 3, epochs=12),
        *epochs("mlp-3", 0.1, 0.5),
    )

    def rows(self, *events: Event, width: int = 140) -> dict[str, str]:
        lines = (line.strip("│ ") for line in screen(live(*self.EVENTS, *events), width))
        lines = (line.removeprefix("running").strip() for line in lines)
        return {line.split()[0]: line for line in lines if line}

    def test_it_is_told_who_is_ahead_after_as_many_epochs(self) -> None:
        rows = self.rows()
        assert " 3.00 points behind the best " in rows["mlp-1"]
        assert " 20.00 points ahead of the best " in rows["mlp-2"]  # its best epoch counts
        assert " 5.00 points ahead of the best " in rows["mlp-3"]
        assert " 5.00 ahead  " in self.rows(width=90)["mlp-3"]
        level = self.rows(epoch("mlp-3", 2, 0.2))
        assert " level with the best " in level["mlp-3"]

    def test_bars_of_all_have_one_scale_and_stand_one_below_the_other(self) -> None:
        best = self.rows()["best"]
        assert best.endswith("▁▁▂▂▃▄▅▅▆▇▇█")
        begins = {
            min(line.index(bar) for bar in BARS if bar in line)
            for line in screen(live(*self.EVENTS), 140)
            if any(bar in line for bar in BARS)
        }
        assert len(begins) == 1

    def test_of_a_loss_less_is_ahead(self) -> None:
        falls = {epoch: 1.0 - 0.05 * epoch for epoch in range(12)}
        view = live(
            search_started(objective="val_loss"),
            TrialFinished(trial=trial("cnn-7", value=0.45, reported=falls)),
            started("mlp-1", 1),
            epoch("mlp-1", 0, 0.25),  # its loss is 0.75
        )
        assert " 0.2500 ahead of the best " in "\n".join(screen(view, 140))

    def test_before_there_is_a_best_nothing_is_compared(self) -> None:
        text = "\n".join(
            screen(live(search_started(), started("mlp-1", 1), epoch("mlp-1", 0, 0.5)))
        )
        assert not re.search("ahead|behind|level", text)


def test_workers_without_a_trial_are_told_with_how_long() -> None:
    clock = Clock()
    view = live(search_started(), WorkerStarted(worker=1, device="cpu"), clock=clock)
    clock.now += 2
    view.watch(WorkerStarted(worker=2, device="cpu"))
    clock.now += 5
    view.watch(started("cnn-1", 3))
    view.watch(WorkerWaits(worker=4))
    clock.now += 3
    text = "\n".join(screen(view))
    assert re.search(r"workers  1, 2 starting for 10.0 s; 4 waiting for 3.0 s ", text)
    assert re.search(r"cnn-1 .* 3.0 s", text)
    for event in (started("cnn-2", 1), started("cnn-3", 2), WorkerEnded(worker=4)):
        view.watch(event)
    assert not re.search("starting|waiting", "\n".join(screen(view)))


def test_gpus_are_told_where_there_is_room() -> None:
    view = live(search_started(), started("mlp-1", 1), TrialFinished(trial=trial("cnn-7")))
    assert "GPU" not in "\n".join(screen(view))
    view._meter = Meter()
    lines = [line.strip("│ ") for line in screen(view)]
    at = lines.index("GPU      cuda:0, NVIDIA H100: 97 % busy, 2.0 of 64.0 GiB taken")
    assert lines[at + 1] == "cuda:1, NVIDIA H100: 2.0 of 64.0 GiB taken"
    assert "mlp-1" in "\n".join(screen(view, 80, 12))
    with view:
        pass
    assert "GPU" not in "\n".join(screen(view))  # at the end nothing runs


def test_the_time_of_its_end_is_told() -> None:
    view = live(search_started(workers=0, families=["mlp"], seconds=3 * 3600.0), started("mlp-1"))
    view._state.now = lambda: datetime.datetime(2026, 3, 1, 20, 30)
    assert "about 3 h 00 min left, ends about 23:30" in "\n".join(screen(view, 140))
    view._state.now = lambda: datetime.datetime(2026, 12, 31, 22, 30)
    assert "left, ends about 2027-01-01 01:30" in "\n".join(screen(view, 140))


@pytest.mark.parametrize("seconds", [math.inf, math.nan, 1e300])
def test_an_end_that_is_too_far_away_is_not_told(seconds: float) -> None:
    assert end_time(seconds, datetime.datetime(2026, 3, 1)) == ""


def test_a_terminal_without_colours_or_other_letters() -> None:
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="replace")
    console = Console(file=file, width=100, force_terminal=True, color_system=None)
    view = LiveView(console, clock=Clock())
    for event in TestBesideTheBest.EVENTS:
        view.watch(event)
    console.print(view.render())
    file.flush()
    text = file.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
    assert "3.00 behind" in text
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", text)


def test_narrow_rows_keep_what_matters() -> None:
    view = live(search_started(objective="val_balanced_accuracy"))
    view.watch(started("mlp-1", 2))
    view.watch(epoch("mlp-1", 0, 0.5))
    wide = "\n".join(screen(view, 140))
    assert "validation balanced accuracy 50.00 % (best 50.00 %)" in wide
    assert "images/s" in wide
    narrow = "\n".join(screen(view, 60))
    assert re.search(r"running  mlp-1  epoch 1/60  50.00 %  ▄", narrow)
    assert re.search(r"running  mlp-1  1/60  50.00 % ", "\n".join(screen(view, 38)))


@pytest.mark.parametrize(
    "event", [started("cnn-1", 2), WorkerStarted(worker=2, device="cpu", restarts=1)]
)
def test_a_worker_has_one_trial_at_a_time(event: Event) -> None:
    """Whatever was not told of the one before: it no longer runs."""
    view = live(search_started(), started("mlp-1", 2), WorkerEnded(worker=2, reason=DEATH), event)
    text = "\n".join(screen(view))
    assert "mlp-1" not in text
    assert ("cnn-1" in text) == isinstance(event, TrialStarted)


def test_a_single_trial_shows_its_parameters_where_there_is_room() -> None:
    view = live(search_started(workers=0), started("mlp-1"), epoch("mlp-1", 0, 0.5))
    lines = screen(view, 100)
    at = next(i for i, line in enumerate(lines) if "mlp-1" in line)
    assert "worker" not in lines[at]
    assert "lr 0.00123, batch_size 64, optimizer adamw" in lines[at + 1]
    assert "batch_size" not in "\n".join(screen(view, 100, 12))


def test_values_that_are_not_numbers_and_strange_texts_do_no_harm() -> None:
    view = live(
        search_started(objective="val_loss"),
        started("mlp-1", 1),
        epoch("mlp-1", 0, math.nan),
        TrialFinished(
            trial=trial("cnn-1", "failed", value=None, val_loss=None, failure="\x1b[31m[red]")
        ),
    )
    assert "nan" in "\n".join(screen(view))
    assert "cnn-1 failed: \\x1b[31m[red]" in above(view)


class TestTimeLeft:
    def test_workers_share_it(self) -> None:
        clock = Clock()
        for workers, seconds in ((0, 300.0), (1, 300.0), (4, 75.0)):
            state = SearchState(clock)
            state.take(search_started(workers=workers))
            assert state.seconds_left() == pytest.approx(seconds)

    def test_more_workers_than_trials_are_of_no_use(self) -> None:
        state = SearchState(Clock())
        state.take(search_started(workers=100))
        assert state.seconds_left() == pytest.approx(10.0)

    def test_what_was_measured_replaces_the_estimate(self) -> None:
        clock = Clock()
        state = SearchState(clock)
        state.take(search_started(workers=2, families=["mlp"]))
        state.take(started("mlp-0", 1))
        state.take(started("mlp-1", 2))
        clock.now += 4
        assert state.seconds_left() == pytest.approx((100 - 8) / 2)
        state.take(TrialFinished(trial=trial("mlp-0")))
        assert state.seconds_left() == pytest.approx((9 * 4 - 4) / 2)
        clock.now += 100  # the other one takes longer than the mean
        assert state.seconds_left() == pytest.approx((9 * 4 - 4) / 2)

    def test_epochs_of_running_trials_count(self) -> None:
        clock = Clock()
        state = SearchState(clock)
        state.take(search_started(workers=2, families=["mlp"]))
        state.take(started("mlp-0", 1, epochs=10))
        state.take(epoch("mlp-0", 0, 0.5))
        clock.now += 2
        state.take(epoch("mlp-0", 1, 0.6))
        # It takes ten seconds at its pace of one a second, and so will the nine others.
        assert state.seconds_left() == pytest.approx((8 + 9 * 10) / 2)
        for number in range(1, 10):
            state.take(TrialFinished(trial=trial(f"mlp-{number}", seconds=1.0)))
        # The last one has been running for longer than the others took: it goes on to its end.
        assert state.seconds_left() == pytest.approx(8)

    @pytest.mark.parametrize("state", ["infeasible", "duplicate"])
    def test_what_never_trained_is_still_to_do(self, state: str) -> None:
        search = SearchState(Clock())
        search.take(search_started(families=["mlp"], workers=1))
        search.take(TrialFinished(trial=trial("mlp-0", state, value=None, seconds=0.0)))
        assert search.seconds_left() == pytest.approx(100)
        assert search.standing is not None
        assert search.standing.finished == 0


class TestProgressInLongTrials:
    def test_one_line_a_minute_where_nothing_else_is_said(self) -> None:
        clock = Clock()
        console = Console(file=io.StringIO(), width=200)
        view = PlainView(console, clock=clock)
        output = console.file
        assert isinstance(output, io.StringIO)
        view.watch(search_started(workers=2))
        view.watch(started("cnn-0", 1))
        before = len(output.getvalue().splitlines())
        for number in range(13):
            clock.now += 10
            view.watch(epoch("cnn-0", number, 0.5))
        lines = output.getvalue().splitlines()[before:]
        assert [re.split(r"  \d", line)[0] for line in lines] == [
            "[0/30] 1 running: cnn-0 epoch 6/60 validation 50.00 %",
            "[0/30] 1 running: cnn-0 epoch 12/60 validation 50.00 %",
        ]
        clock.now += 49
        view.watch(TrialFinished(trial=trial("mlp-0")))
        clock.now += 59
        view.watch(epoch("cnn-0", 13, 0.5))
        lines = output.getvalue().splitlines()[before:]
        assert len(lines) == 3
        for number in range(1, 7):
            view.watch(started(f"mlp-{number}", number + 1))
        clock.now += 1
        view.watch(epoch("cnn-0", 14, 0.5))
        line = output.getvalue().splitlines()[-1]
        assert "7 running: cnn-0 epoch 15/60 validation 50.00 %, mlp-1 epoch 0/60, " in line
        assert "mlp-3 epoch 0/60 and 3 more  best mlp-0 90.00 %  " in line

    def test_reading_data_for_long(self) -> None:
        clock = Clock()
        console = Console(file=io.StringIO(), width=200)
        view = PlainView(console, clock=clock)
        for seconds in range(0, 130, 10):
            clock.now = 1000.0 + seconds
            progress = Progress(
                what="decoding", done=seconds, total=1000, bad=0, seconds=float(seconds)
            )
            view.watch(DataProgress(progress=progress))
        assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
            "decoding 60 of 1,000 images, 1 images/s, 15 min 40 s left",
            "decoding 120 of 1,000 images, 1 images/s, 14 min 40 s left",
        ]


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (WorkerStarted(worker=3, device="cuda:1"), "worker 3 started on cuda:1"),
        (
            WorkerStarted(worker=3, device="cpu", restarts=2),
            "worker 3 started again on cpu (2 times so far)",
        ),
        (WorkerEnded(worker=3), "worker 3 ended"),
        (
            WorkerEnded(worker=3, reason="exit code 1"),
            "worker 3 died: exit code 1; not started again",
        ),
    ],
)
def test_workers_in_words(event: WorkerStarted | WorkerEnded, line: str) -> None:
    assert worker_line(event) == line


def test_outages_starting_workers_and_taking_part_are_told() -> None:
    away = [DatabaseAway(worker=2, away=True), DatabaseAway(worker=0, away=False)]
    told = [
        "worker 2: the database does not answer; waiting for it",
        "the database is back",
    ]
    assert plain(*away) == told
    assert above(live(*away)).splitlines() == told

    begun = dataclasses.replace(search_started(), joins=True, resumed=True)
    worker = WorkerStarted(worker=1, device="cpu")
    text = "\n".join(screen(live(begun, worker), 120))
    assert "search digits, taking part" in text
    assert "1 worker starting" in text
    text = "\n".join(screen(live(begun, worker, started("mlp-0", 1))))
    assert "starting" not in text


def test_how_many_workers_and_how_long() -> None:
    assert workers_lines(0, 1) == []
    assert workers_lines(1, 2) == ["1 worker with 2 threads"]
    assert workers_lines(2, 1, "measured") == ["2 workers with 1 thread each: measured"]
    estimates = search_started().estimates
    assert estimate_lines(estimates)[1] == "30 trials to do: about 5 min 00 s without pruning"
    assert "about 1 min 15 s by 4 workers" in estimate_lines(estimates, workers=4)[1]
    assert "about 10.0 s by 99 workers" in estimate_lines(estimates, workers=99)[1]
    done = [dataclasses.replace(row, trials=0) for row in estimates]
    assert estimate_lines(tuple(done), workers=4) == []


@given(st.integers(0, 50), st.integers(-5, 60))
def test_rows_are_cut_to_the_lines_that_there_are(count: int, most: int) -> None:
    rows, more = cut(range(count), most)
    assert len(rows) + more == count
    assert len(rows) + (more > 0) <= max(most, min(count, 1))
    assert more != 1 or most <= 1


def test_a_view_for_every_console(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(make_view(Console(file=io.StringIO())), PlainView)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(make_view(Console(file=io.StringIO(), force_terminal=True)), LiveView)
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(make_view(Console(file=io.StringIO(), force_terminal=True)), PlainView)


class TestEnds:
    def test_ctrl_c_says_how_to_go_on_without_the_password(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        url = "postgresql://me:s3cret@host/db"
        monkeypatch.setattr(sys, "argv", ["x", "search", "--storage", url, "--data", "my data"])
        console = Console(file=io.StringIO(), width=80)
        with pytest.raises(typer.Exit) as caught, watched(console):
            raise KeyboardInterrupt
        assert caught.value.exit_code == 130
        text = console.file.getvalue()  # type: ignore[attr-defined]
        assert (
            "To go on: hpsearch search --storage 'postgresql://me:***@host/db' --data 'my data'  "
            "(*** stands for the password)\n"
        ) in text
        assert "s3cret" not in text

    def test_sigterm_says_so_and_how_to_go_on(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "argv", ["x", "search", "--trials", "9"])
        console = Console(file=io.StringIO(), width=80)
        with pytest.raises(Terminated), watched(console):
            raise Terminated
        text = console.file.getvalue()  # type: ignore[attr-defined]
        assert text.startswith("stopped by SIGTERM; finished trials are stored")
        assert "To go on: hpsearch search --trials 9\n" in text

    def test_what_else_ends_it_passes(self) -> None:
        console = Console(file=io.StringIO(), width=80)
        with pytest.raises(SystemExit) as caught, watched(console):
            raise SystemExit(143)
        assert caught.value.code == 143
        assert console.file.getvalue() == ""  # type: ignore[attr-defined]

    def test_a_command_without_a_password_is_shown_as_it_was(self) -> None:
        assert command_line(["worker", "a", "--storage=postgresql://host:5432/db"]) == (
            "hpsearch worker a --storage=postgresql://host:5432/db"
        )
        assert command_line(["worker", "--storage=postgresql://a:b@h/d?password=c"]) == (
            "hpsearch worker '--storage=postgresql://a:***@h/d?password=***'  "
            "(*** stands for the password)"
        )


def test_the_echo_of_ctrl_c_leaves_no_border_behind() -> None:
    """The terminal writes ^C where the cursor is; the next redrawing begins where rich thinks."""
    file = io.StringIO()
    view = LiveView(Console(file=file, force_terminal=True, width=80, height=40), clock=Clock())
    with view:
        for event in STORY[:12]:
            view.watch(event)
        view._live.refresh()
        file.write("^C")
        view.watch(Stopping(reason="Ctrl-C"))
        view._live.refresh()
        file.write("^C^C")
    lines = emulate(file.getvalue(), 80)
    assert sum("╭─ search digits" in line for line in lines) == 1
    assert sum(line.startswith("╰") for line in lines) == 1
    assert not any("^C" in line for line in lines)
    assert [line for line in lines if line][-1].startswith("╰")


def emulate(output: str, width: int) -> list[str]:
    """The screen of a terminal after `output`: text, line ends, and what rich sends."""
    screen, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x1b]", output):
        if token == "\n":
            row, column = row + 1, 0
        elif token == "\r":
            column = 0
        elif token.startswith("\x1b["):
            if token[-1] == "A":
                row -= int(token[2:-1] or 1)
            elif token[-1] == "K":
                assert token == "\x1b[2K"
                screen[row] = ""
        else:
            if column == width:
                row, column = row + 1, 0
            while len(screen) <= row:
                screen.append("")
            line = screen[row].ljust(column)
            screen[row] = line[:column] + token + line[column + 1 :]
            column += 1
        while len(screen) <= row:
            screen.append("")
    return screen
