from __future__ import annotations

import io
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

import hpsearch.data.decode as decode_module
from hpsearch.data.catalog import BadImage, RawImage
from hpsearch.data.dataset import ImageShape
from hpsearch.data.decode import (
    MAX_PIXELS,
    SUFFIXES,
    Target,
    decode_all,
    is_gray,
    open_image,
    oriented_size,
    to_array,
)
from hpsearch.data.progress import Clock
from hpsearch.data.readers import ArrayReader, FileReader
from hpsearch.data.spec import Fit
from hpsearch.errors import DataError

# Pillow warns about damaged files; that users do not see it is tested below.
pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning"
)

RANDOM = np.random.default_rng(0)
H, W = 12, 9
RGB = RANDOM.integers(0, 256, (H, W, 3), dtype=np.uint8)
GRAY = RGB[..., 0]
ALPHA = RANDOM.integers(0, 256, (H, W), dtype=np.uint8)
DEEP = RANDOM.integers(0, 65_536, (H, W), dtype=np.uint16)
# JPEG keeps areas of one colour, of the size of its blocks.
FLAT = np.kron(RANDOM.integers(0, 256, (2, 3, 3), dtype=np.uint8), np.ones((16, 16, 1), np.uint8))
FITS: tuple[Fit, ...] = ("crop", "pad", "stretch")


def target(height: int = H, width: int = W, channels: int = 3, fit: Fit = "crop") -> Target:
    return Target(ImageShape(height, width, channels), fit)


def written(image: Image.Image | np.ndarray, format: str, **options: Any) -> bytes:  # noqa: A002
    file = io.BytesIO()
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    picture.save(file, format, **options)
    return file.getvalue()


def decoded(content: bytes, wanted: Target | None = None) -> np.ndarray:
    with open_image(content) as image:
        return to_array(image, wanted or target(image.height, image.width))


def over_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., np.newaxis] / 255.0
    return colours * share + 255.0 * (1.0 - share)


def gray3(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., np.newaxis], 3, axis=2)


PALETTE = RANDOM.integers(0, 256, (4, 3), dtype=np.uint8)
INDICES = RANDOM.integers(0, 4, (H, W), dtype=np.uint8)


def palette_image() -> Image.Image:
    image = Image.new("P", (W, H))
    image.putdata(INDICES.ravel().tolist())
    image.putpalette(PALETTE.ravel().tolist())
    return image


CLEAR = np.where(INDICES == 2, 0, 255)
ALPHAS = np.array([255, 10, 0, 128], dtype=np.uint8)
FIRST, SECOND = (Image.fromarray(RGB), Image.fromarray(255 - RGB))
DEEP_CLEAR = int(DEEP[3, 4])

