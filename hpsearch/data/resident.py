"""Training and validation images kept where they are quick to reach, and batches made from them.

Images stay uint8 until a batch is drawn; a worker loads them once, and all its trials share
them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from hpsearch.config import JsonConfig
from hpsearch.data.augment import augment_batch
from hpsearch.data.dataset import CHUNK_BYTES, ImagePart, ImageShape
from hpsearch.data.splits import DevelopmentData


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing(JsonConfig):
    """How a uint8 image becomes the input of a model: scaled to 0..1, then (x - mean) / std.

    Attributes:
        mean, std: one value a channel, of the training images scaled to 0..1.
    """

    height: int
    width: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def shape(self) -> ImageShape:
        """The shape of one image."""
        return ImageShape(self.height, self.width, self.channels)

    @classmethod
    def of(cls, part: ImagePart) -> Preprocessing:
        """Normalisation to mean 0 and standard deviation 1 over the pixels of `part`."""
        shape = part.shape
        mean, std = part.mean_and_std()
        # A channel that never varies would divide by zero; a gray level is the least step.
        std = np.maximum(std, 1 / 255.0)
        return cls(
            height=shape.height,
            width=shape.width,
            channels=shape.channels,
            mean=tuple(mean.tolist()),
            std=tuple(std.tolist()),
        )

    def normalise(self, images: Tensor) -> Tensor:
        """(x - mean) / std, for float32 NCHW images from 0 to 1."""
        mean, std = (
            torch.tensor(values, dtype=images.dtype, device=images.device).view(1, -1, 1, 1)
            for values in (self.mean, self.std)
        )
        return (images - mean) / std


@dataclasses.dataclass(frozen=True, eq=False)
class ResidentImages:
    """Images that batches are drawn from.

    On the CPU they stay where they are, in memory or in the store's memory map, which all
    processes share and the system reads ahead. On another device they are copied there once
    where they fit; else each batch is copied from the map.

    Attributes:
        pixels: uint8 (M, height, width, channels), on the device or on the CPU.
        rows: int64 (n,), where `pixels` is: which of them these images are.
        labels: int64 (n,), on the device.
    """

    pixels: Tensor
    rows: Tensor
    labels: Tensor

    @classmethod
    def of(cls, part: ImagePart, device: torch.device) -> ResidentImages:
        """The images of `part`, for batches on `device`."""
        labels = torch.from_numpy(part.labels).to(device)
        pixels, rows = torch.from_numpy(part.dataset.images), torch.from_numpy(part.rows)
        if device.type == "cpu" or not _fits(part, device):
            return cls(pixels, rows, labels)
        resident = torch.empty((len(part), *pixels.shape[1:]), dtype=torch.uint8, device=device)
        step = max(1, CHUNK_BYTES // pixels[0].numel())
        for start in range(0, len(part), step):
            resident[start : start + step] = pixels[rows[start : start + step]]
        return cls(resident, torch.arange(len(part), device=device), labels)

    def __len__(self) -> int:
        return len(self.labels)

    def head(self, n: int) -> ResidentImages:
        """The first `n` of them."""
        return ResidentImages(self.pixels, self.rows[:n], self.labels[:n])

    def raw_batch(self, indices: Tensor) -> Tensor:
        """Images at `indices`: uint8 (n, height, width, channels), on the device."""
        if self.pixels.device.type == "cpu":
            # NumPy copies whole images on one thread, eight times faster than torch's indexing,
            # and does not wait for threads that other processes keep from running.
            rows = self.rows.numpy().take(indices.cpu().numpy())
            picked = torch.from_numpy(self.pixels.numpy().take(rows, axis=0))
        else:
            flat = self.pixels.flatten(1).index_select(0, self.rows[indices])
            picked = flat.view(-1, *self.pixels.shape[1:])
        return picked.to(self.labels.device, non_blocking=True)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images at `indices` as float32 NCHW from 0 to 1 in channels_last memory; labels."""
        images = self.raw_batch(indices).permute(0, 3, 1, 2)
        return images.float() / 255.0, self.labels[indices]


def _fits(part: ImagePart, device: torch.device) -> bool:
    """Whether the images leave more than half of the device's free memory to the training."""
    size = len(part) * part.dataset.images[0].nbytes
    return device.type != "cuda" or size < torch.cuda.mem_get_info(device)[0] / 2


@dataclasses.dataclass(frozen=True, eq=False)
class ResidentData:
    """What the trainer works on."""

    train: ResidentImages
    val: ResidentImages
    classes: tuple[str, ...]
    preprocessing: Preprocessing

    @classmethod
    def of(cls, data: DevelopmentData, device: torch.device) -> ResidentData:
        """Copies both parts to `device`; the normalisation is that of the training images."""
        return cls(
            train=ResidentImages.of(data.train, device),
            val=ResidentImages.of(data.val, device),
            classes=data.train.classes,
            preprocessing=Preprocessing.of(data.train),
        )


def train_batches(
    data: ResidentData, batch_size: int, augment: Mapping[str, float], generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of training batches: shuffled, augmented, normalised.

    The images are shared out evenly (sizes differ by one at most), so that no batch is a
    small remainder: BatchNorm would learn from its noise, and fails on a single image.

    Yields:
        images float32 NCHW (channels_last), labels int64 (n,), with n <= batch_size.
    """
    n = len(data.train)
    order = torch.randperm(n, generator=generator, device=generator.device)
    for indices in order.tensor_split(steps_per_epoch(n, batch_size)):
        images, labels = data.train.batch(indices)
        yield data.preprocessing.normalise(augment_batch(images, augment, generator)), labels


def steps_per_epoch(n: int, batch_size: int) -> int:
    """How many batches of at most `batch_size` make up `n` images."""
    return -(-n // batch_size)


def eval_batches(
    images: ResidentImages, preprocessing: Preprocessing, batch_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """All images in their order, normalised, not augmented; shapes as in `train_batches`."""
    rows = torch.arange(len(images), device=images.labels.device)
    for indices in rows.split(batch_size):  # type: ignore[no-untyped-call]
        batch, labels = images.batch(indices)
        yield preprocessing.normalise(batch), labels
