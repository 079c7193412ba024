"""From picture files and arrays of any kind to uint8 images of one shape."""

from __future__ import annotations

import collections
import dataclasses
import errno
import io
import logging
import os
import warnings
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from hpsearch.data.catalog import BadImage, Catalog, ImageReader, RawImage
from hpsearch.data.dataset import ImageShape, UInt8Array, bad_words
from hpsearch.data.progress import Clock, Watch
from hpsearch.data.spec import SKIP, Fit
from hpsearch.data.words import reason_of
from hpsearch.errors import DataError
from hpsearch.names import printable

# What Pillow may open here: no format that runs another program (EPS) or hides a text (SVG).
_ALLOWED = ("JPEG", "MPO", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "PPM", "AVIF", "JPEG2000")
Image.init()
FORMATS = tuple(name for name in _ALLOWED if name in Image.OPEN)
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".webp"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".avif", ".jp2"}
)
FOREIGN = frozenset(
    {".heic", ".heif", ".hif", ".jxl", ".jxr", ".psd", ".svg", ".eps", ".tga", ".exr"}
    | {".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".iiq", ".kdc", ".mrw"}
    | {".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srw", ".x3f"}
)
"""Pictures that are not read: those of phones, cameras (raw) and other programs."""

MAX_PIXELS = 2**27
"""More pixels than the largest phone camera has: beyond, a small file can fill the memory."""

REDUCING_GAP = 3.0
"""What is made this many times smaller is averaged in blocks first."""

PASSING = frozenset(
    {errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ETIMEDOUT}
)
"""Failures of the disk or the network: they say nothing about an image, and may pass."""

# Pillow warns on stderr about pictures that are larger than its own limit (ours is checked below)
# and about damaged EXIF data, which harms nobody. This silences it in the whole process, for others
# that use Pillow, too: to do it around each picture is not safe on several threads.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())


@dataclasses.dataclass(frozen=True)
class Target:
    """What every image becomes."""

    shape: ImageShape
    fit: Fit


def open_image(source: Path | bytes) -> Image.Image:
    """Opens a picture without decoding it.

    Raises:
        DataError: it is no picture, or has too many pixels; the message has no file name.
    """
    try:
        image = Image.open(
            io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS
        )
    except UnidentifiedImageError:
        empty = not source if isinstance(source, bytes) else source.stat().st_size == 0
        reason = "the file is empty" if empty else "is no picture that can be read"
        raise DataError(reason) from None
    except Image.DecompressionBombError:
        raise DataError(f"has more than {MAX_PIXELS:,} pixels") from None
    except OSError as error:
        if error.errno in PASSING:
            raise
        raise DataError(error.strerror or str(error)) from None
    except MemoryError:  # says nothing about the file
        raise
    except Exception as error:  # Pillow lets a dozen kinds out on damaged files
        raise DataError(f"is damaged: {reason_of(error)}") from None
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise DataError(
            f"has {image.height}x{image.width} pixels, more than {MAX_PIXELS:,}; make it smaller"
        )
    if image.width < 1 or image.height < 1:
        image.close()
        raise DataError("has no pixels")
    return image


def to_array(raw: RawImage, target: Target) -> UInt8Array:
    """Decodes a picture and brings it to the target's shape: uint8 (height, width, channels).

    EXIF orientation is applied, transparency is laid over white, 16 bits become the upper 8,
    of an animation the first frame is taken.

    Raises:
        DataError: it cannot be decoded; the message has no file name.
    """
    if isinstance(raw, np.ndarray):
        if raw.shape == (target.shape.height, target.shape.width, target.shape.channels):
            return raw
        raw = Image.fromarray(raw[..., 0] if raw.shape[-1] == 1 else raw)
    try:
        _draft(raw, target)
        image = _plain_mode(ImageOps.exif_transpose(raw), target.shape.channels)
    except (DataError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in PASSING:
            raise
        raise DataError(f"is damaged: {reason_of(error)}") from None
    array = np.asarray(_fitted(image, target))
    return array[..., np.newaxis] if array.ndim == 2 else array


def is_gray(image: Image.Image) -> bool:
    """Whether a picture that was opened has no colours."""
    return image.mode in ("1", "L", "LA", "La", "I", "F") or image.mode.startswith("I;16")


def oriented_size(image: Image.Image) -> tuple[int, int]:
    """Height and width once the EXIF orientation is applied."""
    try:
        turned = image.getexif().get(0x0112) in (5, 6, 7, 8)
    except Exception:  # damaged EXIF: Pillow will not apply it either, or say so when decoding
        turned = False
    return (image.width, image.height) if turned else (image.height, image.width)


def _draft(image: Image.Image, target: Target) -> None:
    """Lets the JPEG decoder halve the size as long as twice the target's is left: the
    antialiased resampling does the rest, and decoding costs a fraction.
    """
    if getattr(image, "format", None) not in ("JPEG", "MPO"):
        return
    height, width = target.shape.height, target.shape.width
    if oriented_size(image) != (image.height, image.width):
        height, width = width, height
    image.draft(None, (2 * width, 2 * height))


def _plain_mode(image: Image.Image, channels: int) -> Image.Image:
    """8-bit gray or RGB."""
    mode = "L" if channels == 1 else "RGB"
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        pixels = _eight_bits(values)
        if isinstance(clear := image.info.get("transparency"), int):
            pixels[values == clear] = 255
        image = Image.fromarray(pixels)
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert(mode)
    return image if image.mode == mode else image.convert(mode)


def _eight_bits(values: np.ndarray) -> UInt8Array:
    """The upper 8 of 16 bits; fractions from 0 to 1 times 255."""
    low, high = float(values.min()), float(values.max())
    if np.issubdtype(values.dtype, np.floating):
        if not (low >= 0.0 and high <= 1.0):
            raise DataError(f"has values from {low:g} to {high:g}, but fractions must be 0 to 1")
        return np.rint(values * 255.0).astype(np.uint8)
    if low < 0 or high > 65_535:
        raise DataError(f"has values from {low:g} to {high:g}, beyond 16 bits")
    return (values.astype(np.uint32) >> 8).astype(np.uint8)


def _fitted(image: Image.Image, target: Target) -> Image.Image:
    height, width = target.shape.height, target.shape.width
    if image.size == (width, height):
        return image
    if target.fit == "stretch":
        return image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=REDUCING_GAP)
    if target.fit == "pad":
        inner = min(width / image.width, height / image.height)
        size = (max(1, round(image.width * inner)), max(1, round(image.height * inner)))
        padded = Image.new(image.mode, (width, height))
        padded.paste(
            image.resize(size, Image.Resampling.BILINEAR, reducing_gap=REDUCING_GAP),
            ((width - size[0]) // 2, (height - size[1]) // 2),
        )
        return padded
    outer = min(image.width / width, image.height / height)
    # Rounding must not lead out of the picture.
    wide, high = min(width * outer, image.width), min(height * outer, image.height)
    left, top = (image.width - wide) / 2, (image.height - high) / 2
    box = (left, top, min(left + wide, image.width), min(top + high, image.height))
    return image.resize(
        (width, height), Image.Resampling.BILINEAR, box=box, reducing_gap=REDUCING_GAP
    )


def default_workers() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def decode_all(
    reader: ImageReader, names: list[str], target: Target, *, workers: int | None = None
) -> Generator[list[UInt8Array | BadImage]]:
    """Reads and decodes all images of a source, in order, on several threads (Pillow lets
    others run while it decodes and resamples).

    Only a few batches are in memory at a time, whatever the size of the source. Close it
    (`contextlib.closing`) to stop early.

    Args:
        names: (N,) what the images are called.

    Yields:
        lists of images as `to_array` makes them, or what is wrong with them.
    """
    workers = workers or default_workers()

    def decode(start: int) -> list[UInt8Array | BadImage]:
        stop = min(start + reader.batch, len(names))
        results: list[UInt8Array | BadImage] = []
        for name, raw in zip(names[start:stop], reader.read(start, stop), strict=True):
            if isinstance(raw, BadImage):
                results.append(raw)
                continue
            try:
                results.append(to_array(raw, target))
            except DataError as error:
                results.append(BadImage(name, str(error)))
            except (OSError, MemoryError) as error:  # not the image's fault: it is not left out
                raise unavailable(name, error) from error
            finally:
                if isinstance(raw, Image.Image):
                    raw.close()
        return results

    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        window: collections.deque[Future[list[UInt8Array | BadImage]]] = collections.deque()
        try:
            for start in range(0, len(names), reader.batch):
                window.append(pool.submit(decode, start))
                if len(window) > 2 * workers:
                    yield window.popleft().result()
            while window:
                yield window.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def decode_catalog(
    catalog: Catalog,
    target: Target,
    write: Callable[[UInt8Array], None],
    *,
    what: str,
    skip: bool,
    workers: int | None = None,
    watch: Watch,
) -> tuple[Catalog, list[BadImage]]:
    """Decodes all images of a catalog, in order, and hands each to `write`.

    Args:
        what: is done, in a word, for the progress.
        skip: leave out images that cannot be read.

    Returns:
        The catalog of the images that were written, and those that were left out.

    Raises:
        UnreadableImagesError: images cannot be read, all of which were looked for, and `skip` is
            false; or none can.
    """
    clock = Clock(what, len(catalog))
    kept: list[int] = []
    bad: list[BadImage] = []
    row = 0
    with closing(decode_all(catalog.images, list(catalog.names), target, workers=workers)) as all_:
        for batch in all_:
            for image in batch:
                if isinstance(image, BadImage):
                    bad.append(image)
                else:
                    kept.append(row)
                    # With a bad one all is in vain; what is left is to find the others.
                    if skip or not bad:
                        write(image)
                row += 1
            watch(clock.at(row, len(bad)))
    if bad and not (skip and kept):
        raise UnreadableImagesError(catalog.name, bad, len(catalog))
    return catalog.at(kept), bad


def unavailable(name: str, error: OSError | MemoryError) -> DataError:
    """What stops a reading without saying anything about the image."""
    reason = (error.strerror or str(error)) if isinstance(error, OSError) else "out of memory"
    return DataError(f"{printable(name)} cannot be read now ({reason}); see to it, and start again")


class UnreadableImagesError(DataError):
    """Some images of a source cannot be read.

    Attributes:
        images: all of them, with the reasons.
    """

    def __init__(self, name: str, images: list[BadImage], total: int) -> None:
        super().__init__(
            f"{name}: {len(images):,} of {total:,} images cannot be read: {bad_words(images)}. "
            f"Mend or remove them, or leave them out with {SKIP}"
        )
        self.images = tuple(images)
