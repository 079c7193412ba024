"""Perceptual hashes: 64 bits that stay nearly the same when an image is saved again, resized,
brightened or cropped a little, and the search for images whose hashes are close.

The hash takes the signs (about their median) of the 8x8 lowest frequencies of the discrete
cosine transform of a 32x32 gray version: C. Zauner, Implementation and Benchmarking of
Perceptual Image Hash Functions, 2010.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from hpsearch.data.dataset import LUMA, ImageDataset, Int64Array, UInt8Array
from hpsearch.data.decode import default_workers

RealArray = npt.NDArray[np.floating[Any]]
"""In whatever precision: single is enough here, and half the memory."""
UInt64Array = npt.NDArray[np.uint64]

RADIUS = 18
"""Bits in which two hashes may differ: half of the copies that were cropped by 3% at two sides
differ in more than 12, unrelated photos in 18 or fewer once in ten thousand pairs."""
LOW_LIKENESS = 0.6
"""The correlation of the low frequencies that a pair must have to be looked at closely."""
_SIDE, _LOW = 32, 8
_ROWS, _COLUMNS = 128, 4096
_DENSE = 0.02


def gray(images: npt.NDArray[Any]) -> RealArray:
    """float32 (n, height, width) luminance of (n, height, width, channels)."""
    if images.shape[-1] == 1:
        return images[..., 0].astype(np.float32)
    result: RealArray = images.astype(np.float32) @ np.array(LUMA, dtype=np.float32)
    return result


def area_matrix(size: int, source: int) -> RealArray:
    """(size, source): averages a line of `source` pixels to `size` by the overlap of areas."""
    edges = np.linspace(0, source, size + 1)
    pixels = np.arange(source)
    overlap = np.minimum(edges[1:, np.newaxis], pixels + 1) - np.maximum(
        edges[:-1, np.newaxis], pixels
    )
    weights = np.maximum(overlap, 0.0)
    result: RealArray = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return result


def low_frequencies(images: UInt8Array) -> RealArray:
    """(n, 8, 8): the lowest frequencies of the images, brought to 32x32 gray pixels."""
    frequency = np.arange(_LOW)[:, np.newaxis]
    cosines = np.cos(np.pi * (np.arange(_SIDE) + 0.5) * frequency / _SIDE)
    basis = (cosines * np.sqrt(np.where(frequency == 0, 1.0, 2.0) / _SIDE)).astype(np.float32)
    rows = basis @ area_matrix(_SIDE, images.shape[1])
    columns = basis @ area_matrix(_SIDE, images.shape[2])
    result: RealArray = rows @ gray(images) @ columns.T
    return result


def hashes_of(frequencies: RealArray) -> UInt64Array:
    """(n,): the hashes of images with these (n, 8, 8) lowest frequencies."""
    flat = frequencies.reshape(len(frequencies), -1)
    bits = flat > np.median(flat, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64).ravel()


def mirrored(frequencies: RealArray) -> RealArray:
    """The (n, 8, 8) lowest frequencies of the images' mirror images."""
    return frequencies * np.where(np.arange(_LOW) % 2, -1.0, 1.0).astype(np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class Sketches:
    """What the search needs to know of some images of a data set.

    Attributes:
        rows: int64, (n,): which ones.
        frequencies: (n, 8, 8), see `low_frequencies`.
        contrast: (n,): standard deviation of these frequencies, in gray levels.
    """

    rows: Int64Array
    frequencies: RealArray
    contrast: RealArray

    @classmethod
    def of(cls, dataset: ImageDataset, rows: Int64Array, tell: Callable[[int], None]) -> Sketches:
        """Reads the images at `rows`; `tell` is called with how many are done."""
        step = max(1, 2**24 // dataset.shape.nbytes)
        parts = []
        for start in range(0, len(rows), step):
            parts.append(low_frequencies(dataset.images[rows[start : start + step]]))
            tell(min(start + step, len(rows)))
        frequencies = np.concatenate(parts)
        flat = frequencies.reshape(len(rows), -1)[:, 1:]
        return cls(rows, frequencies, np.sqrt((flat**2).sum(axis=1)) / _SIDE)

    def taken(self, keep: npt.NDArray[np.bool_]) -> Sketches:
        """Only those where `keep` is true."""
        return Sketches(self.rows[keep], self.frequencies[keep], self.contrast[keep])


@dataclasses.dataclass(frozen=True, eq=False)
class Candidates:
    """Pairs that deserve a closer look.

    Attributes:
        first, second: int64, (n,): positions in the sketches, first < second.
        likeness: (n,): the correlation of their low frequencies.
        complete: no more than these were found.
    """

    first: Int64Array
    second: Int64Array
    likeness: RealArray
    complete: bool


def close_pairs(
    sketches: Sketches, *, mirror: bool, most: int, tell: Callable[[int], None]
) -> Candidates:
    """The pairs whose hashes differ in at most `RADIUS` bits and whose low frequencies agree.

    Compares all with all in blocks that fit the processor's cache, on several threads: 20,000
    images take about a second, ten times as many a hundred times as long.

    Args:
        mirror: compare each image with the mirror images of the others.
        most: keep this many pairs, the most alike ones.
        tell: is called with how many images are done.
    """
    other = mirrored(sketches.frequencies) if mirror else sketches.frequencies
    left, right = hashes_of(sketches.frequencies), hashes_of(other)
    low_left, low_right = _unit(sketches.frequencies), _unit(other)
    count = len(left)

    def look(start: int) -> list[tuple[Int64Array, Int64Array, RealArray]]:
        stop = min(start + _ROWS, count)
        found = []
        for column in range(start, count, _COLUMNS):
            end = min(column + _COLUMNS, count)
            distance = bit_count(left[start:stop, np.newaxis] ^ right[np.newaxis, column:end])
            first, second = _close(distance <= RADIUS, low_left[start:stop], low_right[column:end])
            first, second = first + start, second + column
            upper = first < second
            first, second = first[upper], second[upper]
            likeness = np.einsum("ij,ij->i", low_left[first], low_right[second])
            alike = likeness >= LOW_LIKENESS
            found.append((first[alike], second[alike], likeness[alike]))
        return found

    kept: list[tuple[Int64Array, Int64Array, RealArray]] = []
    size, complete = 0, True
    with ThreadPoolExecutor(default_workers()) as pool:
        starts = range(0, count, _ROWS)
        for start, found in zip(starts, _in_order(pool, look, starts), strict=True):
            kept += found
            size += sum(len(item[0]) for item in found)
            if size > 2 * most:
                kept, size, complete = [_best(kept, most)], most, False
            tell(min(start + _ROWS, count))
    first, second, likeness = _best(kept, most)
    return Candidates(first, second, likeness, complete and size <= most)


def _in_order(
    pool: ThreadPoolExecutor,
    look: Callable[[int], list[tuple[Int64Array, Int64Array, RealArray]]],
    starts: range,
) -> Iterator[list[tuple[Int64Array, Int64Array, RealArray]]]:
    """As `pool.map`, but only a few results wait at a time: each can be large."""
    step = 2 * default_workers()
    for number in range(0, len(starts), step):
        yield from pool.map(look, starts[number : number + step])


def _close(
    near: npt.NDArray[np.bool_], left: RealArray, right: RealArray
) -> tuple[Int64Array, Int64Array]:
    """The positions in a block that are near; where these are many (images that look all the
    same), of them only those whose low frequencies agree too: one product of matrices tells.
    """
    if np.count_nonzero(near) > _DENSE * near.size:
        near &= left @ right.T >= LOW_LIKENESS
    first, second = np.nonzero(near)
    return first.astype(np.int64), second.astype(np.int64)


def _best(
    found: list[tuple[Int64Array, Int64Array, RealArray]], most: int
) -> tuple[Int64Array, Int64Array, RealArray]:
    first, second, likeness = (
        np.concatenate([np.empty(0, dtype), *(item[number] for item in found)])
        for number, dtype in enumerate((np.int64, np.int64, np.float32))
    )
    if len(likeness) > most:
        best = np.argpartition(-likeness, most)[:most]
        first, second, likeness = first[best], second[best], likeness[best]
    order = np.argsort(-likeness, kind="stable")
    return first[order], second[order], likeness[order]


def _unit(frequencies: RealArray) -> RealArray:
    """(n, 64) of length 1, without the mean brightness."""
    flat = frequencies.reshape(len(frequencies), -1).copy()
    flat[:, 0] = 0.0
    result: RealArray = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
    return result


_BITS = np.array([bin(number).count("1") for number in range(2**16)], dtype=np.uint8)


def counted_by_table(values: UInt64Array) -> UInt8Array:
    """How many bits are set in each of `values`; NumPy counts them itself from version 2 on."""
    quarters = np.ascontiguousarray(values).view(np.uint16).reshape(*values.shape, 4)
    total: UInt8Array = _BITS[quarters].sum(axis=-1, dtype=np.uint8)
    return total


bit_count: Callable[[UInt64Array], UInt8Array] = getattr(np, "bitwise_count", counted_by_table)
