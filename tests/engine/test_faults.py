"""Searches whose workers, disks and files fail: they end with all their trials, each one's results
those of a search that nothing happened to.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faults
import pytest
from faults import Running, is_event
from test_trial_resume import flip, outcome, reports, truncate

from hpsearch import SearchRecord, StudySpec, load_search, search
from hpsearch.engine.events import (
    EpochFinished,
    Event,
    TrialFinished,
    TrialStarted,
    TrialStopped,
    WorkerEnded,
)
from hpsearch.engine.place import DATABASE
from hpsearch.errors import SearchError
from hpsearch.training.checkpoint import load_checkpoint
from hpsearch.training.history import read_history

pytestmark = pytest.mark.faults

# What the random sampler draws for a trial depends on its number alone, so that the trials are the
# same whoever runs them, and when.
SPEC = StudySpec(
    artifacts="none",
    families=("mlp",),
    trials=6,
    epochs=6,
    checkpoint_every=1,
    seed=1,
    precision="fp32",  # not measured: other processes may be running
    memory_format="channels_last",
    sampler="random",
    pruner="none",
    overrides={
        "layers": 1,
        "width": 32,
        "batch_norm": "yes",
        "batch_size": 16,
        "ema": 0.5,
        "optimizer": "adamw",
        "schedule": "constant",
    },
)


@pytest.fixture(scope="module", autouse=True)
def _processes(full_faults: bool) -> Iterator[None]:
    with faults.processes(as_in_use=full_faults):
        yield


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, full_faults: bool) -> list[dict[str, Any]]:
    """What a search of many trials finds that nothing happens to."""
    spec = dataclasses.replace(SPEC, trials=20 if full_faults else SPEC.trials, keep=20)
    return outcome(search(spec, runs=tmp_path_factory.mktemp("runs"), device="cpu"))


def differing(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> list[str]:
    """What is not as it should be, for a log that has room for a line each."""
    return [
        f"trial {one['number']}, {key}: {str(one[key])[:300]} instead of {str(value)[:300]}"
        for one, other in zip(found, wanted, strict=True)
        for key, value in other.items()
        if one[key] != value
    ]


def with_trials(trials: int, **changes: Any) -> StudySpec:
    return dataclasses.replace(SPEC, trials=trials, keep=20, **changes)


class Crew:
    """Watches a search with workers, and knows which of them runs what.

    Attributes:
        pids: of the workers, by number.
        runs: the number of the worker that runs a trial, by the trial's name.
    """

    def __init__(self, then: Callable[[Crew, Event], None]) -> None:
        self.events: list[Event] = []
        self.pids: dict[int, int] = {}
        self.runs: dict[str, int] = {}
        self._then = then

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, TrialStarted):
            self.runs[event.name] = event.worker
        self._then(self, event)

    def search(self, spec: StudySpec, runs: Path, workers: int, **keywords: Any) -> SearchRecord:
        with faults.noting_pids(self.pids.__setitem__):
            return search(spec, runs=runs, device="cpu", workers=workers, watch=self, **keywords)

    def worker_of(self, name: str) -> int:
        return self.pids[self.runs[name]]

    def all(self, kind: type[Any], **fields: Any) -> list[Any]:
        return [event for event in self.events if is_event(kind, **fields)(event)]


def freeze_between_writes(pid: int, runs: Path) -> None:
    """Stops a process when it is not in the middle of a transaction, which would lock the others
    out.
    """
    while True:
        os.kill(pid, signal.SIGSTOP)
        with contextlib.closing(sqlite3.connect(runs / DATABASE, timeout=1)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                os.kill(pid, signal.SIGCONT)
                time.sleep(0.05)
            else:
                return


def newest(folder: Path, pattern: str = "state-*.pt") -> list[Path]:
    """The states in a folder, the newest first."""
    return sorted(folder.glob(pattern), key=lambda path: int(path.stem[6:]), reverse=True)


def attempt(runs: Path, number: int, owners: int = 1) -> Path:
    return runs / "digits" / f"mlp-{number}.attempt-{owners}"


def leases(runs: Path) -> dict[int, dict[str, Any]]:
    """The table of leases, by the number of the trial."""
    with contextlib.closing(sqlite3.connect(runs / DATABASE)) as database:
        database.row_factory = sqlite3.Row
        rows = database.execute(
            "SELECT number, hpsearch_leases.* FROM hpsearch_leases JOIN trials USING (trial_id)"
        ).fetchall()
    return {row["number"]: dict(row) for row in rows}


def everything(runs: Path) -> dict[str, Any]:
    """All of the database and of the files of trials, but signs of life, the notes and plots that
    the search's own process writes in its time, and the pictures of the best, which a worker draws
    when it ends.
    """
    with contextlib.closing(sqlite3.connect(runs / DATABASE)) as database:
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        rows = {
            name: database.execute(f"SELECT * FROM {name}").fetchall()  # our own names
            for (name,) in tables
        }
    later = ("dashboard:", "hpsearch:note_ver", "artifacts:", "hpsearch:shown")
    rows["study_system_attributes"] = [
        row[1:] for row in rows["study_system_attributes"] if not row[2].startswith(later)
    ]
    paths = (path for path in (runs / "digits").rglob("*") if path.is_file())
    return {**rows, **{str(path): path.read_bytes() for path in paths}}


def test_workers_that_are_killed_again_and_again(
    tmp_path: Path, full_faults: bool, expected: list[dict[str, Any]]
) -> None:
    workers, trials, kills = (4, 20, 20) if full_faults else (2, 6, 4)
    luck = random.Random(5)
    killed: list[int] = []
    timers: dict[int, threading.Timer] = {}

    def kill(pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    def at_random(crew: Crew, event: Event) -> None:
        if not isinstance(event, TrialStarted | EpochFinished) or len(timers) == kills:
            return
        pid = crew.worker_of(event.name)
        if pid not in timers and luck.random() < 0.4:
            timers[pid] = threading.Timer(luck.uniform(0, 0.15), kill, [pid])
            timers[pid].start()

    crew = Crew(at_random)
    record = crew.search(with_trials(trials, attempts=100), tmp_path, workers)
    assert len(killed) == kills

    assert differing(outcome(record), expected) == []
    assert [trial.state for trial in record.trials] == ["complete"] * trials
    ends = [event.trial.name for event in crew.all(TrialFinished)]
    # Who is killed right after it has told the study cannot tell us.
    assert len(ends) == len(set(ends)) >= trials - kills
    for trial, told in zip(record.trials, reports(tmp_path), strict=True):
        assert list(told) == list(range(SPEC.epochs))
        assert len(read_history(trial.folder / "history.csv")) == SPEC.epochs
        assert trial.checkpoint is not None
        assert load_checkpoint(trial.checkpoint).metrics["epoch"] == trial.best_epoch
    trained = Counter((e.name, e.result.epoch) for e in crew.all(EpochFinished))
    assert set(trained) <= {(t.name, epoch) for t in record.trials for epoch in range(SPEC.epochs)}
    assert trained.total() - len(trained) <= kills
    table = leases(tmp_path)
    starts = Counter(event.name for event in crew.all(TrialStarted))
    for number, row in table.items():
        assert row["owner"] is None
        assert starts[f"mlp-{number}"] <= row["token"]
    assert sum(row["token"] - 1 for row in table.values()) <= kills
    deaths = [event for event in crew.all(WorkerEnded) if event.reason]
    assert len(deaths) == kills
    assert all("SIGKILL" in event.reason for event in deaths)


@pytest.mark.parametrize("workers", [0, 1])
def test_all_processes_are_killed(tmp_path: Path, full_faults: bool, workers: int) -> None:
    """With the sampler that learns, and pruning: one worker is to repeat itself all the same."""
    spec = with_trials(4, sampler="tpe", pruner="median")
    whole = outcome(search(spec, runs=tmp_path / "whole", device="cpu"))
    runs = tmp_path / "killed"
    for trial, epoch in ((0, 2), (3, 1))[0 if full_faults else 1 :]:
        running = Running(spec, runs=runs, workers=workers)
        running.until(
            lambda e, trial=trial, epoch=epoch: (  # type: ignore[misc]
                isinstance(e, EpochFinished)
                and e.name == f"mlp-{trial}"
                and e.result.epoch >= epoch
            )
        )
        assert len(running.workers) == workers
        running.kill_all()
    begun = Crew(lambda *_: None)
    record = begun.search(spec, runs, workers)
    assert outcome(record) == whole
    assert not begun.all(TrialStarted, name="mlp-0")
    first = begun.all(TrialStarted)[0]
    assert first.name == "mlp-3"  # at once, without waiting for the grace
    assert first.history
    owners = [leases(runs)[number]["token"] for number in range(4)]
    assert owners == [1 + full_faults, 1, 1, 2]


def test_the_supervisor_alone_is_killed(tmp_path: Path) -> None:
    """Its workers hand their trials back at the end of the epoch, and leave."""
    running = Running(with_trials(4, epochs=200), runs=tmp_path, workers=2)
    running.until_epoch(1, times=2)
    running.send(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    assert [faults.wait_for(pid) for pid in running.workers.values()] == [0, 0]
    table = leases(tmp_path)
    assert len(table) == 2
    for number, row in table.items():
        assert (row["owner"], row["died"], row["deaths"]) == (None, 0, 0)
        assert row["reason"] == "its supervisor is gone"
        told = reports(tmp_path, with_trials(4))[number]
        (state, *_) = newest(attempt(tmp_path, number))
        assert state.name == f"state-{len(told)}.pt"  # saved, however seldom it was to be


@pytest.mark.parametrize("damage", [truncate, flip], ids=lambda f: f.__name__)
def test_files_of_a_killed_worker_are_damaged(
    tmp_path: Path, expected: list[dict[str, Any]], damage: Callable[[Path], None]
) -> None:
    """The state before is used; and where a second worker finds no whole one, it starts anew."""
    damaged: list[list[str]] = []

    def kill_and_damage(crew: Crew, event: Event) -> None:
        if isinstance(event, EpochFinished) and event.result.epoch == 3 and len(damaged) < 2:
            os.kill(crew.worker_of(event.name), signal.SIGKILL)
        if isinstance(event, WorkerEnded) and event.reason:
            files = newest(attempt(tmp_path, 0, len(damaged) + 1))
            chosen = files[:1] if not damaged else files
            for path in chosen:
                damage(path)
            damaged.append([path.name for path in files])

    crew = Crew(kill_and_damage)
    record = crew.search(with_trials(1, attempts=3), tmp_path, 1)
    assert outcome(record) == expected[:1]
    assert len(damaged) == 2
    before = int(damaged[0][1].removeprefix("state-").removesuffix(".pt"))
    begins = [len(event.history) for event in crew.all(TrialStarted)]
    assert begins == [0, before, 0]
    assert leases(tmp_path)[0]["token"] == 3


@pytest.mark.parametrize("moment", ["while the other one runs it", "after it ended"])
def test_a_worker_that_was_stopped_for_too_long_is_fenced(
    tmp_path: Path, expected: list[dict[str, Any]], moment: str
) -> None:
    frozen: list[int] = []
    seen: dict[str, Any] = {}

    def freeze(crew: Crew, event: Event) -> None:
        if is_event(EpochFinished, name="mlp-0")(event) and event.result.epoch == 2 and not frozen:
            frozen.append(crew.worker_of("mlp-0"))
            freeze_between_writes(frozen[0], tmp_path)
        elif frozen and not seen:
            taken = crew.worker_of("mlp-0") != frozen[0]
            over = bool([e for e in crew.all(TrialFinished) if e.trial.name == "mlp-0"])
            again = isinstance(event, EpochFinished) and event.name == "mlp-0" and taken
            if over or (again and not moment.startswith("after")):
                if over:
                    time.sleep(0.3)  # others have nothing left to do
                    seen.update(everything(tmp_path))
                seen["at"] = len(crew.events)
                os.kill(frozen[0], signal.SIGCONT)

    trials = 2 if moment.startswith("after") else 3
    crew = Crew(freeze)
    record = crew.search(with_trials(trials, epochs=6), tmp_path, 2, grace=2.0)
    assert outcome(record) == expected[:trials]
    at = seen.pop("at")
    if seen:
        assert everything(tmp_path) == seen
    starts = crew.all(TrialStarted, name="mlp-0")
    assert [bool(event.history) for event in starts] == [False, True]
    assert starts[0].worker != starts[1].worker
    ends = crew.all(WorkerEnded)
    assert [event.reason for event in ends] == ["", ""]
    stops = [e for e in crew.events[at:] if isinstance(e, TrialStopped) and e.name == "mlp-0"]
    assert [event.reason for event in stops] == ["the trial was taken over by another worker"]
    row = leases(tmp_path)[0]
    assert (row["token"], row["deaths"]) == (2, 1)
    assert "no sign of life for 2 s" in row["reason"]


def test_a_worker_that_stays_frozen_does_not_hold_up_the_end(
    tmp_path: Path, expected: list[dict[str, Any]]
) -> None:
    frozen: list[int] = []

    def freeze(crew: Crew, event: Event) -> None:
        if is_event(EpochFinished, name="mlp-0")(event) and event.result.epoch == 2 and not frozen:
            frozen.append(crew.worker_of("mlp-0"))
            freeze_between_writes(frozen[0], tmp_path)

    crew = Crew(freeze)
    record = crew.search(with_trials(2, epochs=6), tmp_path, 2, grace=2.0)
    assert outcome(record) == expected[:2]
    first, last = crew.all(WorkerEnded)
    assert (first.reason, first.restarts) == ("", False)
    assert "SIGKILL" in last.reason
    assert not last.restarts


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, that is soon full."""
    folder = tmp_path / "disk"
    with faults.small_disk(folder, "24m"):
        yield folder


