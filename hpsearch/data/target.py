"""What the images of a source become: their size and channels, given or guessed."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Mapping

import numpy as np

from hpsearch.data.catalog import BadImage, Catalog
from hpsearch.data.dataset import ImageShape, Int64Array
from hpsearch.data.decode import Target, is_gray, oriented_size
from hpsearch.data.spec import DataSpec

DEFAULT_SIZE = (64, 64)
"""What picture files become where no size is given and theirs differ, or are large."""
KEPT_SIDE = 128
"""Picture files that all have one size keep it up to this many pixels a side."""
WORTH_A_NOTE = 0.1
"""The share of its pixels that a typical picture loses by being cut."""
_PROBED = 20_000


def target_of(catalog: Catalog, spec: DataSpec) -> tuple[Target, list[str]]:
    """What the images become, and in words what was guessed about it."""
    native, notes = catalog.images.shape, []
    size, gray = spec.size, spec.gray
    if native is not None:
        size = size or (native.height, native.width)
        gray = native.channels == 1 if gray is None else gray
    elif size is None or gray is None or spec.fit == "crop":
        sizes, all_gray = probe(catalog)
        if gray is None:
            gray = all_gray
            if gray:
                notes.append("the pictures are gray: one channel")
        if size is None:
            size, note = _guessed_size(sizes)
            notes.append(note)
        if spec.fit == "crop" and (cut := cut_note(sizes, size)):
            notes.append(cut)
    return Target(ImageShape(*size, 1 if gray else 3), spec.fit), notes


@dataclasses.dataclass(frozen=True, eq=False)
class FileSizes:
    """The sizes of some pictures of a catalog.

    Attributes:
        positions: int64, (n,): which ones.
        sizes: int64, (n, 2): height and width, as they are looked at.
        all_gray: none of them has colours, and there is at least one.
    """

    positions: Int64Array
    sizes: Int64Array
    all_gray: bool


def file_sizes(catalog: Catalog, tell: Callable[[int], None] = lambda _: None) -> FileSizes:
    """Opens the pictures (at most 20,000, evenly chosen) without decoding them.

    Args:
        tell: is called with how many are done.
    """
    batch = catalog.images.batch
    step = batch * max(1, -(-len(catalog) // _PROBED))
    positions, sizes, all_gray = [], [], True
    for start in range(0, len(catalog), step):
        stop = min(start + batch, len(catalog))
        for position, image in enumerate(catalog.images.read(start, stop), start):
            if isinstance(image, BadImage):
                continue
            if isinstance(image, np.ndarray):
                found, gray = (image.shape[0], image.shape[1]), image.shape[2] == 1
            else:
                found, gray = oriented_size(image), is_gray(image)
                image.close()
            positions.append(position)
            sizes.append(found)
            all_gray = all_gray and gray
        tell(stop)
    return FileSizes(
        np.array(positions, dtype=np.int64),
        np.array(sizes, dtype=np.int64).reshape(-1, 2),
        all_gray and bool(sizes),
    )


def probe(catalog: Catalog) -> tuple[Counter[tuple[int, int]], bool]:
    """How often each size (height, width) occurs among at most 20,000 evenly chosen pictures, and
    whether all of them are gray.
    """
    if (shape := catalog.images.shape) is not None:
        return Counter({(shape.height, shape.width): len(catalog)}), shape.channels == 1
    found = file_sizes(catalog)
    return Counter((height, width) for height, width in found.sizes.tolist()), found.all_gray


def cut_note(sizes: Mapping[tuple[int, int], int], size: tuple[int, int]) -> str | None:
    """What `--fit crop` takes of the pictures, where that is worth a word.

    Args:
        sizes: how often each size (height, width) occurs.
        size: that they are brought to.
    """
    if not sizes:
        return None
    height, width = size
    shares = np.array(
        [min(h / height, w / width) ** 2 * height * width / (h * w) for h, w in sizes]
    )
    lost = float(np.median(np.repeat(1.0 - shares, list(sizes.values()))))
    if lost < WORTH_A_NOTE:
        return None
    middle = "the middle square" if height == width else f"the proportions of {height}x{width}"
    return (
        f"the pictures are cut to {middle}: a typical one loses {lost:.0%} (--fit pad keeps all "
        "of it)"
    )


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
