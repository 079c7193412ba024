"""Searches and trials made by hand, as they are read from a storage."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hpsearch import StudySpec
from hpsearch.config import TrainConfig
from hpsearch.engine.place import Place
from hpsearch.engine.records import SearchRecord, TrialRecord

PLACE = Place(Path("runs"))
_START = datetime.datetime(2026, 1, 2, 3, 4, 5)


def make_trial(number: int = 0, state: str = "complete", **fields: Any) -> TrialRecord:
    """A trial; the later its number, the later it ended."""
    family = fields.pop("family", "mlp")
    place = fields.pop("place", PLACE)
    reported = fields.pop("reported", {0: 0.5, 1: 0.75})
    known = {
        "value": max(reported.values(), default=None),
        "val_accuracy": max(reported.values(), default=None),
        "val_balanced_accuracy": 0.7,
        "val_macro_f1": 0.65,
        "val_loss": 0.9,
        "best_epoch": 1 if reported else None,
        "chosen_by": "model",
        "params": {"lr": 0.003, "optimizer": "adamw"},
        "config": TrainConfig(family="mlp", augment={"rotate": 10.0}),
        "objective": "val_accuracy",
        "epochs": len(reported),
        "seconds": 2.5,
        "parameters": 1234,
        "failure": "",
        "note": "",
        "images_per_second": 1000.0,
        "ended": _START + datetime.timedelta(seconds=number),
    }
    return TrialRecord(
        place=place,
        search="digits",
        family=family,
        number=number,
        state=state,
        folder=place.runs / "digits" / f"{family}-{number}",
        reported=reported,
        **{**known, **fields},
    )


def make_record(
    trials: Sequence[TrialRecord] = (),
    *,
    families: Sequence[str] = ("mlp", "cnn"),
    place: Place = PLACE,
    data: Mapping[str, Any] | None = None,
    **spec: Any,
) -> tuple[SearchRecord, StudySpec]:
    """A search and what was asked for."""
    asked = StudySpec(name="digits", families=tuple(families), trials=8, epochs=4, **spec)
    record = SearchRecord(
        place=place,
        name="digits",
        families=tuple(families),
        spec=asked.to_dict(),
        data={
            "name": "digits",
            "source": {"source": "digits"},
            "notes": [],
            "shape": {"height": 8, "width": 8, "channels": 1},
            "classes": ["zero", "one"],
            "counts": {"train": 60, "val": 20, "test": 20},
            **(data or {}),
        },
        fingerprints={"data": "d", "split": "s"},
        trials=tuple(trials),
        openings=(),
    )
    return record, asked
