"""What a search writes for the dashboard: all of it, once, and never at the search's cost."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from optuna_dashboard import get_note, save_note, save_plotly_graph_object
from optuna_dashboard._custom_plot_data import get_plotly_graph_objects
from optuna_dashboard._note import get_note_from_system_attrs
from plotly.graph_objects import Figure
from sqlalchemy.exc import SQLAlchemyError

from hpsearch import SearchRecord, StudySpec, load_search, search
from hpsearch.engine import chronicle as chronicle_module
from hpsearch.engine.board import noted_trials, write_board
from hpsearch.engine.chronicle import Chronicle, Chronicler
from hpsearch.engine.database import create_storage, open_storage
from hpsearch.engine.existing import peek
from hpsearch.engine.place import Place, study_name
from hpsearch.engine.setup import PreparedData, prepare_data
from hpsearch.engine.states import ASIDE, FINISHED

PLOTS = {"leaderboard-over-families", "learning-curves-of-all-trials", "budget-by-family"}
SPEC = StudySpec(
    name="digits",
    families=("logistic", "mlp"),
    trials=6,
    epochs=3,
    overrides={"batch_size": 128},
    pruner_options={"n_startup_trials": 1, "n_warmup_steps": 1},
    precision="fp32",
    memory_format="channels_last",
)
_SEARCHER = """
import sys
from test_chronicle import SPEC
from hpsearch import search
from hpsearch.engine.events import TrialFinished

def watch(event):
    if isinstance(event, TrialFinished):
        print(event.trial.name, flush=True)

search(SPEC, runs=sys.argv[1], device="cpu", watch=watch)
"""


def studies_of(record: SearchRecord) -> dict[str, optuna.Study]:
    """The search's studies, as any program would open them."""
    storage = open_storage(record.place)
    return {
        family: optuna.load_study(study_name=study_name(record.name, family), storage=storage)
        for family in record.families
    }


def trial_notes(study: optuna.Study) -> dict[int, str]:
    """By number, as the dashboard reads them."""
    attrs = study._storage.get_study_system_attrs(study._study_id)
    notes = {t.number: get_note_from_system_attrs(attrs, t._trial_id) for t in study.trials}
    return {number: note["body"] for number, note in notes.items() if note["version"]}


def plots_of(study: optuna.Study) -> dict[str, str]:
    return get_plotly_graph_objects(study._storage.get_study_system_attrs(study._study_id))


def assert_complete(record: SearchRecord) -> None:
    """All that ended has a note, each study has its own and its plots."""
    for family, study in studies_of(record).items():
        ended = {
            trial.number: trial
            for trial in record.trials
            if trial.family == family and trial.state in (*FINISHED, *ASIDE)
        }
        notes = trial_notes(study)
        assert notes.keys() == ended.keys()
        for number, trial in ended.items():
            assert f"{trial.name}: {trial.state}" in notes[number]
        counts = [s for s in FINISHED if record.count(s, family)]
        said = ", ".join(f"{record.count(state, family)} {state}" for state in counts)
        assert f"Trials that ended: {said}." in get_note(study)
        assert plots_of(study).keys() == PLOTS
        curves = plots_of(study)["learning-curves-of-all-trials"]
        assert f"Learning curves of all trials of {family}" in curves


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> SearchRecord:
    """A search by two workers."""
    return search(SPEC, runs=tmp_path_factory.mktemp("runs"), device="cpu", workers=2)


@pytest.fixture(scope="module")
def data(finished: SearchRecord) -> PreparedData:
    return prepare_data(SPEC, peek(finished.place, finished.name), finished.place)


@pytest.fixture
def chronicler(finished: SearchRecord, data: PreparedData) -> Any:
    made = Chronicler(finished, SPEC, data.spaces)
    yield made
    made.close()


def test_a_search_with_workers_is_told_in_full(finished: SearchRecord) -> None:
    assert finished.finished == 6
    assert_complete(finished)
    pruned = [trial for trial in finished.trials if trial.state == "pruned"]
    for trial in pruned:
        note = trial_notes(studies_of(finished)[trial.family])[trial.number]
        assert "stopped early: after epoch" in note


