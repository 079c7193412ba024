from __future__ import annotations

import dataclasses
import io
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from few import subset
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageEnhance

from hpsearch.data.catalog import BadImage, Catalog, remarks_on
from hpsearch.data.checks import (
    CheckReport,
    Finding,
    Pair,
    Shift,
    check_images,
    hashing,
    shift_against,
    store_report,
    stored_report,
)
from hpsearch.data.checks.duplicates import exact_duplicates, near_duplicates
from hpsearch.data.checks.likeness import aligned, limits
from hpsearch.data.checks.near import NearPairs, near_pairs
from hpsearch.data.checks.run import sizes_of_files, with_source
from hpsearch.data.checks.shift import label_shift, measure_shift, shift_finding, shift_verdict
from hpsearch.data.checks.source import check_source
from hpsearch.data.dataset import (
    NO_PART,
    PARTS,
    TEST,
    TRAIN,
    VAL,
    ImageDataset,
    Int8Array,
    UInt8Array,
)
from hpsearch.data.readers import FileReader
from hpsearch.data.spec import DataSpec
from hpsearch.data.splits import Split, SplitSpec, make_split
from hpsearch.errors import DataError


def photo(random: np.random.Generator, side: int = 96) -> Image.Image:
    """A smooth random field with some shapes on it: like a photo to a hash."""
    frequency = np.fft.fftfreq(side)
    distance = np.hypot(frequency[:, np.newaxis], frequency)
    distance[0, 0] = np.inf
    planes = []
    common = np.fft.fft2(random.normal(size=(side, side)))
    for _ in range(3):
        own = np.fft.fft2(random.normal(size=(side, side)))
        plane = np.real(np.fft.ifft2((common + 0.4 * own) / distance))
        planes.append(plane / plane.std())
    levels = random.uniform(90, 160) + random.uniform(25, 45) * np.stack(planes, axis=-1)
    image = Image.fromarray(np.clip(levels, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(random.integers(1, 4)):
        x, y = random.integers(0, side, 2).tolist()
        w, h = random.integers(side // 10, side // 2, 2).tolist()
        draw.ellipse((x, y, x + w, y + h), fill=tuple(random.integers(0, 256, 3).tolist()))
    return image


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [photo(random) for _ in range(80)]


def stacked(images: Sequence[Image.Image], side: int = 48) -> UInt8Array:
    size, how = (side, side), Image.Resampling.BILINEAR
    return np.stack([np.asarray(image.resize(size, how, reducing_gap=3.0)) for image in images])


def dataset_of(
    images: UInt8Array, labels: Sequence[int] | None = None, **changes: Any
) -> ImageDataset:
    own = np.arange(len(images)) % 2 if labels is None else np.asarray(labels)
    classes = tuple(f"class {number}" for number in range(max(2, int(own.max()) + 1)))
    return ImageDataset(
        "some", images, own.astype(np.int64), changes.pop("classes", classes), **changes
    )


def split_of(parts: Sequence[int]) -> Split:
    own = np.asarray(parts)
    return Split(*(np.flatnonzero(own == part) for part in range(3)))


def by_kind(findings: Sequence[Finding]) -> dict[str, Finding]:
    assert all("\n" not in finding.message for finding in findings)
    return {finding.kind: finding for finding in findings}


def saved_as_jpeg(image: Image.Image, quality: int = 50) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def cropped(image: Image.Image, share: float) -> Image.Image:
    edge = round(image.width * share)
    return image.crop((edge, edge, image.width - edge, image.height - edge))


def noisy(image: Image.Image) -> Image.Image:
    noise = np.random.default_rng(1).normal(0, 5, (image.height, image.width, 3))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "saved as JPEG": saved_as_jpeg,
    "saved as JPEG, badly": lambda image: saved_as_jpeg(image, 20),
    "half the size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "more contrast": lambda image: ImageEnhance.Contrast(image).enhance(1.2),
    "cropped by 2% a side": lambda image: cropped(image, 0.02),
    "cropped by 4% a side": lambda image: cropped(image, 0.04),
    "noisy": noisy,
}


class TestHashing:
    @given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=9))
    def test_bits_are_counted_with_and_without_numpy_2(self, numbers: list[int]) -> None:
        values = np.array(numbers, dtype=np.uint64)
        expected = [number.bit_count() for number in numbers]
        assert hashing.counted_by_table(values).tolist() == expected
        assert hashing.bit_count(values).tolist() == expected
        assert hashing.counted_by_table(values[np.newaxis]).shape == (1, len(numbers))

    @given(st.integers(1, 70), st.integers(1, 70))
    def test_areas_keep_the_mean_and_what_is_even(self, size: int, source: int) -> None:
        matrix = hashing.area_matrix(size, source)
        np.testing.assert_allclose(matrix.sum(axis=1), 1.0, rtol=1e-5)
        np.testing.assert_allclose(matrix.mean(axis=0), 1.0 / source, rtol=1e-4)

    def test_a_smaller_version_is_the_mean_of_blocks(self) -> None:
        line = np.array([1, 3, 5, 7, 9, 11], dtype=np.float32)
        np.testing.assert_allclose(hashing.area_matrix(3, 6) @ line, [2, 6, 10])

    def test_light_changes_no_hash(self, photos: list[Image.Image]) -> None:
        images = np.clip(stacked(photos), 20, 200)
        hashes, brighter, flatter = (
            hashing.hashes_of(hashing.low_frequencies(version.astype(np.uint8)))
            for version in (images, images + 30, images // 2)
        )
        assert hashing.bit_count(hashes ^ brighter).max() <= 2
        assert hashing.bit_count(hashes ^ flatter).max() <= 4
        others = hashing.bit_count(hashes[:-1] ^ hashes[1:])
        assert np.quantile(others, 0.02) > hashing.RADIUS
        assert 28 < others.mean() < 36

    def test_the_mirror_image_is_told_from_the_frequencies(self, photos: list[Image.Image]) -> None:
        images = stacked(photos[:10])
        np.testing.assert_allclose(
            hashing.mirrored(hashing.low_frequencies(images)),
            hashing.low_frequencies(images[:, :, ::-1]),
            atol=0.05,
        )

    @pytest.mark.parametrize("dense", [0.0, 1.0], ids=["by product", "one by one"])
    @pytest.mark.parametrize("mirror", [False, True])
    def test_the_search_finds_what_comparing_all_finds(
        self, monkeypatch: pytest.MonkeyPatch, dense: float, mirror: bool
    ) -> None:
        monkeypatch.setattr(hashing, "_ROWS", 7)
        monkeypatch.setattr(hashing, "_COLUMNS", 11)
        monkeypatch.setattr(hashing, "_DENSE", dense)
        random = np.random.default_rng(0)
        base = random.normal(size=(12, 8, 8))
        frequencies = base[random.integers(0, 12, 100)] + 0.4 * random.normal(size=(100, 8, 8))
        flipped = np.where(random.random((100, 1, 1)) < 0.5, hashing.mirrored(frequencies), 0.0)
        frequencies = np.where(flipped == 0.0, frequencies, flipped).astype(np.float32)
        sketches = hashing.Sketches(np.arange(100), frequencies, np.ones(100, dtype=np.float32))
        other = hashing.mirrored(frequencies) if mirror else frequencies
        left, right = hashing.hashes_of(frequencies), hashing.hashes_of(other)
        expected = {}
        for i in range(100):
            for j in range(i + 1, 100):
                one, two = frequencies[i].copy(), other[j].copy()
                one[0, 0] = two[0, 0] = 0.0
                alike = (one * two).sum() / np.linalg.norm(one) / np.linalg.norm(two)
                apart = (int(left[i]) ^ int(right[j])).bit_count()
                if apart <= hashing.RADIUS and alike >= hashing.LOW_LIKENESS:
                    expected[i, j] = alike
        assert len(expected) > 50
        found = hashing.close_pairs(sketches, mirror=mirror, most=5000, tell=lambda _: None)
        assert found.complete
        pairs = list(zip(found.first.tolist(), found.second.tolist(), strict=True))
        assert set(pairs) == set(expected)
        assert len(pairs) == len(expected)
        np.testing.assert_allclose(found.likeness, [expected[p] for p in pairs], rtol=1e-4)
        assert (np.diff(found.likeness) <= 0).all()

        for most in range(1, 30):
            few = hashing.close_pairs(sketches, mirror=mirror, most=most, tell=lambda _: None)
            assert not few.complete
            np.testing.assert_allclose(few.likeness, found.likeness[:most], rtol=1e-5)


class TestNearDuplicates:
    @pytest.mark.parametrize("copy", COPIES)
    def test_copies_are_found_and_nothing_else(self, photos: list[Image.Image], copy: str) -> None:
        images = np.concatenate(
            [stacked(photos), stacked([COPIES[copy](image) for image in photos[:12]])]
        )
        found = near_pairs(dataset_of(images, np.arange(92) % 2))
        pairs = set(zip(found.first.tolist(), found.second.tolist(), strict=True))
        assert pairs <= {(n, 80 + n) for n in range(12)}
        assert len(pairs) >= 11
        assert not found.mirrored.any()
        assert found.complete

    def test_mirror_images_of_a_class_are_found_and_called_so(
        self, photos: list[Image.Image]
    ) -> None:
        flipped = [
            saved_as_jpeg(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) for image in photos[:12]
        ]
        images = np.concatenate([stacked(photos), stacked(flipped)])
        # The first six have the class of what they are copies of, the others have not.
        labels = np.arange(92) % 2
        labels[86:] = 1 - labels[86:]
        found = near_pairs(dataset_of(images, labels))
        assert sorted(found.second.tolist()) == list(range(80, 86))
        assert found.mirrored.all()
        (finding,) = near_duplicates(dataset_of(images, labels), None, found)
        assert "6 of them mirrored" in finding.message
        assert all(pair.mirrored for pair in finding.pairs)

    def test_a_symmetric_image_counts_once(self, photos: list[Image.Image]) -> None:
        images = stacked(photos)
        images[:, :, 24:] = images[:, :, 23::-1]
        copies = np.clip(images[:5].astype(int) + 9, 0, 255).astype(np.uint8)
        found = near_pairs(dataset_of(np.concatenate([images, copies]), [0] * 85))
        assert sorted(found.second.tolist()) == list(range(80, 85))
        assert not found.mirrored.any()

    def test_digits_look_alike_but_are_no_copies(self, digits: ImageDataset) -> None:
        assert len(near_pairs(digits)) == 0
        larger = np.repeat(np.repeat(digits.images[:800], 4, axis=1), 4, axis=2)
        assert (
            len(near_pairs(dataclasses.replace(subset(digits, np.arange(800)), images=larger))) == 0
        )

    @pytest.mark.parametrize("of_a_class", [2, 7, 60])
    def test_a_copy_among_images_that_look_alike_is_found(self, of_a_class: int) -> None:
        random = np.random.default_rng(0)
        common = 40 * random.normal(size=(6, 6))
        images = []
        for _ in range(120):  # one motif for all, as in aligned portraits, with fine differences
            rough = Image.fromarray((common + 12 * random.normal(size=(6, 6))).astype(np.float32))
            fine = Image.fromarray((4 * random.normal(size=(24, 24))).astype(np.float32))
            how = Image.Resampling.BICUBIC
            both = sum(np.asarray(part.resize((48, 48), how)) for part in (rough, fine))
            images.append(np.clip(128 + both, 0, 255).astype(np.uint8)[..., np.newaxis])
        copy = np.clip(images[7].astype(int) + 6, 0, 255).astype(np.uint8)
        labels = [*(np.arange(120) // of_a_class).tolist(), 1]
        found = near_pairs(dataset_of(np.stack([*images, copy]), labels))
        assert list(zip(found.first, found.second, strict=True)) == [(7, 120)]

    def test_images_that_are_all_the_same_are_a_finding_of_its_own(self) -> None:
        random = np.random.default_rng(0)
        image = np.asarray(photo(random).resize((48, 48))).astype(float)
        images = np.clip(image + random.normal(0, 2, (60, 48, 48, 3)), 0, 255).astype(np.uint8)
        found = near_pairs(dataset_of(images))
        assert found.all_alike
        assert len(found) == 0
        (finding,) = near_duplicates(dataset_of(images), None, found)
        assert finding.severity == "warning"
        assert finding.kind == "near duplicates everywhere"

    def test_where_copies_cannot_be_told_a_note_says_so(self) -> None:
        random = np.random.default_rng(0)
        down, across = np.mgrid[0:40, 0:40]
        images = []
        for _ in range(120):  # a disc, here and there, so large that all lie on each other
            (y, x), r = random.uniform(17, 23, 2), random.uniform(11, 14)
            disc = 1 / (1 + np.exp(2 * (np.hypot(down - y, across - x) - r)))
            images.append((40 + 180 * disc).astype(np.uint8)[..., np.newaxis])
        found = near_pairs(dataset_of(np.stack(images)))
        assert not found.can_tell
        assert len(found) == 0
        assert len(near_duplicates(dataset_of(np.stack(images)), None, found)) == 1

    @pytest.mark.parametrize("side", [1, 2, 4, 7, 8, 16, 33])
    @pytest.mark.parametrize("channels", [1, 3])
    def test_noise_has_no_copies(
        self, noise: Callable[..., ImageDataset], side: int, channels: int
    ) -> None:
        assert len(near_pairs(noise(60, 60, height=side, width=side, channels=channels))) == 0

    def test_blank_images_are_not_compared(self) -> None:
        random = np.random.default_rng(0)
        images = 100 + 100 * random.random((50, 1, 1, 3)) + random.normal(0, 1, (50, 32, 32, 3))
        assert len(near_pairs(dataset_of(images.astype(np.uint8)))) == 0

    def test_images_that_hardly_show_anything_are_not_compared(
        self, photos: list[Image.Image]
    ) -> None:
        for step, found in ((2, 0), (20, 1)):
            faint = np.full((2, 48, 48, 3), [[[[60]]], [[[160]]]], np.uint8)
            faint[:, :20, :20] += np.uint8(step)
            images = np.concatenate([stacked(photos), faint])
            assert len(near_pairs(dataset_of(images, [0] * 82))) == found

    def test_images_of_fewer_than_64_pixels_are_not_compared(
        self, photos: list[Image.Image]
    ) -> None:
        for side, found in ((7, 0), (8, 5)):
            images = stacked(photos, side) // 2
            images = np.concatenate([images, images[:5] + 40])
            assert len(near_pairs(dataset_of(images, [0] * 85))) == found

    def test_the_same_shape_in_another_colour_is_no_copy(self, photos: list[Image.Image]) -> None:
        images = stacked(photos)
        turned = np.roll(images[:10], 1, axis=3) // np.array([1, 4, 1], dtype=np.uint8)
        found = near_pairs(dataset_of(np.concatenate([images, turned])))
        same = near_pairs(dataset_of(np.concatenate([images, images[:10] // 2])))
        assert len(found) < 3 < len(same) == 10

    def test_wide_and_flat_images_work(self, photos: list[Image.Image]) -> None:
        wide = np.stack([np.asarray(image.resize((70, 20))) for image in photos])
        copies = np.stack([np.asarray(noisy(image).resize((70, 20))) for image in photos[:5]])
        found = near_pairs(dataset_of(np.concatenate([wide, copies])))
        assert set(found.second.tolist()) >= set(range(80, 84))
        assert all(b - a == 80 for a, b in zip(found.first, found.second, strict=True))

    def test_of_exact_copies_one_is_compared(self, photos: list[Image.Image]) -> None:
        images = stacked(photos)
        copy = np.clip(images[:1].astype(int) + 9, 0, 255).astype(np.uint8)
        found = near_pairs(dataset_of(np.concatenate([images, images[:1], copy])))
        assert list(zip(found.first, found.second, strict=True)) == [(0, 81)]

    def test_aligning_undoes_a_crop(self, photos: list[Image.Image]) -> None:
        whole, part = (
            np.moveaxis(stacked(version, 32), 3, 1).astype(np.float32)
            for version in (photos[:20], [cropped(image, 0.05) for image in photos[:20]])
        )
        moved, inside = aligned(whole, part)
        before = np.abs(whole - part).mean(axis=(1, 2, 3))
        after = np.abs(moved - part).mean(axis=(1, 2, 3))
        assert np.median(after / before) < 0.5
        assert inside.mean() > 0.95

    def test_the_limits_are_those_of_the_middle_whatever_copies_there_are(
        self, photos: list[Image.Image]
    ) -> None:
        images = stacked(photos)
        copies = np.concatenate([images, images[:10] // 2])
        for data in (images, copies):
            least = limits(dataset_of(data), np.arange(len(data)))
            assert 0.93 <= least.whole < 0.96
            assert 0.6 <= least.detail < 0.8
            assert least.usual < 0.3

    def test_few_images_have_the_lowest_limits(self, photos: list[Image.Image]) -> None:
        least = limits(dataset_of(stacked(photos[:4])), np.arange(4))
        assert (least.whole, least.detail) == (0.93, 0.6)
        assert limits(dataset_of(stacked(photos[:4], 23)), np.arange(4)).whole == 0.985


def near(pairs: list[tuple[int, int]], mirrored: bool = False) -> NearPairs:
    first, second = (np.array(rows, dtype=np.int64) for rows in zip(*pairs, strict=True))
    count = len(pairs)
    return NearPairs(first, second, np.linspace(0.99, 0.95, count), np.full(count, mirrored))


class TestWherePairsAre:
    """What is made of pairs, given classes and parts."""

    DATA = dataset_of(np.zeros((1000, 1, 1, 1), np.uint8), np.arange(1000) // 500)

    def found(
        self, pairs: list[tuple[int, int]], parts: Sequence[int] | None
    ) -> dict[str, Finding]:
        own = None if parts is None else np.array(parts, dtype=np.int8)
        return by_kind(near_duplicates(self.DATA, own, near(pairs)))

    def test_without_a_split_they_are_within_or_between_classes(self) -> None:
        found = self.found([(0, 1), (1, 2), (3, 4), (0, 999)], None)
        assert set(found) == {"near duplicates", "near duplicates with two labels"}
        within, between = found.values()
        assert (within.count, within.rows) == (5, (0, 1, 2, 3, 4))
        assert "3 pairs" in within.message
        assert (between.count, between.rows) == (2, (0, 999))
        assert {within.severity, between.severity} == {"warning"}
        assert within.pairs[0] == Pair(first=0, second=1, likeness=0.99)

    @pytest.mark.parametrize(
        ("count", "severity"), [(1, "warning"), (2, "warning"), (3, "error"), (50, "error")]
    )
    @pytest.mark.parametrize("source", [TRAIN, VAL])
    @pytest.mark.parametrize("turned", [False, True])
    def test_many_in_the_test_part_are_an_error(
        self, count: int, severity: str, source: int, turned: bool
    ) -> None:
        parts = [source] * 400 + [TEST] * 200 + [TRAIN] * 200 + [VAL] * 200
        pairs = [(row, 400 + row) for row in range(count)]
        found = self.found([pair[::-1] if turned else pair for pair in pairs], parts)
        assert set(found) == {"near duplicates across the test split"}
        (leak,) = found.values()
        assert (leak.severity, leak.count) == (severity, count)
        assert leak.rows == tuple(range(400, 400 + count))
        assert f"{count} of 200 test images" in leak.message
        expected = (PARTS[source], "test")
        assert leak.pairs[0].parts == (expected[::-1] if turned else expected)

    @pytest.mark.parametrize(("count", "severity"), [(2, "note"), (3, "warning")])
    def test_in_training_and_validation_they_are_at_most_a_warning(
        self, count: int, severity: str
    ) -> None:
        parts = [TRAIN] * 400 + [VAL] * 200 + [TRAIN] * 200 + [TEST] * 200
        found = self.found([(row, 400 + row) for row in range(count)], parts)
        assert set(found) == {"near duplicates in training and validation"}
        (leak,) = found.values()
        assert (leak.severity, leak.count) == (severity, count)

    def test_images_in_no_part_leak_nothing(self) -> None:
        parts = [NO_PART] * 400 + [TEST] * 300 + [VAL] * 300
        assert not self.found([(row, 400 + row) for row in range(9)], parts)

    def test_many_pairs_are_counted_and_cut(self) -> None:
        (within,) = self.found([(0, row) for row in range(1, 500)], None).values()
        assert within.count == 500
        assert "499 pairs" in within.message
        assert len(within.pairs) == 200

    def test_names_that_do_not_print_are_written_out(self) -> None:
        data = dataclasses.replace(self.DATA, names=["\x1b[31m\n"] * 1000)
        (found,) = near_duplicates(data, None, near([(0, 1)]))
        assert found.message.isprintable()
        assert "\\x1b[31m\\n ~" in found.message


@st.composite
def small_data(draw: st.DrawFn) -> tuple[ImageDataset, Int8Array]:
    """Images of one pixel, of few colours: many are equal."""
    count = draw(st.integers(2, 24))
    numbers = st.lists(st.integers(0, 5), min_size=count, max_size=count)
    pixels, labels, parts = draw(numbers), draw(numbers), draw(numbers)
    images = np.array(pixels, dtype=np.uint8).reshape(-1, 1, 1, 1)
    own = np.array([(TRAIN, VAL, TEST, TEST, TRAIN, NO_PART)[n] for n in parts], dtype=np.int8)
    return dataset_of(images, np.array(labels) % 3, classes=("a", "b", "c")), own


class TestExactDuplicates:
    @settings(max_examples=200)
    @given(small_data(), st.booleans())
    def test_they_are_those_that_comparing_all_finds(
        self, data: tuple[ImageDataset, Int8Array], with_split: bool
    ) -> None:
        dataset, parts = data
        found = by_kind(exact_duplicates(dataset, parts if with_split else None))
        pixels, labels = dataset.images.ravel().tolist(), dataset.labels.tolist()
        where = parts.tolist() if with_split else [0] * len(pixels)
        rows = range(len(pixels))

        def concerned(test: Callable[[int, int], bool]) -> tuple[int, ...]:
            return tuple(
                a
                for a in rows
                if any(a != b and pixels[a] == pixels[b] and test(a, b) for b in rows)
            )

        expected = {
            "exact duplicates": concerned(
                lambda a, b: (labels[a], where[a]) == (labels[b], where[b])
            ),
            "exact duplicates with two labels": tuple(
                a for a in rows if len({labels[b] for b in rows if pixels[a] == pixels[b]}) > 1
            ),
        }
        if with_split:
            expected["exact duplicates across the test split"] = concerned(
                lambda a, b: where[a] == TEST and where[b] in (TRAIN, VAL)
            )
            expected["exact duplicates in training and validation"] = concerned(
                lambda a, b: where[a] == VAL and where[b] == TRAIN
            )
        assert {kind: tuple(sorted(f.rows)) for kind, f in found.items()} == {
            kind: rows for kind, rows in expected.items() if rows
        }
        for finding in found.values():
            assert finding.count == len(finding.rows)
            for pair in finding.pairs:
                assert pixels[pair.first] == pixels[pair.second]
                assert pair.first != pair.second

    def test_what_makes_results_wrong_is_an_error(self) -> None:
        images = np.arange(12, dtype=np.uint8).reshape(-1, 1, 1, 1)[[0, 0, 1, 1, 2, 2, 3, 3]]
        labels, parts = (
            [0, 0, 0, 1, 0, 0, 1, 1],
            [TRAIN, TRAIN, TRAIN, TRAIN, TRAIN, TEST, TRAIN, VAL],
        )
        found = by_kind(exact_duplicates(dataset_of(images, labels), np.array(parts, np.int8)))
        assert {kind: f.severity for kind, f in found.items()} == {
            "exact duplicates": "warning",
            "exact duplicates with two labels": "error",
            "exact duplicates across the test split": "error",
            "exact duplicates in training and validation": "warning",
        }
        leak = found["exact duplicates across the test split"]
        assert leak.pairs == (Pair(first=4, second=5, parts=("train", "test")),)
        assert "1 of 1 test images (100%) is an exact copy of" in leak.message
        assert found["exact duplicates"].message.startswith("2 images are exact copies of each")
        torn = found["exact duplicates with two labels"].message
        assert torn.startswith("2 images are exact copies of each other, but")
        images = np.repeat(np.arange(2, dtype=np.uint8), [2, 3]).reshape(-1, 1, 1, 1)
        (within,) = exact_duplicates(dataset_of(images, [0] * 5), None)
        assert within.message.startswith("5 images in 2 groups are exact copies of each other")

    def test_thousands_of_equal_images_are_counted_and_cut(self) -> None:
        dataset = dataset_of(np.zeros((5000, 2, 2, 1), np.uint8))
        within, torn = exact_duplicates(dataset, None)
        assert within.count == torn.count == 5000
        assert (len(within.pairs), len(torn.pairs)) == (200, 1)
        assert len(within.rows) == 1000


class TestClasses:
    def found(self, counts: Sequence[tuple[int, int, int]]) -> dict[str, Finding]:
        """Given how many images of each class are in each part."""
        labels, parts = [], []
        for label, of_part in enumerate(counts):
            for part, count in enumerate(of_part):
                labels += [label] * count
                parts += [part] * count
        images = np.random.default_rng(0).integers(0, 256, (len(labels), 8, 8, 1), np.uint8)
        classes = tuple(f"class {n}" for n in range(len(counts)))
        dataset = dataset_of(images, labels, classes=classes)
        return by_kind(check_images(dataset, split_of(parts), cheap=True).findings)

    def test_enough_images_of_all_classes_are_nothing_to_tell(self) -> None:
        assert not self.found([(50, 9, 9), (149, 9, 9)])

    @pytest.mark.parametrize(
        ("counts", "kind", "severity"),
        [
            ((0, 60, 60), "classes without training images", "error"),
            ((60, 0, 60), "classes without validation images", "warning"),
            ((60, 60, 0), "classes without test images", "warning"),
            ((0, 0, 0), "classes without images", "warning"),
            ((9, 50, 50), "classes with few images", "warning"),
            ((10, 50, 50), "classes with few images", "note"),
            ((49, 50, 50), "classes with few images", "note"),
            ((151, 25, 25), "imbalance", "note"),
            ((670, 5, 5), "imbalance", "warning"),
        ],
    )
    def test_an_odd_class_is_named(
        self, counts: tuple[int, int, int], kind: str, severity: str
    ) -> None:
        found = self.found([(52, 7, 8), counts])
        assert set(found) == {kind}
        assert found[kind].severity == severity
        assert "class 1" in found[kind].names
        assert "class 1" in found[kind].message

    def test_the_message_of_imbalance_says_what_it_means(self) -> None:
        message = self.found([(60, 10, 10), (400, 200, 200)])["imbalance"].message
        assert "10 times as many" in message
        assert "is right for 91%" in message

    def test_many_classes_are_counted_and_the_smallest_come_first(self) -> None:
        found = self.found([(n, 40, 40) for n in range(10, 30)])["classes with few images"]
        assert found.count == 20
        assert found.names[0] == "class 0"
        assert "the fewest: 10" in found.message
        assert "15 more" in found.message


class TestBlankImages:
    def test_images_of_one_colour_are_found(self, noise: Callable[..., ImageDataset]) -> None:
        data = noise(60, 60, height=6, width=6, channels=3)
        data.images[3], data.images[50] = 0, (9, 200, 30)
        data.images[70, 0, 0, 0] ^= 1  # nothing to see either
        data.images[70] = 100
        found = by_kind(check_images(data, cheap=True).findings)
        assert set(found) == {"blank images"}
        assert found["blank images"].rows == (3, 50, 70)
        assert "image 3, image 50, image 70" in found["blank images"].message

    def test_one_channel_that_varies_is_no_blank_image(self) -> None:
        images = np.full((60, 6, 6, 3), 7, np.uint8)
        images[..., 2] = np.random.default_rng(0).integers(0, 256, (60, 6, 6))
        assert "blank images" not in by_kind(check_images(dataset_of(images), cheap=True).findings)

    def test_images_of_one_pixel_are_not_blank(self, noise: Callable[..., ImageDataset]) -> None:
        data = noise(60, 60, height=1, width=1)
        assert "blank images" not in by_kind(check_images(data, cheap=True).findings)


class TestGroups:
    @settings(max_examples=150)
    @given(st.lists(st.tuples(st.integers(0, 4), st.integers(-1, 2)), min_size=2, max_size=20))
    def test_a_group_on_both_sides_is_found(self, rows: list[tuple[int, int]]) -> None:
        groups, parts = [f"person {group}" for group, _ in rows], [part for _, part in rows]
        images = np.arange(2 * len(rows), dtype=np.uint8).reshape(-1, 1, 2, 1)
        labels = [0] * (len(rows) - 1) + [1]
        dataset = dataset_of(images, labels, groups=groups)
        report = check_images(dataset, split_of(parts), cheap=True)
        found = by_kind([f for f in report.findings if f.kind.startswith("groups")])
        inside = {
            p: {g for g, part in zip(groups, parts, strict=True) if part == p} for p in range(3)
        }
        test = inside[TEST] & (inside[TRAIN] | inside[VAL])
        val = inside[VAL] & inside[TRAIN]
        expected = {}
        if test:
            expected["groups in training or validation and test"] = ("error", test)
        if val:
            expected["groups in training and validation"] = ("warning", val)
        assert {k: (f.severity, set(f.names)) for k, f in found.items()} == expected
        for finding in found.values():
            assert finding.count == len(finding.names)

    def test_a_split_by_group_is_nothing_to_tell(self) -> None:
        random = np.random.default_rng(0)
        images = random.integers(0, 256, (200, 8, 8, 1), dtype=np.uint8)
        dataset = dataset_of(images, groups=[f"g{n // 5}" for n in range(200)])
        split = make_split(dataset, SplitSpec())
        kinds = by_kind(check_images(dataset, split, cheap=True).findings)
        assert not [kind for kind in kinds if kind.startswith("groups")]
        torn = make_split(dataset, SplitSpec(by_group=False))
        assert not check_images(dataset, torn, cheap=True).ok


def catalog_of(folder: Path, sizes: Sequence[tuple[int, int]], labels: Sequence[int]) -> Catalog:
    """PNG files of these heights and widths."""
    names = []
    for number, (height, width) in enumerate(sizes):
        names.append(f"{number}.png")
        Image.new("RGB", (width, height)).save(folder / names[-1])
    return Catalog(
        name="files",
        classes=("a", "b"),
        labels=np.array(labels, dtype=np.int64),
        names=names,
        images=FileReader(folder, names),
    )


class TestSource:
    def findings(
        self, catalog: Catalog, side: int = 32, bad: Sequence[BadImage] = ()
    ) -> dict[str, Finding]:
        random = np.random.default_rng(0)
        images = random.integers(0, 256, (len(catalog), side, side, 3), dtype=np.uint8)
        dataset = dataset_of(images, catalog.labels)
        report = with_source(
            check_images(dataset, cheap=True),
            dataset,
            None,
            catalog=catalog,
            sizes=sizes_of_files(catalog, bad, None),
            bad=bad,
        )
        known = ("classes with few images", "imbalance")
        return by_kind([f for f in report.findings if f.kind not in known])

    def test_odd_sizes_are_found(self, tmp_path: Path) -> None:
        sizes = [(60 + n % 7, 80 + n % 5) for n in range(40)]
        sizes[3], sizes[4], sizes[5] = (70, 9), (14, 16), (90, 500)
        sizes[6], sizes[7] = (16, 16), (17, 16)
        found = self.findings(catalog_of(tmp_path, sizes, [n % 2 for n in range(40)]))
        assert {kind: f.count for kind, f in found.items()} == {
            "very small images": 2,
            "odd proportions": 2,
            "enlarged images": 1,
        }
        assert found["very small images"].names == ("3.png (70x9)", "4.png (14x16)")
        assert found["odd proportions"].names == ("3.png (70x9)", "5.png (90x500)")
        assert found["enlarged images"].names == ("6.png (16x16)",)

    def test_pictures_of_one_size_are_nothing_to_tell(self, tmp_path: Path) -> None:
        assert not self.findings(catalog_of(tmp_path, [(20, 90)] * 30, [0, 1] * 15))

    def test_small_pictures_of_one_size_are_found_where_they_are_enlarged(
        self, tmp_path: Path
    ) -> None:
        catalog = catalog_of(tmp_path, [(10, 10)] * 30, [0, 1] * 15)
        assert self.findings(catalog)["very small images"].count == 30
        assert not self.findings(catalog, side=10)
        large = catalog_of(tmp_path, [(20, 20)] * 30, [0, 1] * 15)
        assert set(self.findings(large, side=64)) == {"enlarged images"}

    def test_small_images_are_fine_where_small_ones_are_asked_for(self, tmp_path: Path) -> None:
        sizes = [(8, 8), (9, 8)] * 15
        assert not self.findings(catalog_of(tmp_path, sizes, [0] * 15 + [1] * 15), side=8)

    @pytest.mark.parametrize(("agree", "told"), [(30, True), (15, False)])
    def test_a_size_that_tells_the_class_is_found(
        self, tmp_path: Path, agree: int, told: bool
    ) -> None:
        labels = [n % 2 for n in range(30)]
        sizes = [(60 + 4 * (label ^ (n >= agree)), 80) for n, label in enumerate(labels)]
        found = self.findings(catalog_of(tmp_path, sizes, labels))
        assert set(found) == ({"size tells the class"} if told else set())

    def test_files_that_cannot_be_read_have_no_size(self, tmp_path: Path) -> None:
        catalog = catalog_of(tmp_path, [(60, 80), (61, 80)] * 5, [0, 1] * 5)
        (tmp_path / "3.png").write_bytes(b"no picture")
        assert not self.findings(catalog)

    def test_images_that_are_left_out_are_not_counted_among_the_sizes(self, tmp_path: Path) -> None:
        catalog = catalog_of(tmp_path, [(60, 80)] * 8 + [(14, 16)] * 2, [0, 1] * 5)
        bad = [BadImage("2.png", "is damaged"), BadImage("8.png", "is damaged")]
        found = self.findings(catalog, bad=bad)["very small images"]
        assert (found.count, found.names) == (1, ("9.png (14x16)",))
        assert "1 image of 8 " in found.message

    def test_what_the_source_remarked_and_what_is_unreadable_is_told(self, tmp_path: Path) -> None:
        catalog = catalog_of(tmp_path, [(60, 80)] * 4, [0, 1] * 2)
        catalog = dataclasses.replace(
            catalog,
            remarks=(
                *remarks_on("rows without image", [f"{n}.png" for n in range(150)]),
                *remarks_on(
                    "files that are no pictures",
                    ["\x1b[31mnotes.txt"],
                    one="odd file",
                    harmless=True,
                ),
                *remarks_on("nothing", []),
            ),
        )
        bad = [BadImage("cut\n.jpg", "is damaged"), BadImage("b.jpg", "the file is empty")]
        found = self.findings(catalog, bad=bad)
        assert {kind: (f.severity, f.count) for kind, f in found.items()} == {
            "unreadable images": ("warning", 2),
            "rows without image": ("warning", 150),
            "files that are no pictures": ("note", 1),
        }
        assert "cut\\n.jpg: is damaged" in found["unreadable images"].message
        assert found["rows without image"].message.startswith("150 rows without image: 0.png, ")
        assert "145 more" in found["rows without image"].message
        assert len(found["rows without image"].names) == 100
        assert found["files that are no pictures"].message == "1 odd file: \\x1b[31mnotes.txt"


@pytest.fixture(scope="module")
def field(photos: list[Image.Image]) -> ImageDataset:
    """600 images of 16 pixels: parts of the photos."""
    random = np.random.default_rng(0)
    whole = stacked(photos, 64)
    corners = random.integers(0, 48, (600, 2)).tolist()
    cut = [whole[n % 80, y : y + 16, x : x + 16] for n, (y, x) in enumerate(corners)]
    return dataset_of(np.stack(cut), random.integers(0, 3, 600))


class TestShift:
    def test_parts_drawn_at_random_cannot_be_told_apart(self, field: ImageDataset) -> None:
        rows = np.random.default_rng(1).permutation(600)
        shift = measure_shift(field.part(rows[:400]), field.part(rows[400:]), ("training", "test"))
        assert shift is not None
        assert abs(shift.auc - 0.5) < 0.1
        assert 0.02 < shift.error < 0.06
        assert not shift_finding(shift)

    @pytest.mark.parametrize(
        ("change", "word"),
        [
            (lambda x: x * 0.6 + 100, "brighter"),
            (lambda x: x * 0.6, "darker"),
            (lambda x: x * [1.0, 0.6, 0.6], "redder"),
            (lambda x: x * [0.6, 0.6, 1.0], "bluer"),
            (lambda x: (x - 128) * 0.3 + 128, "lower in contrast"),
            (lambda x: x.mean(axis=3, keepdims=True) + 0 * x, "less colourful"),
            (
                lambda x: (x + np.roll(x, 1, 1) + np.roll(x, 1, 2) + np.roll(x, 2, 1)) / 4,
                "more blurred",
            ),
        ],
    )
    def test_a_part_that_looks_different_is_found_and_described(
        self, field: ImageDataset, change: Callable[[Any], Any], word: str
    ) -> None:
        images = field.images.copy()
        images[400:] = np.clip(change(images[400:].astype(float)), 0, 255).astype(np.uint8)
        data = dataclasses.replace(field, images=images)
        sides = data.part(np.arange(400)), data.part(np.arange(400, 600))
        shift = measure_shift(*sides, ("training", "test"))
        assert shift is not None
        (finding,) = shift_finding(shift)
        assert finding.severity == "warning"
        assert finding.kind == "shift from training to test"
        assert word in finding.message
        assert word in shift.words

    def test_other_classes_are_no_other_look(self, field: ImageDataset) -> None:
        images = field.images.copy()
        images[field.labels == 0] //= 4  # one class is dark, and rare in the second part
        data = dataclasses.replace(field, images=images)
        dark, others = np.flatnonzero(data.labels == 0), np.flatnonzero(data.labels)
        first = data.part(np.r_[dark[:120], others[:180]])
        second = data.part(np.r_[dark[120:160], others[180:380]])
        shift = measure_shift(first, second, ("training", "test"))
        assert shift is not None
        assert not shift_finding(shift)
        (finding,) = label_shift(first, second, ("training", "test"))
        assert "class 0 40% and 17%" in finding.message
        assert finding.names[0] == "class 0"

    @pytest.mark.parametrize(
        ("auc", "error", "verdict"),
        [
            (0.4, 0.04, "no shift"),
            (0.54, 0.04, "no shift"),
            (0.58, 0.04, "no shift that is certain"),
            (0.58, 0.02, "slightly different"),
            (0.75, 0.04, "different (darker, bluer)"),
            (0.95, 0.01, "clearly different (darker, bluer)"),
        ],
    )
    def test_each_shift_has_a_verdict_that_agrees_with_the_finding(
        self, auc: float, error: float, verdict: str
    ) -> None:
        words = ("darker", "bluer") if "bluer" in verdict else ()
        shift = Shift(first="training", second="test", auc=auc, error=error, words=words)
        assert shift_verdict(shift) == verdict
        assert bool(shift_finding(shift)) == bool(words)

    def test_few_images_or_groups_tell_nothing(self, field: ImageDataset) -> None:
        def measured(data: ImageDataset, few: int) -> Shift | None:
            sides = data.part(np.arange(300)), data.part(np.arange(300, 300 + few))
            return measure_shift(*sides, ("training", "test"))

        assert measured(field, 20) is None
        assert measured(field, 100) is not None
        assert (
            measured(dataclasses.replace(field, groups=[f"g{n // 25}" for n in range(600)]), 100)
            is None
        )
        assert measured(dataclasses.replace(field, labels=np.arange(600) // 300), 100) is None

    def test_persons_that_look_different_are_no_shift(self, field: ImageDataset) -> None:
        random = np.random.default_rng(3)
        person = np.arange(600) // 20  # each in a place of his own
        place = np.kron(random.normal(0, 30, (30, 4, 4, 3)), np.ones((1, 4, 4, 1)))
        images = np.clip(field.images + place[person], 0, 255).astype(np.uint8)
        data = dataclasses.replace(field, images=images, groups=[str(n) for n in person])
        second = np.isin(person, random.permutation(30)[:10])
        sides = data.part(np.flatnonzero(~second)), data.part(np.flatnonzero(second))
        shift = measure_shift(*sides, ("training", "test"))
        assert shift is not None
        assert shift.error > 0.08
        assert 0.3 < shift.auc < 0.7
        assert not shift_finding(shift)

    def test_unlabelled_images_are_compared(self, field: ImageDataset) -> None:
        same = shift_against(field.part(np.arange(300)), field.images[300:])
        other = shift_against(field.part(np.arange(300)), field.images[300:] // 3)
        assert same is not None
        assert other is not None
        assert not shift_finding(same)
        (finding,) = shift_finding(other)
        assert "darker" in finding.message
        assert (other.first, other.second) == ("training", "unlabelled")
        assert shift_against(field.part(), field.images[:5]) is None

    @pytest.mark.parametrize(
        "images",
        [
            np.zeros((50, 16, 16, 1), np.uint8),
            np.zeros((50, 16, 17, 3), np.uint8),
            np.zeros((16, 16, 3), np.uint8),
            np.zeros((50, 16, 16, 3), np.float32),
        ],
        ids=["channels", "width", "one image", "dtype"],
    )
    def test_unlabelled_images_of_another_shape_are_refused(
        self, field: ImageDataset, images: UInt8Array
    ) -> None:
        with pytest.raises(DataError, match=r"\(n, 16, 16, 3\)"):
            shift_against(field.part(), images)

    def test_proportions_that_differ_by_chance_are_no_finding(self, field: ImageDataset) -> None:
        rows = np.random.default_rng(1).permutation(600)
        assert not label_shift(field.part(rows[:400]), field.part(rows[400:]), ("a", "b"))
        few = field.part(rows[:9]), field.part(rows[9:14])
        assert not label_shift(*few, ("training", "test"))

    def test_one_person_of_one_class_is_no_other_proportion(self) -> None:
        labels = np.repeat([0, 1, 0, 1, 0, 1, 0], 30)
        data = dataset_of(np.zeros((210, 2, 2, 1), np.uint8), labels)
        sides = data.part(np.arange(180)), data.part(np.arange(180, 210))
        assert label_shift(*sides, ("training", "test"))
        grouped = dataclasses.replace(data, groups=[str(n // 30) for n in range(210)])
        sides = grouped.part(np.arange(180)), grouped.part(np.arange(180, 210))
        assert not label_shift(*sides, ("training", "test"))


class TestCheckData:
    def test_clean_data_is_fine(self, photos: list[Image.Image]) -> None:
        # All images of the class are enough to be learnt from.
        random = np.random.default_rng(5)
        images = stacked([*photos, *(photo(random, 48) for _ in range(160))], 24)
        dataset = dataset_of(images)
        report = check_images(dataset, make_split(dataset, SplitSpec()))
        assert report.ok
        assert not report.findings
        assert report.counts == {"images": 240, "classes": 2, "train": 144, "val": 48, "test": 48}
        assert [(shift.first, shift.second) for shift in report.shifts] == [
            ("training", "validation"),
            ("training", "test"),
        ]

    def test_the_digits_have_nothing_that_makes_results_wrong(self, digits: ImageDataset) -> None:
        report = check_images(digits, make_split(digits, SplitSpec()))
        assert report.ok
        assert not [f for f in report.findings if "near" in f.kind]

    def planted(self, photos: list[Image.Image]) -> tuple[ImageDataset, Split]:
        images = np.concatenate([stacked(photos), stacked(photos[:1])])
        parts = [TRAIN] * 40 + [VAL] * 20 + [TEST] * 20 + [TEST]
        images[61] = np.clip(images[1].astype(int) + 9, 0, 255)  # a near duplicate
        return dataset_of(images, np.arange(81) % 2), split_of(parts)

    def test_errors_come_first_and_make_the_report_not_ok(self, photos: list[Image.Image]) -> None:
        dataset, split = self.planted(photos)
        report = check_images(dataset, split)
        assert not report.ok
        severities = [finding.severity for finding in report.findings]
        assert severities == sorted(severities, key=["error", "warning", "note"].index)
        kinds = by_kind(report.findings)
        assert kinds["exact duplicates across the test split"].rows == (80,)
        assert kinds["near duplicates across the test split"].rows == (61,)
        assert report.data == dataset.fingerprint
        assert report.split == split.fingerprint

    def test_the_cheap_check_skips_what_is_slow(
        self, photos: list[Image.Image], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dataset, split = self.planted(photos)
        for name in ("near_pairs", "measure_shift"):
            monkeypatch.setattr(f"hpsearch.data.checks.run.{name}", None)
        report = check_images(dataset, split, cheap=True)
        kinds = by_kind(report.findings)
        assert kinds["exact duplicates across the test split"].rows == (80,)
        assert not [kind for kind in kinds if "near" in kind]
        assert not report.shifts

    def test_without_a_split_no_leak_is_told(self, photos: list[Image.Image]) -> None:
        dataset, _ = self.planted(photos)
        report = check_images(dataset)
        assert report.split is None
        assert {kind for kind in by_kind(report.findings) if "split" in kind} == set()
        assert by_kind(report.findings)["exact duplicates"].pairs[0].parts == ("", "")

    def test_the_shift_to_unlabelled_images_is_told(self, photos: list[Image.Image]) -> None:
        dataset, split = self.planted(photos)
        report = check_images(dataset, split, cheap=True)
        report = with_source(report, dataset, split, against=dataset.images // 3)
        assert "shift from training to unlabelled" in by_kind(report.findings)
        assert report.shifts[-1].second == "unlabelled"

    @pytest.mark.parametrize(
        ("learnt", "groups", "unlabelled", "told"),
        [
            (40, 40, 1, "1 unlabelled image is too few"),
            (40, 40, 29, "29 unlabelled images are too few"),
            (9, 9, 40, "9 labelled images are too few"),
            (40, 4, 40, "4 groups of labelled images are too few"),
        ],
    )
    def test_which_side_is_too_small_to_compare_is_said(
        self, learnt: int, groups: int, unlabelled: int, told: str
    ) -> None:
        images = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 1), dtype=np.uint8)
        names = [f"person {row % groups}" for row in range(learnt)]
        dataset = dataset_of(images[:learnt], groups=names)
        report = check_images(dataset, cheap=True)
        report = with_source(report, dataset, None, against=images[:unlabelled])
        assert told in by_kind(report.findings)["too few to compare"].message

    def test_pictures_to_compare_with_are_looked_for_first(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("hpsearch.data.checks.source.load_catalog", None)
        (tmp_path / "empty").mkdir()
        for name, told in (("nowhere", "no such folder"), ("empty", "no picture in this folder")):
            with pytest.raises(DataError, match=told):
                check_source(DataSpec(), SplitSpec(), against=tmp_path / name)

    def test_pictures_to_compare_with_that_cannot_be_read_are_counted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HPSEARCH_CACHE", str(tmp_path / "cache"))
        for folder, count in (("pets/cat", 9), ("pets/dog", 9), ("new", 2)):
            for number in range(count):
                path = tmp_path / folder / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("L", (6, 6), 9 * number).save(path)
        (tmp_path / "new" / "cut.png").write_bytes(b"no picture")
        spec = DataSpec(str(tmp_path / "pets"))
        report, _ = check_source(spec, SplitSpec(), against=tmp_path / "new")
        found = by_kind(report.findings)["unreadable unlabelled images"]
        assert (found.count, found.severity) == (1, "warning")
        assert "cut.png: is no picture" in found.message
        assert "2 unlabelled images are" in by_kind(report.findings)["too few to compare"].message

    def test_a_check_of_data_that_cannot_be_split_is_not_kept(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HPSEARCH_CACHE", str(tmp_path / "cache"))
        path = tmp_path / "few.npz"
        np.savez(path, images=np.arange(128, dtype=np.uint8).reshape(2, 8, 8), labels=[0, 1])
        report, _ = check_source(DataSpec(str(path)), SplitSpec())
        assert "cannot be split" in by_kind(report.findings)
        assert not (tmp_path / "cache" / "checks").exists()

    def test_progress_is_told(self, photos: list[Image.Image]) -> None:
        dataset, split = self.planted(photos)
        told = []
        check_images(dataset, split, watch=told.append)
        assert {step.what for step in told} == {
            "hashing the images",
            "comparing the images",
            "comparing mirror images",
        }
        assert all(step.done <= step.total for step in told)
        last = Counter(step.what for step in told if step.done == step.total)
        assert set(last.values()) == {1}

    def test_the_global_random_state_is_left_alone(self, photos: list[Image.Image]) -> None:
        np.random.seed(1)
        expected = np.random.random()
        np.random.seed(1)
        dataset, split = self.planted(photos)
        first = check_images(dataset, split)
        assert np.random.random() == expected
        assert check_images(dataset, split) == first

    def test_starting_it_does_not_load_what_is_slow(self) -> None:
        code = "import hpsearch.data.checks, sys; print(*sys.modules)"
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        loaded = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        ).stdout.split()
        assert not {"torch", "optuna", "matplotlib", "sklearn", "scipy"} & set(loaded)


REPORT = CheckReport(
    data="d" * 64,
    split="e" * 64,
    counts={"images": 9, "classes": 2},
    findings=(
        Finding(
            kind="near duplicates",
            severity="warning",
            message="2 images of \u201ccaf\u00e9\u201d \\x1b",
            count=2,
            pairs=(
                Pair(first=1, second=8, likeness=0.9876, mirrored=True, parts=("train", "test")),
            ),
            rows=(1, 8),
            names=("a", "ü"),
        ),
        Finding(kind="blank images", severity="error", message="m", count=0),
    ),
    shifts=(Shift(first="training", second="test", auc=0.625, error=0.03, words=("darker",)),),
)


class TestReport:
    @pytest.mark.parametrize("report", [REPORT, dataclasses.replace(REPORT, split=None)])
    def test_it_survives_json(self, report: CheckReport) -> None:
        assert CheckReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report

    def test_a_real_one_survives_json(self, photos: list[Image.Image]) -> None:
        dataset, split = TestCheckData().planted(photos)
        report = check_images(dataset, split)
        assert CheckReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report

    @pytest.mark.parametrize("severity", ["error", "warning", "note"])
    def test_only_errors_are_not_ok(self, severity: Any) -> None:
        finding = Finding(kind="k", severity=severity, message="m", count=1)
        assert dataclasses.replace(REPORT, findings=(finding,)).ok == (severity != "error")

    def test_it_is_stored_for_its_data_and_split(self, tmp_path: Path) -> None:
        path = store_report(REPORT, tmp_path / "cache")
        assert path.parent == tmp_path / "cache" / "checks"
        assert stored_report(REPORT.data, REPORT.split, tmp_path / "cache") == REPORT
        assert stored_report(REPORT.data, "f" * 64, tmp_path / "cache") is None
        assert stored_report("f" * 64, REPORT.split, tmp_path / "cache") is None
        assert stored_report(REPORT.data, REPORT.split, tmp_path) is None

    def test_one_of_an_earlier_version_is_read(self) -> None:
        assert CheckReport.from_dict({**REPORT.to_dict(), "cheap": False}) == REPORT

    def test_a_newer_one_takes_its_place(self, tmp_path: Path) -> None:
        store_report(REPORT, tmp_path)
        newer = dataclasses.replace(REPORT, findings=())
        store_report(newer, tmp_path)
        assert stored_report(REPORT.data, REPORT.split, tmp_path) == newer
        assert len(list((tmp_path / "checks").iterdir())) == 1

    def test_a_damaged_one_is_absent(self, tmp_path: Path) -> None:
        path = store_report(REPORT, tmp_path)
        whole = path.read_bytes()
        damages = [whole[:length] for length in range(0, len(whole) - 1, 17)]
        damages += [b"", b"null", b"[]", b"{}", b"[" * 100_000, b"\xff\xfe", b'{"version": 1}']
        damages += [
            json.dumps({**REPORT.to_dict(), name: value}).encode()
            for name, value in (
                ("version", 0),
                ("data", "f" * 64),
                ("split", None),
                ("findings", [{}]),
                ("findings", None),
                ("counts", {"images": "many"}),
                ("counts", {"images": float("inf")}),
                ("shifts", [1]),
            )
        ]
        for damage in damages:
            path.write_bytes(damage)
            assert stored_report(REPORT.data, REPORT.split, tmp_path) is None, damage[:80]

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["version", "data", "findings", "pairs", "counts"]), inner
                )
            ),
            max_leaves=8,
        ),
        st.sampled_from(["version", "data", "split", "counts", "findings", "shifts"]),
    )
    def test_what_is_no_report_is_refused_or_read(self, value: Any, field: str) -> None:
        document = json.loads(json.dumps(REPORT.to_dict())) | {field: value}
        for item in (value, document):
            told = ""
            try:
                CheckReport.from_dict(item)
            except DataError as error:  # no other kind
                told = str(error)
            assert "\n" not in told

    def test_a_folder_that_cannot_be_written_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(DataError, match="HPSEARCH_CACHE"):
            store_report(REPORT, tmp_path / "file")
