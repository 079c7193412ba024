from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpsearch.data.dataset import ImageDataset
from hpsearch.data.sealed import open_test_split
from hpsearch.data.splits import (
    Split,
    SplitSpec,
    development_data,
    load_split,
    make_split,
    save_split,
)
from hpsearch.errors import DataError


def labelled(counts: list[int]) -> ImageDataset:
    """Images of one pixel; `counts` of each class."""
    labels = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    return ImageDataset(
        name="counted",
        images=np.zeros((len(labels), 1, 1, 1), np.uint8),
        labels=np.random.default_rng(0).permutation(labels),
        classes=tuple(f"class {number}" for number in range(len(counts))),
    )


def check_parts(data: ImageDataset, split: Split) -> None:
    """Every image is in one part, and every class in all of them."""
    rows = np.concatenate([split.train, split.val, split.test])
    np.testing.assert_array_equal(np.sort(rows), np.arange(len(data)))
    for part in (split.train, split.val, split.test):
        assert part.dtype == np.int64
        assert set(data.labels[part]) == set(range(len(data.classes)))


def test_the_digits_are_split_60_20_20(digits: ImageDataset) -> None:
    split = make_split(digits, SplitSpec())
    assert split.counts == {"train": 1077, "val": 360, "test": 360}
    check_parts(digits, split)
    for part in (split.train, split.val, split.test):
        proportional = np.bincount(digits.labels) * len(part) / len(digits)
        assert np.abs(np.bincount(digits.labels[part]) - proportional).max() <= 1.0


def test_a_split_is_a_function_of_the_seed(digits: ImageDataset) -> None:
    first, again, other = (make_split(digits, SplitSpec(seed=seed)) for seed in (3, 3, 4))
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint != other.fingerprint
    assert set(first.test) != set(other.test)


def test_a_split_does_not_disturb_numpys_random_numbers(digits: ImageDataset) -> None:
    np.random.seed(1)
    expected = np.random.random()
    np.random.seed(1)
    make_split(digits, SplitSpec())
    assert np.random.random() == expected


@pytest.mark.parametrize("seed", [2**32 - 1, 2**32, 2**63])
def test_a_seed_is_used_or_refused(seed: int) -> None:
    data = labelled([10, 10])
    try:
        split = make_split(data, SplitSpec(seed=seed))
    except DataError as error:
        message = str(error)
    else:
        check_parts(data, split)
        return
    assert str(seed) in message


@st.composite
def specs(draw: st.DrawFn) -> SplitSpec:
    val = draw(st.floats(0.02, 0.9))
    test = draw(st.floats(0.02, 0.97 - val))
    return SplitSpec(val=val, test=test, seed=draw(st.integers(0, 9)))


@settings(max_examples=300)
@given(st.lists(st.integers(2, 40), min_size=2, max_size=6), specs())
def test_a_split_is_whole_and_stratified_or_refused(counts: list[int], spec: SplitSpec) -> None:
    data = labelled(counts)
    try:
        split = make_split(data, spec)
    except DataError as error:
        message = str(error)
    else:
        check_shares(data, split, spec)
        return
    assert "counted" in message
    assert "\n" not in message


def check_shares(data: ImageDataset, split: Split, spec: SplitSpec) -> None:
    check_parts(data, split)
    assert len(split.val) == pytest.approx(spec.val * len(data), abs=1)
    assert len(split.test) == pytest.approx(spec.test * len(data), abs=1)
    # The validation part is taken of what the test part leaves, so two roundings meet in it.
    for part, roundings in ((split.test, 1), (split.val, 2), (split.train, 2)):
        proportional = np.bincount(data.labels) * len(part) / len(data)
        assert np.abs(np.bincount(data.labels[part]) - proportional).max() <= roundings


@given(
    st.lists(st.integers(20, 60), min_size=2, max_size=5),
    st.floats(0.1, 0.4),
    st.floats(0.1, 0.4),
)
def test_enough_images_of_each_class_can_always_be_split(
    counts: list[int], val: float, test: float
) -> None:
    data = labelled(counts)
    check_parts(data, make_split(data, SplitSpec(val=val, test=test)))


