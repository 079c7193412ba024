from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hpsearch.data.augment import AUGMENTATIONS
from hpsearch.data.dataset import ImageDataset, ImageShape
from hpsearch.data.examples import augmented, choose_examples, parse_strengths
from hpsearch.data.sources import open_catalog
from hpsearch.data.spec import DataSpec
from hpsearch.data.splits import Split, SplitSpec, make_split
from hpsearch.data.store import load_dataset
from hpsearch.data.summary import DataSummary, summarise
from hpsearch.errors import ConfigError

SIZES = [(20, 30), (20, 30), (30, 20), (9, 9), (20, 30), (40, 60)]


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 colour pictures of three classes and 20 people, in a table."""
    root = tmp_path_factory.mktemp("people")
    rows = ["file,label,person"]
    for number in range(60):
        pixels = np.random.default_rng(number).integers(0, 200, (*SIZES[number % 6], 3), np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
        rows.append(f"{number}.png,{'abc'[number % 3]},p{number // 3}")
    (root / "labels.csv").write_text("\n".join(rows))
    return root


def summary_of(root: Path, spec: SplitSpec) -> tuple[DataSummary, ImageDataset, Split]:
    data_spec = DataSpec(source=str(root), size=(16, 16))
    dataset = load_dataset(data_spec)
    split = make_split(dataset, spec)
    return summarise(open_catalog(data_spec), dataset, split, spec), dataset, split


def test_the_numbers_are_those_of_numpy(people: Path) -> None:
    summary, dataset, split = summary_of(people, SplitSpec(seed=2))
    assert summary.name == dataset.name == people.name
    assert summary.fingerprint == dataset.fingerprint
    assert summary.shape == ImageShape(16, 16, 3)
    assert summary.counts == (len(split.train), len(split.val), len(split.test))
    for label, name in enumerate(dataset.classes):
        assert summary.classes[name] == tuple(
            int((dataset.labels[rows] == label).sum())
            for rows in (split.train, split.val, split.test)
        )
    assert list(summary.classes) == ["a", "b", "c"]
    pixels = np.array(dataset.images)[split.train] / 255.0
    assert summary.mean == pytest.approx(pixels.mean(axis=(0, 1, 2)).tolist())
    assert summary.std == pytest.approx(pixels.std(axis=(0, 1, 2)).tolist())
    assert summary.sizes == {(20, 30): 30, (30, 20): 10, (9, 9): 10, (40, 60): 10}
    assert summary.size_words() == "9x9 to 40x60 (4 sizes)"
    assert summary.groups == 20
    assert any("20 groups" in note for note in summary.notes)
    assert set(dataset.notes) <= set(summary.notes)


def test_the_mean_is_of_the_training_images_only(people: Path) -> None:
    summary, dataset, split = summary_of(people, SplitSpec())
    pixels = np.array(dataset.images)
    pixels[np.concatenate([split.val, split.test])] = 255
    bright = dataclasses.replace(dataset, images=pixels)
    catalog = open_catalog(DataSpec(source=str(people)))
    again = summarise(catalog, bright, split, SplitSpec())
    assert again.mean == summary.mean
    assert again.std == summary.std
    pixels[split.train] = 255
    catalog = open_catalog(DataSpec(source=str(people)))
    bright = dataclasses.replace(dataset, images=pixels)
    assert summarise(catalog, bright, split, SplitSpec()).mean == pytest.approx((1.0,) * 3)
    assert summarise(catalog, bright, split, SplitSpec()).std == pytest.approx((0.0,) * 3)


def test_images_in_no_part_do_not_count(people: Path) -> None:
    _, dataset, split = summary_of(people, SplitSpec())
    few = Split(split.train[:-3], split.val, split.test)
    catalog = open_catalog(DataSpec(source=str(people)))
    assert sum(summarise(catalog, dataset, few, SplitSpec()).counts) == 57


def test_a_summary_is_plain_json(people: Path) -> None:
    summary, _, split = summary_of(people, SplitSpec())
    read = json.loads(json.dumps(summary.to_dict()))
    assert read == summary.to_dict()
    assert read["images"] == split.counts
    assert read["shape"] == {"height": 16, "width": 16, "channels": 3}
    assert sum(read["classes"]["b"].values()) == 20
    assert read["original_sizes"][0] == {"height": 20, "width": 30, "images": 30}
    assert read["train_mean"] == list(summary.mean)
    assert read["groups"] == 20


def test_a_summary_of_arrays_without_groups(digits: ImageDataset) -> None:
    spec = SplitSpec()
    summary = summarise(open_catalog(DataSpec()), digits, make_split(digits, spec), spec)
    assert summary.sizes == {(8, 8): 1797}
    assert summary.size_words() == "8x8"
    assert summary.groups is None
    assert len(summary.mean) == len(summary.std) == 1
    assert summary.to_dict()["groups"] is None


def test_sizes_in_words(digits: ImageDataset) -> None:
    spec = SplitSpec()
    summary = summarise(open_catalog(DataSpec()), digits, make_split(digits, spec), spec)
    assert dataclasses.replace(summary, sizes=Counter()).size_words() == "unknown"
    sizes = Counter({(n, 1000 - n): 1 for n in range(1, 900)}) + Counter({(500, 500): 3})
    assert dataclasses.replace(summary, sizes=sizes).size_words() == "1x999 to 500x500 (899 sizes)"


# ---- examples


@given(st.integers(0, 99), st.integers(0, 30), st.booleans())
def test_examples_are_of_their_class_and_not_of_the_test_part(
    seed: int, per_class: int, show_test: bool
) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(3), (10, 20, 30)))
    data = ImageDataset("x", np.zeros((60, 2, 2, 1), np.uint8), labels, ("a", "b", "c"))
    split = make_split(data, SplitSpec(seed=seed))
    chosen = choose_examples(data, split, per_class=per_class, seed=seed, show_test=show_test)
    assert len(chosen) == 3
    for label, rows in enumerate(chosen):
        assert set(labels[rows]) <= {label}
        assert len(set(rows.tolist())) == len(rows)
        allowed = int((labels == label).sum())
        if not show_test:
            allowed -= int((labels[split.test] == label).sum())
            assert not set(rows.tolist()) & set(split.test.tolist())
        assert len(rows) == min(per_class, allowed)
    again = choose_examples(data, split, per_class=per_class, seed=seed, show_test=show_test)
    assert [rows.tolist() for rows in again] == [rows.tolist() for rows in chosen]


def test_examples_are_drawn_at_random(digits: ImageDataset) -> None:
    split = make_split(digits, SplitSpec())
    rows = [
        tuple(choose_examples(digits, split, per_class=3, seed=seed)[0].tolist())
        for seed in range(9)
    ]
    assert len(set(rows)) == 9


def test_test_images_are_shown_when_asked(digits: ImageDataset) -> None:
    split = make_split(digits, SplitSpec())
    chosen = choose_examples(digits, split, per_class=10_000, show_test=True)
    np.testing.assert_array_equal(np.sort(np.concatenate(chosen)), np.arange(len(digits)))


def test_a_class_of_the_test_part_only_has_no_examples() -> None:
    labels = np.array([0, 1, 0, 1, 2, 2])
    data = ImageDataset("x", np.zeros((6, 2, 2, 1), np.uint8), labels, ("a", "b", "c"))
    split = Split(np.array([0, 1]), np.array([2, 3]), np.array([4, 5]))
    chosen = choose_examples(data, split, per_class=9)
    assert [rows.tolist() for rows in chosen] == [[0, 2], [1, 3], []]


PIXELS = np.random.default_rng(0).integers(0, 256, (5, 12, 9, 3), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("strengths", [{}, {row.name: 0.0 for row in AUGMENTATIONS}], ids=len)
def test_no_augmentation_changes_nothing(strengths: dict[str, float], channels: int) -> None:
    pixels = PIXELS[..., :channels]
    result = augmented(pixels, strengths, copies=4)
    assert result.shape == (5, 4, 12, 9, channels)
    assert result.dtype == np.uint8
    for copy in range(4):
        np.testing.assert_array_equal(result[:, copy], pixels)


@pytest.mark.parametrize("row", AUGMENTATIONS, ids=lambda row: row.name)
def test_every_augmentation_changes_something_and_repeats_by_seed(row: object) -> None:
    strengths = {row.name: row.high}  # type: ignore[attr-defined]
    first, again, other = (augmented(PIXELS, strengths, copies=3, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first != PIXELS[:, np.newaxis]).any()


def test_the_copies_of_an_image_differ() -> None:
    result = augmented(PIXELS, {"rotate": 20.0}, copies=3)
    assert (result[0, 0] != result[0, 1]).any()
    # Each row of copies is of one image: nearer to it than to others.
    for image in range(5):
        distances = [np.abs(result[image].astype(int) - other).mean() for other in PIXELS]
        assert int(np.argmin(distances)) == image


def test_mixing_takes_others_of_the_images_and_leaves_one_alone_as_it_is() -> None:
    levels = np.arange(130, dtype=np.uint8).reshape(130, 1, 1, 1)
    images = np.broadcast_to(levels, (130, 4, 4, 1)).copy()
    result = augmented(images, {"mixup": 1.0}, copies=2)
    assert result.shape == (130, 2, 4, 4, 1)
    changed = (result != images[:, np.newaxis]).any(axis=(2, 3, 4))
    assert changed.mean() > 0.8
    assert np.ptp(result, axis=(2, 3)).max() == 0  # images of one level give one level
    # What is mixed in comes from anywhere among them, not from the neighbours.
    assert np.abs(result[..., 0, 0, 0] - levels[:, 0, 0].astype(int)).max() > 40
    np.testing.assert_array_equal(augmented(images[:1], {"mixup": 1.0}, copies=1)[:, 0], images[:1])


def test_no_images_have_no_versions() -> None:
    none = np.zeros((0, 4, 4, 1), np.uint8)
    assert augmented(none, {"rotate": 20.0}, copies=3).shape == (0, 3, 4, 4, 1)


@pytest.mark.parametrize("strengths", [{"swirl": 1.0}, {"rotate": 1e9}, {"rotate": -1.0}])
def test_augmentations_that_cannot_be_are_refused(strengths: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        augmented(PIXELS, strengths, copies=1)


def test_strengths_are_read() -> None:
    highest = {row.name: row.high for row in AUGMENTATIONS}
    assert parse_strengths(["all"]) == highest
    assert parse_strengths([]) == {}
    assert parse_strengths(["rotate=12.5", "translate"]) == {
        "rotate": 12.5,
        "translate": highest["translate"],
    }


@pytest.mark.parametrize(
    "text",
    ["", "=", "swirl", "swirl=1", "rotate=x", "rotate=1e9", "rotate=-1", "rotate=nan", "all=1"],
)
def test_strengths_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_strengths([text])
    assert str(caught.value).isprintable()
