"""`hpsearch evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from hpsearch.cli.options import INTERRUPTED, AsJson, DataOptions, Device, takes
from hpsearch.cli.progress import progress_line
from hpsearch.cli.text import accuracy, make_table, say
from hpsearch.names import printable

if TYPE_CHECKING:
    from hpsearch.results.evaluate import Evaluated


@takes(reading=DataOptions)
def evaluate_cli(
    reading: DataOptions,
    export: Annotated[
        Path, typer.Argument(metavar="EXPORT", help="A folder that 'hpsearch export' wrote.")
    ],
    data: Annotated[
        str,
        typer.Option(
            "--data",
            metavar="SRC",
            help="Labelled images: a name, a folder, or a file; see 'hpsearch data list'.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="DIR",
            help="Write scores, confusion matrix, predictions and mistakes to this folder.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an evaluation that is there already.")
    ] = False,
    device: Device = "auto",
    as_json: AsJson = False,
) -> None:
    """Score an export on other labelled data.

    Classes are matched by name; the data need not have all that the model knows. Images are brought
    to the shape that the model was made for, so --size, --fit, --gray and --rgb are not taken here.
    """
    from hpsearch.errors import ConfigError
    from hpsearch.results.evaluate import evaluate

    if (reading.size, reading.fit, reading.gray) != (None, None, None):
        raise ConfigError(
            "--size, --fit, --gray and --rgb are not for an export, which knows how its images "
            "must be: leave them out"
        )
    console, errors = Console(), Console(stderr=True)
    try:
        with progress_line(errors) as watch:
            result = evaluate(
                export, reading.spec(data), out, replace=force, device=device, watch=watch
            )
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    for warning in result.warnings:
        say(errors, f"warning: {warning}")
    if as_json:
        print(json.dumps(result.document, indent=2))
    else:
        _print_result(console, result)


def _print_result(console: Console, result: Evaluated) -> None:
    metrics = result.scores.metrics
    table = make_table(left=("class",), right=("precision", "recall", "F1", "images"))
    for name, row in metrics["classes"].items():
        if row["support"]:
            shares = (accuracy(row[key]) for key in ("precision", "recall", "f1"))
            table.add_row(Text(printable(name)), *shares, f"{row['support']:,}")
    console.print(table)
    low, high = metrics["accuracy_95"]
    lines = {
        "accuracy": f"{accuracy(metrics['accuracy'])} (errors: {metrics['errors']:,} of "
        f"{metrics['images']:,} images)",
        "95 % interval": f"{accuracy(low)} to {accuracy(high)} ({metrics['interval']})",
        "balanced": accuracy(metrics["balanced_accuracy"]),
        "macro F1": accuracy(metrics["macro_f1"]),
        "log loss": f"{metrics['log_loss']:.4f}",
        "calibration error": accuracy(metrics["calibration_error"]),
    }
    for column in result.scores.columns:
        lines[f"{printable(column.name)} alone"] = accuracy(column.accuracy)
    if absent := [name for name, row in metrics["classes"].items() if not row["support"]]:
        lines["not in the data"] = f"{len(absent):,} of {len(metrics['classes']):,} classes"
    if result.folder is not None:
        lines["written to"] = str(result.folder)
    for name, text in lines.items():
        say(console, f"{name:18}{text}")
