"""The history of a training as CSV files: one row an epoch, and one row a mini-batch."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from hpsearch.errors import CheckpointError
from hpsearch.files import write_whole
from hpsearch.training.epoch import EpochResult

_FIELDS = tuple(
    field.name for field in dataclasses.fields(EpochResult) if field.name != "batch_losses"
)
_ADDED = ("train_balanced_accuracy", "train_macro_f1", "val_balanced_accuracy", "val_macro_f1")
"""Columns that files of the first version lack."""
_FIRST_FIELDS = tuple(name for name in _FIELDS if name not in _ADDED)


def write_history(path: Path, history: Sequence[EpochResult]) -> None:
    """Writes `history` to `path`, whole or not at all; numbers keep all their digits.

    The losses of the mini-batches are not in it: `write_batches` writes them.
    """

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, _FIELDS)
            writer.writeheader()
            writer.writerows(
                {**{name: getattr(row, name) for name in _FIELDS}, "is_best": int(row.is_best)}
                for row in history
            )

    write_whole(path, write)


def read_history(path: Path) -> tuple[EpochResult, ...]:
    """Reads what `write_history` wrote, without the losses of the mini-batches; scores that the
    first version did not write are not a number.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            history = tuple(_read_row(row) for row in reader)
        if tuple(reader.fieldnames or ()) not in (_FIELDS, _FIRST_FIELDS) or not history:
            raise ValueError("it lacks columns or rows")
        return history
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise CheckpointError(f"{path}: the training history cannot be read: {error}") from None


def _read_row(row: dict[str, str]) -> EpochResult:
    flags = {"0": False, "1": True}
    row = {**dict.fromkeys(_ADDED, "nan"), **row}
    return EpochResult(
        **{
            name: int(row[name]) if name == "epoch" else float(row[name])
            for name in _FIELDS
            if name != "is_best"
        },  # type: ignore[arg-type]
        is_best=flags[row["is_best"]],
        batch_losses=(),
    )


def write_batches(path: Path, history: Sequence[EpochResult]) -> None:
    """Writes the losses of all mini-batches of `history` to `path`, whole or not at all; numbers
    keep all their digits. Steps are counted from 0 in each epoch.
    """

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("epoch", "step", "loss"))
            for row in history:
                writer.writerows((row.epoch, *pair) for pair in enumerate(row.batch_losses))

    write_whole(path, write)


def read_batches(path: Path) -> tuple[tuple[int, int, float], ...]:
    """Reads what `write_batches` wrote: epoch, step in it, and loss of each mini-batch.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        text = path.read_text(encoding="utf-8")
        header, *lines = text.splitlines() or [""]
        if header != "epoch,step,loss" or not text.endswith("\n"):
            raise ValueError("it lacks columns or is cut short")
        rows = (line.split(",") for line in lines)
        return tuple((int(epoch), int(step), float(loss)) for epoch, step, loss in rows)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: the losses cannot be read: {error}") from None
