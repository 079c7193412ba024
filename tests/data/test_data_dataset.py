from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.data.dataset import ImageDataset, ImageShape
from hpsearch.errors import DataError


def dataset(**changes: Any) -> ImageDataset:
    """Six RGB images of three classes, with `changes`."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 4, 3), dtype=np.uint8)
    values = {
        "name": "six",
        "images": pixels,
        "labels": np.array([0, 1, 2, 0, 1, 2]),
        "classes": ("ant", "bee", "cat"),
    }
    return ImageDataset(**{**values, **changes})


def test_shape_and_length() -> None:
    assert dataset().shape == ImageShape(height=5, width=4, channels=3)
    assert str(dataset().shape) == "5x4x3"
    assert len(dataset()) == 6


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"images": np.zeros((6, 5, 4, 3), np.float32)}, "float32"),
        ({"images": np.zeros((6, 5, 4), np.uint8)}, "(6, 5, 4)"),
        ({"images": np.zeros((6, 5, 4, 2), np.uint8)}, "have 2"),
        ({"images": np.zeros((6, 3, 5, 4), np.uint8)}, "have 4"),
        ({"images": np.zeros((0, 5, 4, 3), np.uint8), "labels": np.zeros(0, np.int64)}, "(0, 5"),
        ({"images": np.zeros((6, 0, 4, 3), np.uint8)}, "(6, 0, 4, 3)"),
        ({"labels": np.array([0, 1, 2])}, "(3,)"),
        ({"labels": np.zeros((6, 1), np.int64)}, "(6, 1)"),
        ({"labels": np.zeros(6, np.int32)}, "int32"),
        ({"labels": np.array([0, 1, 2, 0, 1, 3])}, "0 to 3"),
        ({"labels": np.array([0, 1, 2, 0, 1, -1])}, "-1 to 2"),
        ({"classes": ("ant",), "labels": np.zeros(6, np.int64)}, "has 1"),
        ({"classes": ()}, "has 0"),
        ({"classes": ("ant", "bee", "ant")}, "ant, bee, ant"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(DataError) as caught:
        dataset(**changes)
    message = str(caught.value)
    assert message.startswith("six: ")
    assert told in message
    assert "\n" not in message


@given(st.integers(0, 6 * 5 * 4 * 3 - 1), st.integers(0, 7))
def test_the_fingerprint_changes_with_a_bit_of_a_pixel(position: int, bit: int) -> None:
    images = dataset().images.copy()
    images.flat[position] ^= 1 << bit
    assert dataset(images=images).fingerprint != dataset().fingerprint


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": np.array([0, 1, 2, 0, 2, 1])},
        {"classes": ("ant", "bee", "cow")},
        {"classes": ("bee", "ant", "cat")},
        {"classes": ("ant", "bee", "cat", "dog")},
        {"images": dataset().images.reshape(6, 4, 5, 3)},
        {"images": dataset().images[::-1], "labels": dataset().labels[::-1]},
    ],
    ids=["label", "class", "class order", "more classes", "shape", "image order"],
)
def test_the_fingerprint_changes_with(changes: dict[str, Any]) -> None:
    assert dataset(**changes).fingerprint != dataset().fingerprint


@pytest.mark.parametrize(
    "changes",
    [
        {"images": np.asfortranarray(dataset().images)},
        {"labels": np.repeat(dataset().labels, 2)[::2]},
        {"name": "another name"},
    ],
    ids=["memory order of the images", "memory order of the labels", "name"],
)
def test_the_fingerprint_does_not_change_with(changes: dict[str, Any]) -> None:
    assert dataset(**changes).fingerprint == dataset().fingerprint


def test_a_data_set_cannot_be_changed(noise: Callable[..., ImageDataset]) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        noise(3, 3).labels = np.zeros(6, np.int64)
