"""`hpsearch report`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from hpsearch.cli.options import RUNS, Name, Runs, Storage
from hpsearch.cli.text import (
    accuracy,
    count_of,
    duration,
    make_table,
    objective_value,
    parameters,
)

if TYPE_CHECKING:
    from hpsearch.training.objectives import Objective


def report_cli(
    name: Name = None,
    runs: Runs = RUNS,
    storage: Storage = None,
    best: Annotated[int, typer.Option(help="How many of the best trials to list.", min=0)] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Show what a search has found.

    Families against each other, the best trials, the Pareto front where there are several
    objectives, and how often the test split was opened.
    """
    from hpsearch.engine.records import load_search
    from hpsearch.results.report import report_document

    document = report_document(load_search(runs, name, storage=storage), best=best)
    if as_json:
        print(json.dumps(document, indent=2))
    else:
        print_report(Console(), document)


def print_report(console: Console, document: dict[str, Any]) -> None:
    """Prints the tables of a report."""
    from hpsearch.training.costs import objective_rows

    objectives = objective_rows(",".join(row["name"] for row in document["objectives"]))
    objective = objectives[0]
    counts = document["data"]["counts"]
    opened = len(document["test_openings"])
    table = make_table(
        f"search {document['search']}: families, best {objective.label} first",
        left=("family",),
        right=(*_scores(objective, None), "params", "done", "pruned", "failed", "model", "time"),
    )
    for row in document["leaderboard"]:
        best = row["best"]
        table.add_row(
            row["family"],
            *_scores(objective, best).values(),
            f"{best['parameters']:,}" if best else "–",
            *(str(row[key]) for key in ("complete", "pruned", "failed", "model_based")),
            duration(row["seconds"]),
        )
    console.print(table)
    if document["best_trials"]:
        trials = make_table(
            "best trials" if len(document["best_trials"]) > 1 else "best trial",
            left=("trial", "chosen by"),
            right=(*_scores(objective, None), "epoch"),
        )
        for row in document["best_trials"]:
            trials.add_row(
                row["trial"],
                row["chosen_by"],
                *_scores(objective, row).values(),
                str(row["best_epoch"]),
            )
        console.print(trials)
        first = document["best_trials"][0]
        console.print(f"{first['trial']}: {parameters(first['params'])}\n", markup=False)
    if document["pareto"]:
        front = make_table("Pareto front", left=("trial",), right=[row.short for row in objectives])
        for row in document["pareto"]:
            values = (objective_value(goal, row["values"].get(goal.name)) for goal in objectives)
            front.add_row(row["trial"], *values)
        console.print(front)
    for failure in document["failures"]:
        line = f"{failure['trial']} {failure['state']}: {failure['reason']}"
        console.print(line, markup=False)
    for note in document["notes"]:
        console.print(f"{note['trial']}: {note['note']}", markup=False)
    if document["infeasible"]:
        first, count = document["infeasible"][0], len(document["infeasible"])
        console.print(
            f"{count} infeasible {'configuration' if count == 1 else 'configurations'}, which are "
            f"not counted as trials; the first, {first['trial']}: {first['reason']}",
            markup=False,
        )
    if document["duplicates"]:
        count = len(document["duplicates"])
        configurations, were = (
            ("configuration", "was") if count == 1 else ("configurations", "were")
        )
        console.print(
            f"{count} {configurations} had been measured already and {were} not measured again",
            markup=False,
        )
    for state in ("interrupted", "paused"):
        if document[state]:
            line = f"{len(document[state])} {state}: {', '.join(document[state])}"
            console.print(line, markup=False)
    times = "has not been opened yet" if not opened else f"was opened {count_of(opened)}"
    console.print(
        f"{counts['train']} train, {counts['val']} validation, {counts['test']} test images; "
        f"the test split {times}"
        + (": a score picked after several looks is too good" if opened > 1 else ""),
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _scores(objective: Objective, row: dict[str, Any] | None) -> dict[str, str]:
    """The scores of a trial by their column: the objective's first, then the usual ones."""
    row = row or {"value": None, "val_accuracy": None, "val_loss": None}
    return {
        objective.short: objective_value(objective, row["value"]),
        "val. acc.": accuracy(row["val_accuracy"]),
        "loss": "–" if row["val_loss"] is None else f"{row['val_loss']:.4f}",
    }
