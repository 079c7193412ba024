"""Draws backgrounds, heads of cats and dogs, and patterned objects of many classes; see
`make_reference_data.py`.

What tells classes apart is shape and texture. Colour, contrast, place, size and turn are random in
each picture, so that no weighted sum of pixels can tell much.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
FloatArray = npt.NDArray[np.float32]

_LUMA = np.array([0.299, 0.587, 0.114])


def random_of(seed: int, *parts: str | int) -> np.random.Generator:
    """Random numbers for one picture or one decision, whatever else is made."""
    return np.random.default_rng((seed, zlib.crc32("/".join(map(str, parts)).encode())))


def save(image: Image.Image, path: Path) -> None:
    """Writes a JPEG file, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=85)


def any_colour(random: np.random.Generator, luma: float) -> Colour:
    """Any hue, about as bright as `luma`."""
    colour = random.uniform(0, 255, 3)
    colour += luma - colour @ _LUMA
    red, green, blue = np.clip(colour, 0, 255).astype(int).tolist()
    return (red, green, blue)


def backdrop(
    random: np.random.Generator, size: tuple[int, int], luma: float, *, blobs: int = 5
) -> Image.Image:
    """A plane of one brightness with some clutter of about the same."""
    image = Image.new("RGB", size, any_colour(random, luma))
    draw = ImageDraw.Draw(image)
    wide, high = size
    for _ in range(random.integers(1, blobs + 1)):
        fill = any_colour(random, luma + random.uniform(-35, 35))
        x, y, a, b = random.uniform(0, 1, 4) * (wide, high, 0.35 * wide, 0.35 * high)
        kind = random.integers(3)
        if kind == 0:
            draw.ellipse((x - a, y - b, x + a, y + b), fill=fill)
        elif kind == 1:
            corners = (x, y) + random.uniform(-0.4, 0.4, (3, 2)) * (wide, high)
            draw.polygon(corners.ravel().tolist(), fill=fill)
        else:
            ends = random.uniform(0, 1, 4) * (wide, high, wide, high)
            draw.line(ends.tolist(), fill=fill, width=max(1, round(0.03 * min(size))))
    return image


def lit(image: Image.Image, random: np.random.Generator, *, noise: float = 10) -> Image.Image:
    """The picture under a light that falls off to one side, with noise."""
    wide, high = image.size
    rise, slope = random.uniform(-25, 25, 2)
    light = random.standard_normal((high, wide), dtype=np.float32)
    light *= random.uniform(1, noise)
    light += np.linspace(-rise, rise, high, dtype=np.float32)[:, np.newaxis]
    light += np.linspace(-slope, slope, wide, dtype=np.float32)
    pixels = np.asarray(image) + light.astype(np.int16)[..., np.newaxis]
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def two_lumas(random: np.random.Generator) -> tuple[float, float]:
    """Brightness of a thing and of what is behind it: far apart, either may be the brighter."""
    dark, bright = random.uniform(30, 95), random.uniform(150, 225)
    return (dark, bright) if random.uniform() < 0.5 else (bright, dark)


def draw_head(random: np.random.Generator, size: tuple[int, int], *, is_cat: bool) -> Image.Image:
    """The head of a cat (pointed ears up, whiskers) or of a dog (ears that hang, a long muzzle)."""
    thing, behind = two_lumas(random)
    image = backdrop(random, size, behind, blobs=7)
    fur, other = any_colour(random, thing), any_colour(random, (thing + behind) / 2)
    turn, flip = math.radians(random.uniform(-30, 30)), random.choice((-1.0, 1.0))
    unit = random.uniform(0.16, 0.27) * min(size)
    middle = random.uniform((0.3, 0.35), (0.7, 0.65)) * size
    draw = ImageDraw.Draw(image)

    def shape(points: Sequence[tuple[float, float]], fill: Colour) -> None:
        x, y = np.asarray(points).T * ((flip,), (1,)) * unit
        turned = (x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn))
        draw.polygon((np.stack(turned, axis=1) + middle).ravel().tolist(), fill=fill)

    def oval(x: float, y: float, a: float, b: float, fill: Colour, tilt: float = 0.0) -> None:
        t = np.linspace(0, 2 * math.pi, 24, endpoint=False)
        u, v = a * np.cos(t), b * np.sin(t)
        cos, sin = math.cos(tilt), math.sin(tilt)
        shape(list(zip(x + u * cos - v * sin, y + u * sin + v * cos, strict=True)), fill)

    wide = random.uniform(0.85, 1.1)
    if is_cat:
        for side in (-1, 1):
            shape(
                [(side * 0.95 * wide, -0.2), (side * 0.85 * wide, -1.55), (side * 0.1, -0.75)], fur
            )
            shape(
                [(side * 0.8 * wide, -0.5), (side * 0.77 * wide, -1.2), (side * 0.4, -0.7)], other
            )
        oval(0, 0, wide, 0.9, fur)
    else:
        oval(0, 0, 0.85 * wide, 1.0, fur)
        for side in (-1, 1):
            oval(side * 0.95 * wide, 0.15, 0.28, 0.85, other, tilt=-side * 0.2)
        oval(0, 0.65, 0.5, 0.6, any_colour(random, thing))
    dark = any_colour(random, behind)
    for side in (-1, 1):
        oval(side * 0.38, -0.2, 0.14, 0.14, dark)
    oval(0, 0.3 if is_cat else 0.55, 0.12, 0.09, dark)
    return lit(image, random)


