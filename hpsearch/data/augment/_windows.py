"""Rows that cut a window out of each image, and how boxes are drawn."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hpsearch.data.augment._rows import Sides

_TRIES = 10
"""How often a box that does not fit is drawn anew, as in torchvision."""


def crop(
    n: int, fraction: float, image: Sides, result: Sides, generator: torch.Generator
) -> Tensor:
    """Windows of the result's size at any whole pixel of the padded image, all equally likely:
    torchvision's `RandomCrop(result, padding=...)`.
    """
    padding = round(fraction * min(image))
    corner = [
        torch.randint(
            -padding, own + padding - wanted + 1, (n,), generator=generator, device=generator.device
        )
        for own, wanted in zip(image, result, strict=True)
    ]
    sides = [torch.full_like(corner[0], side) for side in result]
    return torch.stack([*corner, *sides], dim=-1).float()


def resized_crop(
    n: int, strength: float, image: Sides, result: Sides, generator: torch.Generator
) -> Tensor:
    """Windows of 1 - strength to all of the image's area, seen wider or narrower by up to 4/3.

    torchvision's `RandomResizedCrop(result, scale=(1 - strength, 1))`, but at any position, not
    only at whole pixels, and with the proportions against those of the result (the same for
    square ones): a window of a wide image that stays wide is not distorted.
    """
    height, width = image
    least, most = (result[1] / result[0] * ratio for ratio in (3 / 4, 4 / 3))
    area = height * width
    (high, wide), fits = random_boxes(
        n, ((1 - strength) * area, area), (least, most), image, generator
    )
    # Where none fits, the largest one that does, in the middle.
    whole = min(max(width / height, least), most)
    high = torch.where(fits, high, min(height, width / whole))
    wide = torch.where(fits, wide, min(width, height * whole))
    top, left = torch.rand((2, n), generator=generator, device=generator.device)
    top = torch.where(fits, top, 0.5) * (height - high)
    left = torch.where(fits, left, 0.5) * (width - wide)
    return torch.stack([top, left, high, wide], dim=-1)


def random_boxes(
    n: int,
    area: tuple[float, float],
    ratio: tuple[float, float],
    most: tuple[float, float],
    generator: torch.Generator,
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Sizes of random boxes, as torchvision draws them: the first of some tries that fits.

    Args:
        area: least and greatest, in square pixels.
        ratio: least and greatest width over height; its logarithm is uniform.
        most: the greatest height and width that fit.

    Returns:
        (height, width), each float32 (n,), in pixels; bool (n,), whether a box was found at all.
    """
    drawn = torch.rand((2, n, _TRIES), generator=generator, device=generator.device)
    areas = area[0] + (area[1] - area[0]) * drawn[0]
    low, high = math.log(ratio[0]), math.log(ratio[1])
    root = torch.exp((low + (high - low) * drawn[1]) / 2)  # of width over height
    heights, widths = areas.sqrt() / root, areas.sqrt() * root
    fits = (heights <= most[0]) & (widths <= most[1])
    first = fits.int().argmax(dim=1, keepdim=True)
    height, width, found = (t.gather(1, first).squeeze(1) for t in (heights, widths, fits))
    return (height, width), found
