from __future__ import annotations

import contextlib
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.config import TrainConfig
from hpsearch.data.augment import AUGMENTATIONS
from hpsearch.data.batches import eval_batches, train_batches
from hpsearch.data.dataset import ImageDataset
from hpsearch.data.prefetch import made_ahead, prefetched
from hpsearch.data.preprocessing import Preprocessing
from hpsearch.data.resident import ResidentData, ResidentImages

CPU = torch.device("cpu")
Noise = Callable[..., ImageDataset]
AHEAD = st.integers(0, 5)

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def threads() -> list[str]:
    """The prefetching threads that are alive."""
    return [t.name for t in threading.enumerate() if t.name.startswith("hpsearch-prefetch")]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert threads() == []


class BrokenError(Exception):
    pass


class Item:
    """Something that weak references can be made to."""


class TestMadeAhead:
    @given(st.lists(st.integers(), max_size=20), AHEAD)
    def test_all_in_their_order(self, wanted: list[int], ahead: int) -> None:
        assert list(made_ahead(str, wanted, ahead=ahead)) == [str(one) for one in wanted]
        assert threads() == []

    def test_a_thread_makes_so_many_ahead_and_no_more(self) -> None:
        made: list[int] = []
        names: set[str] = set()
        enough = threading.Event()

        def make(one: int) -> int:
            names.add(threading.current_thread().name)
            made.append(one)
            if one == 3:
                enough.set()
            return one

        with contextlib.closing(made_ahead(make, range(10), ahead=3)) as found:
            assert next(found) == 0
            assert enough.wait(30)
            assert len(threads()) == 1
        # Closing has joined the thread: nothing can come any more.
        assert made == [0, 1, 2, 3]
        assert names == {"hpsearch-prefetch_0"}

    def test_none_is_made_before_the_first_is_asked_for(self) -> None:
        made: list[int] = []
        found = made_ahead(made.append, range(3))
        assert made == []
        assert threads() == []
        found.close()

    @given(st.integers(1, 12), AHEAD, st.data())
    def test_closing_early_ends_the_thread(self, n: int, ahead: int, data: st.DataObject) -> None:
        taken = data.draw(st.integers(0, n))
        found = made_ahead(lambda one: one, range(n), ahead=ahead)
        assert [next(found) for _ in range(taken)] == list(range(taken))
        found.close()
        assert threads() == []

    @given(st.integers(1, 12), AHEAD, st.data())
    def test_an_error_comes_in_its_place(self, n: int, ahead: int, data: st.DataObject) -> None:
        broken = data.draw(st.integers(0, n - 1))

        def make(one: int) -> int:
            if one == broken:
                raise BrokenError(one)
            return one

        seen: list[int] = []
        with pytest.raises(BrokenError, match=f"^{broken}$"):
            seen.extend(made_ahead(make, range(n), ahead=ahead))
        assert seen == list(range(broken))
        assert threads() == []

    @given(st.integers(0, 6), AHEAD)
    def test_an_error_of_what_is_wanted(self, n: int, ahead: int) -> None:
        def wanted() -> Iterator[int]:
            yield from range(n)
            raise BrokenError

        with pytest.raises(BrokenError):
            list(made_ahead(str, wanted(), ahead=ahead))
        assert threads() == []

    def test_an_error_of_the_consumer_ends_the_thread(self) -> None:
        def consume() -> None:
            for one in made_ahead(lambda one: one, range(10)):
                if one == 4:
                    raise BrokenError

        with pytest.raises(BrokenError):
            consume()
        assert threads() == []

    def test_nothing_is_kept_alive(self) -> None:
        items: list[weakref.ref[Item]] = []

        def make(_: int) -> Item:
            item = Item()
            items.append(weakref.ref(item))
            return item

        gc.disable()  # no cycle keeps what a GPU's memory is needed for
        try:
            found = made_ahead(make, range(6), ahead=2)
            for number in range(4):
                next(found)
                assert items[number]() is None
            found.close()
            assert [item() for item in items] == [None] * len(items)
        finally:
            gc.enable()