# Written picture, what it must become, and how far off a pixel may be.
PICTURES: dict[str, tuple[bytes, np.ndarray, float]] = {
    "1 png": (
        written(Image.fromarray(GRAY).point(lambda v: 255 * (v > 99)).convert("1"), "PNG"),
        gray3(np.where(GRAY > 99, 255, 0)),
        0,
    ),
    "L png": (written(GRAY, "PNG"), gray3(GRAY), 0),
    "L bmp": (written(GRAY, "BMP"), gray3(GRAY), 0),
    "L pgm": (written(GRAY, "PPM"), gray3(GRAY), 0),
    "L tiff": (written(GRAY, "TIFF", compression="tiff_lzw"), gray3(GRAY), 0),
    "L transparent png": (
        written(GRAY, "PNG", transparency=int(GRAY[2, 3])),
        gray3(np.where(GRAY[2, 3] == GRAY, 255, GRAY)),
        0,
    ),
    "LA png": (
        written(Image.merge("LA", (Image.fromarray(GRAY), Image.fromarray(ALPHA))), "PNG"),
        over_white(gray3(GRAY), ALPHA),
        1,
    ),
    "LA tiff": (
        written(Image.merge("LA", (Image.fromarray(GRAY), Image.fromarray(ALPHA))), "TIFF"),
        over_white(gray3(GRAY), ALPHA),
        1,
    ),
    "P png": (written(palette_image(), "PNG"), PALETTE[INDICES], 0),
    "P gif": (written(palette_image(), "GIF"), PALETTE[INDICES], 0),
    "P bmp": (written(palette_image(), "BMP"), PALETTE[INDICES], 0),
    "P transparent png": (
        written(palette_image(), "PNG", transparency=2),
        over_white(PALETTE[INDICES], CLEAR),
        0,
    ),
    "P transparent gif": (
        written(palette_image(), "GIF", transparency=2),
        over_white(PALETTE[INDICES], CLEAR),
        0,
    ),
    "P alphas png": (
        written(palette_image(), "PNG", transparency=ALPHAS.tobytes()),
        over_white(PALETTE[INDICES], ALPHAS[INDICES]),
        1,
    ),
    "RGB png": (written(RGB, "PNG"), RGB, 0),
    "RGB ppm": (written(RGB, "PPM"), RGB, 0),
    "RGB bmp": (written(RGB, "BMP"), RGB, 0),
    "RGB tiff": (written(RGB, "TIFF"), RGB, 0),
    "RGB deflated tiff": (written(RGB, "TIFF", compression="tiff_adobe_deflate"), RGB, 0),
    "RGB webp": (written(RGB, "WEBP", lossless=True), RGB, 0),
    "RGB jp2": (written(RGB, "JPEG2000", irreversible=False), RGB, 0),
    "RGB transparent png": (
        written(RGB, "PNG", transparency=tuple(RGB[1, 1].tolist())),
        np.where((RGB[1, 1] == RGB).all(axis=2, keepdims=True), 255, RGB),
        0,
    ),
    "RGBA png": (written(np.dstack([RGB, ALPHA]), "PNG"), over_white(RGB, ALPHA), 1),
    "RGBA tiff": (written(np.dstack([RGB, ALPHA]), "TIFF"), over_white(RGB, ALPHA), 1),
    "RGBA webp": (
        written(np.dstack([RGB, ALPHA]), "WEBP", lossless=True, exact=True),
        over_white(RGB, ALPHA),
        1,
    ),
    "I;16 png": (written(DEEP, "PNG"), gray3(DEEP >> 8), 0),
    "I;16 tiff": (written(DEEP, "TIFF"), gray3(DEEP >> 8), 0),
    "I;16 transparent png": (
        written(DEEP, "PNG", transparency=DEEP_CLEAR),
        gray3(np.where(DEEP == DEEP_CLEAR, 255, DEEP >> 8)),
        0,
    ),
    "I;16B pgm": (written(DEEP, "PPM"), gray3(DEEP >> 8), 0),
    "I tiff": (written(DEEP.astype(np.int32), "TIFF"), gray3(DEEP >> 8), 0),
    "F tiff": (
        written((GRAY / 255.0).astype(np.float32), "TIFF"),
        gray3(GRAY),
        0,
    ),
    "jpeg": (written(FLAT, "JPEG", quality=98, subsampling=0), FLAT, 6),
    "gray jpeg": (written(FLAT[..., 0], "JPEG", quality=98), gray3(FLAT[..., 0]), 6),
    "progressive jpeg": (
        written(FLAT, "JPEG", quality=98, subsampling=0, progressive=True),
        FLAT,
        6,
    ),
    "cmyk jpeg": (
        written(Image.fromarray(FLAT).convert("CMYK"), "JPEG", quality=98, subsampling=0),
        FLAT,
        8,
    ),
    "cmyk tiff": (written(Image.fromarray(RGB).convert("CMYK"), "TIFF"), RGB, 0),
    "ycbcr tiff": (
        written(Image.fromarray(RGB).convert("YCbCr"), "TIFF"),
        RGB,
        6,
    ),
    "avif": (written(FLAT, "AVIF", quality=100, subsampling="4:4:4"), FLAT, 6),
    "mpo": (
        written(
            Image.fromarray(FLAT),
            "MPO",
            save_all=True,
            append_images=[Image.fromarray(255 - FLAT)],
            quality=98,
            subsampling=0,
        ),
        FLAT,
        6,
    ),
    "animated png": (written(FIRST, "PNG", save_all=True, append_images=[SECOND]), RGB, 0),
    "animated webp": (
        written(FIRST, "WEBP", save_all=True, append_images=[SECOND], lossless=True),
        RGB,
        0,
    ),
    "animated gif": (
        written(
            palette_image(),
            "GIF",
            save_all=True,
            append_images=[SECOND.convert("P")],
            optimize=False,
        ),
        PALETTE[INDICES],
        0,
    ),
    "pages of a tiff": (
        written(FIRST, "TIFF", save_all=True, append_images=[SECOND]),
        RGB,
        0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PICTURES)
def test_every_kind_of_picture_becomes_rgb(name: str) -> None:
    content, expected, tolerance = PICTURES[name]
    result = decoded(content)
    assert result.dtype == np.uint8
    assert result.shape == expected.shape
    assert np.abs(result - np.asarray(expected, float)).max() <= tolerance + 0.5


@pytest.mark.parametrize("name", PICTURES)
def test_every_kind_of_picture_becomes_gray(name: str) -> None:
    content, expected, tolerance = PICTURES[name]
    height, width = expected.shape[:2]
    result = decoded(content, target(height, width, 1))
    assert result.dtype == np.uint8
    assert result.shape == (height, width, 1)
    luma = np.asarray(expected, float) @ (0.299, 0.587, 0.114)
    assert np.abs(result[..., 0] - luma).max() <= tolerance + 1.0


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_without_colours_is_gray(name: str) -> None:
    with open_image(PICTURES[name][0]) as image:
        found = is_gray(image)
    words = name.split()[0]
    assert found == (words in ("1", "L", "LA", "I", "I;16", "I;16B", "F", "gray"))


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", PICTURES)
def test_every_kind_of_picture_is_resized(name: str, channels: int, fit: Fit) -> None:
    result = decoded(PICTURES[name][0], target(7, 20, channels, fit))
    assert result.dtype == np.uint8
    assert result.shape == (7, 20, channels)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (np.full((H, W), 70_000, np.int32), "70000"),
        (np.full((H, W), -1, np.int32), "-1"),
        (np.full((H, W), 1.5, np.float32), "1.5"),
        (np.full((H, W), -0.5, np.float32), "-0.5"),
        (np.full((H, W), np.nan, np.float32), "nan"),
        (np.where(np.arange(H * W).reshape(H, W) == 3, np.inf, 0).astype(np.float32), "inf"),
    ],
)
def test_values_that_mean_no_brightness_are_refused(values: np.ndarray, told: str) -> None:
    with pytest.raises(DataError, match=told):
        decoded(written(values, "TIFF"))