def test_the_dashboard_reads_it(finished: SearchRecord) -> None:
    """With the functions that it has for programs."""
    for study in studies_of(finished).values():
        trial = optuna.Trial(study, study.trials[0]._trial_id)
        assert get_note(trial) == trial_notes(study)[0]
        assert get_note(study).startswith("### digits/")


def test_what_is_written_once_is_not_written_again(
    finished: SearchRecord, chronicler: Chronicler, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[int, str, Mapping[int, str]]] = []

    def write(storage: Any, study_id: int, *, note: str, trial_notes: Any, plots: Any) -> None:
        written.append((study_id, note, trial_notes))
        write_board(storage, study_id, note=note, trial_notes=trial_notes, plots=plots)

    monkeypatch.setattr(chronicle_module, "write_board", write)
    study = studies_of(finished)["mlp"]
    before = study._storage.get_study_system_attrs(study._study_id)
    assert not chronicler.write()
    assert [notes for _, _, notes in written] == [{}, {}]
    assert study._storage.get_study_system_attrs(study._study_id) == before


def test_it_draws_no_random_numbers(chronicler: Chronicler) -> None:
    before = random.getstate(), str(np.random.get_state()), torch.get_rng_state()
    chronicler.write()
    after = random.getstate(), str(np.random.get_state()), torch.get_rng_state()
    assert before[:2] == after[:2]
    assert torch.equal(before[2], after[2])


def test_the_search_goes_on_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(chronicle_module, "write_board", fail)
    spec = dataclasses.replace(SPEC, families=("logistic",), trials=2, epochs=1)
    first = search(spec, runs=tmp_path, device="cpu")
    assert first.finished == 2
    (study,) = studies_of(first).values()
    assert trial_notes(study) == {}
    monkeypatch.undo()
    # As a search of a version that wrote no notes: the next start completes what is missing,
    # though there is no trial left to do.
    assert_complete(search(spec, runs=tmp_path, device="cpu"))


