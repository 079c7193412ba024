"""Applies the rows of the table to a batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from hpsearch.data.augment._colour import one_after_the_other, only_for, recolour
from hpsearch.data.augment._geometry import (
    centre_window,
    check_size,
    copy,
    cut_centre_nchw,
    resample,
    to_sides,
    windowed,
)
from hpsearch.data.augment._rows import (
    Affine,
    AllOf,
    Augmentation,
    Colour,
    ColourWeights,
    Mix,
    OneOf,
    Pixels,
    Sides,
    Simple,
    Window,
)
from hpsearch.data.augment._table import AUGMENTATIONS, augmentation


@dataclasses.dataclass(frozen=True, eq=False)
class Mixed:
    """Images that are mixtures of two. The loss is `share` times that for the image's own label
    and the rest that for the other one.

    Attributes:
        images: float32 NCHW.
        other: int64 (n,), the label of what was mixed in.
        share: float32 (n,), of the image's own label, from 0 to 1.
    """

    images: Tensor
    other: Tensor
    share: Tensor


@dataclasses.dataclass(frozen=True)
class _Step:
    """One operation at a strength, on behalf of a row.

    Attributes:
        only: bool (n,), the images that it is for; None: all of them.
    """

    row: str
    operation: Simple
    strength: float
    only: Tensor | None = None


def augment_batch(
    images: Tensor,
    strengths: Mapping[str, float],
    generator: torch.Generator,
    *,
    size: Sides | None = None,
) -> Tensor:
    """Augments each image of a batch on its own, in the order of the table.

    Mixing is left to `mix_batch`. With a `size`, a turned image shows at the corners of the
    result what the whole image has there.

    Args:
        images: float32 NCHW from 0 to 1 with 1 or 3 channels, on the generator's device. Not
            changed in place.
        strengths: strength by name of an augmentation; absent and 0 mean off.
        generator: all randomness comes from it.
        size: height and width of the result, cut out of the images' centre unless a crop draws
            another place; None: theirs.

    Returns:
        Same dtype, range and memory format; what comes from outside of the image is 0.

    Raises:
        ValueError: the images are smaller than `size`.
    """
    sides = images.shape[2], images.shape[3]
    size = sides if size is None else size
    check_size(sides, size)
    steps = _steps(strengths, len(images), images.shape[1], generator)
    images = _moved(images, steps, size, generator)
    return _painted(images, steps, generator)


def mix_batch(
    images: Tensor, strengths: Mapping[str, float], labels: Tensor, generator: torch.Generator
) -> Mixed | None:
    """Mixes each image with the one before it, and their labels by the same shares.

    Each image draws its own share (mixup, arXiv 1710.09412) or box (cutmix, arXiv 1905.04899);
    where both are on, each batch draws which of them.

    Args:
        images: float32 NCHW, shuffled, as `augment_batch` gives them. Not changed in place.
        strengths: as there; rows that do not mix are passed over.
        labels: int64 (n,).

    Returns:
        None where nothing mixes, or where there is one image only.
    """
    rows = [
        (row.operation, strengths[row.name])
        for row in _active(strengths)
        if isinstance(row.operation, Mix)
    ]
    n = len(images)
    if not rows or n < 2:
        return None
    sides = images.shape[2], images.shape[3]
    drawn = [mix.draw(n, strength, sides, generator) for mix, strength in rows]
    own = drawn[0]
    if len(drawn) > 1:
        choice = torch.randint(len(drawn), (1,), generator=generator, device=generator.device)
        maps = torch.stack([weights.expand(n, 1, *sides) for weights in drawn])
        own = maps.index_select(0, choice).squeeze(0)
    before = torch.arange(-1, n - 1, device=images.device) % n
    mixed = (images * own).addcmul_(images.index_select(0, before), 1 - own)
    return Mixed(mixed, labels.index_select(0, before), share=own.mean(dim=(1, 2, 3)))


def _active(strengths: Mapping[str, float]) -> list[Augmentation]:
    return [row for row in AUGMENTATIONS if strengths.get(row.name, 0.0) > 0.0]


def _steps(
    strengths: Mapping[str, float], n: int, channels: int, generator: torch.Generator
) -> list[_Step]:
    """What to do with `n` images of so many channels: rows of several parts are taken apart."""
    steps = []
    for row in _active(strengths):
        operation, strength = row.operation, strengths[row.name]
        if isinstance(operation, OneOf):
            parts = _simple(operation.parts, channels)
            drawn = torch.randint(
                len(parts) + 1, (n,), generator=generator, device=generator.device
            )
            for number, (part, simple) in enumerate(parts):
                steps.append(_Step(row.name, simple, strength * part.high, drawn == number))
        else:
            shares = operation.parts if isinstance(operation, AllOf) else {row.name: 1.0}
            steps += [
                _Step(row.name, simple, strength * shares[part.name])
                for part, simple in _simple(shares, channels)
            ]
    return steps


def _simple(names: Iterable[str], channels: int) -> list[tuple[Augmentation, Simple]]:
    """Those of these rows that change each image of so many channels on its own."""
    return [
        (row, row.operation)
        for row in map(augmentation, names)
        if isinstance(row.operation, Simple) and not (row.rgb_only and channels == 1)
    ]


def _moved(
    images: Tensor, steps: Sequence[_Step], size: Sides, generator: torch.Generator
) -> Tensor:
    """All that moves pixels, and the cut to `size`, at once."""
    n, sides = len(images), (images.shape[2], images.shape[3])
    matrix: Tensor | None = None
    for step in steps:
        if isinstance(step.operation, Affine):
            drawn = step.operation.draw(n, step.strength, generator)
            if step.only is not None:
                still = torch.eye(3, device=drawn.device)
                drawn = torch.where(step.only[:, None, None], drawn, still)
            matrix = drawn if matrix is None else matrix @ drawn
    if matrix is not None:
        matrix = to_sides(matrix, sides)
    frame = sides
    for step in steps:
        if isinstance(step.operation, Window):
            windows = step.operation.draw(n, step.strength, frame, size, generator)
            matrix = windowed(matrix, windows, frame)
            frame = size
    if matrix is None:
        return cut_centre_nchw(images, size)
    if frame != size:
        matrix = windowed(matrix, centre_window(frame, size, matrix.device), frame)
    moves = [s.operation for s in steps if isinstance(s.operation, Affine | Window)]
    if all(move.whole_pixels for move in moves):
        return copy(images, matrix, size)
    return resample(images, matrix, size, inside=all(move.inside for move in moves))


def _painted(images: Tensor, steps: Sequence[_Step], generator: torch.Generator) -> Tensor:
    """All that changes pixels where they are, in order; maps of colours in a row at once."""
    n, channels = images.shape[:2]
    weights: ColourWeights | None = None
    for step in steps:
        if isinstance(step.operation, Colour):
            drawn = step.operation.draw(n, step.strength, generator)
            if step.only is not None:
                drawn = only_for(step.only, drawn)
            weights = (
                drawn if weights is None else one_after_the_other(weights, drawn, channels=channels)
            )
        elif isinstance(step.operation, Pixels):
            images, weights = _recoloured(images, weights), None
            changed = step.operation.apply(images, step.strength, generator)
            if step.only is not None:
                changed = torch.where(step.only[:, None, None, None], changed, images)
            images = changed
    return _recoloured(images, weights)


def _recoloured(images: Tensor, weights: ColourWeights | None) -> Tensor:
    return images if weights is None else recolour(images, weights)