# ---- orientation

TURNED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, 1),
}


def oriented(pixels: np.ndarray, orientation: int, format: str, **options: Any) -> bytes:  # noqa: A002
    exif = Image.Exif()
    exif[0x0112] = orientation
    return written(pixels, format, exif=exif, **options)


@pytest.mark.parametrize(
    ("format", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})]
)
@pytest.mark.parametrize("orientation", TURNED)
def test_the_orientation_is_applied(orientation: int, format: str, options: dict[str, Any]) -> None:  # noqa: A002
    expected = TURNED[orientation](RGB)
    content = oriented(RGB, orientation, format, **options)
    with open_image(content) as image:
        if format != "TIFF":
            assert oriented_size(image) == expected.shape[:2]
        height, width = expected.shape[:2]
        np.testing.assert_array_equal(to_array(image, target(height, width)), expected)


@pytest.mark.parametrize("orientation", TURNED)
def test_the_orientation_is_applied_to_what_the_jpeg_decoder_halves(orientation: int) -> None:
    # 256x768 to a quarter: halved by the decoder, and by the resampling.
    large = np.kron(FLAT, np.ones((8, 16, 1), np.uint8))
    expected = TURNED[orientation](large)
    with open_image(oriented(large, orientation, "JPEG", quality=98, subsampling=0)) as image:
        assert oriented_size(image) == expected.shape[:2]
        height, width = expected.shape[0] // 4, expected.shape[1] // 4
        result = to_array(image, target(height, width))
        assert image.width < large.shape[1]
    small = expected[2::4, 2::4].astype(float)
    assert np.abs(result - small).mean() < 3


