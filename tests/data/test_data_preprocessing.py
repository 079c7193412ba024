from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2.functional import center_crop

from hpsearch.config import InputConfig, TrainConfig
from hpsearch.data.dataset import ImageDataset, ImageShape
from hpsearch.data.preprocessing import (
    NORMALISATIONS,
    Preprocessing,
    cut_centre,
    input_shape,
    normalisation,
    resized_part,
)
from hpsearch.data.resident import ResidentData, ResidentImages
from hpsearch.data.splits import DevelopmentData
from hpsearch.data.store import resized
from hpsearch.data.views import DataViews
from hpsearch.errors import ConfigError

CPU = torch.device("cpu")
ROWS = tuple(row.name for row in NORMALISATIONS)

Noise = Callable[..., ImageDataset]


class TestOfTheDataSet:
    @pytest.mark.parametrize("channels", [1, 3])
    def test_normalised_training_pixels_have_mean_0_and_deviation_1(
        self, noise: Noise, channels: int
    ) -> None:
        data = noise(40, 40, height=9, width=7, channels=channels)
        # Channels of different brightness and contrast.
        scaled = data.images // np.arange(1, channels + 1, dtype=np.uint8)
        data = ImageDataset("noise", scaled, data.labels, data.classes)
        images, _ = ResidentImages.of(data.part(), CPU).batch(torch.arange(len(data)))
        normalised = Preprocessing.of(data.part()).normalise(images).double()
        for channel in range(channels):
            assert normalised[:, channel].mean().item() == pytest.approx(0, abs=1e-5)
            assert normalised[:, channel].std(correction=0).item() == pytest.approx(1, abs=1e-5)

    @given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(0, 255), st.integers(1, 200))
    def test_mean_and_deviation_are_those_of_numpy(
        self, seed: int, n: int, low: int, width: int
    ) -> None:
        random = np.random.default_rng(seed)
        images = random.integers(low, min(low + width, 256), (n, 3, 2, 3), dtype=np.uint8)
        labels = np.zeros(n, np.int64)
        fitted = Preprocessing.of(ImageDataset("random", images, labels, ("a", "b")).part())
        scaled = images / 255.0
        np.testing.assert_allclose(fitted.mean, scaled.mean(axis=(0, 1, 2)), atol=1e-12)
        expected = np.maximum(scaled.std(axis=(0, 1, 2)), 1 / 255)
        np.testing.assert_allclose(fitted.std, expected, atol=1e-7)

    def test_a_channel_that_never_varies_becomes_0(self) -> None:
        images = np.zeros((4, 2, 2, 3), np.uint8)
        images[..., 1] = 200
        images[..., 2] = np.arange(4).reshape(4, 1, 1)
        data = ImageDataset("flat", images, np.array([0, 1, 0, 1]), ("a", "b"))
        batch, _ = ResidentImages.of(data.part(), CPU).batch(torch.arange(4))
        normalised = Preprocessing.of(data.part()).normalise(batch)
        assert normalised.isfinite().all()
        assert normalised[:, :2].abs().max().item() < 1e-4

    def test_it_is_that_of_the_training_images_alone(self, noise: Noise) -> None:
        train, val = noise(10, 10, seed=0), noise(10, 10, seed=1)
        parts = DevelopmentData(train=train.part(), val=val.part())
        data = DataViews.of(parts, CPU).view(TrainConfig(family="mlp"))
        assert data.preprocessing == Preprocessing.of(train.part())
        assert data.preprocessing != Preprocessing.of(val.part())

    @pytest.mark.parametrize("sizes", [{"size": (3, 5)}, {"size": (2, 3), "resize": (3, 5)}])
    def test_it_is_that_of_the_resized_images(self, noise: Noise, sizes: dict[str, Any]) -> None:
        data = noise(10, 10, height=9, width=8)
        part, small = data.part(np.arange(12)), resized(data, (3, 5)).images[:12] / 255.0
        # Whether they are resized already or not.
        for given_part in (part, resized_part(part, (3, 5))):
            fitted = Preprocessing.of(given_part, InputConfig(**sizes))
            assert fitted.mean == pytest.approx([small.mean()], rel=1e-9)
            assert fitted.std == pytest.approx([small.std()], rel=1e-6)
            assert fitted.std[0] < 0.8 * Preprocessing.of(part).std[0]


