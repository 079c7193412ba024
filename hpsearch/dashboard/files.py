"""Artifacts as a browser gets them: pictures, tables and texts to be shown, all else to be saved.

What is shown could act as if it were the dashboard; pictures and tables cannot.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from http import HTTPStatus
from typing import Any, BinaryIO
from urllib.parse import quote
from wsgiref.types import WSGIEnvironment

from optuna.artifacts._protocol import ArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound

from hpsearch.dashboard.answers import Answer, answer, refusal
from hpsearch.dashboard.storage import BrowsedStorage

SHOWN = {
    **{f"image/{kind}": f"image/{kind}" for kind in ("png", "jpeg", "gif", "webp")},
    **{f"video/{kind}": f"video/{kind}" for kind in ("mp4", "webm")},
    **{f"audio/{kind}": f"audio/{kind}" for kind in ("mpeg", "mp4", "ogg", "wav", "x-wav")},
    **{f"text/{kind}": f"text/{kind}; charset=utf-8" for kind in ("plain", "csv")},
    **dict.fromkeys(("application/jsonl", "application/x-ndjson"), "text/plain; charset=utf-8"),
}
"""What may be shown, by the type that is stored, and the type that is sent: nothing in it can run.
All else is saved.
"""

_SANDBOX = "default-src 'none'; sandbox"
_LONGEST_NAME = 150
_PIECE = 1 << 18
_UNSAFE = re.compile(r'[\\/:*?"<>|%;,]')


class Artifacts:
    """The files of the trials and studies in a storage."""

    def __init__(self, storage: BrowsedStorage, files: ArtifactStore) -> None:
        self._storage = storage
        self._files = files

    def answer(
        self, environ: WSGIEnvironment, study_id: int, trial_id: int | None, artifact_id: str
    ) -> Answer:
        """A file, or that there is none."""
        try:
            meta = self._storage.artifact(study_id, trial_id, artifact_id)
            file = self._files.open_reader(artifact_id)
        except (KeyError, ArtifactNotFound):
            return refusal(environ, HTTPStatus.NOT_FOUND, "there is no such artifact")
        stored = os.fstat(file.fileno())
        headers = (
            ("Content-Disposition", disposition(meta)),
            ("Content-Security-Policy", _SANDBOX),
            # A better trial's picture comes under the same address.
            ("ETag", f'"{stored.st_mtime_ns:x}-{stored.st_size:x}-{stored.st_ino:x}"'),
        )
        if environ.get("HTTP_IF_NONE_MATCH", "") == headers[-1][1]:
            file.close()
            return answer(HTTPStatus.NOT_MODIFIED, b"", content_type(meta), *headers).without(
                "Content-Type", "Content-Length"
            )
        return Answer(
            status=f"{HTTPStatus.OK.value} {HTTPStatus.OK.phrase}",
            headers=(
                ("Content-Type", content_type(meta)),
                ("Content-Length", str(stored.st_size)),
                *headers,
            ),
            body=_body(environ, file),
        )


def _body(environ: WSGIEnvironment, file: BinaryIO) -> Iterable[bytes]:
    wrapper = environ.get("wsgi.file_wrapper")
    return _pieces(file) if wrapper is None else wrapper(file, _PIECE)


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(_PIECE):
            yield piece


def _stored_type(meta: dict[str, Any]) -> str:
    # What is compressed is nothing to be looked at.
    kind = "" if meta.get("encoding") else str(meta.get("mimetype", ""))
    return kind.partition(";")[0].strip().lower()


def content_type(meta: dict[str, Any]) -> str:
    """The type to send a file with, given what is stored of it."""
    return SHOWN.get(_stored_type(meta), "application/octet-stream")


def disposition(meta: dict[str, Any]) -> str:
    """Whether it is shown or saved, and under which name, as an HTTP header."""
    verb = "inline" if _stored_type(meta) in SHOWN else "attachment"
    name = file_name(str(meta.get("filename", "")))
    plain = name.encode("ascii", "replace").decode().replace("?", "_")
    return f"{verb}; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


def file_name(name: str) -> str:
    """A name to save a file under, whatever was stored: not empty, in no other folder, not hidden,
    and without what does not print.
    """
    printing = "".join(letter if letter.isprintable() else "_" for letter in name)
    printing = _UNSAFE.sub("_", printing).strip().lstrip(".").strip()
    stem, dot, ending = printing.rpartition(".")
    if len(printing) > _LONGEST_NAME:
        ending = ending[:20] if dot else ""
        printing = f"{stem or printing}"[: _LONGEST_NAME - 21].strip() + (
            f".{ending}" if ending else ""
        )
    return printing or "artifact"
