"""What a supervisor does with its workers, and how a search with them is stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faults
import pytest
import torch
from faults import Running, is_event
from test_trial_resume import outcome

from hpsearch import StudySpec, load_search, search
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
from hpsearch.engine.objective import Worker
from hpsearch.engine.place import DATABASE, Place
from hpsearch.engine.stop import EXIT_TERMINATED, Stop
from hpsearch.engine.storage import open_storage
from hpsearch.engine.supervisor import Job, Supervisor
from hpsearch.errors import SearchError

pytestmark = pytest.mark.faults

SPEC = StudySpec(
    families=("mlp",),
    trials=3,
    epochs=6,
    seed=1,
    sampler="random",
    pruner="none",
    overrides={"layers": 1, "width": 32, "batch_size": 16, "optimizer": "adamw"},
)
OPTIONS = (
    *("search", "--family", "mlp", "--trials", "2", "--seed", "1", "--sampler", "random"),
    *("--pruner", "none", "--set", "layers=1", "--set", "width=32", "--set", "batch_size=16"),
    *("--device", "cpu"),
)
LONG = "60"


@pytest.fixture(scope="module", autouse=True)
def _processes(full_faults: bool) -> Iterator[None]:
    with faults.processes(as_in_use=full_faults):
        yield


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return outcome(search(SPEC, runs=tmp_path_factory.mktemp("runs"), device="cpu"))


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


def gone_on(runs: Path, *, workers: int = 0) -> Watch:
    """The search of `OPTIONS`, gone on with in this process until the first epochs."""
    watch = Watch()
    search(
        dataclasses.replace(
            SPEC, trials=2, epochs=int(LONG), overrides={"layers": 1, "width": 32, "batch_size": 16}
        ),
        runs=runs,
        device="cpu",
        workers=workers,
        timeout=None,
        watch=watch,
    )
    return watch


@pytest.mark.parametrize("workers", ["0", "2"])
def test_ctrl_c_saves_the_trials_and_the_same_command_goes_on(tmp_path: Path, workers: str) -> None:
    running = Running(
        None, *OPTIONS, "--epochs", LONG, "--workers", workers, "--runs", str(tmp_path)
    )
    running.until(lambda _: bool(list(tmp_path.glob("digits/mlp-0.attempt-1"))))
    running.until(lambda _: False) if False else None
    running.send(signal.SIGINT)
    assert running.wait() == 130, running.text
    assert "stopping (Ctrl-C) at the end of the running epochs" in running.text
    assert "To go on: hpsearch search --family mlp" in running.text
    assert "Traceback" not in running.text
    rows = [row for row in leases(tmp_path) if row["ended"] is None]
    assert rows
    for row in rows:
        assert (row["owner"], row["died"], row["paused"]) == (None, 0, 0)
