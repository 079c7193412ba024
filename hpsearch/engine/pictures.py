"""The pictures of a trial: its learning curves, and what it made of the validation images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from hpsearch.data.dataset import ImagePart
from hpsearch.training.epoch import EpochResult
from hpsearch.training.objectives import Objective
from hpsearch.training.validation import Validation

CURVES = "learning_curves.png"
MATRIX = "confusion_matrix.png"
MISTAKES = "mistakes.png"
PICTURES = (CURVES, MATRIX, MISTAKES)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A trial as its pictures show it.

    Attributes:
        title: its search and its name.
        history: one result an epoch, at least one.
        batches: epoch, step in it and training loss of each mini-batch; perhaps none.
        validation: of its best epoch; None where that is not known.
        objective: by which that is the best.
    """

    title: str
    history: Sequence[EpochResult]
    batches: Sequence[tuple[int, int, float]]
    validation: Validation | None
    objective: Objective


def draw(subject: Subject, part: ImagePart) -> Iterator[tuple[str, bytes]]:
    """The pictures that there can be, one after the other: a row of `PICTURES`, and the PNG.

    Args:
        part: the validation images.
    """
    # matplotlib takes half a second to import, which most workers never need.
    from hpsearch.figures.confusion import confusion_figure, confusion_matrix
    from hpsearch.figures.curves import curves_figure
    from hpsearch.figures.mistakes import worst_mistakes_figure
    from hpsearch.figures.png import png_of

    curves = curves_figure(
        subject.history,
        objective=subject.objective,
        title=subject.title,
        batches=subject.batches,
    )
    yield CURVES, png_of(curves)
    found = subject.validation
    if found is None or len(found.predicted) != len(part) or not len(part):
        return
    labels = part.labels
    title = f"{subject.title}, validation"
    errors = int((found.predicted != labels).sum())
    share = 1 - errors / len(part)
    matrix = confusion_figure(
        confusion_matrix(labels, found.predicted, len(part.classes)),
        part.classes,
        title=f"{title}: {share:.2%} of {len(part):,} images (errors: {errors:,})",
    )
    yield MATRIX, png_of(matrix)
    mistakes = worst_mistakes_figure(part, found.predicted, found.confidence, title=title)
    yield MISTAKES, png_of(mistakes)
