from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hpsearch.config import LossConfig, TrainConfig
from hpsearch.errors import ConfigError
from hpsearch.training.losses import LOSSES, BatchLoss, Loss, class_weights, loss_info

N, CLASSES = 9, 4
COUNTS = torch.tensor([10, 20, 5, 5])


def drawn(seed: int = 0, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    """Logits, float32 with a gradient, and labels."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn((N, CLASSES), generator=generator) * scale
    return logits.requires_grad_(), torch.randint(CLASSES, (N,), generator=generator)


def batch_loss(name: str = "cross_entropy", **changes: Any) -> BatchLoss:
    options = changes.pop("options", {})
    config = TrainConfig(family="mlp", loss=LossConfig(name=name, options=options), **changes)
    return BatchLoss(config, COUNTS)


def with_gradient(loss: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    (gradient,) = torch.autograd.grad(loss, logits)
    return loss.detach(), gradient


def assert_same(found: Tensor, expected: Tensor, logits: Tensor) -> None:
    """The same value and the same gradient."""
    for ours, theirs in zip(
        with_gradient(found, logits), with_gradient(expected, logits), strict=True
    ):
        torch.testing.assert_close(ours, theirs.to(ours.dtype), rtol=1e-5, atol=1e-6)


def textbook(name: str, logits: Tensor, labels: Tensor, smoothing: float, gamma: float) -> Tensor:
    """The loss of each image, written out in double precision."""
    logits = logits.double()
    target = F.one_hot(labels, CLASSES).double() * (1 - smoothing) + smoothing / CLASSES
    if name == "mse":
        return ((logits - target) ** 2).sum(dim=1) / CLASSES
    p = logits.exp() / logits.exp().sum(dim=1, keepdim=True)
    cross_entropy = -(target * p.log()).sum(dim=1)
    if name == "focal":
        return (1 - p[torch.arange(N), labels]) ** gamma * cross_entropy
    return cross_entropy


@pytest.mark.parametrize("row", LOSSES, ids=lambda row: row.name)
class TestEveryLoss:
    @pytest.mark.parametrize("smoothing", [0.0, 0.2])
    def test_it_is_the_textbooks(self, row: Loss, smoothing: float) -> None:
        logits, labels = drawn()
        gamma = float(row.options["gamma"].default) if row.options else 0.0  # type: ignore[arg-type]
        expected = textbook(row.name, logits, labels, smoothing, gamma).mean()
        assert_same(
            batch_loss(row.name, label_smoothing=smoothing)(logits, labels), expected, logits
        )

    def test_it_gives_the_loss_of_each_image(self, row: Loss) -> None:
        logits, labels = drawn()
        options = {name: option.default for name, option in row.options.items()}
        each = row.each(logits, labels, 0.1, options)
        assert each.shape == (N,)
        assert each.dtype == torch.float32
        alone = [
            row.each(logits[n : n + 1], labels[n : n + 1], 0.1, options).item() for n in range(N)
        ]
        assert each.tolist() == pytest.approx(alone)

    def test_classes_weigh_in_as_configured(self, row: Loss) -> None:
        logits, labels = drawn()
        weights = 40 / (CLASSES * COUNTS.double())
        each = textbook(row.name, logits, labels, 0.1, 2.0)
        expected = (weights[labels] * each).sum() / weights[labels].sum()
        found = batch_loss(row.name, label_smoothing=0.1, balance="weights")(logits, labels)
        assert_same(found, expected, logits)

    @pytest.mark.parametrize("balance", ["none", "weights", "sampling"])
    def test_mixed_images_have_the_losses_of_both_labels_by_their_shares(
        self, row: Loss, balance: Any
    ) -> None:
        logits, labels = drawn()
        other, share = labels.flip(0), torch.linspace(0, 1, N)
        loss = batch_loss(row.name, label_smoothing=0.1, balance=balance)
        weights = 40 / (CLASSES * COUNTS.double()) if balance == "weights" else torch.ones(CLASSES)
        total, weight = torch.zeros(()).double(), 0.0
        for one, its_share in ((labels, share.double()), (other, 1 - share.double())):
            each = textbook(row.name, logits, one, 0.1, 2.0)
            total = total + (its_share * weights[one] * each).sum()
            weight += (its_share * weights[one]).sum().item()
        assert_same(loss(logits, labels, other, share), total / weight, logits)

    def test_a_whole_share_is_no_mixture(self, row: Loss) -> None:
        logits, labels = drawn()
        loss = batch_loss(row.name, balance="weights")
        mixed = loss(logits, labels, labels.flip(0), torch.ones(N))
        assert_same(mixed, loss(logits, labels), logits)

    @pytest.mark.parametrize("scale", [0.0, 1e-3, 30.0, 1e4])
    def test_extreme_logits_give_finite_losses_and_gradients(self, row: Loss, scale: float) -> None:
        logits, labels = drawn(scale=scale)
        for options in [{}, *({name: row.options[name].low} for name in row.options)]:
            for smoothing in (0.0, 0.1):
                loss = batch_loss(row.name, options=options, label_smoothing=smoothing)
                for value in with_gradient(loss(logits, labels), logits):
                    assert value.isfinite().all()

    def test_bf16_logits_are_taken_as_float32(self, row: Loss) -> None:
        logits, labels = drawn()
        short = logits.detach().bfloat16()
        loss = batch_loss(row.name)(short, labels)
        assert loss.dtype == torch.float32
        assert torch.equal(loss, batch_loss(row.name)(short.float(), labels))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("seed", range(5))
def test_plain_cross_entropy_is_torchs_to_the_bit(smoothing: float, seed: int) -> None:
    logits, labels = drawn(seed)
    expected = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    found = batch_loss(label_smoothing=smoothing)(logits, labels)
    assert torch.equal(found, expected)
    assert torch.equal(with_gradient(found, logits)[1], with_gradient(expected, logits)[1])


def test_weighted_cross_entropy_is_torchs() -> None:
    logits, labels = drawn()
    expected = F.cross_entropy(logits, labels, weight=class_weights(COUNTS))
    assert_same(batch_loss(balance="weights")(logits, labels), expected, logits)


@given(smoothing=st.floats(0, 0.9), seed=st.integers(0, 1000))
def test_focal_loss_with_gamma_0_is_cross_entropy(smoothing: float, seed: int) -> None:
    logits, labels = drawn(seed)
    focal = batch_loss("focal", options={"gamma": 0.0}, label_smoothing=smoothing)
    plain = batch_loss(label_smoothing=smoothing)
    assert_same(focal(logits, labels), plain(logits, labels), logits)


def test_focal_loss_counts_learnt_images_less() -> None:
    # From the paper, section 3.2: p = 0.9 counts a hundredth with gamma 2.
    logits = torch.tensor([[math.log(0.9), math.log(0.1)]])
    labels = torch.zeros(1, dtype=torch.int64)
    focal = batch_loss("focal", options={"gamma": 2.0})(logits, labels).item()
    assert focal == pytest.approx(0.01 * -math.log(0.9), rel=1e-4)


def test_mse_is_torchs_on_one_hot_targets() -> None:
    logits, labels = drawn()
    expected = F.mse_loss(logits, F.one_hot(labels, CLASSES).float())
    assert_same(batch_loss("mse")(logits, labels), expected, logits)


class TestClassWeights:
    def test_rare_classes_weigh_more(self) -> None:
        assert class_weights(COUNTS).tolist() == [1.0, 0.5, 2.0, 2.0]

    def test_equal_classes_weigh_1(self) -> None:
        assert class_weights(torch.tensor([7, 7, 7])).tolist() == [1.0, 1.0, 1.0]

    def test_a_class_without_images_does_no_harm(self) -> None:
        weights = class_weights(torch.tensor([4, 0]))
        assert weights.isfinite().all()
        assert weights[0] == 0.5

    @given(counts=st.lists(st.integers(1, 1000), min_size=2, max_size=20))
    def test_over_all_images_they_are_1_on_average(self, counts: list[int]) -> None:
        images = torch.tensor(counts)
        mean = (class_weights(images) * images).sum() / images.sum()
        assert mean.item() == pytest.approx(1, rel=1e-5)


def test_an_unknown_loss_is_named_beside_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'hinge'.*focal"):
        loss_info("hinge")
