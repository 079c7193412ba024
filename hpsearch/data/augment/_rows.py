"""What a row of the table is: its strengths, and one operation of these kinds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

Sides = tuple[int, int]
"""Height and width in pixels."""


class ColourWeights(NamedTuple):
    """What a pixel becomes: the sum of these parts, each with a weight an image, float32 (n,).

    Attributes:
        pixel: the weight of the pixel as it is.
        grey: that of the pixel's own grey; None: it has no part.
        mean: that of the mean grey of the whole image; None: it has no part.
    """

    pixel: Tensor
    grey: Tensor | None = None
    mean: Tensor | None = None


@dataclasses.dataclass(frozen=True)
class Affine:
    """Turns, shifts and stretches the whole image.

    Attributes:
        draw: (n, strength, generator) -> float32 (n, 3, 3) on the generator's device: maps
            pixel positions of the result to those of the source, both in units of half the
            shorter side, from the centre, x to the right and y down.
        whole_pixels: each pixel of the result is one of the source, or outside of it. Where all
            active rows are so, pixels are copied, not resampled.
        inside: nothing from outside of the image is seen. Where all active rows are so, its
            edges do not fade into black.
    """

    draw: Callable[[int, float, torch.Generator], Tensor]
    whole_pixels: bool = False
    inside: bool = False


@dataclasses.dataclass(frozen=True)
class Window:
    """Cuts an upright window out of the image, which becomes the whole result.

    Attributes:
        draw: (n, strength, sides of the image, sides of the result, generator) -> float32
            (n, 4): the window's top, left, height and width in pixels of the image; it may
            reach beyond the image.
        whole_pixels: as in `Affine`: windows of the result's own size, at whole pixels.
        inside: as in `Affine`.
    """

    draw: Callable[[int, float, Sides, Sides, torch.Generator], Tensor]
    whole_pixels: bool = False
    inside: bool = False


@dataclasses.dataclass(frozen=True)
class Colour:
    """Mixes each pixel with greys; what passes 0 or 1 is cut off there.

    Attributes:
        draw: (n, strength, generator) -> the weights for each image.
    """

    draw: Callable[[int, float, torch.Generator], ColourWeights]


@dataclasses.dataclass(frozen=True)
class Pixels:
    """Any other change of an image that keeps its size.

    Attributes:
        apply: (images, strength, generator) -> images; float32 NCHW from 0 to 1.
    """

    apply: Callable[[Tensor, float, torch.Generator], Tensor]


Simple = Affine | Window | Colour | Pixels
"""What changes each image on its own."""


@dataclasses.dataclass(frozen=True)
class Mix:
    """Mixes each image with another of the batch, and their labels by the same shares.

    Attributes:
        draw: (n, strength, sides of the image, generator) -> float32 (n, 1, height or 1, width
            or 1): each image's own share of each of its pixels.
    """

    draw: Callable[[int, float, Sides, torch.Generator], Tensor]


@dataclasses.dataclass(frozen=True)
class AllOf:
    """Several simple rows under one name.

    Attributes:
        parts: the strength of each for strength 1 of this one; by name.
    """

    parts: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class OneOf:
    """Each image draws one of several rows, or none of them, all with the same probability.

    Attributes:
        parts: names of rows that are `Affine`, `Colour` or `Pixels`. Strength 1 of this one is
            their `high`; at its `limit` none passes their own.
    """

    parts: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """One row of the table. Strength 0 changes nothing.

    Attributes:
        help: what it does, with the unit of its strength.
        good: a strength worth starting with.
        high: the highest strength that a search tries.
        limit: the highest strength that is allowed at all.
        rgb_only: gray images are left as they are.
    """

    name: str
    help: str
    good: float
    high: float
    limit: float
    operation: Simple | Mix | AllOf | OneOf
    rgb_only: bool = False


def uniform(n: int, high: float, generator: torch.Generator) -> Tensor:
    """float32 (n,), uniform between -high and high."""
    return (torch.rand(n, generator=generator, device=generator.device) * 2 - 1) * high


def happens(n: int, probability: float, generator: torch.Generator) -> Tensor:
    """Each true with this probability: bool (n,)."""
    return torch.rand(n, generator=generator, device=generator.device) < probability


def in_format_of(images: Tensor, result: Tensor) -> Tensor:
    """`result` in channels_last memory where `images` are, and else in the usual one."""
    if images.is_contiguous(memory_format=torch.channels_last):
        return result.contiguous(memory_format=torch.channels_last)
    return result.contiguous()
