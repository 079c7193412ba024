"""What somebody who opens the dashboard sees first, and of a search as it really is."""

from __future__ import annotations

import pytest
from searches_by_hand import make_search, request

from hpsearch import StudySpec, search
from hpsearch.dashboard.app import Dashboard
from hpsearch.dashboard.first_page import first_page
from hpsearch.dashboard.storage import BrowsedStorage
from hpsearch.engine.artifacts import ArtifactFiles
from hpsearch.engine.database import create_storage
from hpsearch.engine.place import Place
from hpsearch.errors import SearchError


def test_it_is_the_best_familys_study_of_the_search_asked_for(place: Place) -> None:
    create_storage(place)
    browsed = BrowsedStorage(place)
    assert first_page(browsed, place, None) is None
    studies = make_search(place)
    assert make_search(place, "later", ("mlp",))["mlp"]._study_id == 3
    page = first_page(browsed, place, "digits")
    assert page is not None
    assert (page.search, page.family, page.path) == ("digits", "mlp", "/dashboard/studies/2")
    studies["logistic"]._storage.delete_study(2)
    page = first_page(browsed, place, "digits")
    assert page is not None
    assert (page.family, page.path) == ("logistic", "/dashboard/studies/1")
    with pytest.raises(SearchError, match="'nothing'"):
        first_page(browsed, place, "nothing")


def test_before_a_trial_is_complete_it_is_the_first_familys(place: Place) -> None:
    make_search(place)
    with create_storage(place).engine.begin() as connection:
        connection.exec_driver_sql("UPDATE trials SET state = 'FAIL'")
    page = first_page(BrowsedStorage(place), place, None)
    assert page is not None
    assert page.family == "logistic"


def test_a_real_search(place: Place) -> None:
    spec = StudySpec(
        families=("logistic",), trials=2, epochs=2, precision="fp32", overrides={"batch_size": 128}
    )
    record = search(spec, runs=place.runs, device="cpu")
    browsed = BrowsedStorage(place)
    page = first_page(browsed, place, None)
    assert page is not None
    assert (page.search, page.family) == (record.name, "logistic")
    app = Dashboard(browsed, ArtifactFiles(place.artifacts))
    found = request(app, page.path.replace("/dashboard", "/api")).json()
    assert [trial["state"] for trial in found["trials"]] == ["Complete", "Complete"]
    assert [best["number"] for best in found["best_trials"]] == [record.best.number]
    for trial in found["trials"]:
        assert len(trial["intermediate_values"]) == 2
        for artifact in trial["artifacts"]:
            path = f"/artifacts/1/{trial['trial_id']}/{artifact['artifact_id']}"
            assert request(app, path).code == 200
