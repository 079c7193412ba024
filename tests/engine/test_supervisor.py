"""What a supervisor does with its workers, and how a search with them is stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faults
import optuna
import pytest
from faults import Running, is_event
from test_trial_resume import outcome

from hpsearch import StudySpec, load_search, search
from hpsearch.engine.database import open_storage
from hpsearch.engine.events import (
    EpochFinished,
    Event,
    Stopping,
    TrialFinished,
    TrialStarted,
    TrialStopped,
    WorkerEnded,
    WorkerStarted,
)
from hpsearch.engine.leases import resume
from hpsearch.engine.place import DATABASE, Place
from hpsearch.engine.stop import EXIT_TERMINATED, Stop
from hpsearch.engine.supervisor import Supervisor
from hpsearch.engine.worker import Worker
from hpsearch.engine.worker_messages import Job
from hpsearch.errors import SearchError

pytestmark = pytest.mark.faults

SPEC = StudySpec(
    artifacts="none",
    families=("mlp",),
    trials=3,
    epochs=6,
    seed=1,
    precision="fp32",  # not measured: other processes may be running
    memory_format="channels_last",
    sampler="random",
    pruner="none",
    overrides={"layers": 1, "width": 32, "batch_size": 16, "optimizer": "adamw"},
)
# The same as a command, but for its length.
COMMAND = (
    *("search", "--family", "mlp", "--trials", "2", "--epochs", "20", "--seed", "1"),
    *("--sampler", "random", "--pruner", "none", "--set", "layers=1", "--set", "width=32"),
    *("--set", "batch_size=16", "--set", "optimizer=adamw", "--device", "cpu"),
)


@pytest.fixture(scope="module", autouse=True)
def _processes(full_faults: bool) -> Iterator[None]:
    with faults.processes(as_in_use=full_faults):
        yield


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return outcome(search(SPEC, runs=tmp_path_factory.mktemp("runs"), device="cpu"))


def until_reported(runs: Path, epochs: int) -> dict[int, int]:
    """Waits until each trial that runs has so many epochs, at least; how many each has."""
    deadline = time.monotonic() + faults.PATIENCE
    while time.monotonic() < deadline:
        with contextlib.suppress(sqlite3.Error):
            found = reported(runs)
            if found and min(found.values()) >= epochs:
                return found
        time.sleep(0.02)
    raise TimeoutError(f"no epoch {epochs} in {runs}")


def reported(runs: Path) -> dict[int, int]:
    """How many epochs each trial has that was begun, by number."""
    address = f"file:{runs / DATABASE}?mode=ro"  # makes none where there is none yet
    with contextlib.closing(sqlite3.connect(address, uri=True)) as database:
        rows = database.execute(
            "SELECT number, count(step) FROM trials LEFT JOIN trial_intermediate_values "
            "USING (trial_id) WHERE state != 'WAITING' GROUP BY number"
        ).fetchall()
    return dict(rows)


def leases(runs: Path) -> list[dict[str, Any]]:
    """The table of leases, by the number of the trial."""
    with contextlib.closing(sqlite3.connect(runs / DATABASE)) as database:
        database.row_factory = sqlite3.Row
        rows = database.execute("SELECT * FROM hpsearch_leases ORDER BY trial_id").fetchall()
    return [dict(row) for row in rows]


class Watch:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def all(self, kind: type[Any], **fields: Any) -> list[Any]:
        return [event for event in self.events if is_event(kind, **fields)(event)]


def quiet(_: Event) -> None:
    """Watches nothing."""


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_saves_trials_and_the_same_command_goes_on(tmp_path: Path, workers: int) -> None:
    command = (*COMMAND, "--workers", str(workers), "--runs", str(tmp_path))
    running = Running(None, *command)
    until_reported(tmp_path, 3)
    running.send(signal.SIGINT)
    assert running.wait() == 130, running.text
    assert "stopping (Ctrl-C) at the end of the running epochs" in running.text
    assert "To go on: hpsearch search --family mlp" in running.text
    assert "Traceback" not in running.text
    assert len(running.workers) == workers
    assert not any(Path(f"/proc/{pid}").exists() for pid in running.workers.values())
    epochs = reported(tmp_path)
    assert 0 < max(epochs.values()) < 20
    for number, row in enumerate(leases(tmp_path)):
        assert (row["owner"], row["died"], row["paused"], row["deaths"]) == (None, 0, 0, 0)
        if epochs[number] < 20:
            assert (row["ended"], row["reason"]) == (
                None,
                "handed back" if workers else "Ctrl-C",
            )
    again = Running(None, *command)
    assert again.wait() == 0, again.text
    for number, count in epochs.items():
        if count < 20:
            assert f"mlp-{number} goes on after epoch {count} of 20" in again.text
    record = load_search(tmp_path)
    assert [trial.epochs for trial in record.trials] == [20, 20]
    assert [trial.state for trial in record.trials] == ["complete"] * 2


@pytest.mark.parametrize(
    ("signals", "code"),
    [((signal.SIGINT, signal.SIGINT), 130), ((signal.SIGTERM,), EXIT_TERMINATED)],
    ids=["Ctrl-C twice", "SIGTERM"],
)
def test_a_stop_at_once_waits_for_nobody(
    tmp_path: Path, expected: list[dict[str, Any]], signals: tuple[int, ...], code: int
) -> None:
    """Not even for a worker that hangs; and what it had is free at once."""
    running = Running(dataclasses.replace(SPEC, checkpoint_every=1), runs=tmp_path, workers=1)
    running.until_epoch(2)
    (worker,) = running.workers.values()
    os.kill(worker, signal.SIGSTOP)
    running.send(signals[0])
    if len(signals) > 1:
        running.until(is_event(Stopping, reason="Ctrl-C"))
        running.send(signals[1])
    assert running.wait() == code
    assert worker not in faults.children(os.getpid())
    (row,) = leases(tmp_path)
    assert (row["owner"], row["died"], row["deaths"]) == (None, 0, 0)
    watch = Watch()
    spec = dataclasses.replace(SPEC, checkpoint_every=1, attempts=1)  # a death would be too many
    record = search(spec, runs=tmp_path, device="cpu", watch=watch)
    assert outcome(record) == expected
    assert watch.all(TrialStarted)[0].history
    assert [row["deaths"] for row in leases(tmp_path)] == [0] * 3


def test_sigterm_ends_the_command_itself(tmp_path: Path) -> None:
    running = Running(None, *COMMAND, "--workers", "0", "--runs", str(tmp_path))
    until_reported(tmp_path, 1)
    running.send(signal.SIGTERM)
    assert running.wait() == 143, running.text
    assert "stopped by SIGTERM; finished trials are stored" in running.text
    assert "Traceback" not in running.text
    row = next(row for row in leases(tmp_path) if row["ended"] is None)
    assert (row["owner"], row["died"], row["reason"]) == (None, 0, "broken off")


def test_a_time_limit_stops_as_ctrl_c_does(tmp_path: Path, expected: list[dict[str, Any]]) -> None:
    watch = Watch()
    record = search(SPEC, runs=tmp_path, device="cpu", timeout=0.1, watch=watch)
    (stopping,) = watch.all(Stopping)
    assert stopping.reason
    assert record.finished < SPEC.trials
    (stopped,) = watch.all(TrialStopped)
    assert stopped.reason == stopping.reason
    epochs = len(watch.all(EpochFinished, name=stopped.name))
    again = Watch()
    assert outcome(search(SPEC, runs=tmp_path, device="cpu", watch=again)) == expected
    assert len(again.all(TrialStarted)[0].history) == epochs
    assert again.all(Stopping) == []


def jobs(runs: Path, *changes: dict[str, Any]) -> list[Job]:
    job = Job(spec=SPEC, place=Place(runs), device="cpu", threads=1, number=1, grace=60.0)
    return [
        dataclasses.replace(job, number=number, **change)
        for number, change in enumerate(changes, start=1)
    ]


def test_workers_that_cannot_do_their_job(tmp_path: Path, expected: list[dict[str, Any]]) -> None:
    """They say why and are not started again; the others go on."""
    search(dataclasses.replace(SPEC, trials=1), runs=tmp_path, device="cpu")
    gone = dataclasses.replace(SPEC, families=(str(tmp_path / "gone.py"),))
    other = dataclasses.replace(SPEC, name="other")
    cannot: tuple[dict[str, Any], ...] = ({"device": "cuda:77"}, {"spec": gone}, {"spec": other})
    watch, storage = Watch(), open_storage(Place(tmp_path), write=True)
    with Supervisor(Place(tmp_path), watch) as supervisor:
        supervisor.run(jobs(tmp_path, *cannot, {}), storage, Stop())
    ends = {event.worker: event for event in watch.all(WorkerEnded)}
    assert "cuda:77" in ends[1].reason
    assert "gone.py" in ends[2].reason
    assert "was deleted" in ends[3].reason
    assert ends[4].reason == ""
    assert not any(event.restarts for event in ends.values())
    assert len(watch.all(WorkerStarted)) == 4
    record = load_search(tmp_path)
    assert outcome(record)[1:] == expected[1:]

    more = dataclasses.replace(SPEC, trials=4)
    with (
        pytest.raises(SearchError, match=r"no worker is left; the last one ended with: .*cuda:77"),
        Supervisor(Place(tmp_path), quiet) as supervisor,
    ):
        supervisor.run(jobs(tmp_path, {"spec": more, "device": "cuda:77"}), storage, Stop())


def test_a_study_is_deleted_while_its_workers_run(tmp_path: Path) -> None:
    """In the dashboard, for example; both say so, and neither is started again."""
    watch = Watch()

    def delete(event: Event) -> None:
        watch(event)
        if len(watch.all(EpochFinished)) == 1 and isinstance(event, EpochFinished):
            storage = f"sqlite:///{tmp_path / DATABASE}"
            optuna.delete_study(study_name="digits/mlp", storage=storage)

    with pytest.raises(SearchError, match=r"the study 'digits/mlp' was deleted .*--name") as caught:
        search(SPEC, runs=tmp_path, device="cpu", workers=2, watch=delete)
    assert "\n" not in str(caught.value)
    assert [event.refused for event in watch.all(WorkerEnded)] == [True, True]


def test_what_a_killed_worker_left_in_a_finished_trial_is_removed(
    tmp_path: Path, expected: list[dict[str, Any]]
) -> None:
    """One that had told how its trial ended, and had not yet tidied up."""
    left: list[Path] = []

    def leave(event: Event) -> None:
        if isinstance(event, TrialFinished) and not left:
            attempt = event.trial.folder.with_name(f"{event.trial.folder.name}.attempt-1")
            attempt.mkdir(exist_ok=True)
            names = ("state-5.pt", "checkpoint-3.pt", ".half")
            left.extend([attempt, *(event.trial.folder / name for name in names)])
            for path in left[1:]:
                path.touch()

    record = search(SPEC, runs=tmp_path, device="cpu", workers=2, watch=leave)
    assert len(left) == 4
    assert not any(path.exists() for path in left)
    assert outcome(record) == expected


def test_a_worker_that_dies_again_and_again_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it has begun a trial: none would ever fail for it."""
    search(dataclasses.replace(SPEC, trials=1), runs=tmp_path, device="cpu")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    watch, storage = Watch(), open_storage(Place(tmp_path), write=True)

    def kill(number: int, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    with (
        faults.noting_pids(kill),
        pytest.raises(SearchError, match=r"no worker is left; .*SIGKILL"),
        Supervisor(Place(tmp_path), watch) as supervisor,
    ):
        supervisor.run(jobs(tmp_path, {}), storage, Stop())
    assert [event.restarts for event in watch.all(WorkerStarted)] == [0, 1, 2, 3]
    assert [event.restarts for event in watch.all(WorkerEnded)] == [True] * 3 + [False]


def test_a_paused_trial_waits_until_it_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: list[dict[str, Any]]
) -> None:
    def pauses(name: str, result: Any) -> bool:
        return name == "mlp-0" and result.epoch == 2

    watch = Watch()
    with monkeypatch.context() as patch:
        pausing = functools.partial(Worker, should_pause=pauses)
        patch.setattr("hpsearch.engine.search.Worker", pausing)
        record = search(SPEC, runs=tmp_path, device="cpu", watch=watch)
    assert watch.all(TrialStopped) == [TrialStopped(name="mlp-0", reason="paused")]
    assert len(record.trials) == SPEC.trials  # it counts, so that no other takes its place
    assert record.finished == SPEC.trials - 1
    before = Watch()
    search(SPEC, runs=tmp_path, device="cpu", watch=before)
    assert before.all(TrialStarted) == []

    storage = open_storage(Place(tmp_path), write=True)
    trial_id = storage.get_all_trials(storage.get_study_id_from_name("digits/mlp"))[0]._trial_id
    assert leases(tmp_path)[0]["paused"]
    resume(storage, [trial_id])
    after = Watch()
    record = search(SPEC, runs=tmp_path, device="cpu", workers=1, watch=after)
    assert [len(event.history) for event in after.all(TrialStarted)] == [3]
    assert [event.trial.name for event in after.all(TrialFinished)] == ["mlp-0"]
    assert outcome(record) == expected
