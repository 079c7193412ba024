"""Rows that blur images or paint over parts of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hpsearch.data.augment._rows import happens
from hpsearch.data.augment._windows import random_boxes


def blur(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Gaussian blur; each image draws its standard deviation, from 0 to `strength` pixels.

    The kernel ends at three times the greatest one, and the image is mirrored at its edges.
    """
    draw = torch.rand(len(images), generator=generator, device=generator.device)
    sigma = (draw * strength).clamp_(min=1e-2)  # which leaves an image exactly as it is
    result = images
    for axis in (2, 3):
        # There is no more than the other pixels of the axis to mirror.
        radius = min(max(1, round(3 * strength)), images.shape[axis] - 1)
        result = _blur_along(result, sigma, radius, axis)
    return result


def _blur_along(images: Tensor, sigma: Tensor, radius: int, axis: int) -> Tensor:
    distance = torch.arange(-radius, radius + 1, device=sigma.device)
    kernel = torch.exp(-0.5 * (distance / sigma[:, None]) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True))[:, :, None, None, None]
    sides = (radius, radius, 0, 0) if axis == 3 else (0, 0, radius, radius)
    padded = F.pad(images, sides, mode="reflect")
    side = images.shape[axis]
    result = padded.narrow(axis, 0, side) * kernel[:, 0]
    for place in range(1, 2 * radius + 1):
        result.addcmul_(padded.narrow(axis, place, side), kernel[:, place])
    return result


def erase(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Paints a box of each image black: 2 % to 33 % of its area, with sides 0.3 to 3.3 times as
    wide as high (random erasing, arXiv 1708.04896). The box is smaller than the image.
    """
    n, _, height, width = images.shape
    erased = happens(n, probability, generator)
    area = height * width
    # What is rounded to the whole height or width does not fit.
    most = (height - 0.501, width - 0.501)
    (high, wide), fits = random_boxes(n, (0.02 * area, 0.33 * area), (0.3, 3.3), most, generator)
    ys = _inside(high, height, generator)
    xs = _inside(wide, width, generator)
    painted = ys[:, None, :, None] & xs[:, None, None, :] & (erased & fits)[:, None, None, None]
    return images * ~painted


def _inside(length: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """A stretch of this length, in whole pixels, anywhere on an axis: where it is, as bool
    (n, side).
    """
    length = length.round()
    draw = torch.rand(len(length), generator=generator, device=generator.device)
    start = (draw * (side - length + 1)).floor()
    places = torch.arange(side, device=length.device)
    return (places >= start[:, None]) & (places < (start + length)[:, None])
