"""Rows that turn, shift and stretch whole images."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hpsearch.data.augment._rows import happens, uniform


def _matrices(rows: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def rotate(n: int, degrees: float, generator: torch.Generator) -> Tensor:
    angle = uniform(n, math.radians(degrees), generator)
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return _matrices([[cos, sin, zero], [-sin, cos, zero], [zero, zero, one]])


def translate(n: int, fraction: float, generator: torch.Generator) -> Tensor:
    # The shorter side has length 2 in these units.
    x, y = (uniform(n, 2 * fraction, generator) for _ in range(2))
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return _matrices([[one, zero, x], [zero, one, y], [zero, zero, one]])


def scale(n: int, fraction: float, generator: torch.Generator) -> Tensor:
    factor = torch.exp(uniform(n, math.log1p(fraction), generator))
    zero, one = torch.zeros_like(factor), torch.ones_like(factor)
    return _matrices([[factor, zero, zero], [zero, factor, zero], [zero, zero, one]])


def shear(n: int, degrees: float, generator: torch.Generator) -> Tensor:
    """The inverse of torchvision's shear by two angles, along x and along y."""
    x, y = (uniform(n, math.radians(degrees), generator).tan() for _ in range(2))
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return _matrices([[1 + x * y, x, zero], [y, one, zero], [zero, zero, one]])


def hflip(n: int, probability: float, generator: torch.Generator) -> Tensor:
    sign = torch.where(happens(n, probability, generator), -1.0, 1.0)
    zero, one = torch.zeros_like(sign), torch.ones_like(sign)
    return _matrices([[sign, zero, zero], [zero, one, zero], [zero, zero, one]])


def vflip(n: int, probability: float, generator: torch.Generator) -> Tensor:
    sign = torch.where(happens(n, probability, generator), -1.0, 1.0)
    zero, one = torch.zeros_like(sign), torch.ones_like(sign)
    return _matrices([[one, zero, zero], [zero, sign, zero], [zero, zero, one]])
