"""The database as the dashboard reads it: what Optuna reads, and nothing is ever written."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial, TrialState
from searches_by_hand import add_trial, make_search

from hpsearch.dashboard import storage as module
from hpsearch.dashboard.storage import BrowsedStorage
from hpsearch.engine.database import create_storage, open_storage
from hpsearch.engine.place import Place
from hpsearch.errors import SearchError


def same_as_optuna(place: Place, browsed: BrowsedStorage, study_id: int) -> bool:
    return browsed.get_all_trials(study_id) == open_storage(place).get_all_trials(study_id)


def told(trial: FrozenTrial) -> list[tuple[str, str]]:
    """All of a trial, to be compared: no NaN equals another one, and dictionaries are sorted."""
    return sorted(
        (name, str(sorted(value.items()) if isinstance(value, dict) else value))
        for name, value in vars(trial).items()
    )


def odd_trials(study: optuna.Study) -> None:
    running = study.ask()
    for step, value in enumerate((float("inf"), float("-inf"), float("nan"), 1e-300)):
        running.report(value, step)
    running.suggest_categorical("weights", [None, True, 1.5, "imagenet"])
    running.suggest_int("layers", 1, 9, step=2)
    study.tell(study.ask(), float("-inf"))
    study.tell(study.ask(), state=TrialState.FAIL)
    study.enqueue_trial({"layers": 3})


@pytest.mark.parametrize("named_at_once", [500, 2])
def test_trials_are_as_optuna_reads_them(
    place: Place, monkeypatch: pytest.MonkeyPatch, named_at_once: int
) -> None:
    monkeypatch.setattr(module, "_MOST_IDS", named_at_once)
    studies = make_search(place)
    browsed = BrowsedStorage(place)
    for study in studies.values():
        odd_trials(study)
        ours, theirs = browsed.trials(study._study_id), study.get_trials()
        assert [told(trial) for trial in ours] == [told(trial) for trial in theirs]
    assert optuna.load_study(study_name="digits/mlp", storage=browsed).best_value == 0.62
    with pytest.raises(KeyError):
        browsed.trials(99)


def test_finished_trials_are_read_once_and_running_ones_each_time(place: Place) -> None:
    study = make_search(place, families=("mlp",))["mlp"]
    browsed = BrowsedStorage(place)
    first = browsed.trials(1)
    running = study.ask()
    then = browsed.trials(1)
    assert all(a is b for a, b in zip(first, then, strict=False))
    running.report(0.5, 0)
    assert browsed.trials(1)[-1].intermediate_values == {0: 0.5}
    study.tell(running, 0.7)
    assert browsed.trials(1)[-1].value == 0.7
    assert same_as_optuna(place, browsed, 1)


def test_only_some_studies_are_kept_in_memory(place: Place) -> None:
    families = ("a", "b", "c", "d", "e", "f")
    make_search(place, families=families)
    browsed = BrowsedStorage(place)
    firsts = [browsed.trials(study_id)[0] for study_id in range(1, 7)]
    assert browsed.trials(6)[0] is firsts[5]
    assert browsed.trials(1)[0] is not firsts[0]
    assert browsed.trials(1)[0] == firsts[0]


def test_studies_with_and_without_their_notes(shown: Place) -> None:
    browsed, plain = BrowsedStorage(shown), open_storage(shown).get_all_studies()
    assert [s.study_name for s in browsed.get_all_studies()] == ["digits/logistic", "digits/mlp"]
    for light, full in zip(browsed.get_all_studies(), plain, strict=True):
        assert light.user_attrs == full.user_attrs
        assert light.directions == full.directions
        assert not [key for key in light.system_attrs if key.startswith("dashboard:")]
        found = browsed.study(full._study_id)
        assert (found.system_attrs, found.user_attrs) == (full.system_attrs, full.user_attrs)
    with pytest.raises(KeyError):
        browsed.study(99)


def test_it_cannot_write(place: Place) -> None:
    make_search(place, families=("mlp",))
    browsed = BrowsedStorage(place)
    for write in (
        lambda: browsed.set_study_user_attr(1, "x", 1),
        lambda: browsed.set_study_system_attr(1, "dashboard:note_ver", 9),
        lambda: browsed.create_new_trial(1),
        lambda: browsed.create_new_study([optuna.study.StudyDirection.MAXIMIZE], "new"),
        lambda: browsed.delete_study(1),
    ):
        with pytest.raises(StorageInternalError):
            write()
        assert "readonly" in browsed.trouble
        browsed.forget_trouble()
    assert len(open_storage(place).get_all_trials(1)) == 3
    assert browsed.trouble == ""


def test_readers_and_writers_do_not_wait_for_each_other(place: Place) -> None:
    study = make_search(place, families=("mlp",))["mlp"]
    browsed = BrowsedStorage(place)
    writer = sqlite3.connect(place.database, isolation_level=None, timeout=0.1)
    writer.execute("BEGIN IMMEDIATE")  # as a worker in the middle of a write
    assert len(browsed.trials(1)) == 3
    writer.execute("COMMIT")
    with browsed.engine.connect() as reader:  # in the middle of a page
        assert reader.exec_driver_sql("SELECT count(*) FROM trials").scalar() == 3
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE trials SET number = number")
        writer.execute("COMMIT")
    writer.close()
    study.tell(study.ask(), 0.9)
    assert len(browsed.trials(1)) == 4


def test_a_file_that_goes_away_is_not_made_and_found_again(place: Place, tmp_path: Path) -> None:
    study = make_search(place, families=("mlp",))["mlp"]
    study._storage.remove_session()
    browsed = BrowsedStorage(place)
    assert len(browsed.trials(1)) == 3
    runs = place.runs.rename(tmp_path / "elsewhere")
    place.runs.mkdir()
    with pytest.raises(Exception, match="unable to open"):
        browsed.trials(1)
    assert "unable to open database file" in browsed.trouble
    assert list(place.runs.iterdir()) == []
    place.runs.rmdir()
    runs.rename(place.runs)
    assert len(browsed.trials(1)) == 3


def test_another_threads_trouble_is_its_own(place: Place, tmp_path: Path) -> None:
    make_search(place, families=("mlp",))
    browsed = BrowsedStorage(place)
    place.database.rename(tmp_path / "aside.db")

    def fail() -> None:
        with pytest.raises(Exception, match="unable to open"):
            browsed.trials(1)
        seen.append(browsed.trouble)

    seen: list[str] = []
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    assert seen[0]
    assert browsed.trouble == ""


def test_paths_with_signs_that_addresses_have(tmp_path: Path) -> None:
    place = Place.of(tmp_path / "a b?c#d%41{x}&mode=rw")
    make_search(place, families=("mlp",))
    assert len(BrowsedStorage(place).trials(1)) == 3


def test_a_file_that_is_no_database_is_told_in_a_line(place: Place) -> None:
    create_storage(place)
    place.database.write_bytes(b"no database" * 1000)
    with pytest.raises(SearchError, match=r"hpsearch\.db cannot be opened"):
        BrowsedStorage(place)


def test_artifacts_by_their_owner(place: Place) -> None:
    study = make_search(place, families=("mlp",))["mlp"]
    ids = add_trial(place, study, 0.9)
    browsed = BrowsedStorage(place)
    meta = browsed.artifact(1, 4, ids["history.csv"])
    assert (meta["filename"], meta["mimetype"]) == ("history.csv", "text/csv")
    # The library writes null where one was deleted.
    study._storage.set_study_system_attr(1, "artifacts:ab", "null")
    study._storage.set_study_system_attr(1, "artifacts:cd", "{no JSON")
    study._storage.set_study_system_attr(1, "artifacts:ef", [1])
    for owner in ((1, 3, ids["history.csv"]), *((1, None, i) for i in (ids["history.csv"], "ab"))):
        with pytest.raises(KeyError):
            browsed.artifact(*owner)
    for damaged in ("cd", "ef"):
        with pytest.raises(KeyError):
            browsed.artifact(1, None, damaged)
