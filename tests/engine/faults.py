"""Processes for the tests of faults: searches and workers to be killed, stopped and looked at.

They are as real as can be, but for their start: where a `Nursery` is open, they are forked from a
process that has imported torch, which takes a hundredth of the time. (Not from the tests' own one:
it has threads.) With --faults there is none, and all are started as they are in use.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import importlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import pytest
import torch

from hpsearch import HpsearchError, StudySpec, search
from hpsearch.cli.main import main as command_line
from hpsearch.engine import supervisor, worker_process
from hpsearch.engine.events import EpochFinished, Event
from hpsearch.engine.worker_messages import Job

PATIENCE = 120.0
"""Seconds after which a test that waits for something gives up."""

_PR_SET_CHILD_SUBREAPER = 36

_IMPORTED_LATE = (
    "alembic.command",
    "hpsearch.cli.live",
    "hpsearch.cli.report",
    "hpsearch.results.reports.document",
    "scipy.stats",
    "sklearn.datasets",
    "sklearn.metrics",
    "sqlalchemy.dialects.sqlite",
    "torch._dynamo",
)


class Nursery:
    """What processes are forked from; `open_nursery` makes one."""

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests

    def start(self, kind: str, fds: Sequence[int], env: Mapping[str, str]) -> int:
        """Starts one of `KINDS` with these three as its standard files; its id."""
        socket.send_fds(self._requests, [pickle.dumps((kind, dict(env)))], fds)
        return int(self._requests.recv(100))


_nursery: Nursery | None = None


@functools.cache
def open_nursery() -> Nursery:
    """The nursery of this run of tests; it ends with this process, whose requests it reads."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    code = f"import faults; faults.serve({theirs.fileno()})"
    with theirs:
        popen = subprocess.Popen(
            [sys.executable, "-c", code],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            process_group=0,
        )
    atexit.register(popen.wait)
    atexit.register(ours.close)
    return Nursery(ours)


@contextlib.contextmanager
def processes(*, as_in_use: bool) -> Iterator[None]:
    """Within, searches and workers can be started: quickly, or as they are in use."""
    global _nursery
    adopt_orphans()
    if as_in_use:
        yield
        return
    _nursery = open_nursery()
    try:
        with _forked_workers():
            yield
    finally:
        _nursery = None


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Within, `folder`, which is made, is a file system of its own, that is soon full.

    Args:
        size: as mount has it, such as "24m".
    """
    folder.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here: it takes root")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def adopt_orphans() -> None:
    """Makes this process the parent of all that their own parents leave behind."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def serve(fd: int) -> None:
    """Forks processes until nobody is there to ask for them."""
    for module in _IMPORTED_LATE:
        importlib.import_module(module)
    torch.set_num_threads(1)
    requests = socket.socket(fileno=fd)
    while True:
        message, fds, _, _ = socket.recv_fds(requests, 1 << 18, 3)
        if not message:
            return
        answer, told = os.pipe()
        child = os.fork()
        if not child:
            pid = os.fork()
            if pid:
                os.write(told, str(pid).encode())
                os._exit(0)
            for other in (answer, told, requests.detach()):
                os.close(other)
            _become(*pickle.loads(message), fds)
        os.waitpid(child, 0)  # now it is a child of who asked
        requests.send(os.read(answer, 100))
        for other in (*fds, answer, told):
            os.close(other)


def _become(kind: str, env: Mapping[str, str], fds: Sequence[int]) -> None:
    os.setpgid(0, 0)
    for number, fd in enumerate(fds):
        os.dup2(fd, number)
        os.close(fd)
    os.environ.clear()
    os.environ.update(env)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code: Any = 1
    try:
        code = KINDS[kind]()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    os._exit(code if isinstance(code, int) else bool(code))


class Forked:
    """As much of `subprocess.Popen` as the supervisor needs."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str],
        stderr: IO[bytes] | None = None,
        kind: str = "worker",
        **_: Any,
    ) -> None:
        assert _nursery is not None
        in_read, in_write = os.pipe()
        out_read, out_write = os.pipe()
        errors = 2 if stderr is None else stderr.fileno()
        self.pid = _nursery.start(kind, (in_read, out_write, errors), env)
        os.close(in_read)
        os.close(out_write)
        self.stdin = os.fdopen(in_write, "wb")
        self.stdout = os.fdopen(out_read, "rb")
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            try:
                self.returncode = wait_for(self.pid, PATIENCE if timeout is None else timeout)
            except TimeoutError:
                if timeout is None:
                    raise
                raise subprocess.TimeoutExpired("worker", timeout) from None
        return self.returncode

    def kill(self) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)


STAND_IN = SimpleNamespace(
    Popen=Forked, PIPE=subprocess.PIPE, TimeoutExpired=subprocess.TimeoutExpired
)


def wait_for(pid: int, seconds: float = PATIENCE) -> int:
    """How a child of this process ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    raise TimeoutError(f"process {pid} does not end")


@contextlib.contextmanager
def _forked_workers() -> Iterator[None]:
    before = supervisor.subprocess
    supervisor.subprocess = STAND_IN  # type: ignore[assignment]
    try:
        yield
    finally:
        supervisor.subprocess = before


