from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from hpsearch.data import resident
from hpsearch.data.dataset import ImageDataset
from hpsearch.data.preprocessing import Preprocessing
from hpsearch.data.resident import ResidentData, ResidentImages, free_bytes, part_bytes

CPU = torch.device("cpu")
META = torch.device("meta")  # stands for a device with a memory of its own
Noise = Callable[..., ImageDataset]


class TestResidentImages:
    def test_on_the_cpu_images_stay_where_they_are(self, noise: Noise) -> None:
        data = noise(10, 10)
        images = ResidentImages.of(data.part(np.array([5, 3])), CPU)
        assert images.pixels.data_ptr() == data.images.ctypes.data
        assert torch.equal(images.raw_batch(torch.arange(2)), torch.tensor(data.images[[5, 3]]))

    @pytest.mark.parametrize("kind", ["mapped", "copied"])
    def test_both_kinds_give_the_same_batches(self, noise: Noise, kind: str) -> None:
        data = noise(20, 20, height=5, width=4, channels=3)
        rows = np.random.default_rng(0).permutation(40)[:25]
        images = getattr(ResidentImages, kind)(data.part(rows), CPU)
        indices = torch.tensor([24, 0, 7])
        batch, labels = images.batch(indices)
        expected = torch.tensor(data.images[rows[[24, 0, 7]]]).permute(0, 3, 1, 2) / 255.0
        assert torch.equal(batch, expected)
        assert batch.is_contiguous(memory_format=torch.channels_last)
        assert labels.tolist() == data.labels[rows[[24, 0, 7]]].tolist()

    def test_a_copy_holds_nothing_but_its_part(
        self, noise: Noise, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(resident, "CHUNK_BYTES", 50)  # some images at a time
        data = noise(10, 10)
        rows = np.array([19, 4, 4, 0, 7])
        images = ResidentImages.copied(data.part(rows), CPU)
        assert torch.equal(images.pixels, torch.tensor(data.images[rows]))

    def test_they_are_copied_where_they_leave_half_of_the_memory(
        self, noise: Noise, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        part = noise(10, 10, channels=3).part(np.arange(7))
        assert part_bytes(part) == 7 * 4 * 4 * 3
        assert part_bytes(part, part) == 2 * part_bytes(part)
        for free, copied in ((2 * part_bytes(part) + 2, True), (2 * part_bytes(part), False)):
            monkeypatch.setattr(resident, "free_bytes", lambda _, free=free: free)
            images = ResidentImages.of(part, META)
            assert images.pixels.device.type == ("meta" if copied else "cpu")
            assert images.labels.device.type == "meta"

    @pytest.mark.parametrize("kind", ["mapped", "copied"])
    def test_some_of_them_share_the_pixels(self, noise: Noise, kind: str) -> None:
        data = noise(10, 10)
        images = getattr(ResidentImages, kind)(data.part(np.arange(5, 15)), CPU)
        some = images.at(torch.tensor([9, 0, 4]))
        assert some.pixels is images.pixels
        assert len(some) == 3
        assert some.labels.tolist() == data.labels[[14, 5, 9]].tolist()
        found = some.raw_batch(torch.tensor([2, 0]))
        assert torch.equal(found, torch.tensor(data.images[[9, 14]]))
        head = images.head(3)
        assert torch.equal(head.raw_batch(torch.arange(3)), torch.tensor(data.images[5:8]))
        assert head.labels.tolist() == data.labels[5:8].tolist()

    def test_the_centre_is_cut_where_asked(self, noise: Noise) -> None:
        data = noise(4, 4, height=7, width=9)
        images = ResidentImages.of(data.part(), CPU)
        whole, _ = images.batch(torch.arange(8))
        cut, _ = images.batch(torch.arange(8), (3, 5))
        assert torch.equal(cut, whole[:, :, 2:5, 2:7])

    def test_how_much_is_free_is_known_of_cuda_only(self) -> None:
        assert free_bytes(META) == float("inf")


class TestResidentData:
    def test_classes_are_counted_in_the_training_images(self, noise: Noise) -> None:
        data = noise(20, 0, 7, 0)
        train, val = data.part(np.arange(15)), data.part(np.arange(15, 27))
        images = [ResidentImages.of(part, CPU) for part in (train, val)]
        counts = ResidentData(*images, data.classes, Preprocessing.of(train)).class_counts
        expected = np.bincount(data.labels[:15], minlength=4)
        assert counts.dtype == torch.int64
        assert counts.tolist() == expected.tolist()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", ["mapped", "copied"])
def test_a_gpu_gets_the_same_batches(noise: Noise, kind: str) -> None:
    cuda = torch.device("cuda")
    assert 0 < free_bytes(cuda) <= torch.cuda.get_device_properties(cuda).total_memory
    part = noise(30, 30, height=9, width=7, channels=3).part(np.arange(40))
    images = getattr(ResidentImages, kind)(part, cuda)
    indices = torch.tensor([3, 39, 0])
    batch, labels = images.batch(indices.to(cuda), (4, 4))
    expected, own = ResidentImages.of(part, CPU).batch(indices, (4, 4))
    assert batch.device.type == "cuda"
    assert batch.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(batch.cpu(), expected, atol=1e-6, rtol=0)
    assert torch.equal(labels.cpu(), own)
