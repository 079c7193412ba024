"""`hpsearch worker`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from hpsearch.cli.options import RUNS, Runs, Storage, WorkerOptions, place_options, takes
from hpsearch.cli.text import say


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
    import optuna

    from hpsearch.cli.lines import finished_text
    from hpsearch.cli.live import watched
    from hpsearch.engine.search import join

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    console = Console()
    with watched(console) as view:
        record = join(
            name, runs=runs, storage=storage, data=data, watch=view.watch, **run.arguments()
        )
    stopped = f"; stopped: {view.stopping}" if view.stopping else ""
    say(console, f"{finished_text(record)}{stopped}")
    if record.finished >= record.spec["trials"]:
        more = 2 * record.finished
        say(console, f"to add some: the search's own command with --trials {more}")
        place = place_options(record.place)
        say(console, f"to export the best: hpsearch export {record.name}{place}")
