from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from few import subset
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hpsearch.config import InputConfig, TrainConfig
from hpsearch.data import views
from hpsearch.data.batches import eval_batches, train_batches
from hpsearch.data.dataset import ImageDataset, ImageShape
from hpsearch.data.preprocessing import Preprocessing
from hpsearch.data.resident import ResidentImages
from hpsearch.data.spec import DataSpec
from hpsearch.data.splits import DevelopmentData, SplitSpec, development_data, make_split
from hpsearch.data.store import load_dataset, resized
from hpsearch.data.views import SIZES_KEPT, DataViews, subset_positions
from hpsearch.errors import ConfigError, InfeasibleError

CPU = torch.device("cpu")
META = torch.device("meta")  # stands for a device with a memory of its own
Noise = Callable[..., ImageDataset]


def config(**changes: Any) -> TrainConfig:
    return TrainConfig(family="logistic", **changes)


def sized(*size: int, resize: tuple[int, ...] = ()) -> TrainConfig:
    return config(input=InputConfig(size=size, resize=resize))


def parts_of(data: ImageDataset) -> DevelopmentData:
    return development_data(data, make_split(data, SplitSpec()))


def images_of(images: ResidentImages) -> torch.Tensor:
    return images.raw_batch(torch.arange(len(images)))


@pytest.fixture
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageDataset:
    """A data set of pictures, 16x12 pixels, in a store of its own."""
    monkeypatch.setenv("HPSEARCH_CACHE", str(tmp_path / "cache"))
    random = np.random.default_rng(0)
    for number in range(40):
        path = tmp_path / "pets" / ("cat", "dog")[number % 2] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (20, 17, 3), dtype=np.uint8)).save(path)
    return load_dataset(DataSpec(source=str(tmp_path / "pets"), size=(16, 12)))


class TestDefault:
    def test_it_is_what_was_there_before(self, digits: ImageDataset) -> None:
        parts = parts_of(digits)
        view = DataViews.of(parts, CPU).view(config())
        assert view.preprocessing == Preprocessing.of(parts.train)
        assert view.classes == digits.classes
        for found, part in ((view.train, parts.train), (view.val, parts.val)):
            expected = ResidentImages.mapped(part, CPU)
            assert found.pixels.data_ptr() == expected.pixels.data_ptr()
            assert torch.equal(found.rows, expected.rows)
            assert torch.equal(found.labels, expected.labels)

    def test_shape_and_classes_are_those_of_the_data(self, noise: Noise) -> None:
        data = noise(9, 9, height=5, width=6)
        held = DataViews.of(DevelopmentData(train=data.part(), val=data.part()), CPU)
        assert held.shape == ImageShape(5, 6, 1)
        assert held.classes == data.classes

    @pytest.mark.parametrize(
        "asked", [sized(8, 8), config(train_images=1077), config(train_images=9999)]
    )
    def test_what_there_is_anyway_is_the_default(
        self, digits: ImageDataset, asked: TrainConfig
    ) -> None:
        held = DataViews.of(parts_of(digits), CPU)
        default, view = held.view(config()), held.view(asked)
        assert view.preprocessing == default.preprocessing
        assert view.train is default.train
        assert view.val is default.val


