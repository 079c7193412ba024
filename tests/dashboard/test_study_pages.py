"""The data of a study's page: the same as the library's own, made from what has changed."""

from __future__ import annotations

import json
from typing import Any
from unittest import mock

import optuna
import pytest
from optuna.trial import TrialState
from optuna_dashboard import save_note, save_plotly_graph_object, wsgi
from plotly.graph_objects import Figure
from searches_by_hand import add_trial, make_search, request

from hpsearch.dashboard import studies as module
from hpsearch.dashboard.app import Dashboard
from hpsearch.dashboard.storage import BrowsedStorage
from hpsearch.engine.artifacts import ArtifactFiles
from hpsearch.engine.database import create_storage, open_storage
from hpsearch.engine.place import Place


def ours(place: Place) -> Dashboard:
    return Dashboard(BrowsedStorage(place), ArtifactFiles(place.artifacts))


def page(app: Any, study_id: int, after: int = 0) -> Any:
    reply = request(app, f"/api/studies/{study_id}", f"after={after}")
    assert reply.code == 200
    found = reply.json()
    # The library has these in any order.
    for trial in (*found["trials"], *found["best_trials"]):
        trial["artifacts"].sort(key=str)
        trial["user_attrs"].sort(key=str)
    found["plotly_graph_objects"].sort(key=lambda plot: str(plot["id"]))
    for names in ("union_search_space", "intersection_search_space", "union_user_attrs"):
        for entry in found[names]:
            entry.get("distribution", {}).get("choices", []).sort(key=str)
        found[names] = sorted(map(json.dumps, found[names]))
    return found


def assert_as_the_library(place: Place, app: Dashboard, study_ids: list[int]) -> None:
    theirs = wsgi(open_storage(place), ArtifactFiles(place.artifacts))
    for study_id in study_ids:
        for after in (0, 2, 99):
            wanted = page(theirs, study_id, after)
            # Whole documents are left out.
            short = [attr for attr in wanted["user_attrs"] if attr["value"][0] not in "[{"]
            assert page(app, study_id, after) == {**wanted, "user_attrs": short}


def test_documents_are_left_out_of_the_attributes(place: Place) -> None:
    study = make_search(place, families=("mlp",))["mlp"]
    study.set_user_attr("words", ["a", "b"])
    study.set_user_attr("threads", 2)
    assert {"spec", "data", "words"} <= study.user_attrs.keys()
    shown = {attr["key"]: attr["value"] for attr in page(ours(place), 1)["user_attrs"]}
    assert shown.keys() == {"search", "family", "last_started", "ready", "threads"}
    assert shown["threads"] == "2"


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_it_is_what_the_library_says_while_a_search_goes_on(place: Place) -> None:
    study = make_search(place, families=("mlp",))["mlp"]
    app = ours(place)
    assert_as_the_library(place, app, [1])
    figure = Figure({"data": [{"y": [1, 2]}]})
    save_plotly_graph_object(study, figure, graph_object_id="1")  # looks like the id of a trial
    study.set_metric_names(["validation accuracy"])
    study.enqueue_trial({"lr": 0.1})
    running = study.ask()
    waiting = optuna.trial.create_trial(state=TrialState.WAITING)
    study.add_trial(waiting)
    running.suggest_int("only here", 1, 3)
    running.report(float("inf"), 0)
    running.report(float("nan"), 1)
    running.set_user_attr("odd", float("nan"))
    assert_as_the_library(place, app, [1])
    study.tell(running, 0.3)
    add_trial(place, study, 0.99)
    assert_as_the_library(place, app, [1])
    trial = study.get_trials()[0]
    # Notes belong to the study, so that finished trials can get others.
    study._storage.set_study_system_attr(1, f"dashboard:{trial._trial_id}:note_str:0", "new")
    save_note(study, "long " * 1000)
    assert_as_the_library(place, app, [1])
    assert page(app, 1)["trials"][0]["note"]["body"] == "new"


