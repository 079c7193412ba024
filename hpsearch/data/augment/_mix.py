"""Rows that mix each image with another one of its batch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hpsearch.data.augment._rows import Sides


def mixup(n: int, alpha: float, _: Sides, generator: torch.Generator) -> Tensor:
    return symmetric_beta(n, alpha, generator).view(-1, 1, 1, 1)


def cutmix(n: int, alpha: float, image: Sides, generator: torch.Generator) -> Tensor:
    """0 in a box with the image's proportions, 1 around it. The box lies anywhere; what passes
    the image's edge is cut off, so that its share may be less than was drawn.
    """
    root = (1 - symmetric_beta(n, alpha, generator)).sqrt()
    inside = []
    for side in image:
        half = (root * (side / 2)).floor()[:, None]
        draw = torch.rand(n, generator=generator, device=generator.device)
        middle = (draw * side).floor()[:, None]
        places = torch.arange(side, device=generator.device)
        inside.append((places >= middle - half) & (places < middle + half))
    box = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return 1.0 - box.float()


def symmetric_beta(n: int, alpha: float, generator: torch.Generator) -> Tensor:
    """float32 (n,), from the Beta distribution whose parameters are both `alpha`.

    torch's own takes no generator. With two uniform values U and V,
    `sqrt(U ** (-1 / alpha) - 1) * cos(2 * pi * V)` is Student's t with 2 * alpha degrees of
    freedom over the root of these (Bailey, Math. Comp. 62, 1994), and t / sqrt(1 + t ** 2) is
    between -1 and 1 as a Beta variable of both parameters `alpha` is between 0 and 1 (Devroye,
    Random variate generation in one line of code, 1996). No draw is rejected, and none
    underflows for a small `alpha`.
    """
    first, second = torch.rand((2, n), generator=generator, device=generator.device)
    cosine = torch.cos(2 * math.pi * second)
    squared = torch.expm1(-first.log() / alpha) * cosine.square()
    return 0.5 + 0.5 * cosine.sign() / torch.sqrt(1 + 1 / squared)
