"""Rows that mix images and their labels."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import beta, kstest
from torch import Tensor

from hpsearch.data.augment import Mixed, augment_batch, mix_batch
from hpsearch.data.augment._mix import symmetric_beta

CLOSE = {"atol": 1e-6, "rtol": 0.0}
SIZES = [(16, 16), (11, 17), (20, 9), (1, 1)]

every_size = pytest.mark.parametrize(("height", "width"), SIZES)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(n: int = 16, channels: int = 3, height: int = 11, width: int = 17) -> Tensor:
    images = torch.rand((n, height, width, channels), generator=generator(99))
    return images.permute(0, 3, 1, 2)


def mixed(images: Tensor, strengths: dict[str, float], seed: int = 0) -> Mixed:
    labels = torch.arange(100, 100 + len(images))
    result = mix_batch(images, strengths, labels, generator(seed))
    assert result is not None
    assert torch.equal(result.other, labels.roll(1))
    assert result.other.dtype == torch.int64
    assert result.share.shape == (len(images),)
    assert result.share.dtype == torch.float32
    assert result.share.min() >= 0
    assert result.share.max() <= 1
    return result


@every_size
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [0.05, 1.0, 10.0])
class TestEachWay:
    def test_mixup_blends_by_the_share(
        self, height: int, width: int, channels: int, alpha: float
    ) -> None:
        images = random_images(16, channels, height, width)
        result = mixed(images, {"mixup": alpha})
        share = result.share.view(-1, 1, 1, 1)
        expected = share * images + (1 - share) * images.roll(1, 0)
        torch.testing.assert_close(result.images, expected, **CLOSE)
        assert len(result.share.unique()) > 8

    def test_cutmix_pastes_a_box_of_the_rest(
        self, height: int, width: int, channels: int, alpha: float
    ) -> None:
        images = random_images(16, channels, height, width)
        result = mixed(images, {"cutmix": alpha})
        own = (result.images == images).all(dim=1)
        pasted = (result.images == images.roll(1, 0)).all(dim=1)
        assert (own ^ pasted).all()
        area = pasted.flatten(1).sum(dim=1)
        assert torch.equal(result.share, 1 - area / (height * width)) or torch.equal(
            result.share, (height * width - area) / (height * width)
        )
        for box in pasted:
            # A box is where its rows and its columns cross, and these are in one piece.
            rows, columns = box.any(dim=1), box.any(dim=0)
            assert torch.equal(box, rows[:, None] & columns[None, :])
            assert rows.int().diff().abs().sum() <= 2
            assert columns.int().diff().abs().sum() <= 2


def test_boxes_of_cutmix_lie_anywhere_and_have_the_drawn_share() -> None:
    n, height, width = 3000, 40, 60
    black_and_white = (torch.arange(n) % 2.0).view(-1, 1, 1, 1).expand(-1, 1, height, width)
    result = mixed(black_and_white, {"cutmix": 1.0})
    pasted = (result.images != black_and_white)[:, 0].float()
    # Twice as high, about, in the middle as at the edges, but everywhere, on both sides alike.
    often = pasted.mean(dim=0)
    assert often.min() > 0.1
    torch.testing.assert_close(often, often.flip(0, 1), atol=0.06, rtol=0.0)
    assert often[height // 2, width // 2] > 1.5 * often[0, 0]
    # Where no edge cuts the box, it has the image's proportions and the drawn share.
    drawn = symmetric_beta(n, 1.0, generator())
    whole = torch.stack([pasted[:, 0], pasted[:, -1]]).sum(dim=(0, 2)) == 0
    whole &= torch.stack([pasted[:, :, 0], pasted[:, :, -1]]).sum(dim=(0, 2)) == 0
    whole &= pasted.any(dim=2).any(dim=1)
    assert whole.sum() > 0.1 * n
    high, wide = (pasted.amax(dim=axis).sum(dim=1) for axis in (2, 1))
    root = (1 - drawn).sqrt()
    assert torch.equal(high[whole], 2 * (root * height / 2).floor()[whole])
    assert torch.equal(wide[whole], 2 * (root * width / 2).floor()[whole])


@pytest.mark.parametrize("alpha", [0.01, 0.1, 0.2, 0.5, 1.0, 2.0, 10.0])
def test_shares_have_the_beta_distribution(alpha: float) -> None:
    drawn = symmetric_beta(5000, alpha, generator(1)).double().numpy()
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    # float32 has no values near 1 that double precision has: folded, both ends are compared.
    inner = drawn[(drawn > 1e-6) & (drawn < 1 - 1e-6)]
    low, high = beta.cdf([1e-6, 1 - 1e-6], alpha, alpha)
    error = math.sqrt((high - low) * (1 - high + low) / len(drawn))
    assert len(inner) / len(drawn) == pytest.approx(high - low, abs=4 * error + 1e-9)
    assert kstest(inner, lambda x: (beta.cdf(x, alpha, alpha) - low) / (high - low)).pvalue > 0.01


def test_shares_are_drawn_anew_for_each_image_and_batch() -> None:
    images = random_images(64)
    first, again, other = (mixed(images, {"mixup": 1.0}, seed).share for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(first.unique()) == 64
    assert torch.corrcoef(torch.stack([first[1:], first[:-1]]))[0, 1].abs() < 0.4


def test_where_both_are_on_each_batch_draws_one() -> None:
    images = random_images(12)
    pasted = 0
    for seed in range(60):
        result = mixed(images, {"mixup": 1.0, "cutmix": 1.0}, seed)
        from_own = (result.images == images).flatten(1)
        from_other = (result.images == images.roll(1, 0)).flatten(1)
        if (from_own | from_other).all():
            pasted += 1
            area = from_own.float().mean(dim=1)
            torch.testing.assert_close(result.share, area, **CLOSE)
        else:
            share = result.share.view(-1, 1, 1, 1)
            expected = share * images + (1 - share) * images.roll(1, 0)
            torch.testing.assert_close(result.images, expected, **CLOSE)
    assert 15 < pasted < 45


@pytest.mark.parametrize(
    "strengths", [{}, {"mixup": 0.0}, {"mixup": 0.0, "cutmix": 0.0, "rotate": 20.0}]
)
def test_nothing_is_mixed_where_nothing_is_on(strengths: dict[str, float]) -> None:
    running = generator()
    assert mix_batch(random_images(), strengths, torch.arange(16), running) is None
    assert torch.equal(running.get_state(), generator().get_state())


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_an_image_alone_is_not_mixed(name: str) -> None:
    images = random_images(1)
    assert mix_batch(images, {name: 1.0}, torch.tensor([3]), generator()) is None
    assert torch.equal(augment_batch(images, {name: 1.0}, generator()), images)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_what_is_given_is_left_alone(name: str, memory_format: torch.memory_format) -> None:
    images = random_images().contiguous(memory_format=memory_format)
    labels, before = torch.arange(16), images.clone()
    result = mix_batch(images, {name: 1.0}, labels, generator())
    assert torch.equal(images, before)
    assert torch.equal(labels, torch.arange(16))
    assert result is not None
    assert result.images.is_contiguous(memory_format=memory_format)
