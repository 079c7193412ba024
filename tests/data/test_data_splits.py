from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from hpsearch.data.dataset import NO_PART, PARTS, ImageDataset
from hpsearch.data.sealed import open_test_split
from hpsearch.data.splits import (
    Split,
    SplitSpec,
    development_data,
    k_folds,
    load_split,
    make_split,
    save_split,
    split_notes,
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
    with pytest.raises(DataError, match="15 images are too few") as caught:
        make_split(labelled([3] * 5), SplitSpec(val=0.2, test=0.2))
    assert str(caught.value).endswith("in the validation part; add images or raise its fraction")


def test_too_few_to_train_on_are_refused_with_what_helps() -> None:
    with pytest.raises(DataError, match="20 images are too few") as caught:
        make_split(labelled([4] * 5), SplitSpec(val=0.4, test=0.4))
    assert str(caught.value).endswith(
        "one of each of 5 classes in the training part; add images or lower these fractions"
    )
    with pytest.raises(DataError, match="would not be one in the training part"):
        make_split(labelled([1, 1]), SplitSpec(allow_missing=True))


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


@pytest.mark.parametrize(
    "arguments",
    [
        {"official": 1},
        {"by_group": "yes"},
        {"allow_missing": None},
        {"seed": 1.5},
        {"seed": 2**32},
    ],
)
def test_a_specification_of_another_type_is_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(DataError, match=next(iter(arguments))):
        SplitSpec(**arguments)  # type: ignore[arg-type]


def test_a_row_belongs_to_the_part_that_it_is_in() -> None:
    split = Split(np.array([4, 0]), np.array([2]), np.array([5, 1]))
    assert split.membership(7).tolist() == [0, 2, 1, NO_PART, 0, 2, NO_PART]
    assert split.membership(7).dtype == np.int8


# ---- the official split


def official(counts: list[int], parts: str) -> ImageDataset:
    """`counts` of each class; of each, the images are in turn in the parts that the letters name
    ("t" train, "v" val, "e" test, "-" none).
    """
    data = labelled(counts)
    found = np.empty(len(data), np.int8)
    for label in range(len(counts)):
        rows = np.flatnonzero(data.labels == label)
        letters = (parts * len(rows))[: len(rows)]
        found[rows] = [{"t": 0, "v": 1, "e": 2, "-": NO_PART}[letter] for letter in letters]
    return dataclasses.replace(data, official=found)


@pytest.mark.parametrize("parts", ["tve", "tttve", "tv-e"])
def test_official_parts_are_kept_as_they_are(parts: str) -> None:
    data = official([30, 50], parts)
    split = make_split(data, SplitSpec(seed=3))
    assert data.official is not None
    np.testing.assert_array_equal(split.test, np.flatnonzero(data.official == 2))
    np.testing.assert_array_equal(split.val, np.flatnonzero(data.official == 1))
    check_parts(data, split)
    assert split.fingerprint == make_split(data, SplitSpec(seed=4)).fingerprint


def test_where_there_is_no_official_validation_part_one_is_drawn() -> None:
    data = official([40, 80], "tt-e")
    split = make_split(data, SplitSpec(val=0.25, test=0.4))
    assert data.official is not None
    np.testing.assert_array_equal(split.test, np.flatnonzero(data.official == 2))
    check_parts(data, split)
    # Of the 90 others a quarter, stratified.
    assert len(split.val) == 23
    assert abs(np.bincount(data.labels[split.val])[0] - 23 / 3) <= 1
    other = make_split(data, SplitSpec(val=0.25, test=0.4, seed=1))
    np.testing.assert_array_equal(other.test, split.test)
    assert set(other.val) != set(split.val)


def test_where_there_is_no_official_test_part_one_is_drawn() -> None:
    data = official([40, 80], "ttv-")
    split = make_split(data, SplitSpec(val=0.4, test=0.2))
    assert data.official is not None
    np.testing.assert_array_equal(split.val, np.flatnonzero(data.official == 1))
    assert len(split.test) == 18
    check_parts(data, split)


@pytest.mark.parametrize("parts", ["t", "-", "t-"])
def test_an_official_training_part_alone_is_split_as_ever(parts: str) -> None:
    data = official([40, 80], parts)
    plain = make_split(dataclasses.replace(data, official=None), SplitSpec())
    assert make_split(data, SplitSpec()).fingerprint == plain.fingerprint


def test_the_official_split_can_be_ignored() -> None:
    data = official([40, 80], "tve")
    plain = make_split(dataclasses.replace(data, official=None), SplitSpec())
    split = make_split(data, SplitSpec(official=False))
    assert split.fingerprint == plain.fingerprint
    assert split_notes(data, SplitSpec(official=False)) == ()


def test_an_official_part_that_lacks_a_class_is_refused_or_allowed() -> None:
    data = official([40, 80], "te")
    assert data.official is not None
    data.official[data.labels == 1] = 0
    with pytest.raises(DataError, match=r"'class 1' has 80 images, .* own .* test part") as caught:
        make_split(data, SplitSpec())
    assert "--ignore-official" in str(caught.value)
    assert "fractions" not in str(caught.value)
    split = make_split(data, SplitSpec(allow_missing=True))
    np.testing.assert_array_equal(split.test, np.flatnonzero(data.official == 2))
    assert set(data.labels[split.test]) == {0}
    assert set(data.labels[split.val]) == {0, 1}


def test_an_official_test_part_of_everything_leaves_nothing_to_train_on() -> None:
    for parts in ("e", "ev"):
        with pytest.raises(DataError) as caught:
            make_split(official([40, 80], parts), SplitSpec())
        assert "\n" not in str(caught.value)
        with pytest.raises(DataError):
            make_split(official([40, 80], parts), SplitSpec(allow_missing=True))


# ---- groups


def grouped(members: list[list[int]]) -> ImageDataset:
    """For each group, how many images of each class it has."""
    labels, groups = [], []
    for group, counts in enumerate(members):
        for label, count in enumerate(counts):
            labels += [label] * count
            groups += [f"person {group}"] * count
    order = np.random.default_rng(0).permutation(len(labels))
    return ImageDataset(
        name="people",
        images=np.zeros((len(labels), 1, 1, 1), np.uint8),
        labels=np.array(labels, np.int64)[order],
        classes=tuple(f"class {number}" for number in range(len(members[0]))),
        groups=[groups[row] for row in order],
    )


def sides_of(data: ImageDataset, split: Split) -> dict[str, set[str]]:
    """The parts that each group is in."""
    assert data.groups is not None
    sides: dict[str, set[str]] = {group: set() for group in data.groups}
    for number, part in enumerate(split.membership(len(data)).tolist()):
        sides[data.groups[number]].add(PARTS[part])
    return sides


@st.composite
def people(draw: st.DrawFn, low: int, most: int) -> list[list[int]]:
    classes = draw(st.integers(2, 4))
    counts = st.lists(st.integers(low, 12), min_size=classes, max_size=classes)
    return draw(st.lists(counts.filter(any), min_size=2, max_size=most))


@settings(max_examples=200)
@given(people(0, 12), specs(), st.booleans())
def test_no_group_is_on_two_sides(
    members: list[list[int]], spec: SplitSpec, allow_missing: bool
) -> None:
    data = grouped(members)
    try:
        split = make_split(data, dataclasses.replace(spec, allow_missing=allow_missing))
    except DataError as error:
        message = str(error)
    else:
        assert {len(sides) for sides in sides_of(data, split).values()} == {1}
        rows = np.concatenate([split.train, split.val, split.test])
        np.testing.assert_array_equal(np.sort(rows), np.arange(len(data)))
        assert min(split.counts.values()) > 0
        if not allow_missing:
            present = set(data.labels.tolist())
            assert all(set(data.labels[rows]) == present for rows in (split.train, split.val))
            assert set(data.labels[split.test]) == present
        return
    assert message.startswith("people: ")
    assert message.isprintable()


@settings(max_examples=200)
@given(people(1, 20), st.integers(0, 3))
@example([[1, 2], [1, 2], [1, 2]], 0)
@example([[10, 1], [1, 1], [1, 1]], 0)
def test_three_groups_that_have_all_classes_can_always_be_split(
    members: list[list[int]], seed: int
) -> None:
    assume(len(members) > 2)
    data = grouped(members)
    split = make_split(data, SplitSpec(seed=seed))
    check_parts(data, split)
    assert {len(sides) for sides in sides_of(data, split).values()} == {1}


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6)), min_size=40, max_size=60
    ),
    st.sampled_from([(0.2, 0.2), (0.1, 0.3), (0.3, 0.1)]),
    st.integers(0, 3),
)
def test_many_small_groups_come_close_to_the_fractions(
    members: list[tuple[int, int, int]], fractions: tuple[float, float], seed: int
) -> None:
    data = grouped([list(counts) for counts in members])
    val, test = fractions
    split = make_split(data, SplitSpec(val=val, test=test, seed=seed))
    shares = {"train": 1 - val - test, "val": val, "test": test}
    for part, rows in (("train", split.train), ("val", split.val), ("test", split.test)):
        assert len(rows) / len(data) == pytest.approx(shares[part], abs=0.03)
        per_class = np.bincount(data.labels[rows]) / np.bincount(data.labels)
        assert np.abs(per_class - shares[part]).max() < 0.1


