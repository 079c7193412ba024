"""Scores and configurations in words, as cards, pages and terminals share them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpsearch.names import listed
from hpsearch.training.units import accuracy


def looks(times: int) -> str:
    """How far a test score can be trusted after the test split was opened so many times."""
    if times == 1:
        return "The test split was opened for it for the first time: nothing was chosen by it."
    return (
        f"This test split has been opened {times} times, counting all searches over it: a score "
        "that is picked after several looks is too good."
    )


def score_rows(test: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The names and values of a test report's scores (`Scores.metrics`), for a table."""
    low, high = test["accuracy_95"]
    absent = absent_classes(test)
    total = len(test["classes"])
    balanced = macro = ""
    if absent:
        balanced = f" (over the {total - len(absent):,} classes that occur)"
        # Reports of earlier versions do not say how many.
        counted = test.get("macro_f1_classes")
        how_many = "" if counted is None else f"{counted:,} "
        macro = f" (over the {how_many}classes that occur or are predicted)"
    rows = [
        ("accuracy", accuracy(test["accuracy"])),
        ("95 % interval", f"{accuracy(low)} to {accuracy(high)} ({test['interval']})"),
        ("errors", f"{test['errors']:,} of {test['images']:,}"),
        ("balanced accuracy", f"{accuracy(test['balanced_accuracy'])}{balanced}"),
        ("macro F1", f"{test['macro_f1']:.4f}{macro}"),
        ("log loss", f"{test['log_loss']:.4f}"),
        ("expected calibration error", f"{test['calibration_error']:.4f}"),
    ]
    rows += [
        (f"accuracy of {name} alone", accuracy(column["accuracy"]))
        for name, column in test.get("columns", {}).items()
    ]
    if absent:
        rows.append(
            ("classes without images", f"{len(absent):,} of {total:,}: {listed(absent, 5)}")
        )
    return rows


def absent_classes(test: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes that have no images in a test report (`Scores.metrics`)."""
    return tuple(name for name, row in test["classes"].items() if not row["support"])
