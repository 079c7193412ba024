"""Searches made by hand, as a dashboard finds them, and requests to it."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

import optuna
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from optuna_dashboard import save_note
from PIL import Image

from hpsearch.engine.database import create_storage
from hpsearch.engine.place import Place, study_name

SCRIPT = "<script>document.title = 'owned'</script>"
MARKUP = f"a class called {SCRIPT} <img src=x onerror=\"document.title='owned'\">"


class Reply:
    """What an application answered to a request."""

    def __init__(self, status: str, headers: list[tuple[str, str]], body: bytes) -> None:
        self.code = int(status.split()[0])
        self.headers = headers
        self.body = body

    def header(self, name: str) -> str | None:
        """The value of a header, which must not be there twice."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        assert len(values) <= 1, values
        return values[0] if values else None

    def json(self) -> Any:
        return json.loads(self.body)


def request(
    app: Callable[..., Iterable[bytes]],
    path: str = "/",
    query: str = "",
    method: str = "GET",
    body: bytes = b"",
    **headers: str,
) -> Reply:
    """Asks a WSGI application, as waitress does."""
    begun: list[Any] = []
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path.encode().decode("latin-1"),
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "8080",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "localhost:8080",
        "CONTENT_LENGTH": str(len(body)),
        "CONTENT_TYPE": "application/json",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        **{f"HTTP_{name.upper()}": value for name, value in headers.items()},
    }
    pieces = app(environ, lambda status, headers, _=None: begun.append((status, headers)))
    try:
        return Reply(*begun[-1], b"".join(pieces))
    finally:
        if hasattr(pieces, "close"):
            pieces.close()


def make_search(
    place: Place, name: str = "digits", families: tuple[str, ...] = ("logistic", "mlp")
) -> dict[str, optuna.Study]:
    """A search as the engine leaves it, with three trials of each family (the last family has the
    best one), notes, and artifacts of all kinds; its studies.
    """
    storage = create_storage(place)
    place.artifacts.mkdir(parents=True, exist_ok=True)
    studies = {}
    for better, family in enumerate(families):
        study = optuna.create_study(
            study_name=study_name(name, family), storage=storage, direction="maximize"
        )
        save_note(study, f"# {name}\n\n{MARKUP}")
        for number in range(3):
            add_trial(place, study, 0.5 + 0.1 * better + 0.01 * number)
        for key, value in {
            "search": name,
            "family": family,
            "spec": {"families": list(families), "name": name},
            "data": {"name": "digits", "classes": [SCRIPT, "b"]},
            "fingerprints": {"data": "d", "split": "s"},
            "last_started": "2026-01-01T00:00:00+00:00",
            "ready": True,
        }.items():
            study.set_user_attr(key, value)
        studies[family] = study
    return studies


def add_trial(place: Place, study: optuna.Study, value: float) -> dict[str, str]:
    """One more trial, and the ids of its artifacts by the name of the file."""
    store = FileSystemArtifactStore(place.artifacts)
    trial = study.ask()
    trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    trial.suggest_categorical("optimizer", ["adamw", "sgd"])
    for step in range(3):
        trial.report(value * (step + 1) / 3, step)
    attrs = {"value": value, "val_accuracy": value, "val_loss": 1 - value, "worst class": SCRIPT}
    for key, attr in attrs.items():
        trial.set_user_attr(key, attr)
    save_note(trial, f"## trial {trial.number}\n\n{MARKUP}")
    ids = {}
    for file, content in FILES.items():
        path = place.runs / file
        path.write_bytes(content)
        ids[file] = upload_artifact(artifact_store=store, file_path=str(path), study_or_trial=trial)
        path.unlink()
    study.tell(trial, value)
    return ids


def _picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (120, 80), "orange").save(buffer, "PNG")
    return buffer.getvalue()


FILES = {
    "learning_curves.png": _picture(),
    "history.csv": b"epoch,val_accuracy\n0,0.25\n1,0.5\n",
    "page.html": f"<title>page</title>{SCRIPT}".encode(),
    "drawing.svg": f'<svg xmlns="http://www.w3.org/2000/svg">{SCRIPT}</svg>'.encode(),
    "checkpoint.pt": b"\x80\x02weights",
}
