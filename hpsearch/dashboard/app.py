"""optuna-dashboard over the searches of a place: the library's, but for what is slow or unsafe
there.
"""

from __future__ import annotations

import dataclasses
import io
import logging
import re
from collections.abc import Iterable
from http import HTTPStatus
from urllib.parse import parse_qs
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from optuna.artifacts._protocol import ArtifactStore
from optuna_dashboard import wsgi

from hpsearch.dashboard.answers import Answer, answer, ask, refusal
from hpsearch.dashboard.files import Artifacts
from hpsearch.dashboard.guard import READING
from hpsearch.dashboard.storage import BrowsedStorage
from hpsearch.dashboard.studies import StudyPages
from hpsearch.engine.storage import SearchStorage

HOME = "/dashboard"

_MOST_DIGITS = 9
_NUMBER = re.compile(rf"/-?\d{{{_MOST_DIGITS + 1},}}(?=/|$)")
"""A part of a path that would be no number of a study or a trial for a database."""
_STUDY = re.compile(r"/api/studies/(\d+)", re.ASCII)
_ARTIFACT = re.compile(r"/artifacts/(\d+)/(?:(\d+)/)?([0-9a-fA-F-]+)", re.ASCII)
_HEAD_ENDS = b"</head>"
_CHANGING = ", ".join(
    (
        '[aria-label^="delete "]',
        '[aria-label^="rename "]',
        *(f"button:has([data-testid={icon}])" for icon in ("AddBoxIcon", "EditIcon")),
        ".MuiCard-root:has(> button [data-testid=UploadFileIcon])",
    )
)
"""What on the page changes something, as its style sheets know it."""
_AWAY_SECONDS = "5"


class Dashboard:
    """The WSGI application, which lets everybody do everything (see `guard.py`).

    Args:
        reader: what is shown.
        files: the artifacts.
        writer: where changes are written; None: there are none.
    """

    def __init__(
        self, reader: BrowsedStorage, files: ArtifactStore, writer: SearchStorage | None = None
    ) -> None:
        self._reader = reader
        self._studies = StudyPages(reader)
        self._artifacts = Artifacts(reader, files)
        self._reading = wsgi(reader, files)
        self._writing = self._reading if writer is None else wsgi(writer, files)
        # The library reports all that fails, with a traceback; a database that is away is no fault.
        logging.getLogger("optuna_dashboard._bottle_util").addFilter(lambda _: not reader.trouble)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answers a request."""
        self._reader.forget_trouble()
        try:
            found = self._answer(environ)
        except Exception:
            if not self._reader.trouble:
                raise
            found = self._away(environ)
        return found.send(environ, start_response)

    def _answer(self, environ: WSGIEnvironment) -> Answer:
        path = environ["PATH_INFO"].rstrip("/")
        if not path:
            return answer(HTTPStatus.FOUND, b"", "text/plain", ("Location", HOME))
        if "\0" in path or ".." in re.split(r"[/\\]", path) or _NUMBER.search(path):
            return refusal(environ, HTTPStatus.NOT_FOUND, "there is no such page")
        if environ["REQUEST_METHOD"] not in READING:
            return self._library(self._writing, environ)
        if path.startswith("/artifacts/"):
            return self._artifact(environ, path)
        study = _STUDY.fullmatch(path)
        page = None if study is None else self._study(environ, int(study[1]))
        page = page or self._library(self._reading, environ)
        is_shown = environ["REQUEST_METHOD"] == "GET" and path.startswith(HOME)
        return _without_buttons(page) if is_shown and self._reading is self._writing else page

    def _artifact(self, environ: WSGIEnvironment, path: str) -> Answer:
        named = _ARTIFACT.fullmatch(path)
        if named is None:
            return refusal(environ, HTTPStatus.NOT_FOUND, "there is no such artifact")
        trial_id = None if named[2] is None else int(named[2])
        return self._artifacts.answer(environ, int(named[1]), trial_id, named[3])

    def _study(self, environ: WSGIEnvironment, study_id: int) -> Answer | None:
        after = parse_qs(environ.get("QUERY_STRING", "")).get("after", ["0"])[0]
        if not (after.isascii() and after.isdigit()) or len(after) > _MOST_DIGITS:
            return refusal(environ, HTTPStatus.BAD_REQUEST, "'after' is a number of trials")
        try:
            page = self._studies.page(study_id, int(after))
        except KeyError:
            return refusal(environ, HTTPStatus.NOT_FOUND, f"there is no study {study_id}")
        return None if page is None else answer(HTTPStatus.OK, page, "application/json")

    def _library(self, app: WSGIApplication, environ: WSGIEnvironment) -> Answer:
        """The library's own answer."""
        complaints = io.StringIO()
        # It fails for a program that does not say what it accepts.
        accepted = environ.get("HTTP_ACCEPT_ENCODING", "")
        own = {"HTTP_ACCEPT_ENCODING": accepted, "wsgi.errors": complaints}
        found = ask(app, {**environ, **own})
        if found.code < HTTPStatus.INTERNAL_SERVER_ERROR:
            return found
        self._reader.get_all_studies()  # raises where it is the database that is away
        if complaints.getvalue():
            raise RuntimeError(f"optuna-dashboard failed: {complaints.getvalue()}")
        return found

    def _away(self, environ: WSGIEnvironment) -> Answer:
        return refusal(
            environ,
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"the database does not answer ({self._reader.trouble}); this page is back when it is",
            ("Retry-After", _AWAY_SECONDS),
        )


def _without_buttons(page: Answer) -> Answer:
    """The dashboard's page without what would only be refused; other answers as they are."""
    if page.code != HTTPStatus.OK or not page.header("Content-Type").startswith("text/html"):
        return page
    text = b"".join(page.body)
    page.close()
    style = f"<style>{_CHANGING} {{ display: none !important }}</style>".encode()
    text = text.replace(_HEAD_ENDS, style + _HEAD_ENDS, 1)
    kept = page.without("Content-Length", "Last-Modified", "ETag", "Accept-Ranges")
    return dataclasses.replace(kept, body=[text]).plus(("Content-Length", str(len(text))))
