"""Training and validation images kept on the device, and batches made from them.

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
from hpsearch.data.dataset import ImageDataset, ImageShape
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
    def of(cls, dataset: ImageDataset) -> Preprocessing:
        """Normalisation to mean 0 and standard deviation 1 over `dataset`'s pixels."""
        counts = np.stack(
            [
                np.bincount(channel.ravel(), minlength=256)
                for channel in np.moveaxis(dataset.images, -1, 0)
            ]
        )
        levels = np.arange(256) / 255.0
        mean = (counts @ levels) / counts.sum(axis=1)
        variance = (counts @ levels**2) / counts.sum(axis=1) - mean**2
        # A channel that never varies would divide by zero; a gray level is the least step.
        std = np.sqrt(np.maximum(variance, (1 / 255.0) ** 2))
        shape = dataset.shape
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
    """Images on a device: uint8 (N, height, width, channels); labels int64 (N,)."""

    images: Tensor
    labels: Tensor

    @classmethod
    def of(cls, dataset: ImageDataset, device: torch.device) -> ResidentImages:
        """Copies `dataset` to `device`."""
        return cls(
            torch.from_numpy(dataset.images).to(device), torch.from_numpy(dataset.labels).to(device)
        )

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Images at `indices` as float32 NCHW from 0 to 1 in channels_last memory; labels."""
        images = self.images[indices].permute(0, 3, 1, 2)
        return images.float() / 255.0, self.labels[indices]


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
