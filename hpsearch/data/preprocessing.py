"""How uint8 images become the input of a model: size, centre crop, channels, normalisation.

To add a normalisation, append one row to `NORMALISATIONS`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from hpsearch.checks import JsonConfig, look_up
from hpsearch.config import InputConfig, MemoryFormat
from hpsearch.data.augment import centre_of
from hpsearch.data.dataset import ImagePart, ImageShape
from hpsearch.data.progress import Watch
from hpsearch.data.store import resized
from hpsearch.errors import ConfigError

MeanStd = tuple[Sequence[float], Sequence[float]]

GIVEN = "given"
"""Stands for mean and standard deviation of the configuration's own, instead of a row."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Normalisation:
    """One row of the table.

    Attributes:
        fit: training images -> mean and std of pixels scaled to 0..1, one value for each of their
            channels, or one for all, or three for red, green and blue.
    """

    name: str
    help: str
    fit: Callable[[ImagePart], MeanStd]


def _of_dataset(part: ImagePart) -> MeanStd:
    mean, std = part.mean_and_std()
    # A channel that never varies would divide by zero; a gray level is the least step.
    return mean.tolist(), np.maximum(std, 1 / 255.0).tolist()


NORMALISATIONS: tuple[Normalisation, ...] = (
    Normalisation(
        name="none",
        help="pixels from 0 to 1",
        fit=lambda _: ((0.0,), (1.0,)),
    ),
    Normalisation(
        name="half",
        help="mean 0.5, std 0.5: pixels from -1 to 1",
        fit=lambda _: ((0.5,), (0.5,)),
    ),
    Normalisation(
        name="dataset",
        help="mean and std of the training images, by channel",
        fit=_of_dataset,
    ),
    Normalisation(
        name="imagenet",
        help="mean and std of ImageNet, by channel; of gray images their averages",
        fit=lambda _: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ),
)

_BY_NAME = {row.name: row for row in NORMALISATIONS}
_AS_IT_IS = InputConfig()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing(JsonConfig):
    """How a uint8 image becomes the input of a model: brought to a size, cut to its centre, scaled
    to 0..1, then (x - mean) / std.

    Attributes:
        height, width, channels: of the model's input.
        mean, std: one value a channel, for pixels scaled to 0..1.
        resize: height and width that images are brought to before height x width is cut out of
            their centre; empty: they are brought to height x width, and nothing is cut.
    """

    height: int
    width: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: tuple[int, ...] = ()

    @property
    def shape(self) -> ImageShape:
        """The shape of the model's input."""
        return ImageShape(self.height, self.width, self.channels)

    @property
    def full_size(self) -> tuple[int, int]:
        """Height and width of the images that batches are drawn from."""
        return (self.resize[0], self.resize[1]) if self.resize else (self.height, self.width)

    @property
    def crop(self) -> tuple[int, int] | None:
        """Height and width to cut out of the centre; None where nothing is cut."""
        return (self.height, self.width) if self.resize else None

    @classmethod
    def of(cls, part: ImagePart, input: InputConfig = _AS_IT_IS) -> Preprocessing:  # noqa: A002
        """The preprocessing that `input` asks for.

        Args:
            part: the training images. Statistics are taken of them in the size that they are
                resized to.

        Raises:
            ConfigError: the normalisation is unknown, or `input` does not fit the images.
        """
        shape = input_shape(input, part.shape)
        if input.normalise == GIVEN:
            if len(input.mean) != shape.channels:
                raise ConfigError(
                    f"mean and std have {len(input.mean)} values, but the model's input has "
                    f"{shape.channels} channels; give one value for each"
                )
            mean, std = input.mean, input.std
        else:
            row = normalisation(input.normalise)
            fitted = row.fit(resized_part(part, full_size(input, part.shape)))
            mean, std = (_spread(values, shape.channels) for values in fitted)
        return cls(
            height=shape.height,
            width=shape.width,
            channels=shape.channels,
            mean=mean,
            std=std,
            resize=input.resize,
        )

    def normalise(self, images: Tensor, memory_format: MemoryFormat = "channels_last") -> Tensor:
        """(x - mean) / std.

        Args:
            images: float32 NCHW from 0 to 1, in this memory format. Gray ones are repeated for a
                model that takes three channels.
        """
        last = memory_format == "channels_last"
        if images.shape[1] != self.channels:
            repeated = images.expand(-1, self.channels, -1, -1)
            images = repeated.contiguous(memory_format=torch_format(memory_format))
        # As one row of numbers an image, several times as fast as with constants for a channel.
        in_memory = images.permute(0, 2, 3, 1) if last else images
        pixels = images.shape[2] * images.shape[3]
        scale, shift = _constants(
            self.mean, self.std, pixels, last=last, dtype=images.dtype, device=images.device
        )
        rows = torch.addcmul(shift, in_memory.reshape(len(images), -1), scale)
        normalised = rows.view(in_memory.shape)
        return normalised.permute(0, 3, 1, 2) if last else normalised