@pytest.mark.parametrize("orientation", [0, 9, 65_535])
def test_an_orientation_that_does_not_exist_changes_nothing(orientation: int) -> None:
    content = oriented(RGB, orientation, "PNG")
    np.testing.assert_array_equal(decoded(content), RGB)


def test_damaged_exif_is_a_picture_or_an_error() -> None:
    exif = bytearray(oriented(FLAT, 6, "JPEG"))
    start = exif.index(b"Exif")
    outcomes = set()
    for position in range(start, start + 40):
        for value in (0, 255):
            content = bytearray(exif)
            content[position] = value
            outcomes.add(survives(bytes(content)))
    assert outcomes <= {"decoded", "refused"}
    assert "decoded" in outcomes


# ---- fits


def weights(length: int, low: float, high: float, size: int) -> np.ndarray:
    """(size, length): the triangle filter, as wide as a step where it shrinks."""
    step = (high - low) / size
    support = max(step, 1.0)
    centres = low + (np.arange(size) + 0.5) * step
    distance = np.abs(np.arange(length) + 0.5 - centres[:, np.newaxis]) / support
    found = np.maximum(1.0 - distance, 0.0)
    return found / found.sum(axis=1, keepdims=True)


def resampled(
    pixels: np.ndarray, box: tuple[float, float, float, float], size: tuple[int, int]
) -> np.ndarray:
    """What a triangle filter makes of the box (top, bottom, left, right)."""
    rows = weights(pixels.shape[0], box[0], box[1], size[0])
    columns = weights(pixels.shape[1], box[2], box[3], size[1])
    return np.einsum("ih,jw,hwc->ijc", rows, columns, pixels.astype(float))


def expected_fit(pixels: np.ndarray, height: int, width: int, fit: Fit) -> np.ndarray:
    high, wide = pixels.shape[:2]
    if fit == "stretch":
        return resampled(pixels, (0, high, 0, wide), (height, width))
    if fit == "crop":
        scale = min(high / height, wide / width)
        cut_high, cut_wide = height * scale, width * scale
        top, left = (high - cut_high) / 2, (wide - cut_wide) / 2
        return resampled(pixels, (top, top + cut_high, left, left + cut_wide), (height, width))
    scale = min(height / high, width / wide)
    inner = max(1, round(high * scale)), max(1, round(wide * scale))
    result = np.zeros((height, width, pixels.shape[2]))
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    result[top : top + inner[0], left : left + inner[1]] = resampled(
        pixels, (0, high, 0, wide), inner
    )
    return result


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(20, 20), (10, 30), (33, 7), (60, 80), (3, 100), (40, 23)])
def test_a_fit_is_a_triangle_filter_over_the_right_box(size: tuple[int, int], fit: Fit) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (40, 23, 3), dtype=np.uint8)
    result = decoded(written(pixels, "PNG"), target(*size, 3, fit))
    expected = expected_fit(pixels, *size, fit)
    # Where it shrinks much, Pillow averages blocks first.
    assert np.abs(result - expected).max() <= (1.6 if min(size) > 3 else 7)


@pytest.mark.parametrize("fit", FITS)
def test_much_smaller_copies_are_antialiased(fit: Fit) -> None:
    # A chess board of single pixels is an even gray to who looks from far away.
    board = (np.indices((400, 500)).sum(axis=0) % 2 * 255).astype(np.uint8)
    result = decoded(written(board, "PNG"), target(10, 20, 1, fit))
    inside = result[:, 4:16]  # the borders of the padding are black
    assert np.abs(inside.astype(float) - 127.5).max() <= 4


@settings(max_examples=300)
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(1, 100),
    st.integers(1, 100),
    st.sampled_from(FITS),
)
@example(262, 25, 39, 62, "crop")  # where rounding once led out of the picture
@example(1, 16_000, 3, 100, "crop")
@example(16_000, 1, 64, 64, "pad")
def test_every_size_fits(high: int, wide: int, height: int, width: int, fit: Fit) -> None:
    result = to_array(Image.new("L", (wide, high), 77), target(height, width, 1, fit))
    assert result.shape == (height, width, 1)
    if fit != "pad":
        assert (result == 77).all()
        return
    inside = np.argwhere(result[..., 0])
    (top, left), (bottom, right) = inside.min(axis=0), inside.max(axis=0) + 1
    assert (result[top:bottom, left:right] == 77).all()
    scale = min(height / high, width / wide)
    assert bottom - top == max(1, round(high * scale))
    assert right - left == max(1, round(wide * scale))
    assert abs(top - (height - bottom)) <= 1
    assert abs(left - (width - right)) <= 1


