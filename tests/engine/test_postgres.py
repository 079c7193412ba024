"""Searches in a PostgreSQL database: they go as in SQLite, wait for it, and tell no password."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import subprocess
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import pytest
import sqlalchemy
import torch
from sqlalchemy import MetaData, select

from hpsearch import SearchRecord, StudySpec, load_search, search
from hpsearch.engine.database import create_storage, exists, locked, open_storage
from hpsearch.engine.events import (
    DatabaseAway,
    EpochFinished,
    Event,
    TrialStopped,
    WorkerEnded,
    WorkerStarted,
)
from hpsearch.engine.lease_table import LEASES
from hpsearch.engine.opened import open_search
from hpsearch.engine.place import Place, study_name
from hpsearch.errors import HpsearchError, SearchError

if TYPE_CHECKING:
    from conftest import PostgresServer

SPEC = StudySpec(
    artifacts="none",
    families=("logistic", "mlp"),
    trials=4,
    epochs=2,
    checkpoint_every=1,
    overrides={"batch_size": 128},
    precision="fp32",  # not measured: other processes may be running
    memory_format="channels_last",
)
_SEARCHER = """
import dataclasses, sys
from test_postgres import SPEC
from hpsearch import search
from hpsearch.engine.events import EpochFinished

def watch(event):
    if isinstance(event, EpochFinished):
        print(event.name, event.result.epoch, flush=True)

search(
    dataclasses.replace(SPEC, trials=int(sys.argv[2])),
    runs=sys.argv[1], storage=sys.stdin.readline().strip(), device="cpu", watch=watch,
)
"""


class Watch:
    """Notes events; calls something after so many epochs."""

    def __init__(self, after: int = -1, then: Callable[[], None] = lambda: None) -> None:
        self.events: list[Event] = []
        self._after = after
        self._then = then

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, EpochFinished) and len(self.epochs) == self._after:
            self._then()

    @property
    def epochs(self) -> list[tuple[str, int]]:
        return [
            (event.name, event.result.epoch)
            for event in self.events
            if isinstance(event, EpochFinished)
        ]


def outcome(record: SearchRecord) -> list[dict[str, Any]]:
    rows = [dataclasses.asdict(trial) for trial in record.trials]
    for row in rows:
        for key in ("place", "folder", "seconds", "images_per_second", "peak_memory", "ended"):
            del row[key]
    return rows


def reports(place: Place, spec: StudySpec = SPEC) -> dict[str, list[int]]:
    storage = open_storage(place)
    return {
        f"{family}-{trial.number}": sorted(trial.intermediate_values)
        for family in spec.families
        for trial in optuna.load_study(
            study_name=study_name(spec.name, family), storage=storage
        ).get_trials()
        if trial.state.is_finished()
    }


def in_tables(url: str, secret: str) -> list[str]:
    """The columns of a database in which a text is found."""
    engine = sqlalchemy.create_engine(Place.of("runs", url).url)
    found = []
    tables = MetaData()
    tables.reflect(engine)
    assert {"studies", "trials", LEASES.name} <= set(tables.tables)
    with engine.connect() as connection:
        for table in tables.tables.values():
            for row in connection.execute(select(table)):
                found += [
                    f"{table}.{column}"
                    for column, value in row._mapping.items()
                    if secret in str(value)
                ]
    engine.dispose()
    return found


def in_files(folder: Path, secret: str) -> list[Path]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [path for path in files if secret.encode() in path.read_bytes()]


def in_processes(secret: str) -> list[str]:
    """The command lines of all processes of this machine in which a text is found."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes().decode("utf-8", "replace")
            found += [line] if secret in line else []
    return found


