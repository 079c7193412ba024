"""`hpsearch status`."""

from __future__ import annotations

import contextlib
import datetime
import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from hpsearch.cli.options import RUNS, AsJson, Name, Runs, Storage
from hpsearch.cli.text import make_table, objective_value, output, redraws, say, time_of

if TYPE_CHECKING:
    from hpsearch.engine.overview import SearchSummary
    from hpsearch.engine.place import Place
    from hpsearch.engine.status import SearchStatus
    from hpsearch.engine.status_reader import StatusReader
    from hpsearch.engine.storage import SearchStorage

_EVERY_SECONDS = 2.0

_QUIET_SECONDS = 60.0
"""Where there is no terminal, so often a line is written though nothing has changed."""


def status_cli(
    name: Name = None,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Show it again and again, until it is over, or Ctrl-C."),
    ] = False,
    runs: Runs = RUNS,
    storage: Storage = None,
    as_json: AsJson = False,
) -> None:
    """Show how a search stands that runs elsewhere.

    In another terminal, or on another machine: which trials run there, how they do beside the best
    one, who has fallen silent, and when it ends. Nobody there is disturbed. Without NAME, all
    searches in a line each, and the one that runs, or that was started last. To delete some, see
    'hpsearch dashboard --allow-write'.
    """
    from hpsearch.engine.database import open_storage
    from hpsearch.engine.overview import search_summaries
    from hpsearch.engine.place import Place
    from hpsearch.engine.status_reader import StatusReader
    from hpsearch.errors import SearchError

    if watch and as_json:
        raise SearchError("--watch is for people and --json for machines; give one of them")
    place = Place.of(runs, storage)
    console = output()
    if watch:
        database, summaries = _wait_for_a_search(console, place)
    else:
        database = open_storage(place)
        summaries = search_summaries(database, place)
    wanted = name or next((row.name for row in summaries if row.running), None)
    reader = StatusReader(database, place, wanted)
    if watch:
        _watch(console, reader, database)
        return
    status = reader.read()
    if as_json:
        document = {
            "searches": [row.to_dict() for row in summaries],
            "status": status.to_dict(),
        }
        print(json.dumps(document, indent=2))
        return
    if len(summaries) > 1 and name is None:
        _print_summaries(console, summaries)
    _print_status(console, status)


def _wait_for_a_search(
    console: Console, place: Place
) -> tuple[SearchStorage, tuple[SearchSummary, ...]]:
    """The searches, as soon as there is one: in its first seconds a place's first is not stored."""
    from hpsearch.cli.interrupt import stoppable
    from hpsearch.engine.database import exists, open_storage
    from hpsearch.engine.overview import search_summaries

    database, told = None, False
    with stoppable(console):
        while True:
            if database is None and exists(place):
                database = open_storage(place)
            if database is not None and (summaries := search_summaries(database, place)):
                return database, summaries
            if not told:
                say(console, f"no searches in {place} yet; waiting for one, until Ctrl-C")
            told = True
            time.sleep(_EVERY_SECONDS)


def _print_summaries(console: Console, summaries: Sequence[SearchSummary]) -> None:
    table = make_table(
        "searches, the one started last first",
        left=("search", "data", "started (UTC)"),
        right=("trials", "running", "best"),
        spare=("data", "started (UTC)"),
    )
    for row in summaries:
        table.add_row(
            *(row.name, row.data, time_of(row.last_started)),
            *(f"{row.finished}/{row.asked}", str(row.running)),
            objective_value(row.objective, row.best),
        )
    console.print(table)
    console.print()


def _print_status(console: Console, status: SearchStatus) -> None:
    from hpsearch.cli.status_view import advice, framed_status, status_lines

    now = datetime.datetime.now()
    if redraws(console):
        console.print(framed_status(console, status, now, is_open=False, away=False))
    else:
        for line in status_lines(status, now):
            say(console, line)
    for line in advice(status):
        say(console, line)


def _watch(console: Console, reader: StatusReader, database: SearchStorage) -> None:
    """Shows it until it is over; Ctrl-C is the way to leave before."""
    from hpsearch.cli.interrupt import stoppable
    from hpsearch.cli.status_view import advice

    watching = _redraw if redraws(console) else _tell
    with stoppable(console), contextlib.suppress(KeyboardInterrupt):
        for line in advice(watching(console, reader, database)):
            say(console, line)


def _redraw(console: Console, reader: StatusReader, database: SearchStorage) -> SearchStatus:
    from rich.console import RenderableType
    from rich.live import Live

    from hpsearch.cli.status_view import framed_status

    status, away, is_open = reader.read(), False, True

    def render() -> RenderableType:
        now = datetime.datetime.now()
        return framed_status(console, status, now, is_open=is_open, away=away)

    live = Live(console=console, get_renderable=render, auto_refresh=False)

    def tell_away(gone: bool) -> None:
        nonlocal away
        away = gone
        live.refresh()

    database.tell_away = tell_away
    with live:
        try:
            while status.state != "over":
                live.refresh()
                time.sleep(_EVERY_SECONDS)
                status = reader.read()
        finally:
            is_open = False
    return status


def _tell(console: Console, reader: StatusReader, database: SearchStorage) -> SearchStatus:
    """A line whenever something has changed that is worth one, and now and then one more."""
    from hpsearch.cli.lines import DATABASE_AWAY, DATABASE_BACK
    from hpsearch.cli.status_view import changed_line

    database.tell_away = lambda away: say(console, DATABASE_AWAY if away else DATABASE_BACK)
    told, last = None, 0.0
    while True:
        status = reader.read()
        news = (status.state, status.standing.finished, [t.is_silent for t in status.running])
        if news != told or time.monotonic() - last >= _QUIET_SECONDS:
            say(console, changed_line(status, datetime.datetime.now()))
            told, last = news, time.monotonic()
        if status.state == "over":
            return status
        time.sleep(_EVERY_SECONDS)