def smooth(height: int, width: int) -> np.ndarray:
    """Something like a photograph: waves of several lengths."""
    y, x = np.mgrid[:height, :width] / 100.0
    waves = [np.sin(a * x + b * y + c) for a, b, c in ((1, 2, 0), (3, -1, 1), (-2, 5, 2))]
    return (127.5 + 120 * np.stack(waves, axis=-1)).astype(np.uint8)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(32, 32), (50, 64), (120, 20), (300, 400)])
def test_a_jpeg_decoded_small_is_close_to_the_full_decode(size: tuple[int, int], fit: Fit) -> None:
    pixels = smooth(480, 640)
    content = written(pixels, "JPEG", quality=95)
    with open_image(content) as image:
        result = to_array(image, target(*size, 3, fit))
        # At least twice the target is left, so that the resampling still antialiases.
        assert image.height >= min(2 * size[0], 480)
        assert image.width >= min(2 * size[1], 640)
        if max(size) <= 64:
            assert image.width < 640
    full = to_array(Image.open(io.BytesIO(content)).convert("RGB"), target(*size, 3, fit))
    assert np.abs(result.astype(float) - full).mean() < 1.5


# ---- arrays


def test_an_array_of_the_right_shape_is_left_alone() -> None:
    assert to_array(RGB, target()) is RGB


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("pixels", [RGB, GRAY[..., np.newaxis]], ids=["rgb", "gray"])
def test_arrays_are_fitted_like_pictures(pixels: np.ndarray, channels: int, fit: Fit) -> None:
    wanted = target(30, 8, channels, fit)
    picture = written(pixels if pixels.shape[2] == 3 else pixels[..., 0], "PNG")
    np.testing.assert_array_equal(to_array(pixels, wanted), decoded(picture, wanted))


# ---- bad and hostile files


