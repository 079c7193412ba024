"""How a search stands, read while it runs, is frozen, killed, and when it is over."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hpsearch import StudySpec, load_search, search
from hpsearch.engine import gpu_note
from hpsearch.engine.database import create_storage, open_storage
from hpsearch.engine.gpu_note import GpuNote, read_gpu
from hpsearch.engine.overview import search_summaries
from hpsearch.engine.place import Place
from hpsearch.engine.remaining import FamilyRemainder, RunningTime, mean_seconds, seconds_left
from hpsearch.engine.status import SearchStatus
from hpsearch.engine.status_reader import StatusReader, search_status, why_over
from hpsearch.errors import SearchError
from hpsearch.families import parse_override
from hpsearch.training.gpu import GpuLoad

SMALL = StudySpec(name="small", families=("logistic", "mlp"), trials=2, epochs=2, artifacts="none")
LONG = StudySpec(
    name="long", families=("logistic",), trials=2, epochs=20_000, pruner="none", artifacts="none"
)

RUN = """
import sys
from hpsearch import StudySpec, search
search(StudySpec.from_dict(__import__("json").loads(sys.argv[1])), runs=sys.argv[2])
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place with a search that is over; the tests leave it as it is."""
    runs = tmp_path_factory.mktemp("runs")
    search(SMALL, runs=runs)
    return runs


def reader_of(runs: Path, name: str | None = None) -> StatusReader:
    place = Place(runs)
    return StatusReader(open_storage(place), place, name)


class TestOver:
    def test_what_is_told_is_what_the_search_has(self, runs: Path) -> None:
        status, record = search_status(runs), load_search(runs)
        assert (status.name, status.state, status.reason) == ("small", "over", "")
        assert (status.running, status.idle, status.seconds_left) == ((), (), None)
        assert (status.asked, status.standing.finished) == (2, 2)
        assert status.standing.best == record.best
        assert [row.counts for row in status.standing.families] == [(1, 0, 0), (1, 0, 0)]
        assert status.objective is record.objective

    def test_its_json_is_plain(self, runs: Path) -> None:
        document = search_status(runs, "small").to_dict()
        assert json.loads(json.dumps(document, allow_nan=False)) == document
        assert document["trials"]["finished"] == 2
        assert document["best"]["params"]["lr"] > 0
        assert document["running"] == []
        assert (document["objective"], document["best"]["values"]) == ("val_accuracy", {})

    def test_its_json_has_all_objectives(self, runs: Path) -> None:
        status = search_status(runs, "small")
        best = status.standing.best
        assert best is not None
        best = dataclasses.replace(best, values=(0.9, 650.0))
        document = dataclasses.replace(
            status,
            spec={**status.spec, "objective": "val_accuracy,params"},
            standing=dataclasses.replace(status.standing, best=best),
        ).to_dict()
        assert document["objective"] == "val_accuracy,params"
        assert document["best"]["values"] == {"val_accuracy": 0.9, "params": 650.0}

    def test_more_trials_are_seen_by_whoever_looks_on(self, tmp_path: Path) -> None:
        search(SMALL, runs=tmp_path)
        reader = reader_of(tmp_path)
        assert reader.read().standing.finished == 2
        more = StudySpec(
            name="small",
            families=SMALL.families,
            trials=4,
            epochs=2,
            pruner="none",
            artifacts="none",
        )
        with pytest.raises(SearchError):  # another pruner: nothing has changed
            search(more, runs=tmp_path)
        assert reader.read().asked == 2
        search(
            StudySpec(name="small", families=SMALL.families, trials=4, epochs=2, artifacts="none"),
            runs=tmp_path,
        )
        status = reader.read()
        assert (status.asked, status.standing.finished, status.state) == (4, 4, "over")

    def test_a_grid_that_is_tried_and_a_patience_that_is_out(self, tmp_path: Path) -> None:
        grid = StudySpec(
            name="grid",
            families=("logistic",),
            trials=9,
            epochs=1,
            sampler="grid",
            overrides=dict(map(parse_override, (*GRID, "translate=0", "batch_size=64,128"))),
        )
        search(grid, runs=tmp_path)
        status = search_status(tmp_path, "grid")
        assert status.state == "over"
        assert status.reason == "all combinations of the grid have been tried"
        assert why_over(load_search(tmp_path, "grid")) == status.reason
        tired = StudySpec(
            name="tired", families=("logistic",), trials=9, epochs=1, patience=1, artifacts="none"
        )
        search(tired, runs=tmp_path)
        status = search_status(tmp_path)  # the one that was started last
        assert (status.name, status.state) == ("tired", "over")
        assert "--patience" in status.reason

    def test_trials_that_were_stopped_are_no_gain_however_low_their_loss(
        self, tmp_path: Path
    ) -> None:
        """The search and those who look at it count in the same way."""
        spec = StudySpec(
            families=("logistic",),
            trials=5,
            epochs=1,
            patience=2,
            pruner="threshold",
            pruner_options={"lower": 1.0},
            first=tuple({"optimizer": "adamw", "lr": lr} for lr in (1e-4, 1e-3, 1e-2)),
            artifacts="none",
        )
        record = search(spec, runs=tmp_path)
        assert [trial.state for trial in record.trials[:2]] == ["pruned"] * 2
        assert (record.finished, record.stale) == (2, 2)
        assert "--patience" in search_status(tmp_path).reason


GRID = ("optimizer=adamw", "lr=0.01", "weight_decay=1e-4", "schedule=cosine", "warmup=0")
"""With two batch sizes and nothing else, a grid of two."""


class TestWhich:
    def test_no_searches_at_all(self, tmp_path: Path) -> None:
        with pytest.raises(SearchError, match=r"no searches in .*; run 'hpsearch search' first"):
            search_status(tmp_path)
        create_storage(Place(tmp_path))
        with pytest.raises(SearchError, match=r"no searches in .* yet; run 'hpsearch search'"):
            search_status(tmp_path)
        assert search_summaries(open_storage(Place(tmp_path)), Place(tmp_path)) == ()

    def test_an_unknown_one_is_told_what_there_is(self, runs: Path) -> None:
        with pytest.raises(SearchError, match="there are small; did you mean 'small'"):
            search_status(runs, "smal")
        with pytest.raises(SearchError, match=r"there are small$"):
            search_status(runs, "something-else")

    def test_all_of_them_in_a_line_each(self, runs: Path) -> None:
        (row,) = search_summaries(open_storage(Place(runs)), Place(runs))
        best = load_search(runs).best
        assert (row.name, row.data, row.asked, row.finished) == ("small", "digits", 2, 2)
        assert (row.running, row.best) == (0, best.value)
        assert json.dumps(row.to_dict())

    def test_one_that_is_deleted_while_someone_looks(self, tmp_path: Path) -> None:
        search(SMALL, runs=tmp_path)
        reader = reader_of(tmp_path)
        storage = create_storage(Place(tmp_path))
        for name in ("small/logistic", "small/mlp"):
            optuna.delete_study(study_name=name, storage=storage)
        with pytest.raises(SearchError, match="'small' was deleted"):
            reader.read()

    def test_one_whose_studies_were_renamed(self, tmp_path: Path) -> None:
        search(SMALL, runs=tmp_path)
        storage = create_storage(Place(tmp_path))
        for name in ("small/logistic", "small/mlp"):
            optuna.copy_study(
                from_study_name=name,
                from_storage=storage,
                to_storage=storage,
                to_study_name=f"mine {name}",
            )
            optuna.delete_study(study_name=name, storage=storage)
        with pytest.raises(SearchError, match="'small' were renamed or deleted"):
            reader_of(tmp_path)


@contextlib.contextmanager
def searching(runs: Path, spec: StudySpec = LONG) -> Iterator[subprocess.Popen[bytes]]:
    """A process that searches; killed in the end, if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, json.dumps(spec.to_dict()), str(runs)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_for(runs: Path, happens: Callable[[SearchStatus], bool]) -> SearchStatus:
    deadline = time.monotonic() + 90
    while True:
        with contextlib.suppress(SearchError):  # there is none yet
            status = search_status(runs)
            if happens(status):
                return status
        assert time.monotonic() < deadline
        time.sleep(0.1)


