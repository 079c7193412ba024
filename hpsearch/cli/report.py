"""`hpsearch report`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from hpsearch.cli.options import RUNS, AsJson, Runs, Storage
from hpsearch.cli.text import (
    EPOCHS,
    accuracy,
    count_of,
    duration,
    make_table,
    objective_value,
    output,
    parameters,
    say,
    scaled,
    tell,
    time_of,
)
from hpsearch.data.words import plural

if TYPE_CHECKING:
    from hpsearch.training.objectives import Objective


_CHOICES = (
    "Column model: trials that the sampler's model chose. Chosen by: known-good, settings of the "
    "family that are tried first; given, by the study; random, drawn without a model."
)
_NEW = "N new: without the test images that the weights had seen which training started from."


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
    if out is not None:
        from hpsearch.results.reports.page import write_report

        write_report(records, out, best=best)
    if as_csv:
        print(trials_csv(records), end="")
        return
    document = report_document(records, best=best)
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


def print_search(console: Console, document: dict[str, Any]) -> None:
    """Prints the tables of one search, of its document in a report."""
    from hpsearch.training.costs import objective_rows

    objectives = objective_rows(",".join(row["name"] for row in document["objectives"]))
    _print_families(console, document, objectives[0])
    _print_best_trials(console, document, objectives[0])
    if document["pareto"]:
        front = make_table("Pareto front", left=("trial",), right=[row.short for row in objectives])
        for row in document["pareto"]:
            values = (objective_value(goal, row["values"].get(goal.name)) for goal in objectives)
            front.add_row(row["trial"], *values)
        console.print(front)
    if document["ablation"]:
        from hpsearch.cli.ablate import print_ablation

        say(console, "an ablation: one parameter at a time")
        print_ablation(console, document["ablation"], objectives[0])
        console.print()
    _print_tests(console, document)
    for line in _troubles(document):
        say(console, line)
    tell(console, _images(document))


def _print_families(console: Console, document: dict[str, Any], objective: Objective) -> None:
    tested = _tested(document)
    table = make_table(
        f"search {document['search']}: families, best {objective.label} first",
        left=("family",),
        right=(
            *_scores(objective, None, tested=tested),
            *("params", "done", "pruned", "failed", "model", "time"),
        ),
        spare=("model", "params", "loss", "time", "failed", "pruned"),
    )
    for row in document["leaderboard"]:
        best = row["best"]
        table.add_row(
            row["family"],
            *_scores(objective, best, tested=tested).values(),
            f"{best['parameters']:,}" if best else "–",
            *(str(row[key]) for key in ("complete", "pruned", "failed", "model_based")),
            duration(row["seconds"]),
        )
    console.print(table)
    if tested and any(_has_seen(row["best"]) for row in document["leaderboard"]):
        tell(console, _NEW)


def _has_seen(row: dict[str, Any] | None) -> bool:
    return row is not None and row["test"] is not None and "new" in row["test"]


def _print_best_trials(console: Console, document: dict[str, Any], objective: Objective) -> None:
    if not document["best_trials"]:
        return
    tested = _tested(document)
    table = make_table(
        "best trials" if len(document["best_trials"]) > 1 else "best trial",
        left=("trial", "chosen by"),
        right=(*_scores(objective, None, tested=tested), "best epoch"),
        spare=("loss", "best epoch", "chosen by"),
    )
    for row in document["best_trials"]:
        table.add_row(
            row["trial"],
            row["chosen_by"],
            *_scores(objective, row, tested=tested).values(),
            str(row["best_epoch"]),
        )
    console.print(table)
    first = document["best_trials"][0]
    tell(console, f"{first['trial']}: {parameters(first['params'])}")
    tell(console, f"{EPOCHS} {_CHOICES}")
    console.print()


def _tested(document: dict[str, Any]) -> bool:
    """Whether one of the trials in its tables was exported or retrained."""
    trials = [row["best"] for row in document["leaderboard"]] + document["best_trials"]
    return any(row is not None and row["test"] is not None for row in trials)


def _print_tests(console: Console, document: dict[str, Any]) -> None:
    """What each export and retraining gave, not only the newest of each trial."""
    from hpsearch.results.reports.cells import of_look, of_result

    if not document["test_results"]:
        return
    opened = len(document["test_openings"])
    table = make_table(
        "test results, the newest last",
        left=("trial", "by", "test accuracy", "look", "when (UTC)", "folder"),
        spare=("when (UTC)",),
    )
    for row in document["test_results"]:
        table.add_row(
            *(row["trial"], row["kind"], of_result(row), of_look(row, opened)),
            *(time_of(row["when"]), row["folder"]),
        )
    console.print(table)


def _troubles(document: dict[str, Any]) -> Iterator[str]:
    """What did not come to a result."""
    for failure in document["failures"]:
        yield f"{failure['trial']} {failure['state']}: {failure['reason']}"
    for note in document["notes"]:
        yield f"{note['trial']}: {note['note']}"
    if document["infeasible"]:
        first, count = document["infeasible"][0], len(document["infeasible"])
        yield (
            f"{plural(count, 'infeasible configuration')}, which are not "
            f"counted as trials; the first, {first['trial']}: {first['reason']}"
        )
    if document["duplicates"]:
        count = len(document["duplicates"])
        were = "was" if count == 1 else "were"
        yield (
            f"{plural(count, 'configuration')} had been measured already and {were} not measured "
            "again"
        )
    for state in ("interrupted", "paused"):
        if document[state]:
            yield f"{len(document[state])} {state}: {', '.join(document[state])}"


def _images(document: dict[str, Any]) -> str:
    counts, opened = document["data"]["counts"], len(document["test_openings"])
    times = "has not been opened yet" if not opened else f"was opened {count_of(opened)}"
    return (
        f"{counts['train']} train, {counts['val']} validation, {counts['test']} test images; "
        f"the test split {times}"
        + (": a score picked after several looks is too good" if opened > 1 else "")
    )


def _scores(objective: Objective, row: dict[str, Any] | None, *, tested: bool) -> dict[str, str]:
    """The scores of a trial by their column: the objective's first, then the usual ones.

    Args:
        tested: with what it reached on the test split, if it was exported or retrained.
    """
    from hpsearch.results.reports.cells import of_test

    row = row or {"value": None, "val_accuracy": None, "val_loss": None, "test": None}
    return {
        objective.short: objective_value(objective, row["value"]),
        "val. acc.": accuracy(row["val_accuracy"]),
        "loss": "–" if row["val_loss"] is None else f"{row['val_loss']:.4f}",
        **({"test": of_test(row["test"], short=True)} if tested else {}),
    }