@pytest.mark.parametrize("few", [0, 1, 2])
def test_a_class_with_too_few_images_is_named(few: int) -> None:
    with pytest.raises(DataError, match=f"'class 1' has {few} images"):
        make_split(labelled([30, few, 30]), SplitSpec())


def test_a_class_that_misses_a_part_is_named() -> None:
    with pytest.raises(DataError, match="class 1"):
        make_split(labelled([60, 3]), SplitSpec(val=0.1, test=0.1))
    # Two of its three images fall into the test part, and one cannot be in two others.
    with pytest.raises(DataError, match="class 1"):
        make_split(labelled([30, 3]), SplitSpec(val=0.2, test=0.6))


def test_parts_smaller_than_the_number_of_classes_are_refused() -> None:
    with pytest.raises(DataError, match="15 images are too few"):
        make_split(labelled([3] * 5), SplitSpec(val=0.2, test=0.2))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        *(({name: value}, name) for name in ("val", "test") for value in (0.0, 1.0, -0.1, 2.0)),
        ({"val": float("nan")}, "nan"),
        ({"val": 0.5, "test": 0.5}, "0.5"),
        ({"seed": -1}, "-1"),
    ],
)
def test_a_bad_specification_is_refused(arguments: dict[str, float], told: str) -> None:
    with pytest.raises(DataError, match=told):
        SplitSpec(**arguments)  # type: ignore[arg-type]


def test_what_is_developed_on_holds_no_test_image() -> None:
    counts = [30, 40]
    data = labelled(counts)
    images = np.arange(70, dtype=np.uint8).reshape(70, 1, 1, 1)  # each image is its row number
    data = ImageDataset(data.name, images, data.labels, data.classes)
    split = make_split(data, SplitSpec())
    development, test = development_data(data, split), open_test_split(data, split)
    assert development.train.images.ravel().tolist() == split.train.tolist()
    assert development.val.images.ravel().tolist() == split.val.tolist()
    assert test.images.ravel().tolist() == split.test.tolist()
    np.testing.assert_array_equal(test.labels, data.labels[split.test])


def parts(*sizes: int) -> Split:
    rows = np.random.default_rng(1).permutation(sum(sizes)).astype(np.int64)
    train, val, test = np.split(rows, np.cumsum(sizes)[:-1])
    return Split(train, val, test)


def test_the_fingerprint_tells_where_a_part_ends() -> None:
    assert parts(5, 3, 2).fingerprint == parts(5, 3, 2).fingerprint
    assert len({parts(*sizes).fingerprint for sizes in ((5, 3, 2), (5, 2, 3), (3, 5, 2))}) == 3


def test_a_split_is_read_as_it_was_written(tmp_path: Path) -> None:
    split = parts(50, 20, 10)
    save_split(tmp_path / "split.npz", split)
    read = load_split(tmp_path / "split.npz")
    assert read.fingerprint == split.fingerprint
    np.testing.assert_array_equal(read.test, split.test)


def damaged(whole: bytes) -> dict[str, bytes]:
    cuts = {f"cut at {length}": whole[:length] for length in range(0, len(whole), 29)}
    flips = {}
    for bit in np.random.default_rng(0).choice(8 * len(whole), 400, replace=False).tolist():
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        flips[f"bit {bit}"] = bytes(flipped)
    return {**cuts, **flips, "text": b"train, val, test"}


def test_a_damaged_split_is_never_read_as_another_one(tmp_path: Path) -> None:
    split = parts(50, 20, 10)
    path = tmp_path / "split.npz"
    save_split(path, split)
    refused, escaped = 0, []
    for damage, content in damaged(path.read_bytes()).items():
        path.write_bytes(content)
        try:
            if load_split(path).fingerprint != split.fingerprint:
                escaped.append(f"{damage}: read as another split")
        except DataError as error:
            refused += str(path) in str(error)
    assert not escaped
    assert refused > 200


@pytest.mark.parametrize("name", ["missing.npz", "."])
def test_a_split_that_is_not_there_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        load_split(tmp_path / name)


def test_a_seed_changes_the_parts_of_a_small_set(noise: Callable[..., ImageDataset]) -> None:
    data = noise(20, 20)
    seeds = {make_split(data, SplitSpec(seed=seed)).fingerprint for seed in range(10)}
    assert len(seeds) == 10
