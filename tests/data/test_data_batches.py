from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms.v2.functional import center_crop

from hpsearch.config import InputConfig, TrainConfig
from hpsearch.data.augment import AUGMENTATIONS, augment_batch
from hpsearch.data.batches import (
    TrainBatch,
    epoch_size,
    eval_batches,
    steps_per_epoch,
    train_batches,
)
from hpsearch.data.dataset import ImageDataset
from hpsearch.data.preprocessing import Preprocessing
from hpsearch.data.resident import ResidentData, ResidentImages
from hpsearch.data.splits import DevelopmentData
from hpsearch.data.views import DataViews

CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def config(batch_size: int = 16, **changes: Any) -> TrainConfig:
    return TrainConfig(family="logistic", batch_size=batch_size, **changes)


def numbered(n: int, labels: np.ndarray | None = None) -> ResidentData:
    """RGB images that tell their row number by their pixels; labels 0, 1, 2, 0, 1, ..."""
    images = np.zeros((n, 2, 3, 3), np.uint8)
    images[..., 0] = (np.arange(n) % 256)[:, np.newaxis, np.newaxis]
    images[..., 1] = (np.arange(n) // 256)[:, np.newaxis, np.newaxis]
    labels = np.arange(n, dtype=np.int64) % 3 if labels is None else labels
    classes = tuple("abcdefgh")
    data = ImageDataset("numbered", images, labels, classes)
    images = ResidentImages.of(data.part(), CPU)
    return ResidentData(images, images, classes, Preprocessing.of(data.part()))


def pixels(batch: Tensor, preprocessing: Preprocessing) -> Tensor:
    """The uint8 NCHW images that a batch was made of."""
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    return ((batch * std + mean) * 255).round().to(torch.uint8)


def rows(batch: Tensor, preprocessing: Preprocessing) -> list[int]:
    first = pixels(batch, preprocessing)[:, :, 0, 0].to(torch.int64)
    return (first[:, 0] + 256 * first[:, 1]).tolist()


def epoch(data: ResidentData, config: TrainConfig, seed: int = 0) -> tuple[list[int], list[int]]:
    """The row numbers that an epoch shows, in order, and the sizes of its batches."""
    batches = list(train_batches(data, config, generator(seed)))
    for batch in batches:
        shown = rows(batch.images, data.preprocessing)
        assert batch.labels.tolist() == data.train.labels[shown].tolist()
    seen = [row for batch in batches for row in rows(batch.images, data.preprocessing)]
    return seen, [len(batch.labels) for batch in batches]


def images_of(data: ResidentData, config: TrainConfig, running: torch.Generator) -> Tensor:
    return torch.cat([batch.images for batch in train_batches(data, config, running)])


class TestTrainBatches:
    @settings(max_examples=60)
    @given(
        st.integers(1, 300), st.integers(1, 320), st.integers(1, 4), st.booleans(), st.integers(0)
    )
    def test_an_epoch_is_shared_out_evenly(
        self, n: int, batch_size: int, repeat: int, balanced: bool, seed: int
    ) -> None:
        data = numbered(n)
        asked = config(batch_size, repeat=repeat, balance="sampling" if balanced else "none")
        seen, sizes = epoch(data, asked, seed % 2**63)
        assert len(seen) == epoch_size(data, asked) == n * repeat
        assert len(sizes) == steps_per_epoch(n * repeat, batch_size)
        assert max(sizes) <= batch_size
        assert max(sizes) - min(sizes) <= 1

    @settings(max_examples=30)
    @given(st.integers(1, 200), st.integers(1, 5), st.integers(0, 5))
    def test_each_image_comes_as_often_as_it_is_repeated(
        self, n: int, repeat: int, seed: int
    ) -> None:
        seen, _ = epoch(numbered(n), config(repeat=repeat), seed)
        assert sorted(seen) == sorted(list(range(n)) * repeat)

    def test_repetitions_are_spread_over_the_epoch(self) -> None:
        data = numbered(40)
        seen, _ = epoch(data, config(repeat=3))
        passes = [seen[start : start + 40] for start in range(0, 120, 40)]
        assert [sorted(shown) for shown in passes] == [list(range(40))] * 3
        assert len({tuple(shown) for shown in passes}) == 3

    def test_each_repetition_is_augmented_anew(self) -> None:
        data = numbered(200)
        last = data.train.at(torch.tensor([199]))
        bright = ResidentData(last, last, data.classes, data.preprocessing)
        augmented = images_of(bright, config(repeat=8, augment={"brightness": 0.2}), generator())
        assert len(augmented.flatten(1).unique(dim=0)) == 8

    @pytest.mark.parametrize(
        ("n", "batch_size", "steps"), [(1, 1, 1), (64, 64, 1), (65, 64, 2), (128, 64, 2), (3, 9, 1)]
    )
    def test_steps_per_epoch(self, n: int, batch_size: int, steps: int) -> None:
        assert steps_per_epoch(n, batch_size) == steps

    @pytest.mark.parametrize("changes", [{}, {"repeat": 2}, {"balance": "sampling"}])
    def test_the_generator_decides_the_order(self, changes: dict[str, Any]) -> None:
        data = numbered(50)
        first, again, other = (
            images_of(data, config(**changes), generator(seed)) for seed in (1, 1, 2)
        )
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        assert rows(first, data.preprocessing)[:50] != list(range(50))

    @pytest.mark.parametrize("changes", [{}, {"balance": "sampling"}])
    def test_one_generator_gives_each_epoch_another_order(self, changes: dict[str, Any]) -> None:
        data, running = numbered(50), generator()
        epochs = [images_of(data, config(**changes), running) for _ in range(2)]
        assert not torch.equal(*epochs)

    @pytest.mark.parametrize("augment", [{}, {"rotate": 20.0, "contrast": 0.2}, {"mixup": 0.4}])
    @pytest.mark.parametrize("balance", ["none", "sampling"])
    def test_shape_type_and_memory_format(self, augment: dict[str, float], balance: str) -> None:
        asked = config(5, augment=augment, balance=balance)
        for batch in train_batches(numbered(10), asked, generator()):
            assert batch.images.shape == (5, 3, 2, 3)
            assert batch.images.dtype == torch.float32
            assert batch.images.is_contiguous(memory_format=torch.channels_last)
            assert batch.labels.shape == (5,)
            assert batch.labels.dtype == torch.int64

    def test_augmented_batches_leave_the_resident_images_as_they_are(
        self, tiny_digits: ResidentData
    ) -> None:
        before = tiny_digits.train.pixels.clone()
        plain, augmented = (
            images_of(tiny_digits, config(64, augment=augment), generator())
            for augment in ({}, {"rotate": 20.0, "brightness": 0.4, "cutmix": 0.5})
        )
        assert torch.equal(tiny_digits.train.pixels, before)
        assert not torch.allclose(plain, augmented, atol=0.1)

    @pytest.mark.parametrize(
        "augment", [{}, {"rotate": 12.0, "translate": 0.1, "scale": 0.2, "hflip": 0.5}]
    )
    def test_without_extras_the_draws_are_those_of_a_plain_loop(
        self, tiny_digits: ResidentData, augment: Mapping[str, float]
    ) -> None:
        """Nothing but this order of draws repeats old trainings."""
        found = train_batches(tiny_digits, config(48, augment=augment), generator(7))
        random = generator(7)
        train, preprocessing = tiny_digits.train, tiny_digits.preprocessing
        order = torch.randperm(len(train), generator=random)
        parts = order.tensor_split(-(-len(train) // 48))
        for batch, indices in zip(found, parts, strict=True):
            images = train.pixels[train.rows[indices]].permute(0, 3, 1, 2).float() / 255.0
            images = augment_batch(images, augment, random)
            mean, std = (
                torch.tensor(values).view(1, 1, 1, 1)
                for values in (preprocessing.mean, preprocessing.std)
            )
            torch.testing.assert_close(batch.images, (images - mean) / std, atol=1e-6, rtol=1e-6)
            assert torch.equal(batch.labels, train.labels[indices])
            assert batch.other is batch.share is None


@st.composite
def unequal_labels(draw: st.DrawFn) -> np.ndarray:
    """Labels of up to 6 classes, some of which may have no image."""
    counts = draw(st.lists(st.integers(0, 40), min_size=2, max_size=6).filter(any))
    labels = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    return np.random.default_rng(draw(st.integers(0, 99))).permutation(labels)


class TestBalancedSampling:
    @settings(max_examples=80)
    @given(unequal_labels(), st.integers(1, 3), st.integers(0, 5))
    def test_classes_come_equally_often_and_images_without_replacement(
        self, labels: np.ndarray, repeat: int, seed: int
    ) -> None:
        data = numbered(len(labels), labels)
        seen, _ = epoch(data, config(repeat=repeat, balance="sampling"), seed)
        times = np.bincount(seen, minlength=len(labels))
        by_class = [times[labels == label] for label in np.unique(labels)]
        drawn = [int(own.sum()) for own in by_class]
        assert sum(drawn) == len(labels) * repeat
        assert max(drawn) - min(drawn) <= 1
        for own in by_class:
            assert own.max() - own.min() <= 1

    def test_the_order_does_not_tell_the_class(self) -> None:
        labels = np.repeat(np.arange(3, dtype=np.int64), (500, 60, 40))
        seen, _ = epoch(numbered(600, labels), config(balance="sampling"))
        for start in range(0, 600, 200):
            third = np.bincount(labels[seen[start : start + 200]], minlength=3)
            assert third.min() > 40
        # Nor does the place in the data tell the place in the epoch.
        assert abs(np.corrcoef(seen, np.arange(600))[0, 1]) < 0.15

    def test_other_images_of_a_large_class_come_in_other_epochs(self) -> None:
        data, running = numbered(60, np.repeat(np.arange(2), (50, 10))), generator()
        asked = config(balance="sampling")
        shown = [set(rows(images_of(data, asked, running), data.preprocessing)) for _ in range(4)]
        large = [seen & set(range(50)) for seen in shown]
        assert [len(seen) for seen in large] == [30] * 4
        assert len(set.union(*large)) > 40

    def test_what_is_left_over_goes_to_classes_by_chance(self) -> None:
        data = numbered(10)  # 4, 3 and 3 images of three classes
        extra: collections.Counter[int] = collections.Counter()
        for seed in range(60):
            seen, _ = epoch(data, config(balance="sampling"), seed)
            extra[int(np.bincount(np.array(seen) % 3).argmax())] += 1
        assert min(extra[label] for label in range(3)) > 8

    def test_weights_do_not_change_the_draws(self) -> None:
        data = numbered(30, np.repeat(np.arange(2), (25, 5)))
        plain, weights = (epoch(data, config(balance=balance)) for balance in ("none", "weights"))
        assert plain == weights


class TestCrop:
    @settings(max_examples=30)
    @given(st.tuples(*[st.integers(1, 6)] * 4), st.integers(0, 99))
    def test_both_kinds_of_batches_are_cut_as_by_torchvision(
        self, sides: tuple[int, int, int, int], seed: int
    ) -> None:
        height, width, more_height, more_width = sides
        shape = (12, height + more_height, width + more_width, 3)
        images = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
        data = ImageDataset("noise", images, np.arange(12) % 2, ("a", "b"))
        asked = config(5, input=InputConfig(size=(height, width), resize=shape[1:3]))
        parts = DevelopmentData(train=data.part(), val=data.part())
        view = DataViews.of(parts, CPU).view(asked)
        expected = center_crop(torch.from_numpy(images).permute(0, 3, 1, 2), [height, width])

        found = list(eval_batches(view.val, view.preprocessing, 5))
        assert torch.equal(pixels(torch.cat([b for b, _ in found]), view.preprocessing), expected)
        order = torch.randperm(12, generator=generator(3))
        trained = list(train_batches(view, asked, generator(3)))
        together = torch.cat([batch.images for batch in trained])
        assert torch.equal(pixels(together, view.preprocessing), expected[order])
        for batch in [found[0][0], trained[0].images]:
            assert batch.is_contiguous(memory_format=torch.channels_last)
            assert batch.shape[1:] == (3, height, width)

    def test_what_turns_into_the_crop_comes_from_around_it(self) -> None:
        """White images with a crop: turned ones have no black corners."""
        images = np.full((6, 20, 20, 1), 255, np.uint8)
        data = ImageDataset("white", images, np.arange(6) % 2, ("a", "b"))
        parts = DevelopmentData(train=data.part(), val=data.part())
        size = InputConfig(size=(10, 10), resize=(20, 20), normalise="none")
        for augment in ({"rotate": 180.0}, {"translate": 0.2}):
            asked = config(input=size, augment=augment)
            turned = images_of(DataViews.of(parts, CPU).view(asked), asked, generator())
            assert turned.min().item() > 0.99


class TestMixing:
    def mixed(self, augment: Mapping[str, float]) -> tuple[ResidentData, list[TrainBatch]]:
        data = numbered(48)
        asked = config(16, augment=augment)
        return data, list(train_batches(data, asked, generator()))

    @pytest.mark.parametrize("name", ["mixup", "cutmix"])
    def test_labels_and_shares_say_what_is_in_the_images(self, name: str) -> None:
        """Each image of a class is one level of gray, from which its make-up can be read."""
        images = np.zeros((60, 8, 8, 1), np.uint8)
        labels = np.arange(60, dtype=np.int64) % 3
        images[:] = np.array([0, 100, 255], np.uint8)[labels][:, None, None, None]
        data = ImageDataset("levels", images, labels, ("a", "b", "c"))
        parts = DevelopmentData(train=data.part(), val=data.part())
        asked = config(20, augment={name: 1.0}, input=InputConfig(normalise="dataset"))
        view = DataViews.of(parts, CPU).view(asked)
        mixed = 0
        for batch in train_batches(view, asked, generator()):
            assert batch.other is not None
            assert batch.share is not None
            level = torch.tensor([0.0, 100 / 255, 1.0])
            expected = batch.share * level[batch.labels] + (1 - batch.share) * level[batch.other]
            normalised = (expected - view.preprocessing.mean[0]) / view.preprocessing.std[0]
            torch.testing.assert_close(
                batch.images.mean(dim=(1, 2, 3)), normalised, atol=1e-4, rtol=0
            )
            assert batch.other.shape == batch.labels.shape == batch.share.shape
            mixed += int(((batch.share < 1) & (batch.labels != batch.other)).sum())
        assert mixed > 10

    def test_without_mixing_there_is_no_other(self) -> None:
        _, batches = self.mixed({"mixup": 0.0})
        assert all(batch.other is None and batch.share is None for batch in batches)


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


class Waits(TorchDispatchMode):
    """Records the operations for which the CPU would wait for a GPU."""

    NAMES = (
        "aten._local_scalar_dense",
        "aten.bincount",
        "aten.equal",
        "aten.is_nonzero",
        "aten.lift_fresh",  # torch.tensor
        "aten.masked_select",
        "aten.nonzero",
        "aten.repeat_interleave.Tensor",
        "aten._unique2",
    )

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        by_mask = str(func).startswith("aten.index") and any(
            isinstance(index, Tensor) and index.dtype == torch.bool
            for indices in args
            if isinstance(indices, list | tuple)
            for index in indices
        )
        if by_mask or str(func).startswith(self.NAMES):
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


class TestWaits:
    @pytest.fixture(autouse=True)
    def _as_on_a_device(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def raw_batch(images: ResidentImages, indices: Tensor) -> Tensor:
            return images.pixels.index_select(0, images.rows[indices])

        monkeypatch.setattr(ResidentImages, "raw_batch", raw_batch)

    @pytest.mark.parametrize(
        "wait",
        [
            lambda t: t.sum().item(),
            lambda t: t[t > 1],
            lambda t: t.nonzero(),
            lambda t: torch.tensor([1.0, 2.0]),
            lambda t: t.repeat_interleave(t),
            lambda t: bool((t > 1).any()),
            lambda t: t.masked_select(t > 1),
        ],
    )
    def test_a_wait_is_noticed(self, wait: Any) -> None:
        with Waits() as waits:
            wait(torch.arange(3))
        assert waits.found

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("resize", [(), (12, 14)])
    @pytest.mark.parametrize(
        "augment",
        [
            {},
            *({row.name: row.good} for row in AUGMENTATIONS),
            {row.name: row.good for row in AUGMENTATIONS},
        ],
        ids="+".join,
    )
    def test_no_batch_but_the_first_waits_for_a_device(
        self, noise: Any, augment: dict[str, float], resize: tuple[int, ...], channels: int
    ) -> None:
        data = noise(12, 12, height=10, width=11, channels=channels)
        parts = DevelopmentData(train=data.part(), val=data.part())
        size = InputConfig(size=(8, 9), resize=resize, channels=3)
        asked = config(4, augment=augment, input=size)
        view = DataViews.of(parts, CPU).view(asked)
        for found in (
            train_batches(view, asked, generator()),
            eval_batches(view.val, view.preprocessing, 4),
        ):
            next(found)
            with Waits() as waits:
                assert len(list(found)) == 5
            assert waits.found == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("balance", ["none", "sampling"])
def test_on_a_gpu_an_epoch_is_the_same_every_time(digits: ImageDataset, balance: str) -> None:
    cuda = torch.device("cuda")
    parts = DevelopmentData(train=digits.part(np.arange(300)), val=digits.part(np.arange(300, 400)))
    asked = config(32, repeat=2, balance=balance, augment={"rotate": 10.0})
    view = DataViews.of(parts, cuda).view(asked)
    first, again = (
        list(train_batches(view, asked, torch.Generator(cuda).manual_seed(1))) for _ in range(2)
    )
    assert sum(len(batch.labels) for batch in first) == 600
    for one, other in zip(first, again, strict=True):
        assert one.images.device.type == one.labels.device.type == "cuda"
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
    counts = torch.cat([batch.labels for batch in first]).bincount()
    if balance == "sampling":
        assert counts.tolist() == [60] * 10
