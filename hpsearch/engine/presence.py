"""Whether a worker of this machine still lives: a file that it keeps locked.

The system gives the lock back when the process ends, however it ends; so another process on the
same machine need not wait for the grace of a lease.
"""

from __future__ import annotations

import contextlib
import platform
import secrets
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import filelock

from hpsearch.engine.place import Place

_KEPT_SECONDS = 24 * 60 * 60
"""The files of dead workers are kept for so long: until their trials are taken over, the files are
what tells that they are free.
"""


def new_owner() -> str:
    """A name for a worker process: its machine (as of this boot), and something unique."""
    return f"{_machine()}/{secrets.token_hex(8)}"


def _machine() -> str:
    """The same for all processes under one kernel, containers included."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return platform.node()[:40].replace("/", "-")


@contextlib.contextmanager
def present(place: Place, owner: str) -> Iterator[None]:
    """Shows others, while it is entered, that `owner` lives.

    Where the file system knows no locks, only its beats show it.
    """
    path = _file(place, owner)
    lock = filelock.FileLock(path, blocking=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except (OSError, filelock.Timeout, NotImplementedError):
        with contextlib.suppress(OSError):
            path.unlink()  # unlocked, it would say that the owner is dead
    try:
        yield
    except BaseException:
        # Left behind, it shows that the owner has ended: perhaps it could not give back its trial.
        lock.release()
        raise
    with contextlib.suppress(OSError):
        path.unlink()  # while it is locked: nobody takes it for a dead one's
    lock.release()


def dead(place: Place, owners: Iterable[str]) -> set[str]:
    """Those of `owners` that lived on this machine and are known to have ended."""
    here = _machine()
    return {
        owner
        for owner in owners
        if owner.partition("/")[0] == here and _is_free(_file(place, owner))
    }


def forget_dead(place: Place) -> None:
    """Removes the files of processes that were killed."""
    for path in (place.private / "workers").glob("*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _KEPT_SECONDS and _is_free(path):
                path.unlink(missing_ok=True)


def _file(place: Place, owner: str) -> Path:
    return place.private / "workers" / owner.rpartition("/")[2]


def _is_free(path: Path) -> bool:
    """Whether there is such a file and no process has it locked."""
    if not path.is_file():
        return False  # perhaps it lies where this process cannot see it
    lock = filelock.FileLock(path, blocking=False)
    try:
        lock.acquire()
    except (OSError, filelock.Timeout, NotImplementedError):
        return False
    lock.release()
    return True
