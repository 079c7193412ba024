"""Moves the pixels of a batch: one matrix for each image, one resampling for all of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hpsearch.data.augment._rows import Sides, in_format_of


def check_size(image: Sides, size: Sides) -> None:
    """Raises `ValueError` where an image is smaller than what is to be cut out of it."""
    if size[0] > image[0] or size[1] > image[1]:
        raise ValueError(f"{size[0]}x{size[1]} cannot be cut out of {image[0]}x{image[1]} pixels")


def cut_centre_nchw(images: Tensor, size: Sides) -> Tensor:
    """The middle of NCHW images, `size` (height and width) large, as torchvision's `center_crop`.

    Raises:
        ValueError: the images are smaller than that.
    """
    sides = images.shape[2], images.shape[3]
    check_size(sides, size)
    if sides == size:
        return images
    top, left = centre_of(sides, size)
    return in_format_of(images, images[..., top : top + size[0], left : left + size[1]])


def centre_window(image: Sides, size: Sides, device: torch.device) -> Tensor:
    """What `cut_centre_nchw` cuts out, as in `Window.draw`: float32 (1, 4)."""
    values = (*centre_of(image, size), *size)
    # A tensor of Python values would wait for its copy to the device.
    return torch.stack([torch.full((1,), float(value), device=device) for value in values], dim=-1)


def centre_of(image: Sides, size: Sides) -> Sides:
    """Top and left of the middle, rounded as by torchvision's `center_crop`."""
    return round((image[0] - size[0]) / 2), round((image[1] - size[1]) / 2)


def to_sides(matrix: Tensor, image: Sides) -> Tensor:
    """Matrices in units of half the shorter side, in those of half of each side."""
    shorter = min(image)
    matrix = matrix.clone()
    for axis, side in enumerate(reversed(image)):  # x comes first
        matrix[:, :, axis] *= side / shorter
        matrix[:, axis] /= side / shorter
    return matrix


def windowed(matrix: Tensor | None, windows: Tensor, image: Sides) -> Tensor:
    """Matrices whose result is no longer the whole image, but a window of it.

    Args:
        matrix: as in `resample`, of whole images; None moves nothing.
        windows: as in `Window.draw`, of (n, 4) or (1, 4).
    """
    top, left, height, width = windows.unbind(dim=-1)
    inner = torch.zeros((len(windows), 3, 3), device=windows.device)
    inner[:, 0, 0], inner[:, 0, 2] = width / image[1], (2 * left + width) / image[1] - 1
    inner[:, 1, 1], inner[:, 1, 2] = height / image[0], (2 * top + height) / image[0] - 1
    inner[:, 2, 2].fill_(1)
    return inner if matrix is None else matrix @ inner


def resample(images: Tensor, matrix: Tensor, size: Sides, *, inside: bool = False) -> Tensor:
    """One bilinear resampling of the batch; black comes from outside of the image.

    Args:
        images: NCHW.
        matrix: (n, 3, 3), from positions in the result to those in the source, in units of half
            of each side of either.
        size: of the result.
        inside: no window reaches beyond the image: the pixels at its edges are what is there.
    """
    grid = _places(matrix, size)
    sampled = F.grid_sample(
        images,
        grid.to(images.dtype),
        mode="bilinear",
        padding_mode="border" if inside else "zeros",
        align_corners=False,
    )
    return in_format_of(images, sampled)  # which grid_sample does not keep


def _places(matrix: Tensor, size: Sides) -> Tensor:
    """Where in the source each pixel of the result lies: (n, height, width, 2), x first.

    As `F.affine_grid`, which multiplies matrices for each pixel and takes several times as long.
    """
    height, width = size
    x, y = (
        (2 * torch.arange(side, device=matrix.device) + 1) / side - 1 for side in (width, height)
    )
    places = torch.empty((len(matrix), height, width, 2), device=matrix.device)
    for axis in range(2):
        across = matrix[:, axis, 0, None] * x
        down = torch.addcmul(matrix[:, axis, 2, None], matrix[:, axis, 1, None], y)
        torch.add(across[:, None, :], down[:, :, None], out=places[..., axis])
    return places


def copy(images: Tensor, matrix: Tensor, size: Sides) -> Tensor:
    """As `resample`, for matrices that lead from pixels to pixels: no value changes."""
    n, channels, height, width = images.shape
    rows, row_inside = _sources(matrix[:, 1, 1], matrix[:, 1, 2], height, size[0])
    columns, column_inside = _sources(matrix[:, 0, 0], matrix[:, 0, 2], width, size[1])
    rows = rows + height * torch.arange(n, device=images.device)[:, None]
    places = rows[:, :, None] * width + columns[:, None, :]
    pixels = images.permute(0, 2, 3, 1).reshape(-1, channels)
    copied = pixels.index_select(0, places.flatten()).view(n, *size, channels)
    inside = row_inside[:, :, None] & column_inside[:, None, :]
    copied = copied.mul_(inside[..., None])
    return in_format_of(images, copied.permute(0, 3, 1, 2))


def _sources(zoom: Tensor, shift: Tensor, side: int, size: int) -> tuple[Tensor, Tensor]:
    """Along one axis: int64 (n, size), which pixel each is a copy of; whether there is one."""
    positions = (2 * torch.arange(size, device=zoom.device) + 1) / size - 1
    moved = zoom[:, None] * positions + shift[:, None]
    pixels = ((moved + 1) * (side / 2) - 0.5).round().long()
    return pixels.clamp(0, side - 1), (pixels >= 0) & (pixels < side)
