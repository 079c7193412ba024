"""A trial that is claimed: what it looks at before it trains."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from hpsearch import StudySpec, load_search, search
from hpsearch.engine.database import create_storage, open_storage
from hpsearch.engine.hidden import CONFIG, hide
from hpsearch.engine.lease_table import LeaseLostError
from hpsearch.engine.leases import Claim, Leases, Share
from hpsearch.engine.place import DATABASE, Place
from hpsearch.engine.states import DUPLICATE
from hpsearch.engine.storage import SearchStorage, quiet_optuna
from hpsearch.engine.trial import Trial

SPEC = StudySpec(name="s", families=("cnn",))


class Process:
    """What a worker process has, with a storage of its own."""

    def __init__(self, place: Place, owner: str, *, creates: bool = False) -> None:
        self.place = place
        self.storage: SearchStorage = create_storage(place)
        with quiet_optuna():
            make = optuna.create_study if creates else optuna.load_study
            self.study = make(study_name="s/cnn", storage=self.storage)
        self.leases = Leases(self.storage, place, owner)

    def claim(self) -> Trial:
        shares = {"cnn": Share(study_id=self.study._study_id, trials=9)}
        claim = self.leases.claim(shares, attempts=2)
        assert isinstance(claim, Claim)
        worker: Any = SimpleNamespace(spec=SPEC, place=self.place)
        return Trial(worker, self.study, "cnn", claim)


@pytest.fixture
def two(tmp_path: Path) -> tuple[Process, Process]:
    place = Place(tmp_path)
    return Process(place, "here/1", creates=True), Process(place, "here/2")


def asked(process: Process, trial: Trial) -> optuna.Trial:
    """The trial with the only parameters that there are."""
    own = optuna.Trial(process.study, trial._claim.lease.trial_id)
    own.suggest_categorical("x", ["the only one"])
    return own


class TestWhatIsDrawnTwiceAtTheSameMoment:
    def test_the_later_one_yields_though_it_was_claimed_before(
        self, two: tuple[Process, Process]
    ) -> None:
        first, second = (process.claim() for process in two)
        assert not first._measured(asked(two[0], first))
        theirs = asked(two[1], second)
        assert second._measured(theirs)
        assert theirs.user_attrs[DUPLICATE] == "cnn-0 has the same parameters"

    def test_one_that_trains_already_is_not_doubled_by_a_lower_number(
        self, two: tuple[Process, Process]
    ) -> None:
        first, second = (process.claim() for process in two)
        theirs = asked(two[1], second)
        assert not second._measured(theirs)
        hide(two[1].study, theirs._trial_id, CONFIG, {})
        assert first._measured(asked(two[0], first))

    def test_of_two_that_look_at_once_one_goes_on(self, two: tuple[Process, Process]) -> None:
        trials = [process.claim() for process in two]
        drawn = [asked(process, trial) for process, trial in zip(two, trials, strict=True)]
        found = [trial._measured(own) for trial, own in zip(trials, drawn, strict=True)]
        assert found == [False, True]


def test_who_lost_a_trial_before_it_began_touches_no_files(two: tuple[Process, Process]) -> None:
    trial = two[0].claim()
    folder = two[0].place.runs / "s" / "cnn-0"
    adopters = folder.with_name("cnn-0.attempt-2")
    for path in (folder, adopters):
        path.mkdir(parents=True)
        (path / "checkpoint.pt").write_bytes(b"the adopter's")
    with pytest.raises(LeaseLostError):
        trial.run(threading.Event(), lambda: False)
    assert (folder / "checkpoint.pt").is_file()
    assert (adopters / "checkpoint.pt").is_file()


@pytest.mark.parametrize("left", ["nothing", "half of it"])
def test_a_database_that_was_not_finished_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    place = Place(tmp_path / "runs")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("hpsearch.engine.lease_table.create", killed)
        with pytest.raises(KeyboardInterrupt):
            create_storage(place)
    assert not place.database.exists()
    if left == "nothing":  # as another program leaves it that only looked
        (place.runs / DATABASE).touch()
    create_storage(place)
    assert optuna.get_all_study_names(storage=open_storage(place)) == []


def test_trials_of_several_objectives_show_how_far_they_got(tmp_path: Path) -> None:
    spec = StudySpec(
        families=("logistic",),
        trials=1,
        epochs=3,
        objective="val_accuracy,params",
        artifacts="none",
    )
    record = search(spec, runs=tmp_path, device="cpu")
    study = optuna.load_study(study_name="digits/logistic", storage=open_storage(record.place))
    (trial,) = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
    assert list(trial.intermediate_values) == [0, 1, 2]
    assert trial.values == list(record.best.values)
    assert load_search(tmp_path).pareto() == [record.best]
