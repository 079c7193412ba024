"""`hpsearch worker`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from hpsearch.cli.options import RUNS, Runs, Storage, WorkerOptions, takes


@takes(run=WorkerOptions)
def worker_cli(
    run: WorkerOptions,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The search.")],
    runs: Runs = RUNS,
    storage: Storage = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="The same data, where they lie elsewhere on this machine.",
        ),
    ] = None,
) -> None:
    """Go on with a stopped search, or help one that runs.

    Its name alone is enough: trials are run until none is left, with the settings that the search
    was started with. On another machine, give it the same database (--storage) and the same runs
    folder, which the machines must share, since checkpoints and saved states lie there.
    """
    by = run.arguments()  # before imports that take seconds
    import optuna

    from hpsearch.cli.ending import print_end
    from hpsearch.cli.live import watched
    from hpsearch.engine.search import join

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    console = Console()
    with watched(console) as view:
        record = join(name, runs=runs, storage=storage, data=data, watch=view.watch, **by)
    print_end(console, record, stopped=view.stopping, command="the search's own command")
