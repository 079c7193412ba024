"""Predictions of single images, as a table."""

from __future__ import annotations

import csv
import dataclasses
import io
from pathlib import Path

from hpsearch.data.dataset import ImagePart
from hpsearch.errors import DataError
from hpsearch.results.scores import Scores
from hpsearch.results.tables import bare, write_table

_DIGITS = 7
"""Of a probability: models compute in float32, which has no more."""
_CLASS = "p "
"""What stands before a class where a column has its probability."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """What a model made of each image.

    Attributes:
        names: (N,): what each image is called, or its number in the data set.
        groups: (N,): who or what each image belongs to; None where the data has no groups.
        true, predicted: (N,): names of classes.
    """

    names: tuple[str, ...]
    groups: tuple[str, ...] | None
    true: tuple[str, ...]
    predicted: tuple[str, ...]


def write_predictions(path: Path, part: ImagePart, scores: Scores) -> None:
    """Writes a row for each image of `part`, with the probabilities of all classes, as CSV."""
    names, groups, classes = part.names, part.dataset.groups, part.classes
    true, predicted = part.labels.tolist(), scores.predicted.tolist()
    rounded = [[_rounded(value) for value in row] for row in scores.probabilities.tolist()]
    rows = (
        (
            names[number],
            *(() if groups is None else (groups[row],)),
            classes[true[number]],
            classes[predicted[number]],
            rounded[number][predicted[number]],
            *rounded[number],
        )
        for number, row in enumerate(part.rows.tolist())
    )
    group = () if groups is None else ("group",)
    heads = ("image", *group, "true", "predicted", "confidence")
    write_table(path, [*heads, *(f"{_CLASS}{name}" for name in classes)], rows)


def read_predictions(path: Path) -> Predictions:
    """Reads what `write_predictions` wrote.

    Raises:
        DataError: the file is missing or damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            text = file.read()
        lines = list(csv.reader(io.StringIO(text, newline="")))
        if len(lines) < 2 or not text.endswith("\n"):
            raise ValueError("it is cut short")
        return _parsed(lines[0], lines[1:])
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: the predictions cannot be read: {error}") from None


def _parsed(heads: list[str], rows: list[list[str]]) -> Predictions:
    grouped = heads[1:2] == ["group"]
    first = 5 if grouped else 4
    if heads[first - 3 : first] != ["true", "predicted", "confidence"]:
        raise ValueError("it lacks columns")
    if any(len(row) != len(heads) for row in rows):
        raise ValueError("its rows are not equally long")
    texts = [tuple(bare(row[column]) for row in rows) for column in range(first - 1)]
    true, predicted = texts[-2:]
    if not {*true, *predicted} <= {head.removeprefix(_CLASS) for head in heads[first:]}:
        raise ValueError("it names classes that it has no column for")
    return Predictions(
        names=texts[0],
        groups=texts[1] if grouped else None,
        true=true,
        predicted=predicted,
    )


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")