def test_a_split_by_group_is_a_function_of_the_seed() -> None:
    data = grouped([[3, 2]] * 30)
    first, again, other = (make_split(data, SplitSpec(seed=seed)) for seed in (3, 3, 4))
    assert first.fingerprint == again.fingerprint
    assert first.fingerprint != other.fingerprint


def test_classes_of_one_person_only_are_refused_or_allowed() -> None:
    data = grouped([[5, 5, 0], [5, 5, 0], [5, 5, 0], [5, 5, 9]])
    with pytest.raises(DataError, match=r"'class 2' has only 9 images in 1 groups"):
        make_split(data, SplitSpec())
    split = make_split(data, SplitSpec(allow_missing=True))
    assert {len(sides) for sides in sides_of(data, split).values()} == {1}
    split = make_split(data, SplitSpec(by_group=False))
    check_parts(data, split)
    assert max(len(sides) for sides in sides_of(data, split).values()) > 1


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_groups_are_refused(count: int) -> None:
    with pytest.raises(DataError, match=f"{count} groups are too few"):
        make_split(grouped([[9, 9]] * count), SplitSpec())


def test_a_split_without_groups_ignores_them() -> None:
    data = grouped([[9, 9]] * 4)
    plain = make_split(dataclasses.replace(data, groups=None), SplitSpec())
    assert make_split(data, SplitSpec(by_group=False)).fingerprint == plain.fingerprint