@st.composite
def batches(draw: st.DrawFn) -> list[np.ndarray]:
    """Row numbers of 30 images, in any order, any of them any number of times."""
    sizes = draw(st.lists(st.integers(0, 9), max_size=8))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    return [random.integers(0, 30, size) for size in sizes]


class TestPrefetched:
    @given(batches(), st.sampled_from([1, 3]))
    def test_the_same_images_in_the_same_order(
        self, wanted: list[np.ndarray], channels: int
    ) -> None:
        random = np.random.default_rng(0)
        images = random.integers(0, 256, (30, 3, 5, channels), dtype=np.uint8)
        found = list(prefetched(images, wanted, CPU))
        assert len(found) == len(wanted)
        for batch, rows in zip(found, wanted, strict=True):
            assert batch.is_contiguous()
            assert torch.equal(batch, torch.from_numpy(images[rows]))

    def test_a_memory_map(self, tmp_path: Any) -> None:
        images = np.random.default_rng(0).integers(0, 256, (20, 4, 4, 3), dtype=np.uint8)
        images.tofile(tmp_path / "images")
        mapped = np.memmap(tmp_path / "images", np.uint8, "r", shape=images.shape)
        rows = np.random.default_rng(1).permutation(20)
        found = prefetched(mapped, np.split(rows, [7, 14]), CPU)
        assert torch.equal(torch.cat(list(found)), torch.from_numpy(images[rows]))

    def test_closing_it_ends_the_thread(self) -> None:
        found = prefetched(np.zeros((4, 2, 2, 1), np.uint8), [np.arange(2)] * 5, CPU)
        next(found)
        assert len(threads()) == 1
        found.close()
        assert threads() == []


