"""The server over real sockets: ports, tokens, outages, searches that come and go."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from searches_by_hand import add_trial, make_search

from hpsearch.dashboard.server import DashboardServer
from hpsearch.engine.database import create_storage
from hpsearch.engine.place import Place
from hpsearch.errors import SearchError


@contextlib.contextmanager
def serving(place: Place, name: str | None = None, **options: Any) -> Iterator[DashboardServer]:
    """A server that answers in a thread of its own."""
    with DashboardServer(place, name, port=options.pop("port", 0), **options) as server:
        thread = threading.Thread(target=server.serve)
        thread.start()
        try:
            yield server
        finally:
            server.stop()
            thread.join(30)
            assert not thread.is_alive()


def ask(
    server: DashboardServer,
    path: str,
    method: str = "GET",
    body: Any = None,
    **headers: str,
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request(
            method,
            path,
            None if body is None else json.dumps(body),
            {"Content-Type": "application/json", **headers},
        )
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def names(server: DashboardServer, **headers: str) -> list[str]:
    code, _, body = ask(server, "/api/studies", **headers)
    assert code == 200
    return [study["study_name"] for study in json.loads(body)["study_summaries"]]


def test_the_studies_and_the_page_of_the_best_family(shown: Place) -> None:
    with serving(shown) as server:
        assert names(server) == ["digits/logistic", "digits/mlp"]
        assert server.page is not None
        assert (server.page.search, server.page.family) == ("digits", "mlp")
        assert server.address(server.page.path).endswith("/dashboard/studies/2")
        code, headers, _ = ask(server, "/")
        assert (code, headers["Location"]) == (302, "/dashboard")
        code, headers, body = ask(server, server.page.path)
        assert code == 200
        assert b"bundle.js" in body
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "Server" not in headers
        assert ask(server, "/dashboard", Host="evil.example")[0] == 421
        assert ask(server, "/favicon.ico")[0] == 200


def test_a_port_that_is_taken_and_is_free_again(shown: Place) -> None:
    with serving(shown) as first:
        with serving(shown, port=first.port) as second:
            assert first.port < second.port <= first.port + 100
            assert names(second)
        threads = threading.active_count()
    with serving(shown, port=first.port) as third:
        assert third.port == first.port
        assert threading.active_count() <= threads + 1
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", first.port)) != 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"host": "203.0.113.1"}, "'203.0.113.1' is of another machine"),
        ({"host": "no.such.host.invalid"}, "no.such.host.invalid"),
        ({"token": "short"}, "--token"),
        ({"token": "lötter-und-mehr"}, "--token"),
        ({"allowed_hosts": ["a b"]}, "--allow-host"),
        ({"name": "nothing"}, "'nothing'"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(
    shown: Place, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(SearchError) as caught:
        DashboardServer(shown, **{"port": 0, **options})
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_machines_need_the_token_that_is_in_the_address(shown: Place) -> None:
    with serving(shown, host="0.0.0.0") as server:
        assert not server.is_local
        assert server.token is not None
        assert len(server.token) >= 20
        here = server.address(here=True)
        assert here == f"http://127.0.0.1:{server.port}/dashboard?token={server.token}"
        assert f"http://{socket.gethostname()}:" in server.address()
        assert ask(server, "/api/studies")[0] == 401
        code, headers, _ = ask(server, here.removeprefix(f"http://127.0.0.1:{server.port}"))
        assert (code, headers["Location"]) == (303, "/dashboard")
        assert names(server, Cookie=headers["Set-Cookie"].split(";")[0])
        assert names(server, Authorization=f"Bearer {server.token}", Host="198.51.100.7")
    with serving(shown, host="0.0.0.0") as other:
        assert other.token != server.token
    with serving(shown, token="one of my own") as own:
        assert own.is_local
        assert own.address().endswith("?token=one%20of%20my%20own")
        assert ask(own, "/api/studies")[0] == 401
    with serving(shown) as local:
        assert local.token is None


def test_who_may_only_look_changes_nothing(place: Place) -> None:
    make_search(place)
    with serving(place) as server:
        for method, path, body in (
            ("DELETE", "/api/studies/1", {}),
            ("POST", "/api/studies", {"study_name": "new", "directions": ["minimize"]}),
            ("PUT", "/api/studies/1/note", {"version": 2, "body": "mine"}),
            ("POST", "/api/studies/1/rename", {"study_name": "other"}),
            ("POST", "/api/artifacts/1", {"file": "data:,x", "filename": "x"}),
            ("POST", "/api/studies/1/preference", {}),
            ("POST", "/api/llm/trial_filter_query", {"user_query": "x"}),
            ("POST", "/incompatible-rdb-schema", {}),
        ):
            code, _, answer = ask(server, path, method, body)
            assert code == 403
            assert "--allow-write" in json.loads(answer)["reason"]
        assert names(server) == ["digits/logistic", "digits/mlp"]


def test_who_may_write_changes_notes_and_deletes(place: Place) -> None:
    studies = make_search(place)
    ids = add_trial(place, studies["mlp"], 0.9)
    with serving(place, writable=True) as server:
        own = {"Origin": f"http://127.0.0.1:{server.port}", "Sec-Fetch-Site": "same-origin"}
        note = {"version": 2, "body": "mine"}
        evil = {"Origin": "http://evil.example"}
        assert ask(server, "/api/studies/1/note", "PUT", note, **evil)[0] == 403
        assert ask(server, "/api/studies/1/note", "PUT", note, **own)[0] == 204
        study = json.loads(ask(server, "/api/studies/1")[2])
        assert study["note"] == note
        assert ask(server, f"/artifacts/2/7/{ids['history.csv']}")[0] == 200
        assert ask(server, "/api/studies/2", "DELETE", {}, **own)[0] == 204
        assert names(server) == ["digits/logistic"]
        assert ask(server, "/api/studies/2")[0] == 404
        assert ask(server, f"/artifacts/2/7/{ids['history.csv']}")[0] == 404
        assert not (place.artifacts / ids["history.csv"]).exists()


def test_a_database_that_goes_away_and_comes_back(place: Place, tmp_path: Path) -> None:
    make_search(place)
    with serving(place) as server:
        assert ask(server, "/api/studies/1")[0] == 200
        place.database.rename(tmp_path / "aside.db")
        for path in (
            *("/api/studies", "/api/studies/1", "/api/studies/1/param_importances", "/csv/1"),
            *("/artifacts/1/1/ab", "/dashboard"),
        ):
            code, headers, body = ask(server, path)
            assert code == 503, path
            assert headers["Retry-After"]
            assert "unable to open database file" in json.loads(body)["reason"]
        _, _, page = ask(server, "/dashboard", Accept="text/html")
        assert b"<p>the database does not answer" in page
        assert not place.database.exists()
        (tmp_path / "aside.db").rename(place.database)
        assert names(server) == ["digits/logistic", "digits/mlp"]
        assert ask(server, "/api/studies/1/param_importances")[0] == 200


def test_searches_that_are_made_and_deleted_meanwhile(place: Place) -> None:
    create_storage(place)
    with serving(place) as server:
        assert server.page is None
        assert names(server) == []
        studies = make_search(place)
        assert names(server) == ["digits/logistic", "digits/mlp"]
        add_trial(place, studies["mlp"], 0.9)
        assert len(json.loads(ask(server, "/api/studies/2")[2])["trials"]) == 4
        for study in studies.values():
            study._storage.delete_study(study._study_id)
        assert names(server) == []
        assert ask(server, "/api/studies/2?after=4")[0] == 404
        with serving(place) as later:
            assert later.page is None


def test_paths_as_no_browser_sends_them(shown: Place) -> None:
    with serving(shown) as server:
        for path in (
            *("/artifacts/1/1/..%2f..%2fhpsearch.db", "/artifacts/1/1/%2e%2e/%2e%2e/hpsearch.db"),
            *("/artifacts/../../../../etc/passwd", "/artifacts/1/1//etc/passwd"),
            *("/artifacts/1/1/..%5c..%5chpsearch.db", "/static/..%2f..%2f_app.py"),
            *("/artifacts/1/1/%00", "/artifacts/%2fetc%2fpasswd"),
            *(f"/csv/{'9' * 23}", f"/api/studies/-{'9' * 5000}/param_importances"),
            f"/api/studies/{1 << 40}/plot/edf",
        ):
            code, _, body = ask(server, path)
            assert code == 404, path
            assert b"SQLite" not in body
            assert b"root:" not in body
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:
            raw.sendall(
                b"GET http://evil.example/api/studies HTTP/1.1\r\nHost: evil.example\r\n\r\n"
            )
            assert raw.recv(100).startswith(b"HTTP/1.1 421 ")
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw:
            raw.sendall(b"GET /api/studies HTTP/1.0\r\n\r\n")
            assert raw.recv(100).startswith(b"HTTP/1.0 421 ")
