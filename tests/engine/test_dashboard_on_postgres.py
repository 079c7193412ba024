"""The dashboard over a PostgreSQL database, which it can only read, and which goes away at times.

It is here for the servers of this folder's fixtures.
"""

from __future__ import annotations

import http.client
import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
import pytest
from optuna.exceptions import StorageInternalError

from hpsearch.dashboard.server import DashboardServer
from hpsearch.dashboard.storage import BrowsedStorage
from hpsearch.engine.database import create_storage, open_storage
from hpsearch.engine.place import Place

if TYPE_CHECKING:
    from conftest import PostgresServer


def make_study(place: Place) -> optuna.Study:
    study = optuna.create_study(
        study_name="digits/mlp", storage=create_storage(place), direction="maximize"
    )
    for value in (0.25, float("-inf"), 0.75):
        trial = study.ask()
        trial.suggest_float("lr", 1e-4, 1e-1, log=True)
        trial.report(value, 0)
        trial.set_user_attr("epochs", 3)
        study.tell(trial, value)
    return study


def test_a_session_that_cannot_write(pg_url: str, tmp_path: Path) -> None:
    place = Place.of(tmp_path, pg_url)
    study = make_study(place)
    browsed = BrowsedStorage(place)
    assert browsed.trials(study._study_id) == open_storage(place).get_all_trials(study._study_id)
    with pytest.raises(StorageInternalError):
        browsed.set_study_user_attr(study._study_id, "x", 1)
    assert "read-only transaction" in browsed.trouble
    with browsed.engine.connect() as connection:
        zone = connection.exec_driver_sql("SHOW timezone").scalar()
    assert zone == "UTC"


def ask(server: DashboardServer, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_a_server_that_goes_away_and_comes_back(
    own_postgres: PostgresServer, tmp_path: Path
) -> None:
    with own_postgres.database() as url:
        place = Place.of(tmp_path, url)
        study = make_study(place)
        with DashboardServer(place, port=0) as server:
            thread = threading.Thread(target=server.serve)
            thread.start()
            try:
                page = f"/api/studies/{study._study_id}"
                assert len(json.loads(ask(server, page)[1])["trials"]) == 3
                own_postgres.stop()
                for path in (page, "/api/studies", "/dashboard"):
                    code, reason = ask(server, path)
                    assert code == 503
                    assert own_postgres.secret not in reason
                    assert "does not answer" in reason
                own_postgres.start()
                code, body = ask(server, page)
                assert code == 200
                assert json.loads(body)["best_trials"][0]["values"] == [0.75]
            finally:
                server.stop()
                thread.join(30)
