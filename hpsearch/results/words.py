"""Scores and configurations in words, as cards, pages and terminals share them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpsearch.results.units import accuracy


def looks(times: int) -> str:
    """How far a test score can be trusted after the test split was opened so many times."""
    if times == 1:
        return "The test split was opened for it for the first time: nothing was chosen by it."
    return (
        f"This test split has been opened {times} times, counting all searches over it: a score "
        "that is picked after several looks is too good."
    )


def score_rows(test: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The names and values of a test report's scores, for a table."""
    low, high = test["accuracy_95"]
    rows = [
        ("accuracy", accuracy(test["accuracy"])),
        ("95 % interval", f"{accuracy(low)} to {accuracy(high)}"),
        ("errors", f"{test['errors']:,} of {test['images']:,}"),
        ("balanced accuracy", accuracy(test["balanced_accuracy"])),
        ("macro F1", f"{test['macro_f1']:.4f}"),
        ("log loss", f"{test['log_loss']:.4f}"),
        ("expected calibration error", f"{test['calibration_error']:.4f}"),
    ]
    return rows + [
        (f"accuracy of {name} alone", accuracy(column["accuracy"]))
        for name, column in test.get("columns", {}).items()
    ]


def configuration(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a `TrainConfig.to_dict()` says, in the order of its fields; what is off is left out."""
    rows = []
    for name, value in config.items():
        text = _value(value)
        if text:
            rows.append((name.replace("_", " "), text))
    return rows


def _value(value: Any) -> str:
    if value in (None, 0, False, "", "none") or value in ([], {}):
        return ""
    if isinstance(value, Mapping):
        parts = ((str(key), _value(item)) for key, item in value.items())
        return ", ".join(text if key == "name" else f"{key} {text}" for key, text in parts if text)
    if isinstance(value, list | tuple):
        return "/".join(_value(item) or str(item) for item in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
