"""optuna-dashboard on the storage of a runs folder, for this machine only."""

from __future__ import annotations

import socketserver
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from optuna_dashboard import wsgi

from hpsearch.engine.place import Place
from hpsearch.engine.storage import open_storage
from hpsearch.errors import SearchError

HOST = "127.0.0.1"


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Library code never prints."""


def dashboard_server(place: Place, port: int) -> WSGIServer:
    """A server of the dashboard that listens already; `serve_forever` answers.

    Args:
        port: 0 lets the system choose; see `server_port`.

    Raises:
        SearchError: there is no storage, or the port is taken.
    """
    storage = open_storage(place)
    try:
        return make_server(
            HOST, port, wsgi(storage), server_class=_Server, handler_class=_QuietHandler
        )
    except (OSError, OverflowError) as error:
        raise SearchError(
            f"port {port} of {HOST} cannot be used ({error}); choose another with --port, or "
            "let the system choose with --port 0"
        ) from None