@pytest.mark.parametrize("workers", [0, 2])
def test_the_disk_is_full_and_then_freed(
    small_disk: Path, expected: list[dict[str, Any]], workers: int
) -> None:
    runs, ballast = small_disk / "runs", small_disk / "ballast"
    full: list[Event] = []

    def fill(crew: Crew, event: Event) -> None:
        if isinstance(event, TrialFinished) and not full:
            full.append(event)
            with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
                while True:
                    file.write(bytes(1 << 12))

    crew = Crew(fill)
    spec = with_trials(6)
    with pytest.raises(SearchError) as caught:
        crew.search(spec, runs, workers)
    message = str(caught.value)
    assert "\n" not in message
    assert "cannot be written" in message
    assert "the same command goes on" in message
    ballast.unlink()
    record = load_search(runs)
    told = reports(runs)
    by_name = {trial.name: trial for trial in record.trials}
    for event in crew.all(TrialFinished):
        trial = by_name[event.trial.name]
        assert (trial.state, trial.value) == (event.trial.state, event.trial.value)
        assert trial.checkpoint is not None
        load_checkpoint(trial.checkpoint)
    for event in crew.all(EpochFinished):
        number = int(event.name.rpartition("-")[2])
        assert told[number][event.result.epoch] == event.result.val_accuracy
    again = Crew(lambda *_: None).search(spec, runs, workers)
    assert outcome(again) == expected[:6]