def test_a_search_that_is_killed_is_completed_by_the_next_start(tmp_path: Path) -> None:
    popen = subprocess.Popen(
        [sys.executable, "-c", _SEARCHER, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent,
    )
    assert popen.stdout is not None
    with popen:
        for _ in range(3):
            assert popen.stdout.readline()
        popen.send_signal(signal.SIGKILL)
    killed = load_search(tmp_path)
    assert 3 <= killed.finished < 6
    record = search(SPEC, runs=tmp_path, device="cpu")
    assert record.finished == 6
    assert_complete(record)


def test_it_is_left_behind_where_it_hangs(
    finished: SearchRecord, data: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, released = threading.Event(), threading.Event()

    def hang(_: Chronicler) -> bool:
        begun.set()
        released.wait(60)
        return False

    monkeypatch.setattr(Chronicler, "write", hang)
    monkeypatch.setattr(chronicle_module, "LAST_SECONDS", 0.05)
    with Chronicle() as chronicle:
        chronicle.start(finished, SPEC, data.spaces)
        assert begun.wait(60)
    threads = [thread for thread in threading.enumerate() if thread.name == "chronicle"]
    assert threads  # it hangs still, and nobody waits for it
    released.set()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_ctrl_c_at_the_end_ends_the_waiting_and_no_more(
    finished: SearchRecord, data: PreparedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    for error in (None, ValueError()):
        with (
            contextlib.nullcontext() if error is None else pytest.raises(KeyboardInterrupt),
            monkeypatch.context() as patch,
            Chronicle() as chronicle,
        ):
            chronicle.start(finished, SPEC, data.spaces)
            patch.setattr(threading.Thread, "join", interrupted)
            if error is not None:
                raise error
    for thread in threading.enumerate():
        if thread.name == "chronicle":
            thread.join(60)


def test_many_missing_notes_are_written_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chronicle_module, "_MOST_NOTES", 2)
    spec = dataclasses.replace(SPEC, families=("logistic",), trials=5, epochs=1)
    with monkeypatch.context() as patch:
        patch.setattr(Chronicle, "start", lambda *_: None)
        search(spec, runs=tmp_path, device="cpu")
    assert_complete(search(spec, runs=tmp_path, device="cpu"))


def test_a_note_of_the_user_stays(tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, families=("logistic",), trials=1, epochs=1)
    (study,) = studies_of(search(spec, runs=tmp_path, device="cpu")).values()
    save_note(study, "mine")
    save_note(optuna.Trial(study, study.trials[0]._trial_id), "mine, too")
    (study,) = studies_of(
        search(dataclasses.replace(spec, trials=2), runs=tmp_path, device="cpu")
    ).values()
    assert get_note(study) == "mine"
    notes = trial_notes(study)
    assert notes[0] == "mine, too"
    assert "logistic-1: complete" in notes[1]


class TestBoard:
    @pytest.fixture
    def study(self, tmp_path: Path) -> optuna.Study:
        return self._study(Place(tmp_path))

    @staticmethod
    def _study(place: Place) -> optuna.Study:
        create_storage(place)
        study = optuna.create_study(storage=open_storage(place), study_name="s")
        study.add_trials([optuna.trial.create_trial(value=n) for n in range(12)])
        return study

    @staticmethod
    def _write(study: optuna.Study, place: Place, **what: Any) -> None:
        write_board(
            open_storage(place),
            study._study_id,
            **{"note": "", "trial_notes": {}, "plots": {}, **what},
        )

    @pytest.mark.parametrize("on", ["file", "server"])
    def test_the_dashboard_finds_long_and_short_texts(
        self, on: str, tmp_path: Path, request: pytest.FixtureRequest
    ) -> None:
        address = request.getfixturevalue("pg_url") if on == "server" else None
        place = Place(tmp_path, address)
        study = self._study(place)
        ids = [trial._trial_id for trial in study.trials]
        figure = Figure(data=[{"type": "bar", "y": list(range(3000))}])
        save_plotly_graph_object(study, figure, graph_object_id="of-others")
        for round_number in range(2):
            notes = {ids[1]: "a", ids[11]: f"{'ü' * 5000} %\\_{round_number}\n| x |"}
            self._write(
                study,
                place,
                note=f"n{round_number}",
                trial_notes=notes,
                plots={"plot-1": figure.to_json()},
            )
            assert noted_trials(open_storage(place), [study._study_id]) == {ids[1], ids[11]}
            assert {ids[n]: text for n, text in trial_notes(study).items()} == notes
            assert get_note(study) == f"n{round_number}"
            plots = plots_of(study)
            assert plots["plot-1"] == plots["of-others"] == figure.to_json()

    def test_the_page_sees_that_a_note_has_changed(
        self, study: optuna.Study, tmp_path: Path
    ) -> None:
        """It refuses to save one that was edited from an older version."""

        def version() -> int:
            attrs = study._storage.get_study_system_attrs(study._study_id)
            return get_note_from_system_attrs(attrs, None)["version"]

        versions = []
        for text in ("one", "two", "two", "three"):
            self._write(study, Place(tmp_path), note=text)
            versions.append(version())
        assert versions == [1, 2, 2, 3]

    def test_all_of_it_or_nothing(self, study: optuna.Study, tmp_path: Path) -> None:
        place = Place(tmp_path)
        with sqlite3.connect(place.database) as connection:
            connection.execute(
                "CREATE TRIGGER full BEFORE INSERT ON study_system_attributes "
                "WHEN NEW.key LIKE '%:note_str:%' BEGIN SELECT RAISE(ABORT, 'no room'); END"
            )
        with pytest.raises(SQLAlchemyError, match="no room"):
            self._write(study, place, note="n", plots={"p": "plot"})
        assert (get_note(study), plots_of(study)) == ("", {})


def test_no_password_is_written(tmp_path: Path, postgres: Any, pg_url: str) -> None:
    spec = dataclasses.replace(SPEC, trials=2, epochs=1)
    record = search(spec, runs=tmp_path, storage=pg_url, device="cpu")
    assert_complete(record)
    for study in studies_of(record).values():
        attrs = study._storage.get_study_system_attrs(study._study_id)
        assert postgres.secret not in str(attrs)
        assert "HPSEARCH_STORAGE" in get_note(study)
