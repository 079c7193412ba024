"""The embedded colour data: letters of many fonts before clutter, drawn when they are read.

The fonts are those that come with matplotlib. Whole typefaces are held out as the official test
part, so the test asks for letters in fonts that were never seen.
"""

from __future__ import annotations

import functools
import hashlib
import math
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, features

from hpsearch.data.catalog import BadImage, Catalog, RawImage, make_catalog
from hpsearch.data.dataset import LUMA, FloatArray, ImageShape, UInt8Array
from hpsearch.data.readers import OneFileReader
from hpsearch.data.sources._source import DataSource, SourceOption
from hpsearch.data.spec import DataSpec
from hpsearch.errors import DataError

VERSION = 1
"""Raised when the same options give other pixels."""

DEFAULT_SIDE = 32

# Small letters that look like the capital one in another size (c, o, s and so on) are left out.
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ" + "abdefghnqrt"

# The order in which fonts are dealt out: few images have some of both parts, too.
FONTS: tuple[tuple[str, str], ...] = (
    ("DejaVuSans", "train"),
    ("DejaVuSerif", "train"),
    ("STIXGeneral", "test"),
    ("DejaVuSansMono", "train"),
    ("cmr10", "train"),
    ("DejaVuSans-Bold", "train"),
    ("cmss10", "test"),
    ("DejaVuSerif-Italic", "train"),
    ("cmtt10", "train"),
    ("DejaVuSansMono-Bold", "train"),
    ("STIXGeneralBol", "test"),
    ("cmb10", "train"),
    ("DejaVuSans-Oblique", "train"),
    ("DejaVuSerif-Bold", "train"),
    ("STIXGeneralItalic", "test"),
    ("cmti10", "train"),
    ("DejaVuSansMono-Oblique", "train"),
    ("DejaVuSerif-BoldItalic", "train"),
    ("STIXGeneralBolIta", "test"),
    ("DejaVuSans-BoldOblique", "train"),
    ("DejaVuSansMono-BoldOblique", "train"),
)
_FEWEST = 4
"""Images of a letter: three fonts to train and validate with, and one to test."""
_MOST = 1_000_000

_SUPERSAMPLED = 2
_LARGEST_STENCIL = 256
_CUTTING = threading.Lock()
"""Lets one thread make the stencils while others wait for them."""


class GlyphReader:
    """Draws image after image (see `hpsearch.data.catalog.ImageReader`): image i is a function of
    the settings and i alone.

    Args:
        height, width: in pixels.
        letters: how many classes.
        seed: of everything that is random.
    """

    batch = 64

    def __init__(self, height: int, width: int, letters: int, seed: int) -> None:
        self.shape: ImageShape | None = ImageShape(height, width, 3)
        self._height, self._width = height, width
        self._letters, self._seed = letters, seed

    def read(self, start: int, stop: int) -> Iterator[RawImage | BadImage]:
        """The images, drawn now: uint8 (height, width, 3)."""
        side = min(self._height, self._width) * _SUPERSAMPLED
        with _CUTTING:
            stencils = _stencils(min(side, _LARGEST_STENCIL), self._letters)
        for number in range(start, stop):
            yield self._drawn(number, stencils)

    def signature(self) -> str:
        """SHA-256 over the settings, the versions of what draws, and the fonts' sizes and times."""
        fonts = [OneFileReader(path).signature() for path in _font_paths()]
        return hashlib.sha256("\0".join([self._identity(), *fonts]).encode()).hexdigest()

    def content_key(self) -> str:
        """SHA-256 over the settings, the versions of what draws, and the content of the fonts."""
        fonts = [OneFileReader(path).content_key() for path in _font_paths()]
        return hashlib.sha256("\0".join([self._identity(), *fonts]).encode()).hexdigest()

    def _identity(self) -> str:
        versions = (
            VERSION,
            features.version("pil"),
            features.version("freetype2"),
            np.__version__,
        )
        return repr((self._height, self._width, self._letters, self._seed, versions))

    def _drawn(self, number: int, stencils: Mapping[tuple[str, str], Image.Image]) -> UInt8Array:
        random = np.random.default_rng((self._seed, number))
        letter, font = letter_of(number, self._letters), font_of(number, self._letters)
        height, width = self._height * _SUPERSAMPLED, self._width * _SUPERSAMPLED
        side = min(height, width)
        # Mostly dark on light, as print is: some use to a linear model, but not much.
        is_dark = bool(random.uniform() < 0.8)
        paper = random.uniform(110, 220) if is_dark else random.uniform(35, 145)
        canvas = Image.new("RGB", (width, height), _of_luma(random, paper))
        draw = ImageDraw.Draw(canvas)
        for _ in range(random.integers(1, 5)):
            _blob(draw, random, width, height, _near(random, paper))
        for _ in range(random.integers(0, 3)):
            other = LETTERS[random.integers(self._letters)]
            place = random.uniform(-0.1, 1.1, 2) * (width, height)
            size = random.uniform(0.3, 0.6) * side
            mask = _placed(stencils[other, font], random, place, size, canvas.size, turn=180)
            canvas.paste(_near(random, paper), mask=mask)
        for _ in range(random.integers(0, 3)):
            _line(draw, random, width, height, _near(random, paper))
        size = random.uniform(0.85, 1.25) * side
        slack = 0.7 * (0.5 - 0.32 * size / side)
        place = (0.5 + random.uniform(-slack, slack, 2)) * (width, height)
        mask = _placed(stencils[letter, font], random, place, size, canvas.size, turn=25)
        canvas.paste(_far(random, paper, is_dark), mask=mask)
        for _ in range(random.integers(0, 3)):
            _line(draw, random, width, height, _near(random, paper))
        return _lit(np.asarray(canvas.reduce(_SUPERSAMPLED)), random)


