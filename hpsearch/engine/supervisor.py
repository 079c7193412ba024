"""The process that starts workers, passes on what they tell, and starts those again that die."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
import pickle
import queue
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from hpsearch.engine.events import (
    DatabaseAway,
    EpochFinished,
    Event,
    TrialFinished,
    TrialStarted,
    TrialStopped,
    WorkerEnded,
    WorkerStarted,
)
from hpsearch.engine.leases import release_dead
from hpsearch.engine.place import Place
from hpsearch.engine.presence import new_owner
from hpsearch.engine.stop import Stop
from hpsearch.engine.storage import SearchStorage
from hpsearch.engine.worker_messages import LENGTH, STOP, Alive, Done, Job, Refusal
from hpsearch.errors import SearchError
from hpsearch.names import printable

_POLL_SECONDS = 0.2
_LAST_SECONDS = 30.0
_LAST_WORDS = 2000
_log = logging.getLogger(__name__)


class _Process:
    """A worker process that is or was running.

    Attributes:
        job: what it was told; None as long as it only warms up.
        trial: the name of the one that it runs.
        refused: why it cannot work, where that was its last word.
        is_done: whether its last word was that it has nothing left to do.
        lacks_database: whether it waits for the database.
        killed_for: why the supervisor killed it, where it did so to free the database.
    """

    def __init__(self, log: IO[bytes], path: Path) -> None:
        self.log = path
        self.job: Job | None = None
        self.trial = ""
        self.refused = ""
        self.is_done = False
        self.lacks_database = False
        self.killed_for = ""
        self._heard = math.inf  # when it last said something; it starts with imports, in silence
        paths = os.pathsep.join(path for path in sys.path if path)
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "hpsearch.engine.worker_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "PYTHONPATH": paths},
            # Ctrl-C on the terminal is for the supervisor alone.
            process_group=0 if os.name == "posix" else None,
        )

    @property
    def number(self) -> int:
        """The worker's."""
        return self.job.number if self.job else 0

    def start(self, job: Job, into: queue.Queue[tuple[_Process, Any]]) -> None:
        """Gives it its job; what it tells goes to `into`, and None when it is gone."""
        self.job = job
        threading.Thread(target=self._read, args=(into,), daemon=True).start()
        message = pickle.dumps(job)
        self.send(len(message).to_bytes(LENGTH) + message)

    def send(self, message: bytes) -> None:
        """Writes to its input, if it still reads."""
        assert self.popen.stdin is not None  # noqa: S101 - a pipe
        try:
            self.popen.stdin.write(message)
            self.popen.stdin.flush()
        except OSError:
            _log.debug("a worker is gone already")

    def _read(self, into: queue.Queue[tuple[_Process, Any]]) -> None:
        assert self.popen.stdout is not None  # noqa: S101 - a pipe
        try:
            while True:
                event = pickle.load(self.popen.stdout)  # noqa: S301 - our own child
                self._heard = time.monotonic()
                if isinstance(event, Alive):
                    continue
                if isinstance(event, DatabaseAway):
                    self.lacks_database = event.away
                into.put((self, event))
        except Exception:  # the end, or a half word of one that was killed
            into.put((self, None))

    @property
    def silent_seconds(self) -> float:
        """For how long it has said nothing."""
        return time.monotonic() - self._heard

    def kill(self) -> None:
        """Ends it at once."""
        self.popen.kill()
        self.popen.wait()

    def close(self) -> None:
        """Closes its pipes."""
        for pipe in (self.popen.stdin, self.popen.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    _log.debug("a worker was gone already")


class Supervisor:
    """Worker processes, while it is entered; all of them are gone afterwards.

    Args:
        watch: is told what they tell, in the thread that calls `run`.
    """

    def __init__(self, place: Place, watch: Callable[[Event], None]) -> None:
        self._place = place
        self._watch = watch
        self._warm: list[_Process] = []
        self._running: list[_Process] = []
        self._told: queue.Queue[tuple[_Process, Any]] = queue.Queue()
        self._storage: SearchStorage | None = None
        self._logs = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in (*self._warm, *self._running):
            process.kill()
            process.close()
        for process in self._running:
            if self._storage is not None and process.job is not None:
                # A full disk: the next start sees by itself that they are gone.
                # Whoever pressed Ctrl-C twice is not kept waiting; the grace does the same.
                with contextlib.suppress(Exception):
                    release_dead(
                        self._storage, process.job.owner, "broken off", died=False, patience=5.0
                    )
        for log in {process.log for process in (*self._warm, *self._running)}:
            _remove_empty(log)

    def warm_up(self, count: int) -> None:
        """Starts so many processes that wait for a job."""
        for _ in range(count):
            self._warm.append(self._spawn())

    def run(self, jobs: Sequence[Job], storage: SearchStorage, stop: Stop) -> None:
        """Has workers do the jobs until all have nothing left to do.

        A worker that dies is started again, but not more often in a row, without an epoch between,
        than its trial fails for it. One that hangs when the others have found that all is done has
        lost its trial to them, and is ended after its grace.

        Raises:
            SearchError: no worker is left, and not because it had nothing to do.
        """
        over = threading.Event()
        guard = threading.Thread(
            target=self._free_database, args=(storage, jobs[0].grace, over), daemon=True
        )
        guard.start()
        try:
            self._run(jobs, storage, stop)
        finally:
            over.set()

    def _run(self, jobs: Sequence[Job], storage: SearchStorage, stop: Stop) -> None:
        self._storage = storage
        deaths = {job.number: 0 for job in jobs}  # in a row
        restarts = dict.fromkeys(deaths, 0)
        attempts = max(job.spec.attempts for job in jobs)
        ends: list[str] = []
        for job in jobs:
            self._start(job, restarts=0)
        told = False
        done_at = math.inf  # when a worker found that there is nothing left to do
        while self._running:
            if time.monotonic() - done_at > jobs[0].grace:
                for process in self._running:
                    process.popen.kill()
            if stop.wanted and not told:
                told = True
                for process in self._running:
                    process.send(STOP)
            try:
                process, event = self._told.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            if event is not None:
                if isinstance(event, EpochFinished | TrialFinished):
                    deaths[process.number] = 0
                self._pass_on(process, event)
                continue
            number, reason = process.number, self._end(process, storage)
            if not reason:
                done_at = min(done_at, time.monotonic())
            died = bool(reason) and not process.refused
            deaths[number] += died
            is_over = stop.wanted or done_at < math.inf
            again = died and not is_over and deaths[number] <= attempts + 1
            self._watch(
                WorkerEnded(
                    worker=number, reason=reason, refused=bool(process.refused), restarts=again
                )
            )
            if again:
                restarts[number] += 1
                self._start(jobs[number - 1], restarts=restarts[number])
            else:
                ends.append(reason)
        if all(ends) and not stop.wanted:
            raise SearchError(f"no worker is left; the last one ended with: {ends[-1]}")

    def _free_database(self, storage: SearchStorage, grace: float, over: threading.Event) -> None:
        """Kills a worker that does not move while others wait for the database: it was stopped in
        the middle of a transaction, whose lock on SQLite's file ends with it.

        In a thread, because the supervisor may be one of those who wait.
        """
        while not over.wait(1.0):
            running = tuple(self._running)
            if not storage.is_away and not any(process.lacks_database for process in running):
                continue
            for process in running:
                if process.silent_seconds > grace and not process.killed_for:
                    process.killed_for = (
                        f"killed, since it did not move for {process.silent_seconds:.0f} s while "
                        "others waited for the database"
                    )
                    process.popen.kill()

    def _spawn(self) -> _Process:
        self._logs += 1
        folder = self._place.private / "logs"
        folder.mkdir(parents=True, exist_ok=True)
        # Supervisors in containers can have the same number, and share the folder.
        path = folder / f"{os.getpid()}-{self._logs}-{secrets.token_hex(3)}.log"
        with path.open("ab") as log:
            return _Process(log, path)

    def _start(self, job: Job, *, restarts: int) -> None:
        process = self._warm.pop() if self._warm else self._spawn()
        self._running.append(process)
        process.start(dataclasses.replace(job, owner=new_owner()), self._told)
        self._watch(WorkerStarted(worker=job.number, device=job.device, restarts=restarts))

    def _pass_on(self, process: _Process, event: Any) -> None:
        match event:
            case Refusal(text=text):
                process.refused = text
                return
            case Done():
                process.is_done = True
                return
            case TrialStarted(name=name):
                process.trial = name
            case TrialFinished() | TrialStopped():
                process.trial = ""
        self._watch(event)

    def _end(self, process: _Process, storage: SearchStorage) -> str:
        """Takes leave of a process; why it died, or nothing where it did not."""
        try:
            code = process.popen.wait(timeout=_LAST_SECONDS)
        except subprocess.TimeoutExpired:  # it hangs where it has nothing more to say
            process.kill()
            code = process.popen.wait()
        process.close()
        self._running.remove(process)
        reason = process.refused
        if not process.is_done and not reason:
            reason = process.killed_for or _reason(code, process.log)
        if reason and process.job is not None:
            # One that refused to work gave its trial back by itself, if it could.
            release_dead(storage, process.job.owner, reason, died=not process.refused)
            if process.trial:
                self._watch(TrialStopped(name=process.trial, reason=f"its worker died: {reason}"))
        if not reason:
            _remove_empty(process.log)
        return reason


def _reason(code: int, log: Path) -> str:
    """Why a process ended, for people."""
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = "unknown"
        hint = ", as the system does when memory is short" if name == "SIGKILL" else ""
        return f"killed by signal {-code} ({name}){hint}"
    words = log.read_bytes()[-_LAST_WORDS:].decode("utf-8", "replace").split("\n")
    last = printable(next((line.strip() for line in reversed(words) if line.strip()), ""))
    return f"exit code {code}: {last[:300]} (see {log})" if last else f"exit code {code}"


def _remove_empty(log: Path) -> None:
    if log.is_file() and not log.stat().st_size:
        log.unlink()