class TestSizes:
    def test_images_are_those_of_the_stored_copy(self, pets: ImageDataset) -> None:
        parts = parts_of(pets)
        view = DataViews.of(parts, CPU).view(sized(6, 7))
        copy = resized(pets, (6, 7))
        assert isinstance(copy.images, np.memmap)
        assert view.preprocessing.shape == ImageShape(6, 7, 3)
        for found, part in ((view.train, parts.train), (view.val, parts.val)):
            assert torch.equal(images_of(found), torch.tensor(copy.images[part.rows]))
            assert found.labels.tolist() == part.labels.tolist()
        pixels = copy.images[parts.train.rows] / 255.0
        assert view.preprocessing.mean == pytest.approx(pixels.mean(axis=(0, 1, 2)), rel=1e-9)
        assert view.preprocessing.std == pytest.approx(pixels.std(axis=(0, 1, 2)), rel=1e-6)

    def test_the_copy_is_made_once_and_watched(self, pets: ImageDataset) -> None:
        said: list[str] = []
        held = DataViews.of(parts_of(pets), CPU, watch=lambda at: said.append(at.what))
        held.view(config())
        assert said == []
        held.view(sized(6, 7))
        assert said
        said.clear()
        held.view(sized(5, 5, resize=(6, 7)))
        DataViews.of(parts_of(pets), CPU, watch=lambda at: said.append(at.what)).view(sized(6, 7))
        assert said == []
        assert pets.folder is not None
        assert len(list(pets.folder.glob("6x7*.u8"))) == 1

    def test_data_in_memory_is_copied_once(self, digits: ImageDataset) -> None:
        view = DataViews.of(parts_of(digits), CPU).view(sized(6, 7))
        assert view.train.pixels.data_ptr() == view.val.pixels.data_ptr()
        assert torch.equal(
            images_of(view.val), torch.tensor(resized(digits, (6, 7)).images)[view.val.rows]
        )

    def test_parts_may_be_of_two_data_sets(self, noise: Noise) -> None:
        train, val = noise(9, 9, seed=0), noise(9, 9, seed=1)
        parts = DevelopmentData(train=train.part(), val=val.part())
        view = DataViews.of(parts, CPU).view(sized(3, 2))
        for found, data in ((view.train, train), (view.val, val)):
            assert torch.equal(images_of(found), torch.tensor(resized(data, (3, 2)).images))

    def test_a_crop_is_cut_out_of_the_resized_images(self, pets: ImageDataset) -> None:
        parts = parts_of(pets)
        view = DataViews.of(parts, CPU).view(sized(4, 6, resize=(8, 9)))
        assert view.preprocessing.shape == ImageShape(4, 6, 3)
        assert view.preprocessing.full_size == (8, 9)
        assert view.val.pixels.shape[1:] == (8, 9, 3)
        ((images, _),) = eval_batches(view.val, view.preprocessing, 512)
        # (9 - 6) / 2 is rounded to the even 2, as by torchvision.
        cut = resized(pets, (8, 9)).images[parts.val.rows, 2:6, 2:8] / 255.0
        expected = (cut - view.preprocessing.mean) / view.preprocessing.std
        np.testing.assert_allclose(images.permute(0, 2, 3, 1).numpy(), expected, atol=1e-5)

    def test_gray_images_become_three_channels_in_batches(self, digits: ImageDataset) -> None:
        held = DataViews.of(parts_of(digits), CPU)
        asked = config(input=InputConfig(channels=3, normalise="imagenet"))
        view = held.view(asked)
        assert view.preprocessing.shape == ImageShape(8, 8, 3)
        assert view.train is held.view(config()).train
        ((images, _),) = eval_batches(view.val, view.preprocessing, 512)
        batch = next(iter(train_batches(view, asked, torch.Generator())))
        assert images.shape[1:] == batch.images.shape[1:] == (3, 8, 8)

    def test_colours_for_a_gray_input_are_refused_before_a_copy_is_made(
        self, pets: ImageDataset
    ) -> None:
        asked = config(input=InputConfig(size=(5, 5), channels=1))
        with pytest.raises(ConfigError, match="1 channel"):
            DataViews.of(parts_of(pets), CPU).view(asked)
        assert pets.folder is not None
        assert not list(pets.folder.glob("5x5*"))

    def test_no_test_image_is_in_what_a_view_can_give(self, pets: ImageDataset) -> None:
        split = make_split(pets, SplitSpec())
        sealed = set(split.membership(len(pets)).nonzero()[0]) - set(split.val.tolist())
        assert sealed
        for asked in (config(), sized(6, 7), config(train_images=9)):
            view = DataViews.of(development_data(pets, split), CPU).view(asked)
            given_rows = {*view.train.rows.tolist(), *view.val.rows.tolist()}
            assert not given_rows & sealed
            # Nor is one copied to a device of its own.
            view = DataViews.of(development_data(pets, split), META).view(asked)
            assert len(view.train.pixels) == len(split.train)
            assert len(view.val.pixels) == len(split.val)


