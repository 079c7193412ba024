"""`hpsearch predict`."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer
from rich.console import Console

from hpsearch.cli.interrupt import stoppable
from hpsearch.cli.options import AsJson, Device
from hpsearch.cli.progress import progress_line
from hpsearch.cli.text import accuracy, say
from hpsearch.names import listed, printable

if TYPE_CHECKING:
    from hpsearch.data.catalog import BadImage
    from hpsearch.results.predictor import Prediction

    Write = Callable[[str, Prediction | BadImage], None]

_WIDEST = 30


def predict_cli(
    export: Annotated[
        Path, typer.Argument(metavar="EXPORT", help="A folder that 'hpsearch export' wrote.")
    ],
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH",
            help="Pictures: files, folders (with all below), patterns such as 'photos/*.jpg'; - "
            "reads such names from standard input, one a line.",
        ),
    ],
    top: Annotated[
        int, typer.Option(metavar="K", min=1, help="How many classes to show of each image.")
    ] = 1,
    as_json: AsJson = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="For spreadsheets.")] = False,
    device: Device = "auto",
    batch_size: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Images that the model gets at once."),
    ] = None,
) -> None:
    """Classify pictures with an export.

    With --json each line is an object of its own. Files that cannot be read, and links that lead
    out of a folder, are named on standard error and passed over; the exit code is 1 then, and 2
    where none can be read. --json and --csv have them, too, with an error in place of the class.
    """
    from hpsearch.data.catalog import BadImage
    from hpsearch.data.progress import Clock
    from hpsearch.errors import ConfigError, DataError
    from hpsearch.results.pictures import find_pictures
    from hpsearch.results.predictor import load

    if as_json and as_csv:
        raise ConfigError("--json and --csv are both given; give one")
    predictor = load(export, device=device)
    found = find_pictures(_given(paths))
    # What is printed goes where it was meant to: the line of progress takes over sys.stdout.
    out, errors = sys.stdout, Console(stderr=True)
    bad = list(found.missing)
    write = _writer(out, predictor.classes, top, as_json=as_json, as_csv=as_csv)
    for image in bad:
        say(errors, f"cannot be read: {image}")
        write(image.name, image)
    if found.outside:
        say(
            errors,
            f"left out: {len(found.outside):,} links that lead out of the folder "
            f"({listed(found.outside, 3)}); name them yourself, or by a pattern such as 'photos/*'",
        )
    if not found.paths:
        raise DataError("there is nothing to classify: no picture was found")
    with stoppable(errors), contextlib.ExitStack() as stack:
        results = stack.enter_context(
            contextlib.closing(predictor.stream(found.paths, top_k=top, batch_size=batch_size))
        )
        # Where the results are seen to come, nothing else needs to say so.
        show = None if out.isatty() else stack.enter_context(progress_line(errors))
        clock = Clock("classifying", len(found.paths))
        for done, (path, result) in enumerate(zip(found.paths, results, strict=True), 1):
            if isinstance(result, BadImage):
                bad.append(result)
                say(errors, f"cannot be read: {result}")
            write(path, result)
            if show is not None:
                show(clock.at(done, len(bad)))
    if len(bad) - len(found.missing) == len(found.paths):
        if len(found.paths) == 1:
            raise DataError("the picture cannot be read")
        raise DataError(f"none of the {len(found.paths):,} pictures can be read")
    if bad or found.outside:
        raise typer.Exit(1)


def _given(paths: list[str]) -> list[str]:
    """The names, with those of standard input in the place of -."""
    names: list[str] = []
    for path in paths:
        if path == "-":
            lines = sys.stdin.buffer.read().splitlines()
            names += [os.fsdecode(line) for line in lines if line]
        else:
            names.append(path)
    return names


def _writer(
    out: TextIO, classes: tuple[str, ...], top: int, *, as_json: bool, as_csv: bool
) -> Write:
    """What writes one prediction, or that there is none, after the head of the table."""
    from hpsearch.data.catalog import BadImage

    if as_json:
        return lambda path, result: print(json.dumps(_document(path, result)), file=out)
    if as_csv:
        return _csv_writer(out, min(top, len(classes)))
    width = min(_WIDEST, max(len(printable(name)) for name in classes))

    def cell(label: str, probability: float) -> str:
        return f"{printable(label):{width}}  {accuracy(probability):>8}"

    def write(path: str, result: Prediction | BadImage) -> None:
        if isinstance(result, BadImage):
            return  # which standard error has
        cells = [cell(*row) for row in result.top]
        print("  ".join([*cells, printable(path)]), file=out)

    return write


def _csv_writer(out: TextIO, top: int) -> Write:
    from hpsearch.data.catalog import BadImage
    from hpsearch.results.tables import guarded

    rows = csv.writer(out, lineterminator="\n")
    heads = ["image", "predicted", "confidence"]
    for place in range(2, top + 1):
        heads += [f"predicted {place}", f"confidence {place}"]
    rows.writerow([*heads, "error"])

    def write(path: str, result: Prediction | BadImage) -> None:
        cells: list[str | float] = [guarded(printable(path))]
        if isinstance(result, BadImage):
            cells += [*("" for _ in heads[1:]), guarded(printable(result.reason))]
        else:
            for label, probability in result.top:
                cells += [guarded(label), probability]
            cells.append("")
        rows.writerow(cells)

    return write


def _document(path: str, result: Prediction | BadImage) -> dict[str, object]:
    from hpsearch.data.catalog import BadImage

    if isinstance(result, BadImage):
        return {"image": path, "error": result.reason}
    return {
        "image": path,
        "label": result.label,
        "probability": result.probability,
        "top": [{"label": label, "probability": value} for label, value in result.top],
    }