class TestNormalisations:
    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("repeated", [False, True])
    @pytest.mark.parametrize("name", ROWS)
    def test_every_row_has_one_value_a_channel(
        self, noise: Noise, name: str, channels: int, repeated: bool
    ) -> None:
        config = InputConfig(normalise=name, channels=3 if repeated else 0)
        fitted = Preprocessing.of(noise(9, 9, channels=channels).part(), config)
        expected = 3 if repeated else channels
        assert (len(fitted.mean), len(fitted.std), fitted.channels) == (expected,) * 3
        assert min(fitted.std) > 0
        assert normalisation(name).help
        assert Preprocessing.from_dict(json.loads(json.dumps(fitted.to_dict()))) == fitted

    def test_none_leaves_0_to_1(self, noise: Noise) -> None:
        part = noise(9, 9, channels=3).part()
        images, _ = ResidentImages.of(part, CPU).batch(torch.arange(18))
        normalised = Preprocessing.of(part, InputConfig(normalise="none")).normalise(images)
        assert torch.equal(normalised, images)

    def test_half_brings_them_to_minus_1_to_1(self, noise: Noise) -> None:
        fitted = Preprocessing.of(noise(9, 9).part(), InputConfig(normalise="half"))
        ends = torch.tensor([0.0, 0.5, 1.0]).view(1, 1, 1, 3)
        assert fitted.normalise(ends).flatten().tolist() == [-1.0, 0.0, 1.0]

    def test_imagenet_is_what_torchvision_says(self, noise: Noise) -> None:
        from torchvision.transforms._presets import ImageClassification

        published = ImageClassification(crop_size=4)
        config = InputConfig(normalise="imagenet")
        fitted = Preprocessing.of(noise(9, 9, channels=3).part(), config)
        assert (list(fitted.mean), list(fitted.std)) == (published.mean, published.std)
        gray = Preprocessing.of(noise(9, 9).part(), config)
        assert gray.mean == pytest.approx([np.mean(published.mean)])
        assert gray.std == pytest.approx([np.mean(published.std)])

    def test_dataset_of_repeated_gray_is_that_of_gray(self, noise: Noise) -> None:
        part = noise(9, 9).part()
        gray, repeated = (Preprocessing.of(part, InputConfig(channels=c)) for c in (0, 3))
        assert (repeated.mean, repeated.std) == (gray.mean * 3, gray.std * 3)

    def test_given_values_are_taken(self, noise: Noise) -> None:
        config = InputConfig(normalise="given", mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0))
        fitted = Preprocessing.of(noise(9, 9, channels=3).part(), config)
        assert (fitted.mean, fitted.std) == (config.mean, config.std)
        with pytest.raises(ConfigError, match=r"3 values.* 1 channel"):
            Preprocessing.of(noise(9, 9).part(), config)
        repeated = Preprocessing.of(noise(9, 9).part(), dataclasses.replace(config, channels=3))
        assert repeated.mean == config.mean

    def test_an_unknown_name_lists_those_there_are(self, noise: Noise) -> None:
        with pytest.raises(ConfigError, match=r"'zca'.*none, half, dataset, imagenet, given"):
            Preprocessing.of(noise(9, 9).part(), InputConfig(normalise="zca"))


class TestGrayForColours:
    @given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 5))
    def test_it_is_what_repeated_images_give(self, seed: int, height: int, width: int) -> None:
        random = torch.Generator().manual_seed(seed)
        gray = torch.rand(3, height, width, 1, generator=random).permute(0, 3, 1, 2)
        mean, std = torch.rand(2, 3, generator=random).add(0.1).tolist()
        preprocessing = Preprocessing(
            height=height, width=width, channels=3, mean=tuple(mean), std=tuple(std)
        )
        found = preprocessing.normalise(gray)
        repeated = gray.repeat(1, 3, 1, 1).contiguous(memory_format=torch.channels_last)
        assert torch.equal(found, preprocessing.normalise(repeated))
        assert found.shape == (3, 3, height, width)
        assert found.is_contiguous(memory_format=torch.channels_last)


