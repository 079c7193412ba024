"""What the dashboard's server answers: made up first, sent at the end."""

from __future__ import annotations

import dataclasses
import gzip
import html
import json
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_WORTH_ZIPPING = ("application/json", "text/")
_LEAST_ZIPPED = 1_000
_ZIPPED = "gzip"

Headers = tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer to a request.

    Attributes:
        status: as HTTP has it, such as "200 OK".
        headers: their names in any case.
        body: in pieces; it may be a file.
    """

    status: str
    headers: Headers
    body: Iterable[bytes]

    @property
    def code(self) -> int:
        """The status as a number."""
        return int(self.status.partition(" ")[0])

    def header(self, name: str) -> str:
        """The value of a header, empty where there is none."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), "")

    def without(self, *names: str) -> Answer:
        """The same without some headers."""
        gone = {name.lower() for name in names}
        kept = tuple(pair for pair in self.headers if pair[0].lower() not in gone)
        return dataclasses.replace(self, headers=kept)

    def plus(self, *headers: tuple[str, str]) -> Answer:
        """The same with more headers."""
        return dataclasses.replace(self, headers=(*self.headers, *headers))

    def close(self) -> None:
        """Lets go of the body, of which nothing is wanted."""
        close = getattr(self.body, "close", None)
        if close is not None:
            close()

    def send(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Gives it to the server."""
        start_response(self.status, list(self.headers))
        if environ["REQUEST_METHOD"] == "HEAD":
            self.close()
            return []
        return self.body


def ask(app: WSGIApplication, environ: WSGIEnvironment) -> Answer:
    """The answer of another application."""
    begun: list[tuple[str, Headers]] = []

    def start(status: str, headers: list[tuple[str, str]], _: Any = None) -> Any:
        begun.append((status, tuple(headers)))
        return None

    body = app(environ, start)
    status, headers = begun[-1]
    return Answer(status=status, headers=headers, body=body)


def answer(status: HTTPStatus, body: bytes, kind: str, *headers: tuple[str, str]) -> Answer:
    """An answer of our own.

    Args:
        kind: its media type.
    """
    return Answer(
        status=f"{status.value} {status.phrase}",
        headers=(("Content-Type", kind), ("Content-Length", str(len(body))), *headers),
        body=[body],
    )


def refusal(
    environ: WSGIEnvironment, status: HTTPStatus, reason: str, *headers: tuple[str, str]
) -> Answer:
    """Why there is nothing else: a short page for a browser's window, JSON for its scripts (which
    show the reason).
    """
    if "text/html" not in environ.get("HTTP_ACCEPT", ""):
        body = json.dumps({"reason": reason}).encode()
        return answer(status, body, "application/json", *headers)
    page = (
        '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>hpsearch</title>'
        '<body style="font: 1.1em sans-serif; margin: 3em auto; max-width: 40em">'
        f"<h1>{html.escape(status.phrase)}</h1><p>{html.escape(reason)}</p>"
    )
    return answer(status, page.encode(), "text/html; charset=utf-8", *headers)


def zipped(found: Answer, environ: WSGIEnvironment) -> Answer:
    """The answer compressed, where that is worth it and the browser understands it."""
    accepted = {
        word.partition(";")[0].strip()
        for word in environ.get("HTTP_ACCEPT_ENCODING", "").lower().split(",")
        if not word.replace(" ", "").endswith(";q=0")
    }
    if (
        _ZIPPED not in accepted
        or found.code != HTTPStatus.OK
        or not found.header("Content-Type").startswith(_WORTH_ZIPPING)
        or found.header("Content-Encoding")
        or not isinstance(found.body, list | tuple)  # files are sent as they are
    ):
        return found
    body = b"".join(found.body)
    if len(body) < _LEAST_ZIPPED:
        return dataclasses.replace(found, body=[body])
    # The first level takes a third of the default's time, and gets nearly as far with JSON.
    body = gzip.compress(body, 1, mtime=0)
    return dataclasses.replace(found.without("Content-Length"), body=[body]).plus(
        ("Content-Length", str(len(body))),
        ("Content-Encoding", _ZIPPED),
        ("Vary", "Accept-Encoding"),
    )
