"""What several benchmarks have in common."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pwd
import secrets
import signal
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from hpsearch.engine.place import Place

FAMILY = "cnn"
CPU = torch.device("cpu")
# Every trial takes equally long; what else there is in the space is searched.
NETWORK = {"blocks": 3, "convs": 1, "channels": 64, "hidden": 0, "batch_size": 32}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bench:
    """How much `bench_overhead.py` measures.

    Attributes:
        places: by the name of the storage, what makes a new place to keep searches in.
        sizes: finished trials, the fewest first.
        bookkept: trials that are measured at each size.
        trials: of a whole search.
        seconds: of a trial of it, on one thread.
    """

    places: Mapping[str, Callable[[], Place]]
    sizes: tuple[int, ...]
    bookkept: int
    trials: int
    seconds: float
    rounds: int
    profile: bool


def in_turn(arms: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each arm measures in each round; the first, which does not count, warms up."""
    found: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(rounds + 1):
        for name, arm in arms.items():
            value = arm()
            if number:
                found[name].append(value)
    return found


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def shown(row: Mapping[str, float], form: str) -> str:
    low, high = form.format(row["lowest"]), form.format(row["highest"])
    return f"{form.format(row['median'])} ({low} to {high})"


def fresh_name() -> str:
    return f"bench-{secrets.token_hex(4)}"


@contextlib.contextmanager
def postgres_server() -> Iterator[Callable[[], str]]:
    """A throw-away server with PostgreSQL's own settings.

    Returns:
        What makes a new database on it, and gives its address.
    """
    import psycopg

    programs = max(Path("/usr/lib/postgresql").glob("*/bin/initdb"), default=None)
    if programs is None:
        raise SystemExit("no PostgreSQL in /usr/lib/postgresql; install it, or give --storage")
    user: dict[str, Any] = {}
    if not os.getuid():  # its programs refuse to run as root
        row = pwd.getpwnam("nobody")
        user = {"user": row.pw_uid, "group": row.pw_gid, "extra_groups": []}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="bench-postgres-") as name:
        folder = Path(name)
        if user:
            os.chown(folder, user["user"], user["group"])
        (folder / "log").touch()
        command = [programs, "-D", folder / "data", "-U", "bench", "-A", "trust", "--no-locale"]
        command += ["-E", "UTF8"]
        subprocess.run(command, check=True, capture_output=True, cwd=folder, **user)  # noqa: S603
        command = [programs.with_name("postgres"), "-D", folder / "data", "-p", str(port)]
        command += ["-c", "listen_addresses=127.0.0.1", "-k", folder]
        with (folder / "log").open("ab") as log:
            server = subprocess.Popen(  # noqa: S603
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, **user
            )
        try:
            ready = [programs.with_name("pg_isready"), "-h", "127.0.0.1", "-p", str(port), "-q"]
            deadline = time.monotonic() + 60
            while subprocess.run(ready, check=False).returncode:  # noqa: S603
                if server.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit((folder / "log").read_text(errors="replace")[-2000:])
                time.sleep(0.1)
            address = f"postgresql://bench@127.0.0.1:{port}"

            def new_database() -> str:
                database = f"bench{secrets.token_hex(4)}"
                with psycopg.connect(f"{address}/postgres", autocommit=True) as connection:
                    connection.execute(f"CREATE DATABASE {database}")
                return f"{address}/{database}"

            yield new_database
        finally:
            server.send_signal(signal.SIGINT)  # do not wait for connections to be closed
            server.wait(60)
