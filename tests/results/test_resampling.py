"""The resize of exported programs is Pillow's, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from hpsearch.data.dataset import ImageDataset
from hpsearch.data.store import resized
from hpsearch.results.resampling import Resize

SIDES = st.integers(1, 90)


def both(image: tuple[int, int], size: tuple[int, int], channels: int, values: str) -> None:
    random = np.random.default_rng(sum(image) + sum(size))
    pixels = random.integers(0, 256, (2, *image, channels), dtype=np.uint8)
    if values == "extreme":
        pixels = (pixels > 127).astype(np.uint8) * 255
    dataset = ImageDataset("noise", pixels, np.zeros(2, dtype=np.int64), ("a", "b"))
    expected = resized(dataset, size).images
    given_ = torch.from_numpy(pixels).permute(0, 3, 1, 2).double()
    found = Resize(image, size)(given_).permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(found, expected)


@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from([1, 3]), st.sampled_from(["any", "extreme"]))
@example(90, 80, 4, 3, 3, "any")  # averaged in blocks first, some of them smaller
@example(90, 3, 4, 30, 1, "any")  # along one side only
@example(7, 9, 7, 30, 1, "any")
@example(1, 1, 5, 5, 3, "any")
def test_images_become_what_the_data_set_becomes(
    height: int, width: int, rows: int, columns: int, channels: int, values: str
) -> None:
    both((height, width), (rows, columns), channels, values)


@pytest.mark.parametrize(
    ("image", "size"), [((300, 200), (32, 32)), ((333, 116), (239, 130)), ((32, 40), (224, 224))]
)
def test_sizes_as_photographs_have_them(image: tuple[int, int], size: tuple[int, int]) -> None:
    both(image, size, 3, "any")
