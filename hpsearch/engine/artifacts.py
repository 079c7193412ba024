"""The files that the dashboard shows with trials and studies: Optuna's artifacts."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import re
import secrets
import shutil
import stat
import time
import uuid
from pathlib import Path
from typing import BinaryIO

from optuna.artifacts._upload import ARTIFACTS_ATTR_PREFIX, ArtifactMeta
from optuna.artifacts.exceptions import ArtifactNotFound

from hpsearch.files import write_whole

_ID = re.compile(r"[0-9a-fA-F-]{1,100}")

_NAMESPACE = uuid.UUID("8c1f4b0e-5d0a-4f7e-9a57-2f6f0d2c6b11")
_KINDS = {".csv": "text/csv", ".png": "image/png"}
"""Not the system's own table, which knows other names on each machine."""

_ABANDONED_SECONDS = 3600.0
"""A half of a file is left alone for so long: another search may be writing it."""

# Windows has neither: there, a link is found by `Path.is_symlink`.
_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
_BINARY = getattr(os, "O_BINARY", 0)


class ArtifactFiles:
    """Optuna's artifact store (`optuna.artifacts`): a folder of files that are called as their ids.

    Plain `optuna-dashboard --artifact-dir` shows the same folder. A file appears whole or not at
    all, and one that is written again takes the place of the one before.

    Args:
        folder: made with the first file.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Opens a file for reading.

        Raises:
            ArtifactNotFound: there is no such id, or no file of its own: no folder, no link, no
                pipe.
        """
        path = self._path(artifact_id)
        try:
            if path.is_symlink():
                raise OSError("a link")
            handle = os.open(path, os.O_RDONLY | _NO_LINK | _BINARY)
        except OSError:
            raise ArtifactNotFound("not found") from None
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise ArtifactNotFound("not found")
        return os.fdopen(handle, "rb")

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Writes a file, in the place of the one that is there.

        Raises:
            ArtifactNotFound: what is given is no id.
            OSError: it cannot be written; then what was there still is.
        """
        path = self._path(artifact_id)
        self._folder.mkdir(parents=True, exist_ok=True)

        def copy(temporary: Path) -> None:
            with temporary.open("wb") as file:
                shutil.copyfileobj(content_body, file)

        write_whole(path, copy)

    def put(self, artifact_id: str, content: bytes) -> None:
        """As `write`."""
        self.write(artifact_id, io.BytesIO(content))

    def remove(self, artifact_id: str) -> None:
        """Removes a file; one that is gone already is none to complain about, so that the dashboard
        can delete studies whose files were deleted.

        Raises:
            ArtifactNotFound: what is given is no id.
        """
        with contextlib.suppress(FileNotFoundError):
            self._path(artifact_id).unlink()

    def has(self, artifact_id: str) -> bool:
        """Whether there is such a file."""
        return self._path(artifact_id).is_file()

    def tidy(self) -> None:
        """Removes what was half written when a process was killed."""
        for path in self._folder.glob(".*"):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                    path.unlink()

    def take(self, artifact_id: str, source: Path) -> None:
        """Has the file `source`, which nobody writes to any more, under an id, too: by a hard link
        where the file system knows them, which takes no room, else as a copy.

        Raises:
            ArtifactNotFound: what is given is no id.
            OSError: as `write`.
        """
        path = self._path(artifact_id)
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = self._folder / f".{artifact_id}.{secrets.token_hex(4)}"
        try:
            os.link(source, temporary)
        except FileNotFoundError:
            raise
        except OSError:
            with source.open("rb") as file:
                self.write(artifact_id, file)
            return
        try:
            temporary.replace(path)
        finally:
            # Where both are the same file already, the system leaves both names.
            temporary.unlink(missing_ok=True)

    def _path(self, artifact_id: str) -> Path:
        if _ID.fullmatch(artifact_id) is None:
            raise ArtifactNotFound("not found")
        return self._folder / artifact_id


def artifact_id(owner: str, name: str) -> str:
    """The id of the file called `name` of a trial or a study: always the same, so that what is
    attached again takes the place of what was there.

    Args:
        owner: names the trial or the study.
    """
    return str(uuid.uuid5(_NAMESPACE, f"{owner}\n{name}"))


def attribute(artifact: str) -> str:
    """The key of the system attribute by which a trial or a study has an artifact."""
    return ARTIFACTS_ATTR_PREFIX + artifact


def metadata(artifact: str, name: str) -> tuple[str, str]:
    """The system attribute, its key and its value, by which a trial or a study has an artifact."""
    kind = _KINDS.get(Path(name).suffix, "application/octet-stream")
    row = ArtifactMeta(artifact_id=artifact, filename=name, mimetype=kind, encoding=None)
    return attribute(artifact), json.dumps(dataclasses.asdict(row))
