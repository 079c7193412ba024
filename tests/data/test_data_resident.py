from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hpsearch.data.dataset import ImageDataset, ImageShape
from hpsearch.data.resident import (
    Preprocessing,
    ResidentData,
    ResidentImages,
    eval_batches,
    steps_per_epoch,
    train_batches,
)
from hpsearch.data.splits import DevelopmentData

CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(n: int) -> ResidentData:
    """RGB images that tell their row number by their pixels; labels 0, 1, 2, 0, 1, ..."""
    images = np.zeros((n, 2, 3, 3), np.uint8)
    images[..., 0] = (np.arange(n) % 256)[:, np.newaxis, np.newaxis]
    images[..., 1] = (np.arange(n) // 256)[:, np.newaxis, np.newaxis]
    data = ImageDataset("numbered", images, np.arange(n, dtype=np.int64) % 3, ("a", "b", "c"))
    return ResidentData.of(DevelopmentData(train=data.part(), val=data.part()), CPU)


def pixels(batch: Tensor, preprocessing: Preprocessing) -> Tensor:
    """The uint8 NCHW images that a batch was made of."""
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    return ((batch * std + mean) * 255).round().to(torch.uint8)


def rows(batch: Tensor, preprocessing: Preprocessing) -> list[int]:
    first = pixels(batch, preprocessing)[:, :, 0, 0].to(torch.int64)
    return (first[:, 0] + 256 * first[:, 1]).tolist()


class TestPreprocessing:
    @pytest.mark.parametrize("channels", [1, 3])
    def test_normalised_training_pixels_have_mean_0_and_deviation_1(
        self, noise: Callable[..., ImageDataset], channels: int
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

    def test_json_gives_it_back_to_the_last_digit(self, tiny_digits: ResidentData) -> None:
        original = tiny_digits.preprocessing
        assert Preprocessing.from_dict(json.loads(json.dumps(original.to_dict()))) == original
        assert original.shape == ImageShape(8, 8, 1)

    def test_it_is_that_of_the_training_images_alone(
        self, noise: Callable[..., ImageDataset]
    ) -> None:
        train, val = noise(10, 10, seed=0), noise(10, 10, seed=1)
        data = ResidentData.of(DevelopmentData(train=train.part(), val=val.part()), CPU)
        assert data.preprocessing == Preprocessing.of(train.part())
        assert data.preprocessing != Preprocessing.of(val.part())


class TestTrainBatches:
    @settings(max_examples=60)
    @given(st.integers(1, 300), st.integers(1, 320), st.integers(0, 5))
    def test_each_image_comes_once_an_epoch_in_batches_of_equal_size(
        self, n: int, batch_size: int, seed: int
    ) -> None:
        data = numbered(n)
        batches = list(train_batches(data, batch_size, {}, generator(seed)))
        sizes = [len(labels) for _, labels in batches]
        assert len(sizes) == steps_per_epoch(n, batch_size)
        assert max(sizes) <= batch_size
        assert max(sizes) - min(sizes) <= 1
        seen = [row for images, _ in batches for row in rows(images, data.preprocessing)]
        assert sorted(seen) == list(range(n))
        labels = torch.cat([labels for _, labels in batches]).tolist()
        assert labels == [row % 3 for row in seen]

    @pytest.mark.parametrize(
        ("n", "batch_size", "steps"), [(1, 1, 1), (64, 64, 1), (65, 64, 2), (128, 64, 2), (3, 9, 1)]
    )
    def test_steps_per_epoch(self, n: int, batch_size: int, steps: int) -> None:
        assert steps_per_epoch(n, batch_size) == steps

    def test_the_generator_decides_the_order(self) -> None:
        data = numbered(50)
        first, again, other = (
            torch.cat([images for images, _ in train_batches(data, 16, {}, generator(seed))])
            for seed in (1, 1, 2)
        )
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        assert rows(first, data.preprocessing) != list(range(50))

    def test_one_generator_gives_each_epoch_another_order(self) -> None:
        data, running = numbered(50), generator()
        epochs = [
            torch.cat([images for images, _ in train_batches(data, 16, {}, running)])
            for _ in range(2)
        ]
        assert not torch.equal(*epochs)

    @pytest.mark.parametrize("augment", [{}, {"rotate": 20.0, "contrast": 0.2}])
    def test_shape_type_and_memory_format(self, augment: dict[str, float]) -> None:
        for images, labels in train_batches(numbered(10), 5, augment, generator()):
            assert images.shape == (5, 3, 2, 3)
            assert images.dtype == torch.float32
            assert images.is_contiguous(memory_format=torch.channels_last)
            assert labels.shape == (5,)
            assert labels.dtype == torch.int64

    def test_augmented_batches_leave_the_resident_images_as_they_are(
        self, tiny_digits: ResidentData
    ) -> None:
        before = tiny_digits.train.pixels.clone()
        augment = {"rotate": 20.0, "brightness": 0.4}
        plain, augmented = (
            torch.cat([images for images, _ in train_batches(tiny_digits, 64, a, generator())])
            for a in ({}, augment)
        )
        assert torch.equal(tiny_digits.train.pixels, before)
        assert not torch.allclose(plain, augmented, atol=0.1)


class TestEvalBatches:
    @settings(max_examples=30)
    @given(st.integers(1, 200), st.integers(1, 220))
    def test_all_images_come_in_their_order(self, n: int, batch_size: int) -> None:
        data = numbered(n)
        batches = list(eval_batches(data.val, data.preprocessing, batch_size))
        assert max(len(labels) for _, labels in batches) <= batch_size
        images = torch.cat([images for images, _ in batches])
        assert rows(images, data.preprocessing) == list(range(n))
        assert torch.equal(torch.cat([labels for _, labels in batches]), data.val.labels)

    def test_pixels_shape_type_and_memory_format(self) -> None:
        data = numbered(10)
        ((images, labels),) = eval_batches(data.val, data.preprocessing, 512)
        assert images.dtype == torch.float32
        assert labels.dtype == torch.int64
        assert images.is_contiguous(memory_format=torch.channels_last)
        restored = pixels(images, data.preprocessing)
        assert torch.equal(restored.permute(0, 2, 3, 1), data.val.pixels)