def freeze(process: subprocess.Popen[bytes], runs: Path, seconds: float) -> None:
    """Stops it where it does not hold the database's lock, and moves its last sign of life back."""
    while True:
        process.send_signal(signal.SIGSTOP)
        with contextlib.suppress(sqlite3.OperationalError):
            change(runs, f"beat = beat - {seconds}")
            return
        process.send_signal(signal.SIGCONT)
        time.sleep(0.05)


def change(runs: Path, what: str) -> None:
    """Changes the leases."""
    with contextlib.closing(sqlite3.connect(runs / "hpsearch.db", timeout=0.2)) as database:
        database.execute(f"UPDATE hpsearch_leases SET {what}")
        database.commit()


class TestRunning:
    def test_the_life_of_a_worker(self, tmp_path: Path) -> None:
        with searching(tmp_path) as process:
            status = wait_for(tmp_path, lambda s: any(t.trial.reported for t in s.running))
            (row,) = status.running
            assert (status.state, status.name) == ("running", "long")
            assert row.trial.name == "logistic-0"
            assert (row.epochs, row.is_silent, row.gpu) == (20_000, False, None)
            assert row.seconds is not None
            assert 0 < row.seconds < 90
            assert row.trial.host == os.uname().nodename
            assert row.trial.device.startswith("cpu")
            assert status.seconds_left is not None
            assert status.seconds_left > 0
            before = len(row.trial.reported)
            later = wait_for(tmp_path, lambda s: len(s.running[0].trial.reported) > before)
            assert list(later.running[0].trial.reported) == sorted(later.running[0].trial.reported)
            assert json.dumps(later.to_dict(), allow_nan=False)
            (line,) = search_summaries(open_storage(Place(tmp_path)), Place(tmp_path))
            assert line.running == 1

            freeze(process, tmp_path, 30)
            (row,) = search_status(tmp_path).running
            assert row.is_silent
            assert 30 <= row.silent < 60
            change(tmp_path, "token = token + 1")  # as if another worker had taken it over
            (row,) = search_status(tmp_path).running
            assert row.seconds is None
            change(tmp_path, "token = token - 1, beat = beat - 40")  # longer than anyone waits for
            status = search_status(tmp_path)
            assert status.running == ()
            assert [(t.name, t.state) for t in status.idle] == [("logistic-0", "interrupted")]
            change(tmp_path, "beat = beat + 70")
            assert not search_status(tmp_path).running[0].is_silent

            process.kill()
            process.wait()
            status = search_status(tmp_path)
            assert (status.state, status.running) == ("stopped", ())
            assert [trial.name for trial in status.idle] == ["logistic-0"]
            assert status.seconds_left is None
            assert status.to_dict()["interrupted"] == ["logistic-0"]

    def test_between_two_trials_it_is_not_taken_for_stopped(self, tmp_path: Path) -> None:
        search(SMALL, runs=tmp_path)
        reader = reader_of(tmp_path)
        storage = create_storage(Place(tmp_path))
        ids = [study._study_id for study in storage.get_all_studies()]

        def tell(key: str, value: object) -> None:
            for study_id in ids:
                storage.set_study_user_attr(study_id, key, value)

        tell("spec", {**SMALL.to_dict(), "trials": 4})
        assert reader.read().state == "running"
        change(tmp_path, "ended = ended - 60, beat = beat - 60")
        now = datetime.datetime.now(datetime.UTC)
        tell("last_started", (now - datetime.timedelta(seconds=50)).isoformat())
        assert reader.read().state == "stopped"
        tell("last_started", now.isoformat())
        assert reader.read().state == "starting"

    def test_those_who_write_are_not_waited_for(self, runs: Path) -> None:
        with contextlib.closing(sqlite3.connect(runs / "hpsearch.db")) as database:
            database.execute("BEGIN IMMEDIATE")  # a writer that takes its time
            database.execute("UPDATE hpsearch_leases SET reason = 'changed'")
            assert search_status(runs).state == "over"
            database.rollback()

    def test_nothing_is_written(self, runs: Path) -> None:
        with contextlib.closing(sqlite3.connect(runs / "hpsearch.db")) as database:
            before = database.execute("PRAGMA data_version").fetchone()
            reader_of(runs).read()
            search_summaries(open_storage(Place(runs)), Place(runs))
            assert database.execute("PRAGMA data_version").fetchone() == before


