"""The table of augmentations."""

from __future__ import annotations

from collections.abc import Mapping

from hpsearch.checks import look_up
from hpsearch.data.augment._affine import hflip, rotate, scale, shear, translate, vflip
from hpsearch.data.augment._colour import brightness, contrast, grayscale, hue, saturation
from hpsearch.data.augment._mix import cutmix, mixup
from hpsearch.data.augment._pixels import blur, erase
from hpsearch.data.augment._rows import (
    Affine,
    AllOf,
    Augmentation,
    Colour,
    Mix,
    OneOf,
    Pixels,
    Window,
)
from hpsearch.data.augment._windows import crop, resized_crop
from hpsearch.errors import ConfigError

# Rows are applied, and draw, in this order, those that move pixels before the others. A row in
# between changes what a seed gives for the rows behind it, where both are on.
AUGMENTATIONS: tuple[Augmentation, ...] = (
    Augmentation(
        name="rotate",
        help="rotation by up to this many degrees",
        good=10.0,
        high=25.0,
        limit=180.0,
        operation=Affine(rotate),
    ),
    Augmentation(
        name="translate",
        help="shift by up to this fraction of the shorter side",
        good=0.1,
        high=0.2,
        limit=1.0,
        operation=Affine(translate),
    ),
    Augmentation(
        name="scale",
        help="zoom in or out by up to this fraction",
        good=0.1,
        high=0.25,
        limit=3.0,
        operation=Affine(scale),
    ),
    Augmentation(
        name="hflip",
        help="horizontal flip with this probability",
        good=0.5,
        high=0.5,
        limit=1.0,
        operation=Affine(hflip, whole_pixels=True, inside=True),
    ),
    Augmentation(
        name="vflip",
        help="vertical flip with this probability",
        good=0.5,
        high=0.5,
        limit=1.0,
        operation=Affine(vflip, whole_pixels=True, inside=True),
    ),
    Augmentation(
        name="shear",
        help="shear along x and along y by up to this many degrees each",
        good=8.0,
        high=15.0,
        limit=60.0,
        operation=Affine(shear),
    ),
    Augmentation(
        name="resized_crop",
        help="random part of the image, resized; the part's area is smaller by up to this fraction",
        good=0.5,
        high=0.92,
        limit=0.99,
        operation=Window(resized_crop, inside=True),
    ),
    Augmentation(
        name="crop",
        help="padding by this fraction of the shorter side, then a random crop",
        good=0.125,
        high=0.2,
        limit=1.0,
        operation=Window(crop, whole_pixels=True),
    ),
    Augmentation(
        name="brightness",
        help="brightness changed by up to this fraction",
        good=0.2,
        high=0.4,
        limit=1.0,
        operation=Colour(brightness),
    ),
    Augmentation(
        name="contrast",
        help="contrast changed by up to this fraction",
        good=0.2,
        high=0.4,
        limit=1.0,
        operation=Colour(contrast),
    ),
    Augmentation(
        name="saturation",
        help="saturation changed by up to this fraction",
        good=0.2,
        high=0.4,
        limit=1.0,
        operation=Colour(saturation),
        rgb_only=True,
    ),
    Augmentation(
        name="hue",
        help="hue turned by up to this fraction of the colour circle",
        good=0.05,
        high=0.1,
        limit=0.5,
        operation=Pixels(hue),
        rgb_only=True,
    ),
    Augmentation(
        name="jitter",
        help="brightness, contrast and saturation changed by up to this fraction, hue by a quarter "
        "of it",
        good=0.2,
        high=0.4,
        limit=1.0,
        operation=AllOf({"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.25}),
    ),
    Augmentation(
        name="grayscale",
        help="colours taken away with this probability",
        good=0.1,
        high=0.3,
        limit=1.0,
        operation=Colour(grayscale),
        rgb_only=True,
    ),
    Augmentation(
        name="blur",
        help="Gaussian blur with a standard deviation of up to this many pixels",
        good=0.8,
        high=1.5,
        limit=10.0,
        operation=Pixels(blur),
    ),
    Augmentation(
        name="trivial",
        help="one augmentation drawn for each image (TrivialAugment), up to this many times as "
        "strong as a search tries it alone",
        good=1.0,
        high=1.0,
        limit=2.0,
        operation=OneOf(
            (
                "rotate",
                "translate",
                "scale",
                "shear",
                "brightness",
                "contrast",
                "saturation",
                "blur",
            )
        ),
    ),
    Augmentation(
        name="erase",
        help="a box painted black with this probability (random erasing)",
        good=0.25,
        high=0.5,
        limit=1.0,
        operation=Pixels(erase),
    ),
    Augmentation(
        name="mixup",
        help="pairs of images and labels blended; alpha of the Beta distribution of the shares",
        good=0.2,
        high=1.0,
        limit=10.0,
        operation=Mix(mixup),
    ),
    Augmentation(
        name="cutmix",
        help="a box of another image pasted, labels by area; alpha of the Beta distribution",
        good=1.0,
        high=1.0,
        limit=10.0,
        operation=Mix(cutmix),
    ),
)

_BY_NAME = {row.name: row for row in AUGMENTATIONS}


def augmentation(name: str) -> Augmentation:
    """The row called `name`.

    Raises:
        ConfigError: there is none.
    """
    return look_up("augmentation", name, _BY_NAME)


def check_augmentations(strengths: Mapping[str, float]) -> None:
    """Raises `ConfigError` where a name is unknown or a strength is beyond its limit."""
    for name, strength in strengths.items():
        limit = augmentation(name).limit
        if not 0 <= strength <= limit:
            raise ConfigError(
                f"augmentation {name!r} takes a strength from 0 to {limit:g}, but got {strength!r}"
            )
