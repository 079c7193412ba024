"""The folders that exports and evaluations are: what is in them, what of it is read again, and how
they come to be; without what it takes to fill them.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hpsearch.data.known_images import HASHES
from hpsearch.errors import SearchError
from hpsearch.files import whole_folder

FORMAT = "hpsearch-export-1"

CARD = "README.md"
MODEL = "model.pt"
PROGRAM = "model.pt2"
ONNX = "model.onnx"
CONFIG = "config.json"
METRICS = "metrics.json"
PAGE = "report.html"
PREDICTIONS = "predictions.csv"
MISTAKES = "mistakes.png"
BATCH_LOSSES = "learning_curves_batches.csv"
RETRAINING = "retrain.json"

# A table and a picture each: without .csv and .png.
CONFUSION = "confusion_matrix"
CURVES = "learning_curves"
SEEDS = "seeds"
CANDIDATES = "candidates"

FILES = {
    MODEL: "the checkpoint: `hpsearch predict`, `hpsearch.load`",
    PROGRAM: "the same with normalisation, for PyTorch alone",
    ONNX: "the same for ONNX Runtime",
    CONFIG: "all it takes to rebuild the model: classes, preprocessing, configuration",
    HASHES: "hashes of the search's images, by which `hpsearch evaluate` knows them again; no "
    "image can be made of them, but who has an image can tell whether it was among them",
    METRICS: "the scores, for machines",
    PAGE: "the scores, for people",
    f"{CONFUSION}.csv": "rows are the true classes, columns the predicted ones",
    f"{CONFUSION}.png": "the same as a picture",
    PREDICTIONS: "each test image: its name, true and predicted class, probabilities",
    MISTAKES: "the most confident mistakes",
    f"{CURVES}.csv": "each epoch of the training",
    f"{CURVES}.png": "the same as a picture",
    BATCH_LOSSES: "each mini-batch's loss",
    f"{SEEDS}.csv": "each of the seeds it was trained again with",
    f"{SEEDS}.png": "their learning curves",
    RETRAINING: "the same for machines",
    f"{CANDIDATES}.csv": "the configurations that were trained on folds, and how they fared",
    f"{CANDIDATES}.png": "the same as a picture",
}
"""What each file of an export is, in Markdown, for the model card."""


def read_metrics(folder: Path) -> dict[str, Any]:
    """The content of a folder's `metrics.json`; empty where there is none, or it is damaged."""
    try:
        document = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


@contextlib.contextmanager
def new_folder(
    out: Path, what: str, *, is_ours: Callable[[Path], bool], replace: bool
) -> Iterator[Path]:
    """A temporary folder that becomes `out` when the block ends without error (see
    `hpsearch.files.whole_folder`). What the block writes to it, it writes within `writing`.

    Args:
        what: it is to be: an "export", for example.
        is_ours: whether a folder that exists is one of these.
        replace: take the place of one that exists.

    Raises:
        SearchError: `out` exists, unless it is one of ours that may be replaced; or it cannot be
            written.
    """
    _check_free(out, what, is_ours=is_ours, replace=replace)
    with contextlib.ExitStack() as stack:
        with writing(out):
            folder = stack.enter_context(whole_folder(out, replace=replace))
        yield folder
        with writing(out):
            stack.close()


@contextlib.contextmanager
def writing(out: Path) -> Iterator[None]:
    """Nothing but the writing of `out` belongs into the block: of all that fails in it on the disk
    it is said that `out` cannot be written.

    Raises:
        SearchError: it cannot.
    """
    try:
        yield
    except OSError as error:
        raise SearchError(f"{out} cannot be written: {error.strerror or error}") from None


def _check_free(out: Path, what: str, *, is_ours: Callable[[Path], bool], replace: bool) -> None:
    if not out.is_symlink() and (not out.exists() or (replace and is_ours(out))):
        return
    if out.is_symlink():
        hint = "it is a link"
    elif is_ours(out):
        hint = "replace it with --force, in Python with replace=True"
    else:
        hint = f"it is no {what} of ours"
    raise SearchError(f"{out} exists already ({hint}); name another folder with -o")