class TestInputShape:
    @pytest.mark.parametrize(
        ("config", "shape", "expected"),
        [
            (InputConfig(), (5, 6, 1), (5, 6, 1)),
            (InputConfig(), (5, 6, 3), (5, 6, 3)),
            (InputConfig(channels=3), (5, 6, 1), (5, 6, 3)),
            (InputConfig(channels=3), (5, 6, 3), (5, 6, 3)),
            (InputConfig(channels=1), (5, 6, 1), (5, 6, 1)),
            (InputConfig(size=(7, 9)), (5, 6, 3), (7, 9, 3)),
            (InputConfig(size=(7, 9), resize=(8, 11)), (5, 6, 1), (7, 9, 1)),
        ],
    )
    def test_it_is_that_of_the_preprocessing(
        self,
        noise: Noise,
        config: InputConfig,
        shape: tuple[int, int, int],
        expected: tuple[int, int, int],
    ) -> None:
        height, width, channels = shape
        data = noise(3, 3, height=height, width=width, channels=channels)
        assert input_shape(config, ImageShape(*shape)) == ImageShape(*expected)
        assert Preprocessing.of(data.part(), config).shape == ImageShape(*expected)

    def test_colours_do_not_become_gray(self, noise: Noise) -> None:
        with pytest.raises(ConfigError, match=r"1 channel, but the images have 3.*--gray"):
            input_shape(InputConfig(channels=1), ImageShape(5, 5, 3))
        with pytest.raises(ConfigError, match="1 channel"):
            Preprocessing.of(noise(3, 3, channels=3).part(), InputConfig(channels=1))


class TestJson:
    def test_json_gives_it_back_to_the_last_digit(self, tiny_digits: ResidentData) -> None:
        original = tiny_digits.preprocessing
        assert Preprocessing.from_dict(json.loads(json.dumps(original.to_dict()))) == original
        assert original.shape == ImageShape(8, 8, 1)
        cut = dataclasses.replace(original, resize=(9, 10))
        assert Preprocessing.from_dict(json.loads(json.dumps(cut.to_dict()))) == cut

    def test_what_was_written_before_there_were_crops_is_read(self) -> None:
        old = {"height": 8, "width": 9, "channels": 1, "mean": [0.25], "std": [0.5]}
        read = Preprocessing.from_dict(old)
        assert (read.full_size, read.crop, read.mean) == ((8, 9), None, (0.25,))


class TestCutCentre:
    @given(st.tuples(*[st.integers(1, 12)] * 4))
    def test_it_is_what_torchvision_cuts(self, sides: tuple[int, int, int, int]) -> None:
        height, width, more_height, more_width = sides
        full = torch.arange((height + more_height) * (width + more_width), dtype=torch.int32)
        images = full.view(1, height + more_height, width + more_width, 1)
        expected = center_crop(images.permute(0, 3, 1, 2), [height, width]).permute(0, 2, 3, 1)
        assert torch.equal(cut_centre(images, (height, width)), expected)

    def test_the_whole_image_is_its_own_centre(self) -> None:
        images = torch.rand(2, 4, 5, 3)
        assert torch.equal(cut_centre(images, (4, 5)), images)

    def test_a_preprocessing_knows_its_sizes(self, noise: Noise) -> None:
        part = noise(3, 3, height=8, width=9).part()
        plain, sized, cut = (
            Preprocessing.of(part, InputConfig(**sizes))
            for sizes in ({}, {"size": (4, 5)}, {"size": (4, 5), "resize": (6, 7)})
        )
        assert (plain.full_size, plain.crop) == ((8, 9), None)
        assert (sized.full_size, sized.crop) == ((4, 5), None)
        assert (cut.full_size, cut.crop) == ((6, 7), (4, 5))


def test_a_resized_part_keeps_its_rows_and_fingerprint(noise: Noise) -> None:
    data = noise(5, 5, height=8, width=8)
    part = data.part(np.array([7, 2, 3]))
    assert resized_part(part, (8, 8)) is part
    small = resized_part(part, (4, 6))
    assert small.shape == ImageShape(4, 6, 1)
    assert small.rows.tolist() == [7, 2, 3]
    assert small.labels.tolist() == part.labels.tolist()
    np.testing.assert_array_equal(small.images, resized(data, (4, 6)).images[[7, 2, 3]])