FAMILY = '''
import os, signal, sqlite3, sys
from pathlib import Path
import torch
from torch import nn
from hpsearch import Family, StagedModel, ask_start, suggest_training

MOODS = ("calm", "kill-1", "kill-3", "exit-1", "lock-2")


class Moody(nn.Module):
    """Ends or stops its process in its first or third epoch of training."""

    def __init__(self, mood):
        super().__init__()
        self.mood = mood
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        if self.training:
            self.seen += len(x)
        kind, _, epoch = self.mood.partition("-")
        if epoch and self.seen > (int(epoch) - 1) * IMAGES + IMAGES / 2:
            if kind == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if kind == "lock":
                self.lock()
                return x
            print("these are my last words", file=sys.stderr)
            sys.stderr.flush()
            os._exit(7)
        return x

    def lock(self):
        """Stops, once, in the middle of a transaction."""
        marker = Path("MARKER")
        if not marker.exists():
            marker.touch()
            connection = sqlite3.connect("DATABASE")
            connection.execute("BEGIN IMMEDIATE")
            os.kill(os.getpid(), signal.SIGSTOP)


def suggest(s, shape):
    mood = s.categorical("mood", MOODS, help="how it feels")
    start = ask_start(s, shape)
    return suggest_training(s, start, options={"mood": mood}, dropout=False)


def build(options, shape, n_classes):
    print("a model is built")
    os.write(1, b"to the file descriptor, too\\n")
    pixels = shape.channels * shape.height * shape.width
    mood = Moody(options["mood"])
    return StagedModel({"head": nn.Sequential(nn.Flatten(), nn.Linear(pixels, n_classes), mood)})


FAMILY = Family(
    summary="has moods",
    suggest=suggest,
    build=build,
    defaults=({"optimizer": "sgd", "lr": 0.01, "mood": "calm"},),
)
'''


