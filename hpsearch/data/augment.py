"""Augmentations: a table, and their application to a whole batch on its device.

Each image draws its own randomness. Geometric rows give one 3x3 matrix an image; all of
them are multiplied into one, and the batch is resampled once. Colour rows then work on the
resampled pixels. To add an augmentation, write one function and append one row.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from hpsearch.errors import ConfigError

AffineDraw = Callable[[int, float, torch.Generator], Tensor]
PixelOperation = Callable[[Tensor, float, torch.Generator], Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmentation:
    """One row of the table. Strength 0 changes nothing.

    Attributes:
        high: the highest strength that a search tries; its unit is in `help`.
        limit: the highest strength that is allowed at all.
        affine: (n, strength, generator) -> float32 (n, 3, 3) on the generator's device: maps
            pixel positions of the result to those of the source, both in units of half the
            shorter side, from the centre, x to the right and y down.
        pixels: (images, strength, generator) -> images; float32 NCHW from 0 to 1.
    """

    name: str
    help: str
    high: float
    limit: float
    affine: AffineDraw | None = None
    pixels: PixelOperation | None = None


def _uniform(n: int, high: float, generator: torch.Generator) -> Tensor:
    """float32 (n,), uniform between -high and high."""
    return (torch.rand(n, generator=generator, device=generator.device) * 2 - 1) * high


def _matrices(rows: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _rotate(n: int, degrees: float, generator: torch.Generator) -> Tensor:
    angle = _uniform(n, math.radians(degrees), generator)
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return _matrices([[cos, sin, zero], [-sin, cos, zero], [zero, zero, one]])


def _translate(n: int, fraction: float, generator: torch.Generator) -> Tensor:
    # The shorter side has length 2 in these units.
    x, y = (_uniform(n, 2 * fraction, generator) for _ in range(2))
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return _matrices([[one, zero, x], [zero, one, y], [zero, zero, one]])


def _scale(n: int, fraction: float, generator: torch.Generator) -> Tensor:
    factor = torch.exp(_uniform(n, math.log1p(fraction), generator))
    zero, one = torch.zeros_like(factor), torch.ones_like(factor)
    return _matrices([[factor, zero, zero], [zero, factor, zero], [zero, zero, one]])


def _hflip(n: int, probability: float, generator: torch.Generator) -> Tensor:
    draw = torch.rand(n, generator=generator, device=generator.device)
    sign = torch.where(draw < probability, -1.0, 1.0)
    zero, one = torch.zeros_like(sign), torch.ones_like(sign)
    return _matrices([[sign, zero, zero], [zero, one, zero], [zero, zero, one]])


def _brightness(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    factor = 1 + _uniform(len(images), strength, generator)
    return (images * factor.view(-1, 1, 1, 1)).clamp(0, 1)


def _contrast(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    factor = 1 + _uniform(len(images), strength, generator).view(-1, 1, 1, 1)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return ((images - mean) * factor + mean).clamp(0, 1)


AUGMENTATIONS: tuple[Augmentation, ...] = (
    Augmentation(
        name="rotate",
        help="rotation by up to this many degrees",
        high=25.0,
        limit=180.0,
        affine=_rotate,
    ),
    Augmentation(
        name="translate",
        help="shift by up to this fraction of the shorter side",
        high=0.2,
        limit=1.0,
        affine=_translate,
    ),
    Augmentation(
        name="scale",
        help="zoom in or out by up to this fraction",
        high=0.25,
        limit=3.0,
        affine=_scale,
    ),
    Augmentation(
        name="hflip",
        help="horizontal flip with this probability",
        high=0.5,
        limit=1.0,
        affine=_hflip,
    ),
    Augmentation(
        name="brightness",
        help="brightness changed by up to this fraction",
        high=0.4,
        limit=1.0,
        pixels=_brightness,
    ),
    Augmentation(
        name="contrast",
        help="contrast changed by up to this fraction",
        high=0.4,
        limit=1.0,
        pixels=_contrast,
    ),
)

_BY_NAME = {row.name: row for row in AUGMENTATIONS}


def augmentation(name: str) -> Augmentation:
    """The row called `name`.

    Raises:
        ConfigError: there is none.
    """
    if name not in _BY_NAME:
        raise ConfigError(f"unknown augmentation {name!r}; known: {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def check_augmentations(strengths: Mapping[str, float]) -> None:
    """Raises `ConfigError` where a name is unknown or a strength is beyond its limit."""
    for name, strength in strengths.items():
        limit = augmentation(name).limit
        if not 0 <= strength <= limit:
            raise ConfigError(
                f"augmentation {name!r} takes a strength from 0 to {limit:g}, but got {strength!r}"
            )


def augment_batch(
    images: Tensor, strengths: Mapping[str, float], generator: torch.Generator
) -> Tensor:
    """Augments each image of a batch on its own, in the order of the table.

    Args:
        images: float32 NCHW from 0 to 1, on the generator's device. Not changed in place.
        strengths: strength by name of an augmentation; absent and 0 mean off.
        generator: all randomness comes from it.

    Returns:
        Same shape, dtype, range and memory format; what comes from outside of the image is 0.
    """
    active = [row for row in AUGMENTATIONS if strengths.get(row.name, 0.0) > 0.0]
    matrix: Tensor | None = None
    for row in active:
        if row.affine is not None:
            step = row.affine(len(images), strengths[row.name], generator)
            matrix = step if matrix is None else matrix @ step
    if matrix is not None:
        images = _resample(images, matrix)
    for row in active:
        if row.pixels is not None:
            images = row.pixels(images, strengths[row.name], generator)
    return images


def _resample(images: Tensor, matrix: Tensor) -> Tensor:
    """One bilinear resampling of the batch; `matrix` as in `Augmentation.affine`."""
    height, width = images.shape[-2:]
    shorter = min(height, width)
    # affine_grid works in units of half of each side: convert from half the shorter one.
    to_pixels = torch.tensor([width / shorter, height / shorter, 1.0], device=images.device)
    theta = matrix * to_pixels.view(1, 1, 3) / to_pixels.view(1, 3, 1)
    grid = F.affine_grid(theta[:, :2], list(images.shape), align_corners=False)
    sampled = F.grid_sample(images, grid.to(images.dtype), mode="bilinear", align_corners=False)
    if images.is_contiguous(memory_format=torch.channels_last):  # which grid_sample does not keep
        sampled = sampled.contiguous(memory_format=torch.channels_last)
    return sampled