@contextlib.contextmanager
def noting_pids(note: Callable[[int, int], None]) -> Iterator[None]:
    """Within, `note` is told the number and the process id of each worker that gets a job."""
    original = supervisor._Process.start

    def start(process: Any, job: Job, into: Any) -> None:
        note(job.number, process.popen.pid)
        original(process, job, into)

    supervisor._Process.start = start  # type: ignore[method-assign]
    try:
        yield
    finally:
        supervisor._Process.start = original  # type: ignore[method-assign]


class Running:
    """A search in a process of its own: as a function, or as the command.

    Attributes:
        events: that it has told; of the command, the lines that it has printed.
        workers: the process ids of its workers, the last one of each number.
    """

    def __init__(self, spec: StudySpec | None, *arguments: str, **keywords: Any) -> None:
        kind = "search" if spec else "command"
        self.events: list[Any] = []
        self.workers: dict[int, int] = {}
        if _nursery is not None:
            self._popen: Any = Forked((), env=os.environ, kind=kind)
        else:
            paths = os.pathsep.join(filter(None, sys.path))
            self._popen = subprocess.Popen(
                [sys.executable, __file__, kind],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": paths},
                process_group=0,
            )
        self.pid: int = self._popen.pid
        pickle.dump((spec, arguments, keywords), self._popen.stdin)
        self._popen.stdin.flush()

    def until(self, wanted: Callable[[Any], bool]) -> Any:
        """Waits for such an event."""
        while True:
            told = pickle.load(self._popen.stdout)
            if isinstance(told, tuple):
                self.workers[told[0]] = told[1]
                continue
            self.events.append(told)
            if wanted(told):
                return told

    def until_epoch(self, epoch: int, *, times: int = 1) -> None:
        """Waits until the trials that run have ended this epoch, so many of them."""
        for _ in range(times):
            self.until(lambda e: isinstance(e, EpochFinished) and e.result.epoch == epoch)

    def kill_all(self) -> None:
        """Kills it and its workers at once."""
        for pid in (self.pid, *self.workers.values()):
            os.kill(pid, signal.SIGSTOP)
        for pid in (self.pid, *self.workers.values()):
            os.kill(pid, signal.SIGKILL)
        self.wait()
        for pid in self.workers.values():
            wait_for(pid)

    def send(self, number: int) -> None:
        """Sends it a signal, and to nobody else."""
        os.kill(self.pid, number)

    def wait(self) -> int:
        """How it ended."""
        with contextlib.suppress(EOFError, pickle.UnpicklingError):
            self.until(lambda _: False)
        code = wait_for(self.pid)
        self._popen.returncode = code
        return code

    @property
    def text(self) -> str:
        """What the command printed."""
        return "".join(self.events)


def _run_search() -> int:
    """A search whose specification comes in and whose events go out."""
    spec, _, keywords = _read_job()
    out = worker_process._Out(os.fdopen(os.dup(1), "wb"))
    try:
        with noting_pids(lambda number, pid: out.send((number, pid))):
            search(spec, device="cpu", watch=out.send, **keywords)
    except HpsearchError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _run_command() -> int:
    """The command line, whose lines go out."""
    _, arguments, _ = _read_job()
    out = worker_process._Out(os.fdopen(os.dup(1), "wb"))

    def write(text: str) -> int:
        out.send(text)
        return len(text)

    sys.argv = ["hpsearch", *arguments]
    stream: Any = SimpleNamespace(
        write=write, flush=lambda: None, isatty=lambda: False, encoding="utf-8"
    )
    sys.stdout = sys.stderr = stream
    with noting_pids(lambda number, pid: out.send((number, pid))):
        command_line(arguments)
    return 0


def _read_job() -> Any:
    """What is to be done; and where this process was forked, so will be its workers."""
    job = pickle.load(os.fdopen(os.dup(0), "rb", buffering=0))
    if _forked_here():
        global _nursery
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if not os.fork():
            ours.close()
            nothing = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1):  # their other ends must hear of the end of this process
                os.dup2(nothing, number)
            os.setpgid(0, 0)
            serve(theirs.detach())
            os._exit(0)
        theirs.close()
        adopt_orphans()
        _nursery = Nursery(ours)
        supervisor.subprocess = STAND_IN  # type: ignore[assignment]
    return job


def _forked_here() -> bool:
    return "torch._dynamo" in sys.modules and not sys.argv[1:]


KINDS: Mapping[str, Callable[[], int]] = {
    "worker": worker_process.main,
    "search": _run_search,
    "command": _run_command,
}


def children(pid: int) -> list[int]:
    """The processes whose parent it is."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
    return found


def is_event(kind: type[Event], **fields: Any) -> Callable[[Any], bool]:
    """Whether an event is of a kind, with these fields."""
    return lambda event: (
        isinstance(event, kind)
        and all(getattr(event, name) == value for name, value in fields.items())
    )


if __name__ == "__main__":
    sys.exit(KINDS[sys.argv[1]]())