def test_a_class_that_the_official_test_part_has_to_itself_is_no_matter_of_fractions() -> None:
    data = grouped([[5, 5, 0], [5, 5, 0], [5, 5, 0], [5, 5, 9]])
    assert data.groups is not None
    test = np.array([group == "person 3" for group in data.groups])
    data = dataclasses.replace(data, official=np.where(test, 2, NO_PART).astype(np.int8))
    with pytest.raises(DataError, match=r"'class 2' .* own .* training part; .*--ignore-official"):
        make_split(data, SplitSpec())


def test_groups_stay_together_in_what_an_official_part_leaves() -> None:
    data = grouped([[4, 4]] * 12)
    assert data.groups is not None
    test = np.array([group in ("person 3", "person 7") for group in data.groups])
    data = dataclasses.replace(data, official=np.where(test, 2, NO_PART).astype(np.int8))
    split = make_split(data, SplitSpec(val=0.3))
    np.testing.assert_array_equal(split.test, np.flatnonzero(test))
    assert {len(sides) for sides in sides_of(data, split).values()} == {1}
    assert len(split.val) / (len(data) - len(split.test)) == pytest.approx(0.3, abs=0.05)
    notes = split_notes(data, SplitSpec(val=0.3))
    assert any("official test part is kept (16 images)" in note for note in notes)
    assert any("30% of the others" in note for note in notes)
    assert any("12 groups" in note for note in notes)
    assert split_notes(data, SplitSpec(by_group=False, official=False)) == ()


# ---- classes that may be missing


@settings(max_examples=200)
@given(st.lists(st.integers(0, 12), min_size=2, max_size=12).filter(any), specs())
@example([30, 3], SplitSpec(val=0.2, test=0.6))
@example([4] * 40, SplitSpec(val=0.1, test=0.1))
@example([1, 1, 1, 40], SplitSpec())
def test_with_classes_that_may_be_missing_a_split_is_whole(
    counts: list[int], spec: SplitSpec
) -> None:
    data = labelled(counts)
    try:
        split = make_split(data, dataclasses.replace(spec, allow_missing=True))
    except DataError as error:
        message = str(error)
    else:
        rows = np.concatenate([split.train, split.val, split.test])
        np.testing.assert_array_equal(np.sort(rows), np.arange(len(data)))
        assert min(split.counts.values()) > 0
        assert len(split.val) == pytest.approx(spec.val * len(data), abs=1)
        assert len(split.test) == pytest.approx(spec.test * len(data), abs=1)
        drawn = np.concatenate([split.val, split.test])
        assert not set(data.labels[drawn]) & set(np.flatnonzero(np.bincount(data.labels) < 3))
        return
    # Only too little data is refused, never a class.
    assert "too few" in message or "empty" in message
    needed = sum(max(1, np.ceil(share * len(data))) for share in (spec.val, spec.test))
    enough = sum(count for count in counts if count > 2)
    assert enough < needed + 1 + len(counts)


def test_more_classes_than_images_in_a_part_are_allowed_to_be_missing() -> None:
    data = labelled([4] * 40)
    with pytest.raises(DataError, match="too few"):
        make_split(data, SplitSpec(val=0.1, test=0.1))
    split = make_split(data, SplitSpec(val=0.1, test=0.1, allow_missing=True))
    assert split.counts == {"train": 128, "val": 16, "test": 16}