class TestSharing:
    def test_trials_share_the_images(self, digits: ImageDataset) -> None:
        held = DataViews.of(parts_of(digits), META)
        one, other, few = (
            held.view(asked)
            for asked in (
                sized(5, 5),
                config(input=InputConfig(size=(4, 4), resize=(5, 5), normalise="half")),
                config(input=InputConfig(size=(5, 5)), train_images=50),
            )
        )
        assert one.train.pixels is other.train.pixels is few.train.pixels
        assert one.val is other.val is few.val
        assert one.train.pixels.device.type == "meta"
        assert held.view(sized(6, 6)).train.pixels is not one.train.pixels

    @pytest.mark.parametrize("device", [CPU, META])
    def test_the_size_that_was_not_used_for_longest_is_dropped(
        self, digits: ImageDataset, device: torch.device
    ) -> None:
        few = subset(digits, np.arange(100))
        held = DataViews.of(DevelopmentData(train=few.part(), val=few.part()), device)
        sizes = range(2, 2 + SIZES_KEPT)
        first = {side: held.view(sized(side, side)).train for side in sizes}
        assert held.view(sized(2, 2)).train is first[2]
        held.view(sized(9, 9))  # one too many: 3 goes, for 2 was used a moment ago
        assert held.view(sized(2, 2)).train is first[2]
        assert held.view(sized(4, 4)).train is first[4]
        assert held.view(sized(3, 3)).train is not first[3]

    def test_images_leave_half_of_the_memory_to_the_training(
        self, noise: Noise, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Sizes are kept beside each other as long as they fit, whatever the training holds."""
        data = noise(5, 5, height=10, width=10)
        held = DataViews.of(DevelopmentData(train=data.part(), val=data.part()), META)
        total = 10_000

        def free(_: torch.device) -> int:
            return total - sum(kept.held for kept in held._kept.values())

        monkeypatch.setattr(views, "free_bytes", free)
        own, small, third = (held.view(sized(side, side)).train for side in (10, 8, 5))
        assert total / 2 > 2 * 10 * (100 + 64 + 25)
        assert held.view(config()).train is own
        assert held.view(sized(8, 8)).train is small
        # 2 * 10 * 64 more bytes do not fit: 5 goes, which is not enough, then 10.
        wide = held.view(sized(16, 8)).train
        assert wide.pixels.device.type == "meta"
        assert held.view(sized(8, 8)).train is small
        assert held.view(sized(16, 8)).train is wide
        assert held.view(sized(5, 5)).train is not third
        # What can never fit stays where it is, and drops nothing.
        large = held.view(sized(16, 16)).train
        assert large.pixels.device.type == "cpu"
        assert large.labels.device.type == "meta"
        assert held.view(sized(8, 8)).train is small
        assert held.view(sized(16, 16)).train is large
        # And it takes nothing from the others.
        assert held.view(sized(4, 4)).train.pixels.device.type == "meta"
        assert held.view(sized(8, 8)).train is small


class TestTrainImages:
    def test_a_view_has_as_many_as_asked(self, digits: ImageDataset) -> None:
        parts = parts_of(digits)
        held = DataViews.of(parts, CPU)
        view = held.view(config(train_images=100))
        assert len(view.train) == 100
        assert view.val is held.view(config()).val
        rows = view.train.rows.numpy()
        assert set(rows) < set(parts.train.rows)
        assert view.train.labels.tolist() == digits.labels[rows].tolist()
        # Whatever is computed from training images knows no others.
        assert view.class_counts.tolist() == np.bincount(digits.labels[rows]).tolist()
        assert view.preprocessing == Preprocessing.of(digits.part(rows))
        assert view.preprocessing != held.view(config()).preprocessing

    def test_a_device_gives_the_images_of_the_cpu(self, digits: ImageDataset) -> None:
        """Where the pixels are copied, other rows stand for the same images."""
        parts = parts_of(digits)
        on_cpu = DataViews.of(parts, CPU).view(config(train_images=70)).train
        on_device = DataViews.of(parts, META).view(config(train_images=70)).train
        assert on_device.rows.shape == on_cpu.rows.shape
        positions = subset_positions(parts.train.labels, 70)
        assert on_cpu.rows.tolist() == parts.train.rows[positions].tolist()
        copied = ResidentImages.copied(parts.train, CPU).at(torch.from_numpy(positions))
        assert torch.equal(images_of(copied), images_of(on_cpu))

    def test_the_trial_s_seed_has_no_say(self, digits: ImageDataset) -> None:
        held = DataViews.of(parts_of(digits), CPU)
        one, other = (held.view(config(train_images=64, seed=seed)).train for seed in (0, 1))
        assert torch.equal(one.rows, other.rows)

    def test_the_same_images_are_used_in_every_size(self, digits: ImageDataset) -> None:
        held = DataViews.of(parts_of(digits), CPU)
        one = held.view(config(train_images=64)).train
        other = held.view(config(train_images=64, input=InputConfig(size=(6, 6)))).train
        assert torch.equal(one.rows, other.rows)

    def test_fewer_than_classes_are_refused(self, digits: ImageDataset) -> None:
        held = DataViews.of(parts_of(digits), CPU)
        with pytest.raises(InfeasibleError, match=r"train_images 9 .*10 classes"):
            held.view(config(train_images=9))
        assert held.view(config(train_images=10)).class_counts.tolist() == [1] * 10


@st.composite
def labels_of_classes(draw: st.DrawFn) -> np.ndarray:
    counts = draw(st.lists(st.integers(0, 60), min_size=2, max_size=8).filter(any))
    labels = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
    return np.random.default_rng(draw(st.integers(0, 99))).permutation(labels)


class TestSubset:
    @settings(max_examples=100)
    @given(labels_of_classes(), st.data())
    def test_it_is_nested_and_has_every_class(
        self, labels: np.ndarray, data: st.DataObject
    ) -> None:
        classes = len(np.unique(labels))
        sizes = st.integers(classes, len(labels))
        small, large = sorted((data.draw(sizes), data.draw(sizes)))
        few, many = subset_positions(labels, small), subset_positions(labels, large)
        assert (len(few), len(many)) == (small, large)
        assert few.dtype == np.int64
        assert (np.diff(few) > 0).all()
        assert set(few) <= set(many)
        assert len(np.unique(labels[few])) == classes

    @settings(max_examples=100)
    @given(labels_of_classes(), st.data())
    def test_classes_have_their_shares(self, labels: np.ndarray, data: st.DataObject) -> None:
        counts = np.bincount(labels)
        n = data.draw(st.integers(len(np.unique(labels)), len(labels)))
        found = np.bincount(labels[subset_positions(labels, n)], minlength=len(counts))
        # For some common share every class has its share, rounded, and at least one image.
        low = (
            max((f - 0.5) / c for f, c in zip(found, counts, strict=True) if f > 1)
            if (found > 1).any()
            else 0.0
        )
        high = min(
            ((f + 0.5) / c for f, c in zip(found, counts, strict=True) if f < c), default=1.0
        )
        assert low <= high + 1e-12

    def test_equal_classes_have_equal_shares(self) -> None:
        labels = np.arange(1000, dtype=np.int64) % 10
        for n in (10, 57, 300, 999):
            found = np.bincount(labels[subset_positions(labels, n)])
            assert found.max() - found.min() <= 1

    def test_which_images_is_chance_and_stays(self) -> None:
        labels = np.arange(1000, dtype=np.int64) % 2
        found = subset_positions(labels, 200)
        assert 400 < found.mean() < 600
        assert np.diff(found).max() > 10
        # Stored studies count on these.
        assert found[:5].tolist() == [1, 5, 8, 14, 27]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_s_view_gives_the_same_images(digits: ImageDataset) -> None:
    parts = parts_of(digits)
    for asked in (
        config(),
        config(train_images=77),
        sized(6, 5, resize=(12, 9)),
        config(input=InputConfig(channels=3)),
    ):
        on_cpu, on_gpu = (DataViews.of(parts, torch.device(d)).view(asked) for d in ("cpu", "cuda"))
        assert on_gpu.train.pixels.device.type == "cuda"
        assert on_gpu.preprocessing == on_cpu.preprocessing
        assert on_gpu.class_counts.tolist() == on_cpu.class_counts.tolist()
        for one, other in ((on_cpu.train, on_gpu.train), (on_cpu.val, on_gpu.val)):
            ((expected, _), *_), ((found, _), *_) = (
                eval_batches(images, on_cpu.preprocessing, 512) for images in (one, other)
            )
            torch.testing.assert_close(found.cpu(), expected, atol=1e-5, rtol=0)
            assert found.is_contiguous(memory_format=torch.channels_last)