def letter_of(number: int, letters: int) -> str:
    """The letter of an image: all in turn."""
    return LETTERS[number % letters]


def font_of(number: int, letters: int) -> str:
    """The font of an image: another one after each round of letters."""
    return FONTS[number // letters % len(FONTS)][0]


@functools.lru_cache(maxsize=4)
def _stencils(side: int, letters: int) -> dict[tuple[str, str], Image.Image]:
    """Each letter in each font, in the middle of a gray square."""
    result = {}
    for path in _font_paths():
        try:
            font = ImageFont.truetype(
                str(path), round(0.66 * side), layout_engine=ImageFont.Layout.BASIC
            )
        except OSError as error:
            raise DataError(
                f"glyphs: the font {path} cannot be read ({error}); install matplotlib again"
            ) from None
        for letter in LETTERS[:letters]:
            image = Image.new("L", (side, side))
            left, top, right, bottom = font.getbbox(letter)
            corner = ((side - left - right) / 2, (side - top - bottom) / 2)
            ImageDraw.Draw(image).text(corner, letter, fill=255, font=font)
            result[letter, path.stem] = image
    return result


@functools.cache
def _font_paths() -> tuple[Path, ...]:
    import matplotlib  # imported late: few searches need the fonts

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return tuple(folder / f"{name}.ttf" for name, _ in FONTS)


def _placed(
    stencil: Image.Image,
    random: np.random.Generator,
    place: FloatArray,
    size: float,
    canvas: tuple[int, int],
    *,
    turn: float,
) -> Image.Image:
    """The stencil as a mask for the canvas: in the middle of `place` (x, y), as large as `size`,
    turned by at most `turn` degrees, stretched and slanted a little.
    """
    angle = math.radians(random.uniform(-turn, turn))
    stretch, slant = random.uniform(0.85, 1.18), random.uniform(-0.15, 0.15)
    scale = stencil.width / size
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    # From a pixel of the canvas to one of the stencil: turned back, then slanted and stretched.
    a, b = (cos + slant * -sin) / stretch, (sin + slant * cos) / stretch
    d, e = -sin, cos
    middle = stencil.width / 2
    x, y = place
    return stencil.transform(
        canvas,
        Image.Transform.AFFINE,
        (a, b, middle - a * x - b * y, d, e, middle - d * x - e * y),
        Image.Resampling.BILINEAR,
    )


def _blob(
    draw: ImageDraw.ImageDraw,
    random: np.random.Generator,
    width: int,
    height: int,
    colour: tuple[int, int, int],
) -> None:
    x, y, wide, high = random.uniform(0, 1, 4) * (width, height, 0.4 * width, 0.4 * height)
    if random.uniform() < 0.5:
        draw.ellipse((x - wide, y - high, x + wide, y + high), fill=colour)
    else:
        corners = (x, y) + random.uniform(-0.5, 0.5, (3, 2)) * (width, height)
        draw.polygon(corners.ravel().tolist(), fill=colour)


def _line(
    draw: ImageDraw.ImageDraw,
    random: np.random.Generator,
    width: int,
    height: int,
    colour: tuple[int, int, int],
) -> None:
    ends = random.uniform(0, 1, 4) * (width, height, width, height)
    thickness = round(random.uniform(0.015, 0.05) * min(width, height))
    draw.line(ends.tolist(), fill=colour, width=max(1, thickness))


def _lit(image: UInt8Array, random: np.random.Generator) -> UInt8Array:
    """The image under a light that falls off to one side, with noise."""
    height, width, _ = image.shape
    rise, slope = random.uniform(-30, 30, 2)
    light = np.linspace(-rise, rise, height)[:, np.newaxis] + np.linspace(-slope, slope, width)
    noise = random.standard_normal(image.shape, dtype=np.float32) * random.uniform(2, 14)
    lit = image + light[..., np.newaxis].astype(np.float32) + noise
    return np.clip(np.rint(lit), 0, 255).astype(np.uint8)


def _near(random: np.random.Generator, luma: float) -> tuple[int, int, int]:
    """A colour of clutter: any hue, about as bright as the paper."""
    return _of_luma(random, luma + random.uniform(-40, 40))


def _far(random: np.random.Generator, luma: float, is_dark: bool) -> tuple[int, int, int]:
    """A colour of the letter: any hue, much darker or brighter than paper and clutter."""
    contrast = random.uniform(85, 150)
    return _of_luma(random, luma + (-contrast if is_dark else contrast))


def _of_luma(random: np.random.Generator, luma: float) -> tuple[int, int, int]:
    colour = random.uniform(0, 255, 3)
    return _rgb(colour + (luma - colour @ LUMA))


def _rgb(colour: FloatArray) -> tuple[int, int, int]:
    red, green, blue = np.clip(colour, 0, 255).astype(int).tolist()
    return (red, green, blue)


def _glyphs(spec: DataSpec, options: Mapping[str, Any]) -> Catalog:
    """Letters, balanced over classes and over fonts; see the module.

    Raises:
        DataError: more letters than there are, or too few images for them.
    """
    letters, images, seed = options["letters"], options["images"], options["seed"]
    if not 2 <= letters <= len(LETTERS):
        raise DataError(f"glyphs: letters must be from 2 to {len(LETTERS)}, but is {letters}")
    if not _FEWEST * letters <= images <= _MOST:
        raise DataError(
            f"glyphs: images must be from {_FEWEST * letters} ({_FEWEST} of each letter) to "
            f"{_MOST}, but is {images}"
        )
    height, width = spec.size or (DEFAULT_SIDE, DEFAULT_SIDE)
    part_of = dict(FONTS)
    fonts = [font_of(number, letters) for number in range(images)]
    labels = [letter_of(number, letters) for number in range(images)]
    return make_catalog(
        name="glyphs",
        names=[
            f"{number} {letter} {font}"
            for number, (letter, font) in enumerate(zip(labels, fonts, strict=True))
        ],
        label_names=labels,
        class_order=LETTERS[:letters],
        images=GlyphReader(height, width, letters, seed),
        groups=fonts,
        parts=[part_of[font] for font in fonts],
    )


GLYPHS = DataSource(
    usage="glyphs",
    help="letters of 21 fonts before colourful clutter, 32x32 RGB, 26 classes; official test "
    "split of other typefaces (drawn, no download)",
    accepts=lambda spec: spec.source == "glyphs",
    catalog=_glyphs,
    options=(
        SourceOption(name="images", help="how many", kind="number", default=4000),
        SourceOption(
            name="letters",
            help=f"how many classes, up to {len(LETTERS)}: capitals, then small letters",
            kind="number",
            default=26,
        ),
        SourceOption(name="seed", help="of the drawing", kind="number", default=1),
    ),
    is_path=False,
)
