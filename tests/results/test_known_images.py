"""A model's own images are found again among others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hpsearch.data.dataset import NO_PART, PARTS, ImageDataset
from hpsearch.data.known_images import (
    HASHES,
    read_known_images,
    write_known_images,
)
from hpsearch.data.spec import DataSpec
from hpsearch.data.splits import Split
from hpsearch.data.store import load_dataset
from hpsearch.errors import CheckpointError
from hpsearch.results.overlap import Overlap

TRAIN, VAL, TEST = range(3)


def rows(*numbers: int) -> np.ndarray:
    return np.array(numbers, dtype=np.int64)


@pytest.fixture
def dataset() -> ImageDataset:
    """Twelve images of noise in two classes."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (12, 6, 5, 1), dtype=np.uint8)
    return ImageDataset("noise", images, np.arange(12) % 2, ("a", "b"))


def overlap(parts: list[int], *fitted: str) -> Overlap:
    return Overlap(parts=np.array(parts, dtype=np.int8), fitted=fitted or ("train",))


def test_images_are_known_by_their_part(dataset: ImageDataset, tmp_path: Path) -> None:
    split = Split(rows(7, 0, 3), rows(1, 4), rows(2, 5))
    write_known_images(tmp_path / HASHES, dataset, split)
    known = read_known_images(tmp_path)
    assert known is not None
    expected = [TRAIN, VAL, TEST, TRAIN, VAL, TEST, NO_PART, TRAIN] + 4 * [NO_PART]
    assert known.parts_of(dataset).tolist() == expected
    # Whatever their order and their labels, and by every pixel.
    other = dataset.images[::-1].copy()
    other[-1, 5, 4] ^= 1
    turned = ImageDataset("other", other, np.arange(12) % 3, ("x", "y", "z"))
    assert known.parts_of(turned).tolist() == [*reversed(expected[1:]), NO_PART]


def test_an_image_in_several_parts_is_one_that_was_trained_on(tmp_path: Path) -> None:
    images = np.zeros((3, 2, 2, 1), dtype=np.uint8)
    alike = ImageDataset("alike", images, np.array([0, 1, 0]), ("a", "b"))
    write_known_images(tmp_path / HASHES, alike, Split(rows(2), rows(1), rows(0)))
    known = read_known_images(tmp_path)
    assert known is not None
    assert known.parts_of(alike).tolist() == [TRAIN] * 3


@pytest.mark.parametrize("size", [None, (8, 8), (9, 14)])
def test_a_folder_of_the_same_pictures_is_known(
    tmp_path: Path, size: tuple[int, int] | None
) -> None:
    """As arrays and as files, of one size and of another one, with colours and without."""
    random = np.random.default_rng(1)
    for channels in (1, 3):
        folder = tmp_path / str(channels)
        folder.mkdir()
        images = random.integers(0, 256, (10, 12, 20, channels), dtype=np.uint8)
        np.savez(folder / "some.npz", images=images, labels=np.arange(10) % 2)
        for number, image in enumerate(images):
            path = folder / "some" / str(number % 2) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.squeeze()).save(path)
        arrays = load_dataset(DataSpec(source=str(folder / "some.npz"), size=size))
        split = Split(np.arange(0, 5), np.arange(5, 7), np.arange(7, 10))
        write_known_images(folder / HASHES, arrays, split)
        known = read_known_images(folder)
        assert known is not None
        shape = (arrays.shape.height, arrays.shape.width)
        gray = channels == 1
        files = load_dataset(DataSpec(source=str(folder / "some"), size=shape, gray=gray))
        found = known.parts_of(files)
        assert files.names is not None
        for name, part in zip(files.names, found.tolist(), strict=True):
            number = int(Path(name).stem)
            assert PARTS[part] == ("train" if number < 5 else "val" if number < 7 else "test")


def test_a_file_that_is_damaged_is_refused(dataset: ImageDataset, tmp_path: Path) -> None:
    assert read_known_images(tmp_path) is None
    path = tmp_path / HASHES
    write_known_images(path, dataset, Split(rows(0, 1), rows(2), rows(3)))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"image_hashes.npz is damaged .* export the model"):
        read_known_images(tmp_path)
    np.savez(path, train=rows(1), val=rows(1), test=rows(1))
    with pytest.raises(CheckpointError, match="it has no hashes"):
        read_known_images(tmp_path)
    np.savez(path, train=np.array([{"a": 1}]), val=rows(1), test=rows(1))  # a pickle
    with pytest.raises(CheckpointError, match="damaged"):
        read_known_images(tmp_path)


def test_what_it_means_is_told() -> None:
    mixed = overlap([TRAIN, TRAIN, VAL, TEST, NO_PART])
    assert mixed.counts == {"train": 2, "val": 1, "test": 1}
    assert mixed.new.tolist() == [3, 4]
    used, looked = mixed.warnings
    assert used.startswith(
        "of 5 images 2 were trained on and 1 the model was chosen by (validation): the score "
        "without them"
    )
    assert looked.startswith("of 5 images 1 are test images of the model's search")
    assert overlap([NO_PART] * 3).warnings == ()
    assert overlap([VAL]).warnings == (
        "of 1 images 1 the model was chosen by (validation): so this says nothing about new ones",
    )
    both = overlap([TRAIN, VAL, NO_PART], "train", "val")
    assert both.warnings[0].startswith("of 3 images 2 were trained on: the score")
