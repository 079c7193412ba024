"""Rows that change colours. Each agrees with torchvision's function of the same name."""

from __future__ import annotations

import torch
from torch import Tensor

from hpsearch.data.augment._rows import ColourWeights, happens, uniform

_LUMINANCE = (0.2989, 0.587, 0.114)
"""Of red, green and blue, by ITU-R BT.601, as torchvision rounds it."""


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


def one_after_the_other(
    first: ColourWeights, second: ColourWeights, *, channels: int
) -> ColourWeights:
    """The weights of `second` applied to what those of `first` give; values beyond 0 and 1 are cut
    off after both, not between them.
    """
    total = sum(_LUMINANCE) if channels == 3 else 1.0  # the grey of a grey image, per 1
    grey, mean = _or_zero(first.grey), _or_zero(first.mean)
    # The grey of what the first gives, and the mean of that, in terms of the image's own.
    own_grey, own_mean = first.pixel + total * grey, first.pixel + total * (grey + mean)
    again, all_of_it = _or_zero(second.grey), _or_zero(second.mean)
    has_grey = first.grey is not None or second.grey is not None
    has_mean = first.mean is not None or second.mean is not None
    return ColourWeights(
        pixel=first.pixel * second.pixel,
        grey=second.pixel * grey + again * own_grey if has_grey else None,
        mean=(second.pixel + total * again) * mean + all_of_it * own_mean if has_mean else None,
    )


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
    """(n, 1, height, width): luminance."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.unbind(dim=1)
    grey = red * _LUMINANCE[0]
    return grey.add_(green, alpha=_LUMINANCE[1]).add_(blue, alpha=_LUMINANCE[2]).unsqueeze(1)


def _or_zero(weights: Tensor | None) -> Tensor | float:
    return 0.0 if weights is None else weights
