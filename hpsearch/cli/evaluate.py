"""`hpsearch evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from hpsearch.cli.interrupt import stoppable
from hpsearch.cli.options import AsJson, Device, ReadingOptions, takes
from hpsearch.cli.progress import progress_line
from hpsearch.cli.text import accuracy, make_table, output, say, tested_text
from hpsearch.names import printable
from hpsearch.results.words import score_rows

if TYPE_CHECKING:
    from hpsearch.results.evaluate import Evaluated


@takes(reading=ReadingOptions)
def evaluate_cli(
    reading: ReadingOptions,
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
    to the shape that the model was made for. Images of the model's own search, and those that the
    weights had seen which it started from, are found by their pixels, and the accuracy without them
    is told, too.

    Other than in predict, an image that cannot be read stops it: a score should be over all images,
    or say that it is not (--on-error skip).
    """
    from hpsearch.results.evaluate import evaluate

    console, errors = output(), Console(stderr=True)
    with stoppable(errors), progress_line(errors) as watch:
        result = evaluate(
            export, reading.spec(data), out, replace=force, device=device, watch=watch
        )
    for warning in result.warnings:
        say(errors, f"warning: {warning}")
    for note in result.document["data"]["notes"]:
        say(errors, f"note: {note}")
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
    rows = score_rows(metrics)
    if result.new is not None:
        (name, of_all), *others = rows
        of_new = tested_text(result.new.metrics)
        rows = [("accuracy of new images", of_new), (f"{name} of all", of_all), *others]
    if result.folder is not None:
        rows.append(("written to", str(result.folder)))
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        say(console, f"{name:{width}}  {text}")
