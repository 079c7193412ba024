"""Training and validation images kept where they are quick to reach.

Images stay uint8 until a batch is drawn; a worker loads them once, and all its trials share
them.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator, Sequence

import numpy as np
import torch
from torch import Tensor

from hpsearch.config import MemoryFormat
from hpsearch.data.dataset import CHUNK_BYTES, ImagePart
from hpsearch.data.prefetch import prefetched
from hpsearch.data.preprocessing import Preprocessing, cut_centre, torch_format


@dataclasses.dataclass(frozen=True, eq=False)
class ResidentImages:
    """Images that batches are drawn from.

    On the CPU they stay where they are, in memory or in the store's memory map, which all
    processes share and the system reads ahead. On another device they are copied there once
    where they fit; else each batch is copied from the map, while a GPU works on those before it.

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
        """The images of `part`, for batches on `device`; copied there where they fit."""
        # More than half of what is free is for the training.
        fits = device.type != "cpu" and part_bytes(part) < free_bytes(device) / 2
        return cls.copied(part, device) if fits else cls.mapped(part, device)

    @classmethod
    def mapped(cls, part: ImagePart, device: torch.device) -> ResidentImages:
        """The images of `part`, left where they are, for batches on `device`."""
        pixels, rows = torch.from_numpy(part.dataset.images), torch.from_numpy(part.rows)
        return cls(pixels, rows, torch.from_numpy(part.labels).to(device))

    @classmethod
    def copied(cls, part: ImagePart, device: torch.device) -> ResidentImages:
        """The images of `part`, and no others, copied to `device`."""
        source = cls.mapped(part, device)
        shape = source.pixels.shape[1:]
        resident = torch.empty((len(part), *shape), dtype=torch.uint8, device=device)
        step = max(1, CHUNK_BYTES // shape.numel())
        for start in range(0, len(part), step):
            rows = source.rows[start : start + step]
            resident[start : start + step] = source.pixels[rows]
        return cls(resident, torch.arange(len(part), device=device), source.labels)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def streamed(self) -> bool:
        """Whether batches are copied from the CPU to a GPU."""
        return self.pixels.device.type == "cpu" and self.labels.device.type == "cuda"

    def head(self, n: int) -> ResidentImages:
        """The first `n` of them."""
        return ResidentImages(self.pixels, self.rows[:n], self.labels[:n])

    def at(self, positions: Tensor) -> ResidentImages:
        """Those at `positions`, int64 (m,), in that order; the pixels are shared."""
        return ResidentImages(
            self.pixels,
            self.rows[positions.to(self.rows.device)],
            self.labels[positions.to(self.labels.device)],
        )

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

    def batch(
        self,
        indices: Tensor,
        crop: tuple[int, int] | None = None,
        memory_format: MemoryFormat = "channels_last",
    ) -> tuple[Tensor, Tensor]:
        """Images at `indices` as float32 NCHW from 0 to 1 in this memory format; labels.

        Args:
            crop: height and width to cut out of the centre.
        """
        images = _as_input(self.raw_batch(indices), crop, memory_format)
        return images, self.labels[indices]

    def batches(
        self,
        batches: Sequence[Tensor],
        crop: tuple[int, int] | None = None,
        memory_format: MemoryFormat = "channels_last",
    ) -> Generator[tuple[Tensor, Tensor], None, None]:
        """`batch` of each of `batches`, in order; what is streamed is read ahead."""
        if not self.streamed:
            for indices in batches:
                yield self.batch(indices, crop, memory_format)
            return
        # The device is waited for here, and not again.
        rows = self.rows.numpy().take(torch.cat(list(batches)).cpu().numpy())
        starts = np.cumsum([len(indices) for indices in batches])[:-1]
        copies = prefetched(self.pixels.numpy(), np.split(rows, starts), self.labels.device)
        with contextlib.closing(copies):
            for indices, raw in zip(batches, copies, strict=True):
                yield _as_input(raw, crop, memory_format), self.labels[indices]


def _as_input(images: Tensor, crop: tuple[int, int] | None, memory_format: MemoryFormat) -> Tensor:
    """uint8 NHWC images as `ResidentImages.batch` gives them."""
    if crop is not None:
        images = cut_centre(images, crop)
    images = images.permute(0, 3, 1, 2).contiguous(memory_format=torch_format(memory_format))
    return images.float() / 255.0


def part_bytes(*parts: ImagePart) -> int:
    """The size of the images of `parts`, in bytes."""
    return sum(len(part) * part.shape.nbytes for part in parts)


def free_bytes(device: torch.device) -> float:
    """What a process can still get of the device's memory; infinite where that is not known."""
    if device.type != "cuda":
        return float("inf")
    # What torch keeps for later tensors is free, too.
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + kept


@dataclasses.dataclass(frozen=True, eq=False)
class ResidentData:
    """What the trainer works on; `DataViews` makes it as a configuration asks for.

    Attributes:
        train: the training images in use.
    """

    train: ResidentImages
    val: ResidentImages
    classes: tuple[str, ...]
    preprocessing: Preprocessing

    @property
    def class_counts(self) -> Tensor:
        """int64 (classes,), on the device: how many training images in use each class has."""
        return torch.bincount(self.train.labels, minlength=len(self.classes))
