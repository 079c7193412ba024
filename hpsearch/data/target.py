"""What the images of a source become: their size and channels, given or guessed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import numpy as np

from hpsearch.data.catalog import BadImage, Catalog
from hpsearch.data.dataset import ImageShape
from hpsearch.data.decode import Target, is_gray, oriented_size
from hpsearch.data.spec import DataSpec

DEFAULT_SIZE = (64, 64)
"""What picture files become where no size is given and theirs differ, or are large."""
KEPT_SIDE = 128
"""Picture files that all have one size keep it up to this many pixels a side."""
_PROBED = 20_000


def target_of(catalog: Catalog, spec: DataSpec) -> tuple[Target, list[str]]:
    """What the images become, and in words what was guessed about it."""
    native, notes = catalog.images.shape, []
    size, gray = spec.size, spec.gray
    if native is not None:
        size = size or (native.height, native.width)
        gray = native.channels == 1 if gray is None else gray
    elif size is None or gray is None:
        sizes, all_gray = probe(catalog)
        if gray is None:
            gray = all_gray
            if gray:
                notes.append("the pictures are gray: one channel")
        if size is None:
            size, note = _guessed_size(sizes)
            notes.append(note)
    return Target(ImageShape(*size, 1 if gray else 3), spec.fit), notes


def probe(catalog: Catalog) -> tuple[Counter[tuple[int, int]], bool]:
    """How often each size (height, width) occurs among at most 20,000 evenly chosen pictures, and
    whether all of them are gray.
    """
    if (shape := catalog.images.shape) is not None:
        return Counter({(shape.height, shape.width): len(catalog)}), shape.channels == 1
    step = -(-len(catalog) // _PROBED)
    sizes: Counter[tuple[int, int]] = Counter()
    all_gray = True
    for start in range(0, len(catalog), step):
        for image in catalog.images.read(start, start + 1):
            if isinstance(image, BadImage):
                continue
            if isinstance(image, np.ndarray):
                sizes[image.shape[:2]] += 1
                all_gray = all_gray and image.shape[2] == 1
            else:
                sizes[oriented_size(image)] += 1
                all_gray = all_gray and is_gray(image)
                image.close()
    return sizes, all_gray and bool(sizes)


def _guessed_size(sizes: Collection[tuple[int, int]]) -> tuple[tuple[int, int], str]:
    if len(sizes) == 1:
        (size,) = sizes
        if max(size) <= KEPT_SIDE:
            return size, f"the pictures keep their size of {size[0]}x{size[1]} pixels"
        found = f"are {size[0]}x{size[1]} pixels large"
    else:
        found = f"have {len(sizes):,} different sizes" if sizes else "have no known size"
    height, width = DEFAULT_SIZE
    return DEFAULT_SIZE, f"the pictures {found}: brought to {height}x{width} (--size, --fit)"
