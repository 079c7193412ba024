"""Rows that change colours. Each agrees with torchvision's function of the same name."""

from __future__ import annotations

import torch
from torch import Tensor

from hpsearch.data.augment._rows import ColourWeights, happens, uniform


def brightness(n: int, strength: float, generator: torch.Generator) -> ColourWeights:
    return ColourWeights(pixel=1 + uniform(n, strength, generator))


def contrast(n: int, strength: float, generator: torch.Generator) -> ColourWeights:
    factor = 1 + uniform(n, strength, generator)
    return ColourWeights(pixel=factor, mean=1 - factor)


def saturation(n: int, strength: float, generator: torch.Generator) -> ColourWeights:
    factor = 1 + uniform(n, strength, generator)
    return ColourWeights(pixel=factor, grey=1 - factor)


def grayscale(n: int, probability: float, generator: torch.Generator) -> ColourWeights:
    grey = happens(n, probability, generator).float()
    return ColourWeights(pixel=1 - grey, grey=grey)


def only_for(chosen: Tensor, weights: ColourWeights) -> ColourWeights:
    """The weights where `chosen`, bool (n,), and elsewhere those that change nothing."""
    return ColourWeights(
        torch.where(chosen, weights.pixel, 1.0),
        *(None if part is None else torch.where(chosen, part, 0.0) for part in weights[1:]),
    )


def in_one(maps: list[ColourWeights]) -> ColourWeights:
    """Several maps as one, where each image is changed by one of them at most."""
    pixel, grey, mean = maps[0]
    for other in maps[1:]:
        pixel = pixel * other.pixel
        grey, mean = _sum(grey, other.grey), _sum(mean, other.mean)
    return ColourWeights(pixel, grey, mean)


def recolour(images: Tensor, weights: ColourWeights) -> Tensor:
    """Applies the weights to float32 NCHW images of 1 or 3 channels."""
    shape = (-1, 1, 1, 1)
    result = images * weights.pixel.view(shape)
    if weights.grey is not None or weights.mean is not None:
        grey = _grey(images)
        if weights.grey is not None:
            result.addcmul_(grey, weights.grey.view(shape))
        if weights.mean is not None:
            mean = grey.mean(dim=(1, 2, 3), keepdim=True)
            result.add_(mean * weights.mean.view(shape))
    return result.clamp_(0, 1)


def hue(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Turns the hue of RGB images by up to `strength` of the whole circle; value and saturation
    (as in HSV) stay.
    """
    turn = uniform(len(images), strength, generator).view(-1, 1, 1)
    # Whole planes of one colour: in channels_last memory each step would pass over all three.
    red, green, blue = images.transpose(0, 1).contiguous()
    value = torch.maximum(torch.maximum(red, green), blue)
    least = torch.minimum(torch.minimum(red, green), blue)
    chroma = value - least
    divisor = torch.where(chroma == 0, 1.0, chroma)
    # In sixths of the circle, from red. A grey pixel has chroma 0: its hue does not matter.
    place = torch.where(
        value == red,
        (green - blue).div_(divisor),
        torch.where(
            value == green,
            (blue - red).div_(divisor).add_(2),
            (red - green).div_(divisor).add_(4),
        ),
    )
    place.add_(6 * turn).remainder_(6)
    weights = (
        (place - 3).abs_().sub_(1),
        (place - 2).abs_().neg_().add_(2),
        (place - 4).abs_().neg_().add_(2),
    )
    result = torch.empty_like(images)
    for channel, weight in enumerate(weights):
        torch.addcmul(least, chroma, weight.clamp_(0, 1), out=result[:, channel])
    return result


def _grey(images: Tensor) -> Tensor:
    """(n, 1, height, width): luminance by ITU-R BT.601, with torchvision's weights."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(dim=1)
    return (red * 0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114).unsqueeze(1)


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first + second
