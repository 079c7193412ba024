"""`hpsearch dashboard`."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import warnings
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpsearch.cli.options import RUNS, Name, Runs, Storage
from hpsearch.engine.stop import EXIT_TERMINATED, handled_signals

if TYPE_CHECKING:
    from hpsearch.dashboard.server import DashboardServer

TOKEN = "HPSEARCH_TOKEN"  # noqa: S105
"""The environment variable that stands for --token."""

_PORT = 8080
_TEXT_BROWSERS = frozenset(
    ("www-browser", "w3m", "lynx", "links", "links2", "elinks", "browsh", "edbrowse", "links.main")
)
"""They would take the terminal over."""


def dashboard_cli(
    name: Name = None,
    runs: Runs = RUNS,
    storage: Storage = None,
    port: Annotated[
        int,
        typer.Option(
            metavar="PORT",
            help="Port to listen on, or the next free one; 0 lets the system choose.",
            min=0,
            max=65535,
        ),
    ] = _PORT,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Do not open it in the browser.")
    ] = False,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="HOST",
            help="Listen on this address instead of this machine's own loopback: others can reach "
            "it then, and need the token that is part of the printed address.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Another name that it is asked by, such as a proxy's; give the option again for "
            "more.",
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN",
            envvar=TOKEN,
            show_envvar=False,
            help="What visitors must know, instead of a new one each time. Better given as "
            f"{TOKEN}, since command lines can be seen by others.",
        ),
    ] = None,
    allow_write: Annotated[
        bool,
        typer.Option(
            "--allow-write", help="Let visitors change notes, and delete studies and files."
        ),
    ] = False,
) -> None:
    """Show the searches in optuna-dashboard, until Ctrl-C.

    It answers on this machine only, and changes nothing, unless you say otherwise.
    """
    from hpsearch.dashboard.server import LOOPBACK, DashboardServer
    from hpsearch.engine.place import Place

    # Optuna warns of plots that have little to go by, once a visitor.
    warnings.filterwarnings("ignore", module=r"optuna\.")
    server = DashboardServer(
        Place.of(runs, storage),
        name,
        host=host or LOOPBACK,
        port=port,
        allowed_hosts=allow_host or (),
        token=token or None,
        writable=allow_write,
    )
    with server:
        _print_addresses(server, port, writable=allow_write)
        with _stopped_by_signals(server) as signals:
            if not no_browser:
                _open_browser(server)
            server.serve()
    typer.echo("stopped")
    if signal.SIGTERM in signals:
        raise typer.Exit(EXIT_TERMINATED)


def _print_addresses(server: DashboardServer, port: int, *, writable: bool) -> None:
    if port not in (0, server.port):
        typer.echo(f"Port {port} is taken; this is port {server.port}.")
    typer.echo(f"optuna-dashboard on {server.address()}")
    if server.page is not None:
        page = server.page
        typer.echo(f"Search {page.search}, family {page.family}: {server.address(page.path)}")
    who = "This machine only" if server.is_local else "Other machines, too, unencrypted"
    what = "visitors may change what is stored" if writable else "nothing can be changed"
    typer.echo(f"{who}; {what}. Ctrl-C stops it.")


@contextlib.contextmanager
def _stopped_by_signals(server: DashboardServer) -> Iterator[list[int]]:
    """Within, Ctrl-C and SIGTERM stop the server, however often they come; which, is noted."""
    noted: list[int] = []

    def stop(number: int) -> None:
        noted.append(number)
        server.stop()

    # The process is about to end then, which takes a moment, too.
    with handled_signals(
        lambda: stop(signal.SIGINT), lambda: stop(signal.SIGTERM), ignored_then=noted
    ):
        yield noted


def _open_browser(server: DashboardServer) -> None:
    """Opens the first page, where there is a browser with windows."""
    graphical = sys.platform in ("darwin", "win32") and "SSH_CONNECTION" not in os.environ
    if not graphical and not any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))):
        return
    try:
        controller = webbrowser.get()
    except webbrowser.Error:
        return
    if Path(getattr(controller, "name", "")).stem in _TEXT_BROWSERS:
        return
    address = server.address(*([server.page.path] if server.page else []), here=True)
    # Some are waited for until they are closed.
    threading.Thread(target=controller.open, args=(address,), daemon=True).start()
