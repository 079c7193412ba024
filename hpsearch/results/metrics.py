"""What `metrics.json` says of an export, part by part, and what the study keeps of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from hpsearch.data.dataset import ImagePart, Int64Array
from hpsearch.data.known_images import CHOSEN, TRAINED
from hpsearch.families._start_images import StartOverlap
from hpsearch.results.scores import score
from hpsearch.results.words import count_seen


def validation_interval(logits: Tensor, images: ImagePart) -> dict[str, Any]:
    """What it says of how sure a validation accuracy is.

    Raises:
        CheckpointError: outputs that are no numbers.
    """
    scores = score(logits, images).metrics
    return {key: scores[key] for key in ("images", "accuracy_95", "interval")}


def without_seen(start: StartOverlap | None, test: ImagePart, logits: Tensor) -> dict[str, Any]:
    """What it says of test images that the weights had seen which training started from: how many
    there are, and the scores without them.
    """
    if start is None:
        return {"start": None, "test_of_new": None}
    uses = start.uses[test.rows]
    new = new_rows(start, test)
    return {
        "start": {
            "weights": start.weights,
            "trained_on": int((uses == TRAINED).sum()),
            "chosen_by": int((uses == CHOSEN).sum()),
            "doubts": list(start.doubts),
        },
        "test_of_new": scores_of_new(logits, test, new),
    }


def new_rows(start: StartOverlap | None, test: ImagePart) -> Int64Array:
    """int64 (n,): which of the images of `test`, from 0, the weights had not seen."""
    seen = np.zeros(len(test), dtype=np.bool_) if start is None else start.seen[test.rows]
    rows: Int64Array = np.flatnonzero(~seen)
    return rows


def scores_of_new(logits: Tensor, test: ImagePart, new: Int64Array) -> dict[str, Any] | None:
    """The scores (`Scores.metrics`) on the images `new` of `test`; None where these are all of
    them, or none.

    Args:
        logits: of all images of `test`.
    """
    if len(new) in (0, len(test)):
        return None
    return score(logits[new], test.dataset.part(test.rows[new])).metrics


def study_details(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What the study keeps of a look at the test split: how sure the accuracy is, and where the
    weights which training started from had seen test images, the scores without those.

    Args:
        metrics: the content of `metrics.json`.
    """
    test = metrics["test"]
    details = {"accuracy_95": test["accuracy_95"], "images": test["images"]}
    if count_seen(metrics):
        scores = metrics["test_of_new"] or {"images": 0}
        known = ("accuracy", "accuracy_95", "images")
        details["new"] = {key: scores[key] for key in known if key in scores}
    return details