@pytest.fixture
def both(noise: Noise, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs a function without prefetching and with it, on the CPU; gives both results."""

    def run(make: Callable[[ResidentData], Any]) -> tuple[Any, Any]:
        data = noise(20, 20, height=9, width=8, channels=3)
        part = data.part(np.random.default_rng(0).permutation(40)[:33])
        images = ResidentImages.of(part, CPU)
        view = ResidentData(images, images, data.classes, Preprocessing.of(part))
        assert not images.streamed
        direct = make(view)
        with monkeypatch.context() as patch:
            patch.setattr(ResidentImages, "streamed", True)
            return direct, make(view)

    return run


def tensors(batch: Any) -> tuple[torch.Tensor, ...]:
    return batch if isinstance(batch, tuple) else batch.tensors


def assert_same(one: list[Any], other: list[Any]) -> None:
    for first, second in zip(one, other, strict=True):
        for a, b in zip(tensors(first), tensors(second), strict=True):
            assert torch.equal(a, b)
            assert a.stride() == b.stride()


class TestBatches:
    @pytest.mark.parametrize("memory_format", ["channels_last", "contiguous"])
    @pytest.mark.parametrize("size", [1, 4, 33, 50])
    @pytest.mark.parametrize(
        "changes",
        [{}, {"repeat": 2, "balance": "sampling"}, {"augment": {"rotate": 9.0, "mixup": 0.2}}],
    )
    def test_an_epoch_is_the_same_to_the_bit(
        self, both: Callable[..., Any], size: int, changes: dict[str, Any], memory_format: Any
    ) -> None:
        asked = TrainConfig(family="mlp", batch_size=size, memory_format=memory_format, **changes)

        def epoch(data: ResidentData) -> list[Any]:
            return list(train_batches(data, asked, torch.Generator().manual_seed(3)))

        assert_same(*both(epoch))

    @pytest.mark.parametrize("size", [1, 10, 33, 50])
    def test_so_is_an_evaluation(self, both: Callable[..., Any], size: int) -> None:
        def evaluation(data: ResidentData) -> list[Any]:
            with torch.inference_mode():
                return list(eval_batches(data.val, data.preprocessing, size))

        assert_same(*both(evaluation))

    @pytest.mark.parametrize("size", [1, 6])
    def test_so_are_some_of_the_images_cut(self, both: Callable[..., Any], size: int) -> None:
        some = torch.tensor([30, 2, 2, 17, 5, 9])

        def cut(data: ResidentData) -> list[Any]:
            images = data.train.at(some)
            return list(images.batches(torch.arange(6).split(size), (4, 3)))

        direct, streamed = both(cut)
        assert_same(direct, streamed)
        assert streamed[0][0].shape == (size, 3, 4, 3)

    def test_who_stops_early_leaves_no_thread(self, both: Callable[..., Any]) -> None:
        asked = TrainConfig(family="mlp", batch_size=2)

        def two(data: ResidentData) -> int:
            found = train_batches(data, asked, torch.Generator().manual_seed(3))
            next(found)
            alive = len(threads())
            del found
            return alive

        assert both(two) == (0, 1)
        assert threads() == []

    def test_an_error_while_training_leaves_no_thread(self, both: Callable[..., Any]) -> None:
        asked = TrainConfig(family="mlp", batch_size=2)

        def fails(data: ResidentData) -> BaseException:
            def step() -> None:
                for _ in enumerate(train_batches(data, asked, torch.Generator())):
                    raise BrokenError

            with pytest.raises(BrokenError) as raised:
                step()
            assert threads() == []  # although the error still refers to the frames
            return raised.value

        both(fails)


@pytest.mark.gpu
@needs_gpu
class TestOnAGPU:
    def views(self, noise: Noise) -> tuple[ResidentData, ResidentData]:
        """Images that stay on the CPU, and the same ones on the GPU."""
        cuda = torch.device("cuda", 0)
        part = noise(150, 150, height=24, width=20, channels=3).part(np.arange(300)[::-1].copy())
        mapped, copied = ResidentImages.mapped(part, cuda), ResidentImages.copied(part, cuda)
        assert mapped.streamed
        assert not copied.streamed
        preprocessing = Preprocessing.of(part)
        return tuple(ResidentData(i, i, ("a", "b"), preprocessing) for i in (mapped, copied))

    @pytest.mark.parametrize("balance", ["none", "sampling"])
    def test_streamed_batches_are_the_resident_ones(self, noise: Noise, balance: str) -> None:
        asked = TrainConfig(
            family="mlp", batch_size=7, repeat=5, balance=balance, augment={"rotate": 9.0}
        )
        streamed, resident = (
            list(train_batches(data, asked, torch.Generator("cuda").manual_seed(1)))
            for data in self.views(noise)
        )
        assert_same(streamed, resident)
        streamed, resident = (
            list(eval_batches(data.val, data.preprocessing, 64)) for data in self.views(noise)
        )
        assert_same(streamed, resident)

    def test_memory_is_not_written_to_while_it_is_read(self, noise: Noise) -> None:
        """The GPU is kept behind, so that batches are freed long before they are read."""
        streamed, resident = self.views(noise)
        found = []
        for data in (streamed, resident):
            sums = []
            for images, _ in eval_batches(data.val, data.preprocessing, 3):
                torch.cuda._sleep(2_000_000)
                sums.append(images.double().sum())
            found.append(torch.stack(sums))
        assert torch.equal(*found)

    @pytest.mark.parametrize("row", AUGMENTATIONS, ids=lambda row: row.name)
    def test_no_batch_but_the_first_waits_for_the_device(self, noise: Noise, row: Any) -> None:
        asked = TrainConfig(family="mlp", batch_size=16, augment={row.name: row.good})
        for data in self.views(noise):
            # Twice: what is made once for all is made in the first epoch.
            for mode in ("default", "error"):
                found = train_batches(data, asked, torch.Generator("cuda"))
                next(found)
                torch.cuda.set_sync_debug_mode(mode)
                try:
                    assert len(list(found)) == 18
                finally:
                    torch.cuda.set_sync_debug_mode("default")
