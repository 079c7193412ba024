"""The history of a training as a CSV file, one row an epoch."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from hpsearch.errors import CheckpointError
from hpsearch.files import write_whole
from hpsearch.training.trainer import EpochResult

_FIELDS = tuple(field.name for field in dataclasses.fields(EpochResult))


def write_history(path: Path, history: Sequence[EpochResult]) -> None:
    """Writes `history` to `path`, whole or not at all; numbers keep all their digits."""

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, _FIELDS)
            writer.writeheader()
            writer.writerows(
                {**dataclasses.asdict(row), "is_best": int(row.is_best)} for row in history
            )

    write_whole(path, write)


def read_history(path: Path) -> tuple[EpochResult, ...]:
    """Reads what `write_history` wrote.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            history = tuple(_read_row(row) for row in reader)
        if tuple(reader.fieldnames or ()) != _FIELDS or not history:
            raise ValueError("it lacks columns or rows")
        return history
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path}: the training history cannot be read: {error}") from None


def _read_row(row: dict[str, str]) -> EpochResult:
    flags = {"0": False, "1": True}
    return EpochResult(
        **{
            name: int(row[name]) if name == "epoch" else float(row[name])
            for name in _FIELDS
            if name != "is_best"
        },  # type: ignore[arg-type]
        is_best=flags[row["is_best"]],
    )
