"""Images to look at: some of each class, and what the augmentations make of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from hpsearch.data.augment import (
    AUGMENTATIONS,
    augment_batch,
    augmentation,
    check_augmentations,
)
from hpsearch.data.dataset import PARTS, ImageDataset, Int64Array, UInt8Array
from hpsearch.data.splits import Split
from hpsearch.errors import ConfigError


def choose_examples(
    dataset: ImageDataset, split: Split, *, per_class: int, seed: int = 0, show_test: bool = False
) -> list[Int64Array]:
    """For each class, the rows of up to `per_class` of its images, drawn at random.

    Args:
        show_test: images of the test split may be among them.
    """
    random = np.random.default_rng(seed)
    may_be_seen = show_test | (split.membership(len(dataset)) != PARTS.index("test"))
    chosen = []
    for label in range(len(dataset.classes)):
        rows = np.flatnonzero((dataset.labels == label) & may_be_seen)
        chosen.append(np.sort(random.permutation(rows)[:per_class]))
    return chosen


def augmented(
    images: UInt8Array, strengths: Mapping[str, float], *, copies: int, seed: int = 0
) -> UInt8Array:
    """Each image augmented `copies` times, as in training.

    Args:
        images: (n, height, width, channels).

    Returns:
        (n, copies, height, width, channels).

    Raises:
        ConfigError: an augmentation that does not exist, or a strength beyond its limit.
    """
    check_augmentations(strengths)
    generator = torch.Generator().manual_seed(seed)
    batch = torch.from_numpy(np.repeat(images, copies, axis=0)).permute(0, 3, 1, 2) / 255.0
    result = augment_batch(batch, strengths, generator).clamp(0, 1) * 255.0
    pixels = result.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return np.ascontiguousarray(pixels).reshape(len(images), copies, *images.shape[1:])


def parse_strengths(texts: list[str]) -> dict[str, float]:
    """Augmentations and their strengths from texts such as rotate=20, or from 'all'.

    Raises:
        ConfigError: one that does not exist, a strength that is no number or beyond its limit.
    """
    if texts == ["all"]:
        return {row.name: row.high for row in AUGMENTATIONS}
    strengths = {}
    for text in texts:
        name, _, value = text.partition("=")
        row = augmentation(name)
        try:
            strengths[name] = float(value) if value else row.high
        except ValueError:
            raise ConfigError(
                f"--augment {name} takes a number, {row.help}, but got {value!r}"
            ) from None
    check_augmentations(strengths)
    return strengths
