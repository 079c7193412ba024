import gc
import sqlite3
import subprocess
import sys
import weakref
from pathlib import Path

import optuna
import pytest
from sqlalchemy import text

from hpsearch.engine.database import create_storage, open_storage
from hpsearch.engine.place import DATABASE, Place
from hpsearch.errors import SearchError


def test_write_ahead_log_and_full_synchronisation(tmp_path: Path) -> None:
    storage = create_storage(Place(tmp_path))
    with storage.engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2  # FULL


def test_a_worker_takes_the_write_lock_when_a_transaction_begins(tmp_path: Path) -> None:
    storage = create_storage(Place(tmp_path))
    other = sqlite3.connect(tmp_path / DATABASE, timeout=0, isolation_level=None)
    with storage.engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
    other.execute("BEGIN IMMEDIATE")
    other.close()


def test_readers_neither_wait_for_the_write_lock_nor_take_it(tmp_path: Path) -> None:
    optuna.create_study(study_name="one", storage=create_storage(Place(tmp_path)))
    writer = sqlite3.connect(tmp_path / DATABASE, timeout=0, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    storage = open_storage(Place(tmp_path))
    assert [s.study_name for s in optuna.get_all_study_summaries(storage=storage)] == ["one"]
    writer.execute("ROLLBACK")
    with storage.engine.connect() as connection:
        connection.execute(text("SELECT count(*) FROM studies"))
        writer.execute("BEGIN IMMEDIATE")
    writer.close()


def test_processes_that_start_together_on_a_new_folder_all_succeed(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; "
        "from hpsearch.engine.place import Place; "
        "from hpsearch.engine.database import create_storage; "
        "create_storage(Place(Path(sys.argv[1])))"
    )
    runs = tmp_path / "new" / "runs"
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(runs)], stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for process in processes:
        _, stderr = process.communicate(timeout=120)
        assert process.returncode == 0, stderr.decode()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SearchError, match=r"file.*cannot be written.*--runs"):
        create_storage(Place(tmp_path / "file" / "runs"))


def test_a_folder_without_searches(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="no searches"):
        open_storage(Place(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_bytes(b"this is not a database" * 100)
    for opener in (open_storage, create_storage):
        with pytest.raises(SearchError, match=DATABASE) as caught:
            opener(Place(tmp_path))
        assert "\n" not in str(caught.value)


def test_a_storage_that_nobody_uses_any_more_keeps_no_connections(tmp_path: Path) -> None:
    """A notebook that reads a search again and again would run out of files, or of the server's
    connections.
    """
    place = Place(tmp_path)
    create_storage(place)
    storage = open_storage(place)
    storage.get_all_studies()
    gone = weakref.ref(storage), weakref.ref(storage.engine.pool)
    del storage
    gc.collect()
    assert [kept() for kept in gone] == [None, None]