@pytest.mark.parametrize(
    "directions", [["minimize"], ["maximize", "minimize"], ["maximize", "minimize", "minimize"]]
)
def test_the_best_trials_for_all_kinds_of_objectives(place: Place, directions: list[str]) -> None:
    study = optuna.create_study(
        study_name="s", storage=create_storage(place), directions=directions
    )
    assert_as_the_library(place, ours(place), [1])
    for number in range(9):
        values = [(number * (3 + place_) + 5) % 7 for place_ in range(len(directions))]
        study.tell(study.ask(), values)
    study.tell(study.ask(), [float("-inf")] + [float("inf")] * (len(directions) - 1))
    study.tell(study.ask(), state=TrialState.FAIL)
    assert_as_the_library(place, ours(place), [1])


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_of_equally_good_trials_the_one_with_the_lower_loss_is_the_best(
    place: Place, direction: str
) -> None:
    study = optuna.create_study(study_name="s", storage=create_storage(place), direction=direction)
    for loss in (0.4, 0.2, 0.3):
        trial = study.ask()
        trial.set_user_attr("val_loss", loss)
        study.tell(trial, 0.5)
    assert [trial["number"] for trial in page(ours(place), 1)["best_trials"]] == [1]


def test_what_is_finished_is_written_once(place: Place) -> None:
    study = make_search(place, families=("mlp",))["mlp"]
    app = ours(place)
    first = page(app, 1)
    written = mock.Mock(side_effect=module.serialize_frozen_trial)
    with mock.patch.object(module, "serialize_frozen_trial", written):
        assert page(app, 1) == first
        assert written.call_count == 0
        running = study.ask()
        running.suggest_float("lr", 1e-4, 1e-1, log=True)
        assert len(page(app, 1)["trials"]) == 4
        running.report(0.5, 0)
        assert page(app, 1, 3)["trials"][0]["intermediate_values"] == [{"step": 0, "value": 0.5}]
        assert written.call_count == 2
        assert page(app, 1, 3)["trials"][0]["number"] == 3


def test_a_study_made_under_a_deleted_ones_number_is_another_one(place: Place) -> None:
    make_search(place, families=("mlp",))
    app = ours(place)
    before = page(app, 1)
    storage = create_storage(place)
    storage.delete_study(1)
    assert request(app, "/api/studies/1").code == 404
    study = make_search(place, families=("mlp",))["mlp"]
    assert study._study_id == 1  # SQLite gives free numbers again
    assert_as_the_library(place, app, [1])
    for old, new in zip(before["trials"], page(app, 1)["trials"], strict=True):
        assert old["trial_id"] == new["trial_id"]
        assert old["datetime_start"] != new["datetime_start"]


def test_with_many_trials_the_page_leaves_out_a_plot_with_a_line_for_each(place: Place) -> None:
    study = make_search(place, families=("mlp",))["mlp"]
    app = ours(place)
    assert page(app, 1)["has_intermediate_values"] is True
    with mock.patch.object(module, "_MOST_CURVES", 3):
        add_trial(place, study, 0.9)
        found = page(app, 1)
    assert found["has_intermediate_values"] is False
    assert len(found["trials"][-1]["intermediate_values"]) == 3


@pytest.mark.parametrize("after", ["-1", "x", "", "1.5", "١", "9" * 400])
def test_a_number_of_trials_that_is_none_is_refused(shown: Place, after: str) -> None:
    reply = request(ours(shown), "/api/studies/1", f"after={after}")
    assert reply.code == (400 if after else 200)


def test_studies_that_are_not_there(shown: Place) -> None:
    app = ours(shown)
    assert request(app, "/api/studies/99").code == 404
    assert request(app, "/api/studies/" + "9" * 30).code in (404, 500)
    assert request(app, "/api/studies/99/param_importances").code == 404