def test_a_search_gives_what_it_gives_in_sqlite(
    tmp_path: Path, pg_url: str, postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(SearchError, match=r"no searches in 127\.0\.0\.1:\d+/"):
        load_search(tmp_path / "runs", storage=pg_url)
    # Studies of somebody else are there already.
    url = Place.of("runs", pg_url).url.render_as_string(hide_password=False)
    foreign = optuna.create_study(
        study_name="theirs", storage=url.replace("{", "{{").replace("}", "}}")
    )
    foreign.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    foreign.ask()
    theirs = foreign.get_trials()
    with pytest.raises(SearchError, match="no searches in"):
        load_search(tmp_path / "runs", storage=pg_url)
    watch = Watch()
    with caplog.at_level(logging.DEBUG):
        record = search(SPEC, runs=tmp_path / "runs", storage=pg_url, device="cpu", watch=watch)
    assert record.finished == 4
    assert foreign.get_trials() == theirs
    same = search(SPEC, runs=tmp_path / "sqlite", device="cpu")
    assert outcome(record) == outcome(same)
    assert outcome(load_search(tmp_path / "runs", storage=pg_url)) == outcome(record)
    assert load_search(tmp_path / "runs", storage=pg_url).name == SPEC.name
    assert not (tmp_path / "runs" / "hpsearch.db").exists()
    # Gone on with, it has nothing to do; with more trials, it does those.
    again = Watch()
    assert outcome(
        search(SPEC, runs=tmp_path / "runs", storage=pg_url, device="cpu", watch=again)
    ) == outcome(record)
    assert again.epochs == []
    more = dataclasses.replace(SPEC, trials=5)
    longer = search(more, runs=tmp_path / "runs", storage=pg_url, device="cpu", watch=watch)
    assert longer.finished == 5
    assert [n for _, n in Counter(watch.epochs).most_common(1)] == [1]
    shown = [repr(record), str(record), repr(record.best), repr(watch.events), caplog.text]
    assert not any(postgres.secret in text for text in shown)
    assert in_files(tmp_path, postgres.secret) == []
    assert in_tables(pg_url, postgres.secret) == []


def test_worker_processes_are_told_the_password_and_tell_nobody(
    tmp_path: Path, pg_url: str, postgres: PostgresServer
) -> None:
    seen: list[str] = []
    logs: list[Path] = []

    def look() -> None:
        seen.extend(in_processes(postgres.secret))
        logs.extend(in_files(tmp_path, postgres.secret))
        assert in_processes("hpsearch.engine.worker_process")

    watch = Watch(after=1, then=look)
    record = search(
        SPEC, runs=tmp_path, storage=pg_url, device="cpu", workers=2, watch=watch, grace=20
    )
    assert record.finished == 4
    assert Counter(watch.epochs).most_common(1)[0][1] == 1
    assert sum(isinstance(event, WorkerStarted) for event in watch.events) == 2
    assert not any(event.reason for event in watch.events if isinstance(event, WorkerEnded))
    assert seen == logs == []
    assert in_files(tmp_path, postgres.secret) == []
    assert in_tables(pg_url, postgres.secret) == []


def test_two_searches_at_once_share_the_trials(tmp_path: Path, pg_url: str) -> None:
    trials = 8
    here = str(Path(__file__).parent)
    searchers = [
        subprocess.Popen(
            [sys.executable, "-c", _SEARCHER, str(tmp_path), str(trials)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=here,
        )
        for _ in range(2)
    ]
    for searcher in searchers:
        assert searcher.stdin is not None
        searcher.stdin.write(f"{pg_url}\n")
        searcher.stdin.flush()
    epochs: Counter[str] = Counter()
    for searcher in searchers:
        out, errors = searcher.communicate(timeout=300)
        assert searcher.returncode == 0, errors
        epochs.update(out.splitlines())
    assert epochs
    assert set(epochs.values()) == {1}
    record = load_search(tmp_path, storage=pg_url)
    assert record.finished == trials
    assert record.count("running") == record.count("interrupted") == record.count("failed") == 0
    place = Place.of(tmp_path, pg_url)
    with open_storage(place).engine.connect() as connection:
        tokens = connection.execute(select(LEASES.c.token)).scalars().all()
    assert set(tokens) == {1}


def begin(runs: str, url: str | None) -> tuple[bool, dict[str, int]]:
    """What a search does before its first trial: whether it was there already, and its studies."""
    torch.set_num_threads(1)
    opened = open_search(
        SPEC, Place.of(runs, url), torch.device("cpu"), 1, 0, lambda _: None, joins=False
    )
    return opened.resumed, {name: study._study_id for name, study in opened.studies.items()}


@pytest.fixture(params=["sqlite", "postgres"])
def new_places(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[int], Any]:
    """Gives places of which there is nothing yet."""
    server = request.getfixturevalue("postgres") if request.param == "postgres" else None

    @contextlib.contextmanager
    def place(number: int) -> Iterator[tuple[str, str | None]]:
        with server.database() if server else contextlib.nullcontext() as url:
            yield str(tmp_path / f"new-{number}" / "runs"), url

    return place


@pytest.mark.faults
def test_of_processes_that_start_together_one_makes_the_search(
    tmp_path: Path,
    new_places: Callable[[int], Any],
    together: Callable[..., list[Any]],
    full_faults: bool,
) -> None:
    begin(str(tmp_path / "alone"), None)
    made = open_storage(Place.of(tmp_path / "alone"))
    alone = {study.study_name: len(study.trials) for study in _studies(made)}
    assert min(alone.values()) > 0  # what is tried first waits there, once
    for number in range(24 if full_faults else 1):
        with new_places(number) as (runs, url):
            started = together(8, begin, runs, url)
            assert sorted(resumed for resumed, _ in started) == [False] + [True] * 7
            assert all(studies == started[0][1] for _, studies in started)
            storage = open_storage(Place.of(runs, url))
            assert len(storage.get_all_studies()) == len(SPEC.families)
            waiting = {study.study_name: len(study.trials) for study in _studies(storage)}
            storage.engine.dispose()
            assert waiting == alone


def _studies(storage: Any) -> list[optuna.Study]:
    return [
        optuna.load_study(study_name=study.study_name, storage=storage)
        for study in storage.get_all_studies()
    ]


@pytest.mark.faults
@pytest.mark.parametrize("workers", [0, 2])
def test_a_search_waits_for_a_server_that_is_away(
    tmp_path: Path,
    own_postgres: PostgresServer,
    full_faults: bool,
    workers: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if workers and not full_faults:
        pytest.skip("only with --faults")
    back: list[threading.Timer] = []

    def outage() -> None:
        own_postgres.stop()
        back.append(threading.Timer(30 if full_faults else 5, own_postgres.start))
        back[0].start()

    watch = Watch(after=3, then=outage)
    own_postgres.execute("CREATE DATABASE searches")
    url = own_postgres.url("searches")
    try:
        record = search(
            SPEC, runs=tmp_path, storage=url, device="cpu", workers=workers, grace=60, watch=watch
        )
    finally:
        for timer in back:
            timer.join()
    assert back
    assert record.finished == 4
    assert record.count("failed") == 0
    assert not any(isinstance(event, TrialStopped) for event in watch.events)
    assert Counter(watch.epochs).most_common(1)[0][1] == 1
    told = Counter(name for name, _ in watch.epochs)
    place = Place.of(tmp_path, url)
    assert {name: list(range(count)) for name, count in told.items()} == {
        name: epochs for name, epochs in reports(place).items() if epochs
    }
    assert in_files(tmp_path, own_postgres.secret) == []
    waits = [event for event in watch.events if isinstance(event, DatabaseAway)]
    away = [(event.worker, event.away) for event in waits]
    assert away
    for worker in {worker for worker, _ in away}:  # each says that it waits, and when that is over
        assert [gone for w, gone in away if w == worker] == [True, False]
    if not workers:
        assert "the database does not answer" in caplog.text
        assert outcome(record) == outcome(search(SPEC, runs=tmp_path / "sqlite", device="cpu"))


def test_a_lock_that_is_lost_with_the_server_is_no_error(
    tmp_path: Path, own_postgres: PostgresServer
) -> None:
    place = Place.of(tmp_path, own_postgres.url("postgres"))
    with locked(place, "one"):
        own_postgres.stop()
        own_postgres.start()
    with locked(place, "one"):
        pass


def test_the_lock_is_for_one_and_ends_with_it(tmp_path: Path, pg_url: str) -> None:
    place = Place.of(tmp_path, pg_url)
    order: list[str] = []

    def second() -> None:
        with locked(place, "one"):
            order.append("second")

    thread = threading.Thread(target=second)

    def first() -> None:
        with locked(place, "one"):
            thread.start()
            with locked(place, "another"):
                thread.join(0.3)
            order.append("first")
            raise RuntimeError("broken off")

    with pytest.raises(RuntimeError, match="broken off"):
        first()
    thread.join(60)
    assert order == ["first", "second"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda url: url.set(password=f"wrong{url.password}"), "password authentication failed"),
        (lambda url: url.set(username="nobody-of-ours"), "password authentication failed"),
        (lambda url: url.set(database="nowhere"), 'database "nowhere" does not exist'),
        (lambda url: url.set(host="no-such-host.invalid"), "no-such-host.invalid"),
        (lambda url: url.set(host="localhost", port=1), "localhost:1"),
        (lambda url: url.update_query_dict({"sslmode": "always"}), "sslmode"),
        (lambda url: url.update_query_dict({"no_such_option": "1"}), "no_such_option"),
        (lambda url: url.update_query_dict({"sslmode": "require"}), "SSL"),
    ],
)
def test_what_is_wrong_with_an_address_is_told_without_its_password(
    tmp_path: Path,
    pg_url: str,
    postgres: PostgresServer,
    change: Callable[[sqlalchemy.URL], sqlalchemy.URL],
    words: str,
) -> None:
    url = change(sqlalchemy.make_url(pg_url)).render_as_string(hide_password=False)
    place = Place.of(tmp_path, url)
    for call in (
        lambda: exists(place),
        lambda: create_storage(place),
        lambda: load_search(tmp_path, storage=url),
        lambda: search(SPEC, runs=tmp_path, storage=url, device="cpu"),
    ):
        with pytest.raises(SearchError) as caught:
            call()
        message = str(caught.value)
        assert words in message
        assert str(place) in message
        assert "\n" not in message
        assert postgres.secret not in "".join(traceback.format_exception(caught.value))


def test_a_server_that_does_not_come_back_ends_the_search_in_words(
    tmp_path: Path, own_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpsearch.engine.storage.OUTAGE_SECONDS", 0.5)
    monkeypatch.setattr("hpsearch.engine.database.OUTAGE_SECONDS", 0.5)
    own_postgres.execute("CREATE DATABASE searches")
    url = own_postgres.url("searches")
    with pytest.raises(HpsearchError, match="the same command goes on") as caught:
        search(
            SPEC,
            runs=tmp_path,
            storage=url,
            device="cpu",
            watch=Watch(after=2, then=own_postgres.stop),
        )
    assert "\n" not in str(caught.value)
    assert f"127.0.0.1:{own_postgres.port}/searches" in str(caught.value)
    assert own_postgres.secret not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(SearchError, match="cannot be opened"):
        load_search(tmp_path, storage=url)
    own_postgres.start()
    assert search(SPEC, runs=tmp_path, storage=url, device="cpu", grace=1).finished == 4


def test_claims_do_not_depend_on_the_servers_default_isolation(
    postgres: Any, tmp_path: Path
) -> None:
    """A transaction that keeps what it saw before it waited would not see others' claims."""
    with postgres.database() as url:
        name = url.rpartition("/")[2].partition("?")[0]
        postgres.execute(
            f"ALTER DATABASE {name} SET default_transaction_isolation TO 'repeatable read'"
        )
        storage = create_storage(Place.of(tmp_path, url))
        with storage.engine.connect() as connection:
            found = connection.exec_driver_sql("SHOW transaction_isolation").scalar()
        storage.engine.dispose()
    assert found == "read committed"
