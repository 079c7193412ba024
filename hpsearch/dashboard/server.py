"""The dashboard's server: a socket, threads that answer, and how they stop."""

from __future__ import annotations

import errno
import ipaddress
import logging
import os
import secrets
import socket
import threading
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import waitress.server
from waitress import wasyncore

from hpsearch.dashboard.app import HOME, Dashboard
from hpsearch.dashboard.first_page import FirstPage, first_page
from hpsearch.dashboard.guard import TOKEN, Guard
from hpsearch.dashboard.hosts import Address, hosts_of
from hpsearch.dashboard.storage import BrowsedStorage
from hpsearch.engine.artifacts import ArtifactFiles
from hpsearch.engine.database import open_storage
from hpsearch.engine.place import Place
from hpsearch.engine.storage import SearchStorage
from hpsearch.errors import SearchError

LOOPBACK = "127.0.0.1"

_PORTS = 100
"""So many are tried, one after the other."""
_THREADS = 6  # a browser has no more connections to a server
_CONNECTIONS = 500
_IDLE_SECONDS = 30
"""Who only holds connections does not lock others out for longer."""
_WRITER_SECONDS = 5.0
_READ_ONLY_BODY, _UPLOAD_BODY = 1 << 20, 1 << 27  # bytes; the library takes uploads up to 128 MiB
_LEAST_TOKEN = 8


class DashboardServer:
    """A server of the dashboard that listens already; `serve` answers until `stop`.

    Args:
        place: whose searches it shows.
        name: the search to begin with; None: the one started last.
        host: the name or address to listen on.
        port: where it is taken, the next free one is used; 0 lets the system choose.
        allowed_hosts: names under which it is asked beside its own, such as a proxy's.
        token: what visitors must know; None: of one that other machines can reach a new one.
        writable: whether visitors may change what is stored.

    Attributes:
        port: that it listens on.
        page: what there is to see first, or None where there is no search yet.
        is_local: whether no other machine can reach it.

    Raises:
        SearchError: there is no storage or no such search, or it cannot listen there.
    """

    def __init__(
        self,
        place: Place,
        name: str | None = None,
        *,
        host: str = LOOPBACK,
        port: int,
        allowed_hosts: Iterable[str] = (),
        token: str | None = None,
        writable: bool = False,
    ) -> None:
        _check_token(token)
        self._stopped = threading.Event()
        self._host = host
        self._reader, self._writer = _storages(place, writable=writable)
        listener: socket.socket | None = None
        try:
            self.page: FirstPage | None = first_page(self._reader, place, name)
            listener = _listen(host, port)
            bound = listener.getsockname()
            self._bound: Address = ipaddress.ip_address(bound[0].partition("%")[0])
            self.port: int = bound[1]
            self.is_local: bool = self._bound.is_loopback
            self.token = token if self.is_local or token else secrets.token_urlsafe(24)
            guard = Guard(
                app=Dashboard(self._reader, ArtifactFiles(place.artifacts), self._writer),
                hosts=hosts_of(self._bound, host, allowed_hosts),
                token=self.token,
                writable=writable,
                cookie=f"hpsearch-{self.port}",
            )
            # It warns of each request that waits for a thread, on the user's terminal.
            logging.getLogger("waitress.queue").setLevel(logging.ERROR)
            self._sockets: dict[int, Any] = {}
            self._server = waitress.server.create_server(
                guard,
                map=self._sockets,
                sockets=[listener],
                threads=_THREADS,
                ident=None,
                log_socket_errors=False,
                connection_limit=_CONNECTIONS,
                channel_timeout=_IDLE_SECONDS,
                max_request_body_size=_UPLOAD_BODY if writable else _READ_ONLY_BODY,
            )
        except BaseException:
            if listener is not None:
                listener.close()
            self._forget()
            raise

    def __enter__(self) -> DashboardServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def address(self, path: str = HOME, *, here: bool = False) -> str:
        """The address of a page, with the token where one is wanted.

        Args:
            here: for a browser of this machine, which knows it by the address that it listens on.
        """
        host = str(self._bound) if here else self._host
        if self._bound.is_unspecified:
            local = "127.0.0.1" if self._bound.version == 4 else "::1"
            host = local if here else socket.gethostname()
        host = f"[{host}]" if ":" in host else host
        query = "" if self.token is None else f"?{TOKEN}={quote(self.token, safe='')}"
        return f"http://{host}:{self.port}{path}{query}"

    def serve(self) -> None:
        """Answers until `stop` is called."""
        while not self._stopped.is_set():
            wasyncore.loop(timeout=1.0, map=self._sockets, use_poll=hasattr(os, "fork"), count=1)

    def stop(self) -> None:
        """Has `serve` return; from a signal handler, too, and more than once."""
        if not self._stopped.is_set():
            self._stopped.set()
            self._server.pull_trigger()

    def close(self) -> None:
        """Gives the port back, and waits for what is being answered for some seconds."""
        self._server.task_dispatcher.shutdown()
        wasyncore.close_all(self._sockets)
        self._forget()

    def _forget(self) -> None:
        for storage in (self._reader, self._writer):
            if storage is not None:
                storage.engine.dispose()


def _storages(place: Place, *, writable: bool) -> tuple[BrowsedStorage, SearchStorage | None]:
    open_storage(place).engine.dispose()  # tells in words where there is none
    writer = None
    if writable:
        writer = open_storage(place, write=True)
        writer.patience = _WRITER_SECONDS
    return BrowsedStorage(place), writer


def _check_token(token: str | None) -> None:
    if token is not None and not (
        len(token) >= _LEAST_TOKEN and token.isascii() and token.isprintable()
    ):
        raise SearchError(
            f"--token takes {_LEAST_TOKEN} or more letters, digits and signs that others cannot "
            "guess; without the option, one is made"
        )


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens on the port, or on the next free one."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise SearchError(
            f"--host {host!r} is no name or address of this machine ({error.strerror or error})"
        ) from None
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    last = port + 1 if port == 0 else min(port + _PORTS, 1 << 16)
    reason: OSError | None = None
    for candidate in range(port, last):
        try:
            return _listener(family, (address[0], candidate, *address[2:]))
        except OSError as error:
            reason = error
            if error.errno == errno.EADDRNOTAVAIL:
                raise SearchError(f"--host {host!r} is of another machine than this one") from None
            if error.errno != errno.EADDRINUSE:
                break
    raise SearchError(
        f"port {port} of {host} cannot be used ({reason.strerror if reason else 'taken'}); choose "
        "another with --port, or let the system choose with --port 0"
    )


def _listener(family: int, address: tuple[Any, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "nt":  # there, others could take the port of one that listens
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)  # type: ignore[attr-defined]
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except BaseException:
        listener.close()
        raise
    return listener