def test_postgresql(tmp_path: Path, pg_url: str) -> None:
    """In a time zone that is none of ours, and with a password in its address."""
    search(SMALL, runs=tmp_path, storage=pg_url)
    status = search_status(tmp_path, storage=pg_url)
    assert (status.state, status.standing.finished) == ("over", 2)
    place = Place.of(tmp_path, pg_url)
    (row,) = search_summaries(open_storage(place), place)
    assert (row.finished, row.running) == (2, 0)
    with pytest.raises(SearchError, match="did you mean 'small'") as caught:
        search_status(tmp_path, "smll", storage=pg_url)
    assert pg_url not in str(caught.value)


class TestTimeLeft:
    @given(
        st.lists(
            st.tuples(
                st.integers(0, 50),
                st.floats(0, 1e6),
                st.lists(st.tuples(st.floats(0, 1e6), st.none() | st.floats(0, 1e6)), max_size=4),
            ),
            max_size=4,
        ),
        st.integers(0, 8),
    )
    def test_more_workers_never_take_longer(
        self, rows: list[tuple[int, float, list[tuple[float, float | None]]]], workers: int
    ) -> None:
        families = [
            FamilyRemainder(
                trials=trials + len(running),
                each=each,
                running=[RunningTime(spent=spent, rest=rest) for spent, rest in running],
            )
            for trials, each, running in rows
        ]
        few, many = (seconds_left(families, workers=n) for n in (workers, workers + 1))
        assert 0 <= many <= few
        alone = seconds_left(families, workers=1)
        work = sum(family.trials * family.each for family in families)
        assert alone <= work + sum(rest or 0 for row in rows for _, rest in row[2]) + 1e-6

    def test_a_mean_is_of_what_is_done_or_else_of_the_pace(self) -> None:
        pace = RunningTime(spent=2.0, rest=6.0)
        assert mean_seconds([1.0, 3.0], [pace]) == 2.0
        assert mean_seconds([], [pace, RunningTime(spent=1.0, rest=None)]) == 8.0
        assert mean_seconds([], [RunningTime(spent=1.0, rest=None)]) is None