def torch_format(memory_format: MemoryFormat) -> torch.memory_format:
    """What torch calls it."""
    return torch.channels_last if memory_format == "channels_last" else torch.contiguous_format


def normalisation(name: str) -> Normalisation:
    """The row called `name`.

    Raises:
        ConfigError: there is none.
    """
    return look_up("normalisation", name, _BY_NAME, also=(GIVEN,))


def input_shape(input: InputConfig, shape: ImageShape) -> ImageShape:  # noqa: A002
    """The shape of the model's input, for images of `shape`.

    Raises:
        ConfigError: images with colours are to become gray.
    """
    if input.channels == 1 and shape.channels == 3:
        raise ConfigError(
            "the input has 1 channel, but the images have 3; use 3 channels, or read the data as "
            "gray images (--gray)"
        )
    height, width = input.size or (shape.height, shape.width)
    return ImageShape(height, width, input.channels or shape.channels)


def full_size(input: InputConfig, shape: ImageShape) -> tuple[int, int]:  # noqa: A002
    """Height and width that images of `shape` are brought to before their centre is cut out."""
    height, width = input.resize or input.size or (shape.height, shape.width)
    return height, width


def resized_part(
    part: ImagePart, size: tuple[int, int], *, watch: Watch | None = None
) -> ImagePart:
    """`part` in another size (height, width): the same rows of the data set's antialiased copy."""
    dataset = resized(part.dataset, size, watch=watch)
    return part if dataset is part.dataset else dataset.part(part.rows)


def cut_centre(images: Tensor, size: tuple[int, int]) -> Tensor:
    """A view of the centre of images (n, height, width, channels), which are no smaller than
    `size`; the middle is rounded as by torchvision's `center_crop`.
    """
    top, left = centre_of((images.shape[1], images.shape[2]), size)
    return images[:, top : top + size[0], left : left + size[1]]


@functools.lru_cache(maxsize=8)
def _constants(
    mean: tuple[float, ...],
    std: tuple[float, ...],
    pixels: int,
    *,
    last: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """1 / std and -mean / std for each number of an image, (channels * pixels,), in the order that
    it has in memory. Made once: a GPU would be waited for each time.
    """
    with torch.inference_mode(mode=False):  # they serve training, whoever asks first
        exact = torch.tensor([mean, std], dtype=torch.float64)
        scale, shift = 1 / exact[1], -exact[0] / exact[1]
        rows = (
            values.repeat(pixels) if last else values.repeat_interleave(pixels)
            for values in (scale, shift)
        )
        first, second = (row.to(dtype=dtype, device=device) for row in rows)
        return first, second


def _spread(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """One value a channel, from one for all or three for colours."""
    if len(values) > channels:
        return (sum(values) / len(values),)
    return tuple(values) * (channels // len(values))
