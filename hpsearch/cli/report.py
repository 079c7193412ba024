"""`hpsearch report`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from hpsearch.cli.options import RUNS, AsJson, Runs, Storage
from hpsearch.cli.tables import print_search
from hpsearch.cli.text import (
    accuracy,
    duration,
    make_table,
    output,
    say,
    scaled,
)


def report_cli(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            help="The searches; by default the one started last that is no ablation.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE.html",
            help="Write the report as one page with all figures, which needs no other file and no "
            "network; a page that is there is replaced.",
        ),
    ] = None,
    runs: Runs = RUNS,
    storage: Storage = None,
    best: Annotated[
        int,
        typer.Option(
            metavar="N", help="How many of the best trials of each search to list.", min=0
        ),
    ] = 5,
    as_json: AsJson = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="All trials as a table: a row each, with its parameters.")
    ] = False,
) -> None:
    """Show what one or several searches have found.

    Families and searches against each other, the best trials, the Pareto front where there are
    several objectives, and how often the test split was opened. With -o, a page that has learning
    curves, the importance and the effect of each parameter, and more.
    """
    from hpsearch.engine.search_reader import load_search
    from hpsearch.errors import SearchError
    from hpsearch.results.reports.document import report_document, trials_csv

    if as_json and as_csv:
        raise SearchError("--json and --csv are two forms of the output; give one of them")
    wanted: list[str | None] = [*dict.fromkeys(names or [])]
    records = [load_search(runs, name, storage=storage) for name in wanted or [None]]
    document = None if as_csv else report_document(records, best=best)
    if out is not None:
        from hpsearch.results.reports.page import write_report

        write_report(records, out, best=best, document=document)
    if document is None:
        print(trials_csv(records), end="")
        return
    if as_json:
        print(json.dumps(document, indent=2))
        return
    console = output()
    print_report(console, document)
    if out is not None:
        say(console, f"report            {out}")


def print_report(console: Console, document: dict[str, Any]) -> None:
    """Prints the tables of a report: of several searches first the leaderboard over all."""
    if len(document["searches"]) > 1:
        _print_leaderboard(console, document)
    for search in document["searches"]:
        print_search(console, search)


def _print_leaderboard(console: Console, document: dict[str, Any]) -> None:
    from hpsearch.results.reports.cells import of_test

    table = make_table(
        "leaderboard",
        left=("search", "best trial"),
        right=("val. acc.", "test", "opened", "trials", "time", "params", "MACs"),
        spare=("MACs", "params", "time", "trials", "opened"),
    )
    for row in document["leaderboard"]:
        table.add_row(
            row["search"],
            row["trial"] or f"{row['family']}: none",
            accuracy(row["val_accuracy"]),
            of_test(row["test"], short=True),
            str(row["test_openings"]),
            str(row["trials"]),
            duration(row["seconds"]),
            "–" if row["parameters"] is None else scaled(row["parameters"]),
            "–" if row["macs"] is None else scaled(row["macs"]),
        )
    console.print(table)
    if document["not_ranked"]:
        say(console, document["not_ranked"])
    console.print()