def moody_family(tmp_path: Path) -> Path:
    """The file of a family whose trials end or stop their worker."""
    path = tmp_path / "moody.py"
    text = FAMILY.replace("IMAGES", "1077").replace("MARKER", str(tmp_path / "was-locked"))
    path.write_text(text.replace("DATABASE", str(tmp_path / "runs" / DATABASE)), encoding="utf-8")
    return path


def test_a_worker_that_is_stopped_in_a_transaction_is_killed(tmp_path: Path) -> None:
    """Nobody else could write to the database; only its end sets it free."""
    path = moody_family(tmp_path)
    spec = StudySpec(
        artifacts="none",
        families=(str(path),),
        trials=4,
        epochs=4,
        checkpoint_every=1,
        sampler="random",
        pruner="none",
        overrides={"mood": ("calm", "lock-2")},
        first=({"mood": "lock-2"},),
    )
    crew = Crew(lambda *_: None)
    record = crew.search(spec, tmp_path / "runs", 2, grace=3.0)
    assert (tmp_path / "was-locked").exists()
    assert [trial.state for trial in record.trials] == ["complete"] * 4
    killed, *others = [event for event in crew.all(WorkerEnded) if event.reason]
    assert "since it did not move for" in killed.reason
    assert "waited for the database" in killed.reason
    assert not others


