"""Searches for several objectives: their specification, studies and records; no training."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import optuna
import pytest

from hpsearch import StudySpec
from hpsearch.engine.database import create_storage
from hpsearch.engine.estimate import Pace
from hpsearch.engine.existing import find_existing
from hpsearch.engine.place import Place
from hpsearch.engine.search_reader import read_search, trial_record
from hpsearch.engine.setup import prepare_data
from hpsearch.engine.studies import create_studies
from hpsearch.errors import SearchError

SPEC = StudySpec(
    families=("logistic",), trials=4, epochs=3, objective="val_accuracy,params", artifacts="none"
)


class TestTheSpecification:
    def test_it_is_a_text_of_one_form(self) -> None:
        spec = StudySpec(objective=" val_accuracy , params")
        assert spec == StudySpec(objective="val_accuracy,params")
        assert spec.to_dict()["objective"] == "val_accuracy,params"
        assert [row.name for row in spec.objectives] == ["val_accuracy", "params"]
        assert [row.name for row in StudySpec().objectives] == ["val_accuracy"]

    @pytest.mark.parametrize(
        ("objective", "part"),
        [
            ("params", "'params'"),
            ("val_accuracy,size", "'size', which is unknown; known: val_accuracy, .*, latency"),
            ("val_loss,params,params", "'params' twice"),
            (None, "but is None"),
        ],
    )
    def test_it_is_checked(self, objective: object, part: str) -> None:
        with pytest.raises(SearchError, match=part):
            StudySpec(objective=objective)  # type: ignore[arg-type]


def test_the_user_is_told_that_nothing_is_pruned(tmp_path: Path) -> None:
    told = "several objectives (val_accuracy, params): no trial is pruned"
    data = prepare_data(SPEC, None, Place.of(tmp_path))
    assert [told in warning for warning in data.warnings].count(True) == 1
    one = dataclasses.replace(SPEC, objective="val_accuracy")
    data = prepare_data(one, None, Place.of(tmp_path))
    assert not any("objectives" in warning for warning in data.warnings)


def test_a_search_from_its_studies_to_its_front(tmp_path: Path) -> None:
    place = Place.of(tmp_path)
    data = prepare_data(SPEC, None, place)
    storage = create_storage(place)
    paces = {"logistic": Pace(precision="fp32")}
    made = create_studies(SPEC, data, storage, place=place, paces=paces, threads=1)
    assert optuna.load_study(study_name="digits/logistic", storage=storage).directions == [
        optuna.study.StudyDirection.MAXIMIZE,
        optuna.study.StudyDirection.MINIMIZE,
    ]
    study = made["logistic"]
    assert study.metric_names == ["validation accuracy", "parameters"]
    given = [(0.9, 9.0), (0.8, 8.0), (0.8, 9.0)]
    for values in given:
        trial = study.ask()
        trial.set_user_attr("value", values[0])
        trial.set_user_attr("values", values)
        trial.set_user_attr("val_loss", 0.5)
        study.tell(trial, values)
    pruned = study.ask()
    study.tell(pruned, state=optuna.trial.TrialState.PRUNED)

    record = read_search(storage, place, "digits")
    assert [row.name for row in record.objectives] == ["val_accuracy", "params"]
    assert [trial.values for trial in record.trials[:4]] == [*given, ()]
    assert {trial.objective for trial in record.trials} == {"val_accuracy"}
    assert [trial.name for trial in record.pareto()] == ["logistic-0", "logistic-1"]
    assert {t.number for t in study.best_trials} == {0, 1}  # Optuna agrees

    existing = find_existing(storage, "digits")
    assert prepare_data(SPEC, existing, place).fingerprints == data.fingerprints
    for other in ("val_accuracy", "val_accuracy,macs", "val_accuracy,params,macs"):
        changed = dataclasses.replace(SPEC, objective=other)
        with pytest.raises(SearchError) as caught:
            prepare_data(changed, existing, place)
        assert f"objective (val_accuracy,params then, {other} now)" in str(caught.value)


@pytest.mark.parametrize("objective", ["val_loss", "val_loss,params,macs"])
def test_a_trials_objective_is_the_first(objective: str, tmp_path: Path) -> None:
    frozen = optuna.trial.create_trial(value=0.3, user_attrs={"value": 0.3, "val_loss": 0.3})
    record = trial_record(Place.of(tmp_path), "digits", "mlp", frozen, objective=objective)
    assert (record.objective, record.values, record.key) == ("val_loss", (), (-0.3, -0.3))
