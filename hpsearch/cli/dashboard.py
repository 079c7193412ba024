"""`hpsearch dashboard`."""

from __future__ import annotations

from typing import Annotated

import typer

from hpsearch.cli.options import RUNS, Runs, Storage


def dashboard_cli(
    runs: Runs = RUNS,
    storage: Storage = None,
    port: Annotated[
        int, typer.Option(help="Port on this machine; 0 lets the system choose.", min=0, max=65535)
    ] = 8080,
) -> None:
    """Show the searches in optuna-dashboard.

    It answers on this machine only, until Ctrl-C.
    """
    from hpsearch.engine.dashboard import HOST, dashboard_server
    from hpsearch.engine.place import Place

    with dashboard_server(Place.of(runs, storage), port) as server:
        typer.echo(f"optuna-dashboard on http://{HOST}:{server.server_port}/  (Ctrl-C stops it)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            typer.echo("stopped")