def test_a_trial_that_kills_its_worker_fails_after_two_attempts(tmp_path: Path) -> None:
    """As the system does when memory is short; and what a model prints disturbs nobody."""
    path = moody_family(tmp_path)
    moods = ("kill-1", "kill-3", "exit-1")
    spec = StudySpec(
        artifacts="none",
        families=(str(path),),
        trials=6,
        epochs=4,
        checkpoint_every=1,
        attempts=2,
        sampler="random",
        overrides={"mood": ("calm", *moods)},
        first=tuple({"mood": mood} for mood in moods),
    )
    crew = Crew(lambda *_: None)
    runs = tmp_path / "runs"
    record = crew.search(spec, runs, 1)
    assert record.finished == 6
    by_mood = {trial.params["mood"]: trial for trial in reversed(record.trials)}
    assert by_mood["calm"].state == "complete"
    for mood, epochs in zip(moods, (0, 2, 0), strict=True):
        trial = by_mood[mood]
        assert trial.state == "failed"
        assert trial.failure.startswith("its worker died 2 times in a row: ")
        assert (trial.epochs or 0) == epochs
        words = "exit code 7: these are my last words" if mood == "exit-1" else "(SIGKILL)"
        assert words in trial.failure
        starts = crew.all(TrialStarted, name=trial.name)
        assert [len(event.history) for event in starts] == [0, epochs]
    logs = sorted((runs / ".hpsearch" / "logs").iterdir())
    deaths = [event.reason for event in crew.all(WorkerEnded) if event.reason]
    assert len(deaths) == 2 * sum(t.state == "failed" for t in record.trials)
    for reason in deaths:
        if reason.startswith("exit"):
            named = Path(reason.partition("(see ")[2].removesuffix(")"))
            text = named.read_text(encoding="utf-8")
            assert named in logs
            assert "a model is built\n" in text
            assert "to the file descriptor, too" in text