def png_header(width: int, height: int, mode: int = 2) -> bytes:
    """The start of a PNG that says how large it is, and nothing after it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, mode, 0, 0, 0)
    body = zlib.compress(bytes(100_000))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def gif_header(width: int, height: int) -> bytes:
    """A screen of one pixel, and a frame that is larger."""
    screen = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0)
    return screen + frame + b"\x02\x02\x4c\x01\x00;"


def bmp_header(width: int, height: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 100, 0, 0, 54) + header + bytes(100)


def patched(content: bytes, offset: int, form: str, *values: int) -> bytes:
    """`content` with other numbers at `offset`."""
    numbers = struct.pack(form, *values)
    return content[:offset] + numbers + content[offset + len(numbers) :]


def jpeg_header(width: int, height: int) -> bytes:
    content = written(FLAT, "JPEG")
    return patched(content, content.index(b"\xff\xc0") + 5, ">HH", height, width)


def webp_header(width: int, height: int) -> bytes:
    content = written(FIRST, "WEBP", save_all=True, append_images=[SECOND], lossless=True)
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return patched(content, content.index(b"VP8X") + 12, "6s", sides)  # type: ignore[arg-type]


def tiff_header(width: int, height: int) -> bytes:
    content = written(RGB, "TIFF", compression="tiff_adobe_deflate")
    start = struct.unpack_from("<I", content, 4)[0] + 2
    for tag, side in ((256, width), (257, height)):
        entry = content.index(struct.pack("<H", tag), start)
        content = patched(content, entry, "<HHII", tag, 4, 1, side)
    return content


def jp2_header(width: int, height: int) -> bytes:
    content = written(RGB, "JPEG2000")
    return patched(content, content.index(b"ihdr") + 4, ">II", height, width)


@pytest.mark.parametrize(
    "content",
    [
        png_header(50_000, 50_000),
        png_header(12_000, 12_000),
        png_header(2**31 - 1, 2**31 - 1),
        png_header(2**27 + 1, 1),
        bmp_header(40_000, 40_000),
        bmp_header(2**31 - 1, 1),
        b"P6 60000 60000 255\n" + bytes(100),
        gif_header(60_000, 60_000),
        gif_header(12_000, 12_000),
        jpeg_header(65_500, 65_500),
        jpeg_header(12_000, 12_000),
        webp_header(16_383, 16_383),
        tiff_header(50_000, 50_000),
        tiff_header(12_000, 12_000),
        jp2_header(50_000, 50_000),
    ],
    ids=[
        *("png", "smaller png", "largest png", "line png", "bmp", "line bmp", "ppm"),
        *("gif", "smaller gif", "jpeg", "smaller jpeg", "webp", "tiff", "smaller tiff", "jp2"),
    ],
)
def test_a_bomb_is_refused_before_it_is_decoded(content: bytes) -> None:
    with pytest.raises(DataError, match=f"{MAX_PIXELS:,}"):
        open_image(content)


def test_the_limit_is_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode_module, "MAX_PIXELS", H * W)
    assert decoded(written(RGB, "PNG")).shape == RGB.shape
    monkeypatch.setattr(decode_module, "MAX_PIXELS", H * W - 1)
    with pytest.raises(DataError, match="12x9 pixels, more than 107"):
        open_image(written(RGB, "PNG"))


def survives(content: bytes) -> str:
    """What becomes of a file; anything but a picture or a DataError of one line fails."""
    try:
        with open_image(content) as image:
            result = to_array(image, target(5, 6))
    except DataError as error:
        message = str(error)
        assert message
        assert message.isprintable()
        return "refused"
    assert result.shape == (5, 6, 3)
    assert result.dtype == np.uint8
    return "decoded"


@pytest.mark.parametrize("name", PICTURES)
def test_a_truncated_picture_is_a_picture_or_an_error(name: str) -> None:
    content = PICTURES[name][0]
    steps = max(1, len(content) // 60)
    outcomes = [survives(content[:length]) for length in range(0, len(content), steps)]
    assert outcomes[0] == outcomes[1] == "refused"
    assert survives(content) == "decoded"


@pytest.mark.parametrize("name", ["RGB png", "jpeg", "RGB webp", "P gif", "RGB bmp", "RGB ppm"])
def test_half_a_picture_is_refused(name: str) -> None:
    content = PICTURES[name][0]
    assert survives(content[: len(content) // 2]) == "refused"


def test_brackets_in_what_pillow_says_are_not_within_others() -> None:
    content = written(np.tile(RGB, (8, 8, 1)), "JPEG")
    with pytest.raises(DataError, match=r"^is damaged: image file is truncated \(.* processed\)$"):
        to_array(open_image(content[: len(content) // 2]), target())


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_picture_is_a_picture_or_an_error(data: st.DataObject) -> None:
    content = bytearray(PICTURES[data.draw(st.sampled_from(sorted(PICTURES)))][0])
    # Most harm is done at the start, where the headers are.
    places = st.one_of(st.integers(0, min(200, len(content) - 1)), st.integers(0, len(content) - 1))
    for place, value in data.draw(
        st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=8)
    ):
        content[place] = value
    survives(bytes(content))


MAGIC = [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM", b"II*\0", b"MM\0*"]


@settings(max_examples=300)
@given(st.sampled_from([*MAGIC, b"RIFF\x20\0\0\0WEBP", b"P6", b"\0\0\0\x0cjP  "]), st.binary())
def test_random_bytes_are_a_picture_or_an_error(magic: bytes, rest: bytes) -> None:
    survives(magic + rest)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "the file is empty"),
        (b"hello", "no picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>", "no picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", "no picture"),
        (b"%PDF-1.4\n", "no picture"),
        (written(RGB, "ICO"), "no picture"),
        (b"\0" * 1000, "no picture"),
        (b"P6 0 0 255\n", "no picture"),
        (b"P5 99999999999 99999999999 255\n" + bytes(100), "damaged"),
    ],
)
def test_what_is_no_picture_is_refused(content: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    for source in (content, path):
        with pytest.raises(DataError, match=told) as caught:
            to_array(open_image(source), target())
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["RGB png", "RGB webp", "jpeg"])
def test_a_mislabelled_picture_is_what_it_holds(name: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.gif"
    path.write_bytes(PICTURES[name][0])
    with open_image(path) as image:
        result = to_array(image, target())
    np.testing.assert_array_equal(result, decoded(PICTURES[name][0], target()))


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.png", tmp_path):
        with pytest.raises(DataError):
            open_image(path)


def test_pillow_says_nothing_about_damaged_files(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "a text" * 9
    content = written(FLAT, "JPEG", exif=exif)
    (tmp_path / "exif.jpg").write_bytes(patched(content, content.index(b"Exif") + 24, "B", 255))
    (tmp_path / "bomb.png").write_bytes(png_header(12_000, 12_000))
    program = (
        "import sys; from hpsearch.data.decode import *; from pathlib import Path\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n"
        "        image = open_image(Path(name))\n"
        "        print(to_array(image, Target(ImageShape(4, 4, 3), 'crop')).shape)\n"
        "    except DataError as error:\n"
        "        print(error)\n"
    )
    paths = [str(tmp_path / name) for name in ("exif.jpg", "bomb.png")]
    done = subprocess.run(
        [sys.executable, "-c", program, *paths], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    first, second = done.stdout.splitlines()
    assert first == "(4, 4, 3)"
    assert "12000x12000" in second


def test_the_suffixes_are_small_letters_with_a_point() -> None:
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in SUFFIXES)
    assert {".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".ppm"} <= SUFFIXES
    assert not {".svg", ".eps", ".pdf", ".csv"} & SUFFIXES


# ---- many


class Slow:
    """Images that take their time, and know who asked for them."""

    shape: ImageShape | None = None

    def __init__(self, count: int, batch: int, bad: frozenset[int] = frozenset()) -> None:
        self.count, self.batch, self.bad = count, batch, bad
        self.lock = threading.Lock()
        self.started: list[int] = []

    def read(self, start: int, stop: int) -> Iterator[RawImage | BadImage]:
        with self.lock:
            self.started.append(start)
        for number in range(start, stop):
            time.sleep(0.0005 * (number * 7 % 3))  # later ones are done first
            if number in self.bad:
                yield BadImage(f"{number}", "is bad")
            elif number % 5 == 4:
                yield open_image(written(np.full((2, 2), number % 256, np.uint8), "PNG"))
            else:
                yield np.full((2, 2, 1), number % 256, np.uint8)

    def signature(self) -> str:
        raise AssertionError

    def content_key(self) -> str:
        raise AssertionError


def names_of(reader: Slow) -> list[str]:
    return [str(number) for number in range(reader.count)]


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize(("count", "batch"), [(1, 4), (100, 7), (64, 64), (65, 64), (30, 1)])
def test_the_order_is_kept(workers: int, count: int, batch: int) -> None:
    reader = Slow(count, batch, bad=frozenset({3, 11}))
    results = [
        image
        for part in decode_all(reader, names_of(reader), target(2, 2, 1), workers=workers)
        for image in part
    ]
    assert len(results) == count
    for number, image in enumerate(results):
        if number in reader.bad:
            assert image == BadImage(f"{number}", "is bad")
        else:
            np.testing.assert_array_equal(image, np.full((2, 2, 1), number % 256))
    assert sorted(reader.started) == list(range(0, count, batch))


def test_only_a_few_batches_are_in_memory() -> None:
    reader = Slow(400, 4)
    ahead = []
    with closing(decode_all(reader, names_of(reader), target(2, 2, 1), workers=2)) as batches:
        for number, _ in enumerate(batches):
            if number < 3:
                time.sleep(0.05)  # others could run ahead
            with reader.lock:
                ahead.append(len(reader.started) - number)
    assert max(ahead) <= 2 * 2 + 1
    assert len(reader.started) == 100


def decoding_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_closing_early_stops_the_threads() -> None:
    reader = Slow(4000, 4)
    batches = decode_all(reader, names_of(reader), target(2, 2, 1), workers=3)
    next(batches)
    assert decoding_threads()
    batches.close()
    assert not decoding_threads()
    assert len(reader.started) <= 2 * 3 + 1


def test_an_error_of_the_consumer_stops_the_threads() -> None:
    reader = Slow(4000, 4)

    def consume() -> None:
        with closing(decode_all(reader, names_of(reader), target(2, 2, 1), workers=3)) as batches:
            for _ in batches:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    assert not decoding_threads()
    assert len(reader.started) < 1000


def test_bad_files_are_named_and_the_others_decoded(tmp_path: Path) -> None:
    contents = {
        "good.png": written(RGB, "PNG"),
        "empty.png": b"",
        "text.png": b"hello",
        "half.png": written(RGB, "PNG")[:150],
        "bomb.png": png_header(50_000, 50_000),
        "last.png": written(RGB, "PNG"),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.png").mkdir()
    paths = [*contents, "missing.png", "folder.png"]
    reader = FileReader(tmp_path, paths)
    (results,) = decode_all(reader, paths, target())
    good = [isinstance(image, np.ndarray) for image in results]
    assert good == [True, False, False, False, False, True, False, False]
    bad = [image for image in results if isinstance(image, BadImage)]
    assert [image.name for image in bad] == [
        path for path, fine in zip(paths, good, strict=True) if not fine
    ]
    assert "empty" in bad[0].reason
    assert "no picture" in bad[1].reason
    assert f"{MAX_PIXELS:,}" in bad[3].reason
    assert "No such file" in bad[4].reason
    assert all(str(image).isprintable() for image in bad)
    assert not any(str(tmp_path) in image.reason for image in bad)


class Opened:
    """Pictures of a folder, kept so that nothing but `decode_all` closes them."""

    def __init__(self, reader: FileReader) -> None:
        self.reader, self.shape, self.batch = reader, None, 4
        self.images: list[Image.Image] = []

    def read(self, start: int, stop: int) -> Iterator[RawImage | BadImage]:
        for image in self.reader.read(start, stop):
            assert isinstance(image, Image.Image)
            self.images.append(image)
            yield image

    def signature(self) -> str:
        raise AssertionError

    def content_key(self) -> str:
        raise AssertionError


def test_pictures_are_closed_whatever_becomes_of_them(tmp_path: Path) -> None:
    paths = ["good.png", "half.png", "animated.gif", "good.jpg"]
    contents = [written(RGB, "PNG"), written(RGB, "PNG")[:150], PICTURES["animated gif"][0]]
    for name, content in zip(paths, [*contents, PICTURES["jpeg"][0]], strict=True):
        (tmp_path / name).write_bytes(content)
    reader = Opened(FileReader(tmp_path, paths))
    (results,) = decode_all(reader, paths, target())
    assert [isinstance(result, BadImage) for result in results] == [False, True, False, False]
    assert [image.fp for image in reader.images] == [None] * 4  # type: ignore[attr-defined]


def test_no_file_stays_open(tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(written(RGB, "PNG"))
    (tmp_path / "half.png").write_bytes(written(RGB, "PNG")[:150])
    paths = ["good.png", "half.png"] * 40
    before = len(list(Path("/proc/self/fd").iterdir()))
    list(decode_all(FileReader(tmp_path, paths), paths, target()))
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_an_array_reader_gives_what_it_has() -> None:
    images = np.random.default_rng(0).integers(0, 256, (300, 4, 3, 1), dtype=np.uint8)
    reader = ArrayReader(images)
    batches = list(decode_all(reader, [""] * 300, target(4, 3, 1), workers=2))
    assert [len(batch) for batch in batches] == [256, 44]
    np.testing.assert_array_equal(np.concatenate([np.stack(batch) for batch in batches]), images)
    other = ArrayReader(images[::-1])
    assert other.content_key() != reader.content_key()
    assert ArrayReader(images.reshape(300, 3, 4, 1)).content_key() != reader.content_key()
    assert ArrayReader(images.copy()).content_key() == reader.content_key()


def test_progress_counts() -> None:
    clock = Clock("decoding", 10)
    first, second = clock.at(3), clock.at(7, bad=2)
    assert (first.what, first.done, first.total, first.bad) == ("decoding", 3, 10, 0)
    assert (second.done, second.bad) == (7, 2)
    assert 0 <= first.seconds <= second.seconds
