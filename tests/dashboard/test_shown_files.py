"""Artifacts as browsers get them: pictures and tables shown, all else saved, nothing run."""

from __future__ import annotations

import os
import re
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from searches_by_hand import FILES, add_trial, make_search, request

from hpsearch.dashboard.app import Dashboard
from hpsearch.dashboard.files import SHOWN, content_type, disposition, file_name
from hpsearch.dashboard.storage import BrowsedStorage
from hpsearch.engine.artifacts import ArtifactFiles
from hpsearch.engine.place import Place

METAS = st.fixed_dictionaries(
    {
        "filename": st.text(max_size=300),
        "mimetype": st.one_of(
            st.sampled_from([*SHOWN, "text/html", "image/svg+xml", "application/pdf", "text/xml"]),
            st.text(max_size=40),
        ),
        "encoding": st.sampled_from([None, "gzip"]),
    }
)


@given(METAS)
def test_a_type_that_is_not_known_to_be_harmless_is_saved(meta: dict[str, Any]) -> None:
    kind, header = content_type(meta), disposition(meta)
    if header.startswith("inline"):
        assert kind.split(";")[0] not in ("text/html", "image/svg+xml", "application/pdf")
        assert kind in SHOWN.values()
        assert meta["encoding"] is None
    else:
        assert header.startswith("attachment; ")
        assert kind == "application/octet-stream"


@given(METAS)
@example({"filename": 'a"; filename="b', "mimetype": "image/png", "encoding": None})
@example({"filename": "a\r\nSet-Cookie: x=1", "mimetype": "image/png", "encoding": None})
def test_a_name_cannot_break_out_of_its_header(meta: dict[str, Any]) -> None:
    header = disposition(meta)
    assert re.fullmatch(
        r"(inline|attachment); filename=\"[ -~]*\"; filename\*=UTF-8''[A-Za-z0-9._~%-]*", header
    )
    assert header.count('"') == 2
    message = Message()
    message["Content-Disposition"] = header
    assert message.get_content_disposition() in ("inline", "attachment")


@given(st.text(max_size=300))
@example("../../etc/passwd")
@example("..\\..\\boot.ini")
@example("/etc/passwd")
@example(".bashrc")
@example("x" * 400 + ".png")
@example("photo\u202egnp.exe")
def test_a_file_is_saved_under_a_plain_name(name: str) -> None:
    plain = file_name(name)
    assert 0 < len(plain) <= 150
    assert plain.isprintable()
    assert not plain.startswith(".")
    assert not re.search(r'[\\/:*?"<>|]', plain)


def test_names_that_are_fine_stay() -> None:
    for name in ("history.csv", "lernkurve größe 3.png", "a.tar.gz"):
        assert file_name(name) == name
    assert file_name("x" * 400 + ".png").endswith(".png")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, dict[str, str]]:
    """A place, and the ids of the artifacts of trial 4 of study 1 by their names."""
    place = Place.of(tmp_path_factory.mktemp("files") / "runs")
    return place, add_trial(place, make_search(place, families=("mlp",))["mlp"], 0.9)


@pytest.fixture(scope="module")
def app(files: tuple[Place, dict[str, str]]) -> Dashboard:
    place, _ = files
    return Dashboard(BrowsedStorage(place), ArtifactFiles(place.artifacts))


def test_pictures_and_tables_are_shown_and_what_could_act_is_saved(
    app: Dashboard, files: tuple[Place, dict[str, str]]
) -> None:
    shown = {"learning_curves.png": "image/png", "history.csv": "text/csv; charset=utf-8"}
    for name, artifact in files[1].items():
        reply = request(app, f"/artifacts/1/4/{artifact}")
        assert (reply.code, reply.body) == (200, FILES[name])
        assert reply.header("Content-Length") == str(len(FILES[name]))
        assert reply.header("Content-Type") == shown.get(name, "application/octet-stream")
        verb = "inline" if name in shown else "attachment"
        assert str(reply.header("Content-Disposition")).startswith(f'{verb}; filename="{name}"')
        assert "sandbox" in str(reply.header("Content-Security-Policy"))


def test_a_file_that_has_not_changed_is_not_sent_again(
    app: Dashboard, files: tuple[Place, dict[str, str]]
) -> None:
    place, ids = files
    path = f"/artifacts/1/4/{ids['history.csv']}"
    tag = str(request(app, path).header("ETag"))
    again = request(app, path, if_none_match=tag)
    assert (again.code, again.body) == (304, b"")
    ArtifactFiles(place.artifacts).write(ids["history.csv"], _stream(b"better\n"))
    assert request(app, path, if_none_match=tag).body == b"better\n"
    ArtifactFiles(place.artifacts).write(ids["history.csv"], _stream(FILES["history.csv"]))


def _stream(content: bytes) -> Any:
    import io

    return io.BytesIO(content)


def test_an_artifact_is_found_with_its_own_trial_only(
    app: Dashboard, files: tuple[Place, dict[str, str]]
) -> None:
    artifact = files[1]["history.csv"]
    for path in (f"1/3/{artifact}", f"1/{artifact}", f"2/4/{artifact}", f"1/4444/{artifact}"):
        assert request(app, f"/artifacts/{path}").code == 404


@pytest.mark.parametrize(
    "path",
    [
        *("/artifacts/1/4/../../hpsearch.db", "/artifacts/1/4/..", "/artifacts/1/4//etc/passwd"),
        *("/artifacts/1/4/..\\..\\hpsearch.db", "/artifacts/1/4/%2e%2e%2fhpsearch.db"),
        *("/artifacts/1/4/-", "/artifacts/1/4/0-0", "/artifacts/1/4/ABCDEF", "/artifacts/1/4/"),
        *("/artifacts/../../../etc/passwd", "/artifacts", "/artifacts/", "/artifacts/1"),
        *("/artifacts/1/4/a\0b", "/artifacts/x/4/ab", "/artifacts/1/4/ab/cd", "/artifacts/-1/ab"),
        *("/artifacts/١/4/ab", "/artifacts/99999999999999999999/ab", "/static/../index.html"),
        *("/static/..%2findex.html", "/static/%2e%2e/_app.py", "/static/../../../etc/passwd"),
    ],
)
def test_a_path_that_leaves_its_folder_leads_nowhere(app: Dashboard, path: str) -> None:
    reply = request(app, path)
    assert reply.code == 404
    assert b"root:" not in reply.body


def test_a_file_that_is_missing_or_a_link_or_a_folder_is_not_there(
    app: Dashboard, files: tuple[Place, dict[str, str]], tmp_path: Path
) -> None:
    place, ids = files
    artifact = ids["drawing.svg"]
    path, aside = place.artifacts / artifact, tmp_path / "aside"
    path.rename(aside)
    try:
        assert request(app, f"/artifacts/1/4/{artifact}").code == 404
        path.symlink_to("/etc/passwd")
        assert request(app, f"/artifacts/1/4/{artifact}").code == 404
        path.unlink()
        path.mkdir()
        assert request(app, f"/artifacts/1/4/{artifact}").code == 404
        path.rmdir()
        if hasattr(os, "mkfifo"):
            os.mkfifo(path)
            assert request(app, f"/artifacts/1/4/{artifact}").code == 404
            path.unlink()
    finally:
        aside.rename(path)
    assert request(app, f"/artifacts/1/4/{artifact}").code == 200
