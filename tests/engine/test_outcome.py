"""What is left of trials when a search is started again."""

from __future__ import annotations

import os
import time
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from hpsearch.engine import outcome
from hpsearch.engine.place import Place
from hpsearch.engine.spec import StudySpec
from hpsearch.engine.trial_files import clear

SPEC = StudySpec(name="left", families=("mlp",), keep=1)


def finished(*values: float | None) -> optuna.Study:
    """A study with a trial of each value; None: it failed."""
    study = optuna.create_study(direction="maximize")
    for value in values:
        study.add_trial(
            create_trial(
                state=TrialState.FAIL if value is None else TrialState.COMPLETE,
                value=value,
                user_attrs={} if value is None else {"value": value, "val_loss": 1.0},
            )
        )
    return study


def whole(runs: Path, number: int) -> Path:
    """The folder of a trial with the files that a finished one has."""
    folder = runs / "left" / f"mlp-{number}"
    folder.mkdir(parents=True)
    for name in ("checkpoint.pt", "history.csv", "batches.csv"):
        (folder / name).touch()
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_start_removes_what_only_running_trials_need(tmp_path: Path) -> None:
    study = finished(0.5, 0.9, 0.7, None)
    folders = [whole(tmp_path, number) for number in range(3)]
    (folders[0] / ".history.csv.x1").touch()
    (folders[1] / "checkpoint-4.pt").touch()
    for left in ("mlp-2.attempt-3", "mlp-3.attempt-1"):  # of the last one there is nothing else
        (tmp_path / "left" / left).mkdir()
        (tmp_path / "left" / left / "checkpoint.pt").touch()
    others = tmp_path / "left" / "mlp-30.attempt-1"
    others.mkdir()
    outcome.drop_checkpoints(SPEC, Place(tmp_path), study, "mlp", everywhere=True)
    assert names(folders[0]) == ["batches.csv", "history.csv"]
    assert names(folders[1]) == ["batches.csv", "checkpoint.pt", "history.csv"]
    assert names(tmp_path / "left") == ["mlp-0", "mlp-1", "mlp-2", "mlp-30.attempt-1"]


def test_all_families_and_the_artifacts_are_tidied(tmp_path: Path) -> None:
    folders = [whole(tmp_path, number) for number in range(2)]
    (folders[1] / "state-4.pt").touch()
    artifacts = Place(tmp_path).artifacts
    artifacts.mkdir(parents=True)
    for name, age in (("old", 7200.0), ("new", 0.0)):
        (artifacts / f".{name}.half").touch()
        os.utime(artifacts / f".{name}.half", (time.time() - age,) * 2)
    studies = {"mlp": finished(0.5, 0.9), "cnn": finished(0.7)}
    (cnn := tmp_path / "left" / "cnn-0").mkdir()
    (cnn / "checkpoint-2.pt").touch()
    outcome.tidy(SPEC, Place(tmp_path), studies)
    assert names(folders[1]) == ["batches.csv", "checkpoint.pt", "history.csv"]
    assert names(cnn) == []
    assert names(artifacts) == [".new.half"]


def test_a_start_looks_closer_only_where_something_was_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each closer look reads the folder of the whole search."""
    study = finished(*(0.1 * number for number in range(6)))
    folders = [whole(tmp_path, number) for number in range(6)]
    (folders[4] / "checkpoint-4.pt").touch()
    cleared: list[str] = []

    def note(folder: Path) -> None:
        cleared.append(folder.name)
        clear(folder)

    monkeypatch.setattr(outcome, "clear", note)
    outcome.drop_checkpoints(SPEC, Place(tmp_path), study, "mlp", everywhere=True)
    assert cleared == ["mlp-4"]


def test_a_search_whose_folder_is_gone_can_be_started(tmp_path: Path) -> None:
    outcome.drop_checkpoints(SPEC, Place(tmp_path), finished(0.5), "mlp", everywhere=True)
    assert not (tmp_path / "left").exists()
