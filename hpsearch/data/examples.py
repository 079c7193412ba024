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
    mix_batch,
)
from hpsearch.data.dataset import PARTS, ImageDataset, Int64Array, UInt8Array
from hpsearch.data.splits import Split
from hpsearch.errors import ConfigError

_AT_ONCE = 64
"""How many images are augmented together: a batch of whole photographs fills the memory."""


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
    """Each image augmented `copies` times, as in training: where images are mixed, with others of
    these, drawn at random; one image alone stays as it is.

    Args:
        images: (n, height, width, channels).

    Returns:
        (n, copies, height, width, channels).

    Raises:
        ConfigError: an augmentation that does not exist, or a strength beyond its limit.
    """
    check_augmentations(strengths)
    generator = torch.Generator().manual_seed(seed)
    result = np.empty((len(images), copies, *images.shape[1:]), np.uint8)
    order = torch.randperm(len(images), generator=generator)
    # In shares of one size: the last one is not an image that is left alone.
    for rows in order.tensor_split(-(-len(images) // _AT_ONCE)) if len(images) else ():
        originals = torch.from_numpy(images[rows.numpy()]).permute(0, 3, 1, 2) / 255.0
        for copy in range(copies):
            batch = augment_batch(originals, strengths, generator)
            mixed = mix_batch(batch, strengths, rows, generator)
            batch = (batch if mixed is None else mixed.images).clamp(0, 1) * 255.0
            pixels = batch.round().to(torch.uint8).permute(0, 2, 3, 1)
            result[rows.numpy(), copy] = pixels.numpy()
    return result


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