class TestGpuNotes:
    LOAD = GpuLoad(device="cuda:0", name="Card", busy=0.5, used=1, total=2)

    @pytest.fixture
    def trial(self, monkeypatch: pytest.MonkeyPatch) -> optuna.Trial:
        load = self.LOAD

        class Reader:
            def __init__(self, devices: list[str]) -> None:
                assert devices == ["cuda:0"]

            def read(self) -> tuple[GpuLoad, ...]:
                return (load,)

        monkeypatch.setattr(gpu_note, "GpuReader", Reader)
        return optuna.create_study(storage="sqlite://").ask()

    def stored(self, trial: optuna.Trial) -> GpuLoad | None:
        return read_gpu(trial.study.get_trials()[0])

    def test_every_ten_seconds(self, trial: optuna.Trial) -> None:
        now = 100.0
        note = GpuNote(torch.device("cuda", 0), clock=lambda: now)
        for now in (100.0, 109.0):  # noqa: B007 - the clock reads it
            note.write(trial)
            assert self.stored(trial) is None
        now = 110.0
        note.write(trial)
        assert self.stored(trial) == self.LOAD
        assert trial.user_attrs == {}  # no column of the dashboard's table

    def test_never_on_a_cpu(self, trial: optuna.Trial) -> None:
        now = 0.0
        note = GpuNote(torch.device("cpu"), clock=lambda: now)
        now = 1000.0
        note.write(trial)
        assert self.stored(trial) is None
