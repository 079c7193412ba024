"""Scores in words, as cards, pages and terminals share them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpsearch.data.words import plural
from hpsearch.names import listed, printable
from hpsearch.training.units import accuracy


def looks(times: int) -> str:
    """How far a test score can be trusted after the test split was opened so many times."""
    if times == 1:
        return "The test split was opened for it for the first time: nothing was chosen by it."
    return (
        f"This test split has been opened {times} times, counting all searches over it: a score "
        "that is picked after several looks is too good."
    )


def count_seen(metrics: Mapping[str, Any]) -> int:
    """How many test images the weights had seen that training started from.

    Args:
        metrics: the content of `metrics.json`, which in earlier versions did not say.
    """
    start = metrics.get("start")
    return 0 if start is None else start["trained_on"] + start["chosen_by"]


def start_notes(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    """What the weights that training started from mean for the test score, in sentences.

    Args:
        metrics: the content of `metrics.json`.
    """
    start, seen = metrics["start"], count_seen(metrics)
    notes = [] if start is None else [f"{text[:1].upper()}{text[1:]}." for text in start["doubts"]]
    if start is None or not seen:
        return tuple(notes)
    images = metrics["test"]["images"]
    uses = {"training": start["trained_on"], "validation": start["chosen_by"]}
    how = ", ".join(f"{count:,} in {use}" for use, count in uses.items() if count)
    left = images - seen
    meaning = f"only the score on the other {left:,} tells of new images"
    if not left:
        meaning = "so no score here tells of new images"
    return (
        f"The weights that it started from ({start['weights']}) had seen {seen:,} of the "
        f"{images:,} test images ({how}): {meaning}.",
        *notes,
    )


def headline(metrics: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """The scores to believe, and the images that they are of, in words: test images that nothing
    has seen.

    Args:
        metrics: the content of `metrics.json`.
    """
    new = metrics["test_of_new"]
    if new is None:
        return metrics["test"], plural(metrics["test"]["images"], "test image")
    return new, (
        f"the {plural(new['images'], 'test image')} that the weights it started from had not seen"
    )


def best_of_many(trials: int, images: int) -> str:
    """What a validation score means by which a trial was chosen."""
    return (
        f"The best of {trials:,} trials on {plural(images, 'validation image')} is expected to "
        "look better there than it is: it was chosen by them."
    )


def validation_text(metrics: Mapping[str, Any]) -> str:
    """84.09 % of 88 images (95 % interval 75.00 % to 90.27 %, Wilson); a dash where there is none.

    Args:
        metrics: the content of `metrics.json`.
    """
    scores = metrics["validation"]
    if scores["accuracy"] is None:
        return accuracy(None)
    low, high = scores["accuracy_95"]
    return (
        f"{accuracy(scores['accuracy'])} of {plural(scores['images'], 'image')} (95 % interval "
        f"{accuracy(low)} to {accuracy(high)}, {scores['interval']})"
    )


def guessing(test: Mapping[str, Any]) -> tuple[str, float]:
    """The most frequent class of a test report (`Scores.metrics`), and the accuracy of who always
    answers it.
    """
    name = max(test["classes"], key=lambda name: test["classes"][name]["support"])
    return name, test["classes"][name]["support"] / test["images"]


def guess_notes(test: Mapping[str, Any]) -> tuple[str, ...]:
    """Says so where an accuracy cannot be told from guessing."""
    name, share = guessing(test)
    if test["accuracy_95"][0] > share:
        return ()
    return (
        f"From these images it cannot be told that the model is better than always answering "
        f"{printable(name)}, which is right for {accuracy(share)}.",
    )


def score_rows(test: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The names and values of a test report's scores (`Scores.metrics`), for a table."""
    low, high = test["accuracy_95"]
    absent = absent_classes(test)
    total = len(test["classes"])
    balanced = macro = ""
    if absent:
        balanced = f" (over the {total - len(absent):,} classes that occur)"
        macro = f" (over the {test['macro_f1_classes']:,} classes that occur or are predicted)"
    rows = [
        ("accuracy", accuracy(test["accuracy"])),
        ("95 % interval", f"{accuracy(low)} to {accuracy(high)} ({test['interval']})"),
        ("errors", f"{test['errors']:,} of {test['images']:,}"),
        (f"always answering {printable(guessing(test)[0])}", accuracy(guessing(test)[1])),
        ("balanced accuracy", f"{accuracy(test['balanced_accuracy'])}{balanced}"),
        ("macro F1", f"{test['macro_f1']:.4f}{macro}"),
        ("log loss", f"{test['log_loss']:.4f}"),
        ("expected calibration error", f"{test['calibration_error']:.4f}"),
    ]
    rows += [
        (f"accuracy of {name} alone", accuracy(column["accuracy"]))
        for name, column in test["columns"].items()
    ]
    if absent:
        rows.append(
            ("classes without images", f"{len(absent):,} of {total:,}: {listed(absent, 5)}")
        )
    return rows


def absent_classes(test: Mapping[str, Any]) -> tuple[str, ...]:
    """The classes that have no images in a test report (`Scores.metrics`)."""
    return tuple(name for name, row in test["classes"].items() if not row["support"])
