"""Pillow's resize as products of matrices, to the bit: it can be part of a program that runs where
no Pillow is.

Pillow computes in whole numbers: weights in units of 2**-22, and 8 bits after each of two passes
(Pillow 11 to 13, src/libImaging/Resample.c and Reduce.c). Its sums stay below 2**53, so float64
gives the same ones in whatever order it adds.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from hpsearch.data.dataset import FloatArray
from hpsearch.data.decode import REDUCING_GAP

_BITS = 22
_PROBED_PIXELS, _MOST_PROBES = 4096, 64

Size = tuple[int, int]


class Resize(nn.Module):
    """Images in another size, as `hpsearch.data.store.resized` makes them: antialiased bilinear.

    Args:
        image, size: height and width of what comes, and of what it becomes.

    Shapes:
        input float64 (n, channels, height, width) of whole numbers from 0 to 255; output the same
        in the other size.
    """

    rows: Tensor | None
    columns: Tensor | None

    def __init__(self, image: Size, size: Size) -> None:
        super().__init__()
        high, wide = (int(a / b / REDUCING_GAP) or 1 for a, b in zip(image, size, strict=True))
        self.reduce = _Reduce(image, (high, wide)) if max(high, wide) > 1 else None
        self.register_buffer("rows", _pass(image[0], high, size[0]))
        self.register_buffer("columns", _pass(image[1], wide, size[1]))
        self.columns_first = True
        self.columns_first = self._agrees_with_pillow(image, size)

    def forward(self, images: Tensor) -> Tensor:
        """The reduction, then the passes."""
        if self.reduce is not None:
            images = self.reduce(images)
        if self.columns is not None and self.columns_first:
            images = _rounded(images @ self.columns.double().T)
        if self.rows is not None:
            images = _rounded(self.rows.double() @ images)
        if self.columns is not None and not self.columns_first:
            images = _rounded(images @ self.columns.double().T)
        return images

    def _agrees_with_pillow(self, image: Size, size: Size) -> bool:
        """Whether this order of the passes gives what Pillow gives for noise: which one it takes
        depends on the sizes, and on its version.
        """
        random = np.random.default_rng(0)
        count = min(_MOST_PROBES, -(-_PROBED_PIXELS // (size[0] * size[1])))
        noise = random.integers(0, 256, (count, *image), dtype=np.uint8)
        expected = np.stack([_by_pillow(pixels, size) for pixels in noise])
        found = self(torch.from_numpy(noise).double().unsqueeze(1)).squeeze(1).numpy()
        return bool(np.array_equal(found, expected))


class _Reduce(nn.Module):
    """The means of blocks of pixels; those at the right and lower edge may be smaller."""

    rows: Tensor
    columns: Tensor
    amend: Tensor
    reciprocal: Tensor

    def __init__(self, image: Size, factors: Size) -> None:
        super().__init__()
        rows, columns = (_blocks(side, factor) for side, factor in zip(image, factors, strict=True))
        pixels = np.outer(rows.sum(axis=1), columns.sum(axis=1))
        # Pillow divides by multiplying with a reciprocal of 24 bits, which float32 gave it.
        reciprocal = np.floor(np.float32(2**32) / (256 * pixels).astype(np.float32))
        self.register_buffer("rows", torch.from_numpy(rows))
        self.register_buffer("columns", torch.from_numpy(columns))
        self.register_buffer("amend", torch.from_numpy(pixels // 2))
        self.register_buffer("reciprocal", torch.from_numpy(reciprocal.astype(np.float64)))

    def forward(self, images: Tensor) -> Tensor:
        sums = self.rows @ images @ self.columns.T
        return ((sums + self.amend) * self.reciprocal / 2**24).floor()


def _by_pillow(pixels: np.ndarray, size: Size) -> np.ndarray:
    image = Image.fromarray(pixels)
    return np.asarray(
        image.resize(size[::-1], Image.Resampling.BILINEAR, reducing_gap=REDUCING_GAP)
    )


def _rounded(images: Tensor) -> Tensor:
    return (images + 0.5).floor().clamp(0, 255)


def _blocks(side: int, factor: int) -> FloatArray:
    """float64 (blocks, side): 1 where a pixel is in a block."""
    blocks = np.arange(-(-side // factor))
    member: FloatArray = (blocks[:, np.newaxis] == np.arange(side) // factor).astype(np.float64)
    return member


def _pass(side: int, factor: int, target: int) -> Tensor | None:
    """The weights of one pass; None where it changes nothing."""
    used = side / factor
    if used == target:
        return None
    weights = _weights(-(-side // factor), used, target)
    # They are multiples of 2**-22 up to 1: float32 has them exactly.
    return torch.from_numpy(weights.astype(np.float32))


def _weights(pixels: int, used: float, target: int) -> FloatArray:
    """The weights of the pixels of a row in each of its new ones: float64 (target, pixels).

    Args:
        pixels: in the row.
        used: how many of them; the last one perhaps in part.
    """
    scale = float(np.float32(used)) / target  # Pillow's box has 32 bits
    support = max(scale, 1.0)
    matrix = np.zeros((target, pixels))
    for row in range(target):
        centre = (row + 0.5) * scale
        first = max(0, int(centre - support + 0.5))
        last = min(pixels, int(centre + support + 0.5))
        at = np.arange(first, last) + 0.5 - centre
        triangle = np.maximum(0.0, 1.0 - np.abs(at * (1.0 / support)))
        # One after the other, as C adds: a sum would be rounded otherwise.
        total = np.cumsum(triangle)[-1]
        matrix[row, first:last] = np.floor(triangle / total * 2**_BITS + 0.5) / 2**_BITS
    return matrix
