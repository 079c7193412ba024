"""A preview of a data set: examples of its classes, drawn at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from hpsearch.data.dataset import ImageDataset, Int64Array
from hpsearch.data.examples import augmented
from hpsearch.figures.preview import PreviewRow, preview_figure

VARIANTS = 3
"""How many augmented versions of each example are shown."""


def examples_figure(
    dataset: ImageDataset,
    rows: Sequence[Int64Array],
    strengths: Mapping[str, float],
    *,
    seed: int = 0,
) -> Figure:
    """Draws examples of each class, and below them what the augmentations make of them.

    Args:
        rows: for each class the rows of its examples, as `choose_examples` gives them.
        strengths: of augmentations; empty shows the images alone.

    Raises:
        ConfigError: an augmentation that does not exist, or a strength beyond its limit.
    """
    every = dataset.images[np.concatenate(rows)]
    # All classes together: images are mixed with those of other classes too.
    copies = VARIANTS if strengths else 0
    versions = augmented(every, strengths, copies=copies, seed=seed)
    drawn, seen = [], 0
    for name, chosen in zip(dataset.classes, rows, strict=True):
        part = slice(seen, seen := seen + len(chosen))
        images = every[part]
        names = [
            str(row) if dataset.names is None else dataset.names[row] for row in chosen.tolist()
        ]
        variants = [list(versions[part, n]) for n in range(copies)]
        drawn.append(PreviewRow(title=name, images=list(images), names=names, variants=variants))
    title = f"{dataset.name}: {len(dataset):,} images of {dataset.shape}"
    if strengths:
        words = ", ".join(f"{name} {strength:g}" for name, strength in strengths.items())
        title += f"; below each image: {words}"
    return preview_figure(drawn, title=title)
