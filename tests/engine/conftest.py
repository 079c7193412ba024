"""Fixtures of the tests of the engine: Optuna's calls noted, and PostgreSQL servers."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
import pytest
from contenders import wait_for_all

_PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin/initdb"), default=None)
_ROLE = "hpsearch"
_START_SECONDS = 60


class PostgresServer:
    """A throw-away PostgreSQL server on loopback, of this run alone.

    Its time zone is none of ours, and its password has what must be quoted in addresses.

    Attributes:
        secret: the part of its password that reads the same however it is quoted.
        port: on 127.0.0.1.
    """

    def __init__(self) -> None:
        self.secret = secrets.token_hex(8)
        self.password = f"{self.secret}@:/%{{0}}"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self._folder = Path(tempfile.mkdtemp(prefix="hpsearch-postgres-"))
        self._user = self._other_user()
        self._popen: subprocess.Popen[bytes] | None = None
        try:
            self._initialise()
            self.start()
        except BaseException:
            self.remove()
            raise

    @staticmethod
    def _other_user() -> dict[str, object]:
        """For `subprocess`: the server's programs refuse to run as root."""
        if os.getuid():
            return {}
        import pwd

        for name in ("postgres", "nobody"):
            with contextlib.suppress(KeyError):
                row = pwd.getpwnam(name)
                return {"user": row.pw_uid, "group": row.pw_gid, "extra_groups": []}
        raise RuntimeError("there is no user but root")

    def _initialise(self) -> None:
        words = self._folder / "password"
        words.write_text(f"{self.password}\n", encoding="utf-8")
        if self._user:
            for path in (self._folder, words):
                os.chown(path, self._user["user"], self._user["group"])  # type: ignore[arg-type]
        assert _PROGRAMS is not None
        subprocess.run(
            [
                *(_PROGRAMS, "--pgdata", self._folder / "data", "--username", _ROLE),
                *("--auth", "scram-sha-256", "--pwfile", words),
                *("--encoding", "UTF8", "--no-locale", "--no-sync"),
            ],
            check=True,
            capture_output=True,
            cwd=self._folder,
            **self._user,
        )

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        assert _PROGRAMS is not None
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self._folder,
            "timezone": "Asia/Kolkata",
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
            "shared_buffers": "16MB",
            "log_statement": "none",
        }
        with (self._folder / "log").open("ab") as log:
            self._popen = subprocess.Popen(
                [
                    *(_PROGRAMS.with_name("postgres"), "-D", self._folder / "data"),
                    *(word for key, value in settings.items() for word in ("-c", f"{key}={value}")),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                process_group=0,  # Ctrl-C in the terminal is for pytest, which stops it
                **self._user,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._popen.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self._folder / "log").read_text(errors="replace")[-2000:])
            time.sleep(0.05)

    def _answers(self) -> bool:
        import psycopg

        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(self.url("postgres")):
            return True
        return False

    def stop(self) -> None:
        """Stops it at once; who is connected loses the connection. What was committed stays."""
        if self._popen is not None and self._popen.poll() is None:
            self._popen.send_signal(signal.SIGINT)  # a "fast" shutdown
            try:
                self._popen.wait(30)
            except subprocess.TimeoutExpired:
                self._popen.send_signal(signal.SIGQUIT)
                self._popen.wait(30)
        self._popen = None

    def remove(self) -> None:
        """Stops it, and removes all that it wrote."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def url(self, database: str) -> str:
        """The address of a database of it, as `--storage` takes it."""
        return (
            f"postgresql://{_ROLE}:{quote(self.password, safe='')}@127.0.0.1:{self.port}/{database}"
        )

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """The address of a fresh database, which is removed afterwards."""
        name = f"t{secrets.token_hex(6)}"
        self.execute(f"CREATE DATABASE {name}")
        try:
            yield self.url(name)
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, statement: str) -> None:
        """Runs one statement as the administrator."""
        import psycopg

        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)


@pytest.fixture(scope="session")
def processes() -> ForkServerContext:
    """Starts processes that are as good as new, and need not import everything again."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        # The last two are imported late, by the first optimizer and by the digits.
        ["hpsearch.engine.search", "psycopg", "pytest", "torch._dynamo", "sklearn.datasets"]
    )
    return context


@pytest.fixture
def together(processes: ForkServerContext) -> Callable[..., list[Any]]:
    """What so many processes return that call a function at the same moment."""

    def call(count: int, function: Callable[..., Any], *args: object) -> list[Any]:
        barrier = processes.Barrier(count)
        with ProcessPoolExecutor(
            count, mp_context=processes, initializer=wait_for_all, initargs=(barrier,)
        ) as pool:
            tasks = [pool.submit(function, *args) for _ in range(count)]
            return [task.result(300) for task in tasks]

    return call


def _new_server() -> PostgresServer:
    if _PROGRAMS is None:
        pytest.skip("needs PostgreSQL's programs in /usr/lib/postgresql (Debian: postgresql)")
    pytest.importorskip("psycopg", reason="needs psycopg: pip install 'hpsearch[postgres]'")
    return PostgresServer()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A server for all tests, which leave it running; each has a database of its own."""
    server = _new_server()
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture
def pg_url(postgres: PostgresServer) -> Iterator[str]:
    """The address of a fresh PostgreSQL database, with a password."""
    with postgres.database() as url:
        yield url


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A server for one test, which may stop and start it."""
    server = _new_server()
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture
def noted_calls(monkeypatch: pytest.MonkeyPatch) -> tuple[list[int], list[int | None]]:
    """The epochs that trials report, and those after which the pruner is asked, as they happen."""
    reported: list[int] = []
    judged: list[int | None] = []
    report, should_prune = optuna.Trial.report, optuna.Trial.should_prune

    def noted_report(self: optuna.Trial, value: float, step: int) -> None:
        reported.append(step)
        report(self, value, step)

    def noted_prune(self: optuna.Trial) -> bool:
        judged.append(self.study.get_trials(deepcopy=False)[0].last_step)
        return should_prune(self)

    monkeypatch.setattr(optuna.Trial, "report", noted_report)
    monkeypatch.setattr(optuna.Trial, "should_prune", noted_prune)
    return reported, judged
