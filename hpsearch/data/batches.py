"""Batches from images: those of one training epoch, and those of an evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from hpsearch.config import MemoryFormat, TrainConfig
from hpsearch.data.augment import augment_batch, mix_batch
from hpsearch.data.preprocessing import Preprocessing
from hpsearch.data.resident import ResidentData, ResidentImages


@dataclasses.dataclass(frozen=True, eq=False)
class TrainBatch:
    """What one step is trained on.

    Attributes:
        images: float32 NCHW in the configuration's memory format, normalised.
        labels: int64 (n,).
        other: int64 (n,): the label of what was mixed in; None where nothing was.
        share: float32 (n,): how much of the image is its own label's; the rest is the other's.
    """

    images: Tensor
    labels: Tensor
    other: Tensor | None = None
    share: Tensor | None = None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that there are."""
        both = (self.images, self.labels, self.other, self.share)
        return tuple(tensor for tensor in both if tensor is not None)

    def parts(self, size: int) -> list[TrainBatch]:
        """The batch in parts of at most `size` images, as even as can be; whole where it is 0."""
        n = len(self.labels)
        if size == 0 or n <= size:
            return [self]
        columns = [tensor.tensor_split(-(-n // size)) for tensor in self.tensors]
        return [TrainBatch(*tensors) for tensors in zip(*columns, strict=True)]


def train_batches(
    data: ResidentData, config: TrainConfig, generator: torch.Generator
) -> Iterator[TrainBatch]:
    """One epoch of training batches: shuffled, augmented, cut to their centre, mixed, normalised.

    The images are shared out evenly (sizes differ by one at most), so that no batch is a
    small remainder: BatchNorm would learn from its noise, and fails on a single image.

    Args:
        config: of which `batch_size`, `repeat`, `balance`, `augment` and `memory_format` are looked
            at; the rest is in `data` already.
        generator: on the device of `data`; all randomness comes from it.
    """
    preprocessing = data.preprocessing
    order = _order(data, config, generator)
    parts = order.tensor_split(steps_per_epoch(len(order), config.batch_size))
    for images, labels in data.train.batches(parts, memory_format=config.memory_format):
        images = augment_batch(images, config.augment, generator, size=preprocessing.crop)
        mixed = mix_batch(images, config.augment, labels, generator)
        if mixed is None:
            yield TrainBatch(preprocessing.normalise(images, config.memory_format), labels)
        else:
            images = preprocessing.normalise(mixed.images, config.memory_format)
            yield TrainBatch(images, labels, mixed.other, mixed.share)


def epoch_size(data: ResidentData, config: TrainConfig) -> int:
    """How many images an epoch shows, repetitions counted."""
    return len(data.train) * config.repeat


def steps_per_epoch(n: int, batch_size: int) -> int:
    """How many batches of at most `batch_size` make up `n` images."""
    return -(-n // batch_size)


def batch_sizes(n: int, batch_size: int) -> tuple[int, int]:
    """How many of `n` images the smallest and the largest of these batches have."""
    steps = steps_per_epoch(n, batch_size)
    return n // steps, -(-n // steps)


def eval_batches(
    images: ResidentImages,
    preprocessing: Preprocessing,
    batch_size: int,
    memory_format: MemoryFormat = "channels_last",
) -> Iterator[tuple[Tensor, Tensor]]:
    """All images in their order, cut to their centre, normalised, not augmented.

    Args:
        images: of the preprocessing's `full_size`.

    Yields:
        images float32 NCHW in this memory format, labels int64 (n,), with n <= batch_size.
    """
    rows = torch.arange(len(images), device=images.labels.device)
    parts = rows.split(batch_size)  # type: ignore[no-untyped-call]
    for batch, labels in images.batches(parts, preprocessing.crop, memory_format):
        yield preprocessing.normalise(batch, memory_format), labels


def _order(data: ResidentData, config: TrainConfig, generator: torch.Generator) -> Tensor:
    """int64 (epoch_size,): which image comes when."""
    if config.balance == "sampling":
        return _balanced_order(data.train.labels, config.repeat, generator)
    # One pass after the other: the repetitions of an image are spread over the epoch.
    passes = [_permutation(len(data.train), generator) for _ in range(config.repeat)]
    return passes[0] if config.repeat == 1 else torch.cat(passes)


def _balanced_order(labels: Tensor, repeat: int, generator: torch.Generator) -> Tensor:
    """As many images as `repeat` epochs have, in random order, each class as often as the others
    (or once more or less, where that does not come out even). A class shows each of its images
    before it shows one of them again.

    Args:
        labels: int64 (n,), on the generator's device.
    """
    device, total = generator.device, len(labels) * repeat
    counts = torch.bincount(labels)
    present = counts.nonzero().squeeze(1)
    quotas = torch.zeros_like(counts)
    quotas[present] = total // len(present)
    chance = _permutation(len(present), generator)[: total % len(present)]
    quotas[present[chance]] += 1
    # Each image stands as often in a list as its class goes through all of its images.
    rounds = (quotas + counts - 1) // counts.clamp(min=1)
    times = rounds[labels]
    images = torch.arange(len(labels), device=device).repeat_interleave(times)
    numbers = torch.arange(len(images), device=device)
    in_round = numbers - (times.cumsum(0) - times).repeat_interleave(times)
    # The list in random order, then by class and round; of each class the quota's first are taken.
    order = _permutation(len(images), generator)
    key = labels[images] * int(rounds.max()) + in_round
    order = order[key[order].argsort(stable=True)]
    sizes = counts * rounds
    starts = sizes.cumsum(0) - sizes
    classes = labels[images[order]]
    chosen = images[order][numbers - starts[classes] < quotas[classes]]
    return chosen[_permutation(total, generator)]


def _permutation(n: int, generator: torch.Generator) -> Tensor:
    return torch.randperm(n, generator=generator, device=generator.device)