_LOBES = (0, 3, 4, 5, 6, 8)
_STRETCHES = (1.0, 1.9)
_TEXTURES = (
    "plain",
    "stripes",
    "fine stripes",
    "checks",
    "rings",
    "spokes",
    "dots",
    "core",
    "half",
)


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How the things of one class look.

    Attributes:
        lobes: how many bumps the outline has.
        stretch: how much longer than wide it is.
        texture: one of `_TEXTURES`.
    """

    lobes: int
    stretch: float
    texture: str


def recipes(names: Sequence[str]) -> dict[str, Recipe]:
    """One for each class, no two the same."""
    every = [Recipe(*row) for row in itertools.product(_LOBES, _STRETCHES, _TEXTURES)]
    # Plain ellipses would be near duplicates of each other.
    every = [row for row in every if row.lobes or row.texture != "plain"]
    order = np.random.default_rng(101).permutation(len(every))
    return {name: every[place] for name, place in zip(names, order, strict=False)}


def draw_thing(
    random: np.random.Generator, size: tuple[int, int], recipe: Recipe, *, turn: float = 40
) -> Image.Image:
    """A thing before clutter, turned by at most `turn` degrees."""
    thing, behind = two_lumas(random)
    image = backdrop(random, size, behind)
    first, second = (
        Image.new("RGB", size, any_colour(random, luma))
        for luma in (thing, (2 * behind + thing) / 3)
    )
    inside, texture = _masks(random, size, recipe, turn)
    image.paste(Image.composite(first, second, texture), mask=inside)
    return lit(image, random)


def _masks(
    random: np.random.Generator, size: tuple[int, int], recipe: Recipe, turn: float
) -> tuple[Image.Image, Image.Image]:
    """Where the thing is, and where it has its first colour."""
    wide, high = size
    unit = random.uniform(0.27, 0.4) * min(size)
    x0, y0 = random.uniform(0.38, 0.62, 2) * size
    angle = math.radians(random.uniform(-turn, turn))
    cos, sin = math.cos(angle) / unit, math.sin(angle) / unit
    x = np.arange(wide, dtype=np.float32) - np.float32(x0)
    y = (np.arange(high, dtype=np.float32) - np.float32(y0))[:, np.newaxis]
    u = (x * cos + y * sin) * math.sqrt(recipe.stretch)
    v = (y * cos - x * sin) / math.sqrt(recipe.stretch)
    radius, phi = np.hypot(u, v), np.arctan2(v, u)
    edge = 1 + (0.3 * np.cos(recipe.lobes * phi + math.pi / 2) if recipe.lobes else 0)
    waves = _wave(recipe.texture, u, v, radius / edge, phi)
    return _mask((edge - radius) * unit / 1.5), _mask(waves * 4)


def _mask(height: FloatArray) -> Image.Image:
    """White where `height` is above 0.5, black where it is below -0.5."""
    return Image.fromarray((np.clip(height + 0.5, 0, 1) * 255).astype(np.uint8))


def _wave(
    texture: str, u: FloatArray, v: FloatArray, radius: FloatArray, phi: FloatArray
) -> FloatArray:
    """Above 0 where the first colour is."""
    waves = {
        "plain": lambda: np.ones_like(radius),
        "stripes": lambda: np.sin(5 * u),
        "fine stripes": lambda: np.sin(10 * v),
        "checks": lambda: np.sin(6 * u) * np.sin(6 * v) * 2,
        "rings": lambda: np.cos(10 * radius),
        "spokes": lambda: np.sin(6 * phi),
        "dots": lambda: 0.25 - np.cos(7 * u) * np.cos(7 * v),
        "core": lambda: (radius - 0.5) * 3,
        "half": lambda: v * 3,
    }
    return waves[texture]()
