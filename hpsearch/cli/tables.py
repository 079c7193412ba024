"""The tables of a search: families, best trials, tests; and those of an ablation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console

from hpsearch.cli.text import (
    EPOCHS,
    accuracy,
    duration,
    make_table,
    objective_difference,
    objective_value,
    parameters,
    say,
    tell,
    time_of,
    times_text,
)
from hpsearch.data.words import plural

if TYPE_CHECKING:
    from hpsearch.training.objectives import Objective

_CHOICES = (
    "Column model: trials that the sampler's model chose. Chosen by: known-good, settings of the "
    "family that are tried first; given, by the study; random, drawn without a model."
)
_NEW = "N new: without the test images that the weights had seen which training started from."


def print_search(console: Console, document: dict[str, Any]) -> None:
    """Prints the tables of one search, of its document in a report."""
    from hpsearch.training.goals import objective_rows

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
        spare=_spared(objective, "model", "params", "loss", "time", "failed", "pruned"),
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
        spare=_spared(objective, "loss", "best epoch", "chosen by"),
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


def _spared(objective: Objective, *columns: str) -> list[str]:
    """All of these columns but the one that trials are ranked by."""
    return [name for name in columns if name != objective.short]


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
    times = "has not been opened yet" if not opened else f"was opened {times_text(opened)}"
    return (
        f"{counts['train']:,} train, {counts['val']:,} validation, {counts['test']:,} test images; "
        f"the test split {times}"
        + (": a score picked after several looks is too good" if opened > 1 else "")
    )


def _scores(objective: Objective, row: dict[str, Any] | None, *, tested: bool) -> dict[str, str]:
    """The scores of a trial by their column: the objective's first, then the usual ones.

    Args:
        tested: with what it reached on the test split, if it was exported or retrained.
    """
    from hpsearch.results.reports.cells import fixed, of_test

    row = row or {"value": None, "val_accuracy": None, "val_loss": None, "test": None}
    return {
        objective.short: objective_value(objective, row["value"]),
        "val. acc.": accuracy(row["val_accuracy"]),
        "loss": fixed(row["val_loss"]),
        **({"test": of_test(row["test"], short=True)} if tested else {}),
    }


def print_ablation(console: Console, document: Mapping[str, Any], objective: Objective) -> None:
    """Prints a table a parameter, and how far they can be trusted.

    Args:
        document: see `hpsearch.results.ablation.ablation_document`.
    """
    from hpsearch.names import value_text

    center = document["center"]
    values = ", ".join(f"{name} {value_text(value)}" for name, value in center["values"].items())
    say(console, f"center: {center['trial'] or 'no trial yet'} ({values})")
    console.print()
    failures = {}
    for name, rows in document["parameters"].items():
        table = make_table(
            left=(name, "trial"),
            right=(
                objective.short,
                "points" if objective.is_share else "difference",
                *([] if objective.name == "val_loss" else ["loss"]),
                "best epoch",
            ),
            spare=("best epoch", *([] if objective.name == "val_loss" else ["loss"])),
        )
        for row in rows:
            value = value_text(row["setting"])
            table.add_row(
                f"{value} (center)" if row["is_center"] else value,
                row["trial"] or "–",
                row["state"] if row["value"] is None else objective_value(objective, row["value"]),
                objective_difference(objective, row["difference"]),
                "–" if row["val_loss"] is None else f"{row['val_loss']:.4f}",
                "–" if row["best_epoch"] is None else str(row["best_epoch"]),
            )
            if row["failure"]:
                of = "" if row["is_center"] else f" ({name} {value})"
                failures[row["trial"]] = f"{row['trial']}{of} {row['state']}: {row['failure']}"
        console.print(table)
    for line in failures.values():
        say(console, line)
    tell(console, document["note"])