def test_to_allow_what_is_not_needed_changes_nothing() -> None:
    data = labelled([30, 40, 20])
    assert (
        make_split(data, SplitSpec(allow_missing=True)).fingerprint
        == make_split(data, SplitSpec()).fingerprint
    )


# ---- folds


def check_folds(data: ImageDataset, split: Split, folds: list[Split]) -> None:
    """Each image outside the test part is validated on once, and trained on else."""
    pool = np.sort(np.concatenate([split.train, split.val]))
    np.testing.assert_array_equal(np.sort(np.concatenate([fold.val for fold in folds])), pool)
    for fold in folds:
        np.testing.assert_array_equal(fold.test, split.test)
        both = np.concatenate([fold.train, fold.val])
        np.testing.assert_array_equal(np.sort(both), pool)
        assert len(fold.train)
        assert len(fold.val)
        assert fold.train.dtype == fold.val.dtype == np.int64


@settings(max_examples=100)
@given(st.lists(st.integers(6, 40), min_size=2, max_size=5), st.integers(2, 4), st.integers(0, 3))
def test_folds_divide_what_is_not_tested_on(counts: list[int], k: int, seed: int) -> None:
    data, spec = labelled(counts), SplitSpec(seed=seed)
    split = make_split(data, spec)
    folds = k_folds(data, split, k, spec)
    assert len(folds) == k
    check_folds(data, split, folds)
    for fold in folds:
        for label, count in enumerate(counts):
            of_class = int((data.labels[split.test] == label).sum())
            share = (data.labels[fold.val] == label).sum() - (count - of_class) / k
            assert abs(share) < 1
    again = k_folds(data, split, k, spec)
    assert [fold.fingerprint for fold in again] == [fold.fingerprint for fold in folds]


@settings(max_examples=200)
@given(people(0, 12), st.integers(2, 6), st.integers(0, 3))
@example([[1, 0], [0, 1], [1, 0], [0, 1], [1, 1], [1, 1]], 4, 0)
@example([[1, 9], [0, 9], [0, 9], [0, 9], [0, 5]], 3, 0)
def test_folds_keep_groups_together(members: list[list[int]], k: int, seed: int) -> None:
    data = grouped(members)
    assert data.groups is not None
    last = np.array([group == f"person {len(members) - 1}" for group in data.groups])
    rows = np.arange(len(data))
    split = Split(rows[~last], rows[:0], rows[last])
    spec = SplitSpec(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            folds = k_folds(data, split, k, spec)
        except DataError as error:
            message = str(error)
        else:
            check_folds(data, split, folds)
            for fold in folds:
                assert {len(sides) for sides in sides_of(data, fold).values()} == {1}
            return
    largest = np.bincount(data.labels[~last]).max()
    assert k > min(len(members) - 1, largest)
    assert message.isprintable()


@pytest.mark.parametrize("k", [-1, 0, 1, 13, 10**9, 2.0, "3", None, True])
def test_a_number_of_folds_that_cannot_be_is_refused(k: object) -> None:
    data = labelled([30, 15])
    split = make_split(data, SplitSpec())
    with pytest.raises(DataError, match=r"from 2 to 12, the number of images of class 'class 1'"):
        k_folds(data, split, k, SplitSpec())  # type: ignore[arg-type]
    assert len(k_folds(data, split, 12, SplitSpec())) == 12


def test_more_folds_than_groups_are_refused() -> None:
    data = grouped([[9, 9]] * 6)
    split = make_split(data, SplitSpec())
    left = 6 - len({group for group, sides in sides_of(data, split).items() if "test" in sides})
    with pytest.raises(DataError, match=f"from 2 to {left}, the number of groups"):
        k_folds(data, split, left + 1, SplitSpec())
    folds = k_folds(data, split, left, SplitSpec())
    check_folds(data, split, folds)
    assert len(k_folds(data, split, left + 1, SplitSpec(by_group=False))) == left + 1


def test_a_class_that_is_only_tested_on_does_not_limit_the_folds() -> None:
    data = official([30, 40, 5], "tte")
    assert data.official is not None
    data.official[data.labels == 2] = 2
    spec = SplitSpec(allow_missing=True)
    split = make_split(data, spec)
    check_folds(data, split, k_folds(data, split, 10, spec))


@pytest.mark.parametrize("change", [{"val": "x"}, {"test": True}, {"seed": True}, {"seed": 1.5}])
def test_values_of_another_kind_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(DataError, match=next(iter(change))):
        SplitSpec(**change)  # type: ignore[arg-type]
