"""What a model costs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from hpsearch.config import TrainConfig
from hpsearch.data.dataset import ImageShape
from hpsearch.families import build_model
from hpsearch.training.costs import (
    COSTS,
    Cost,
    count_macs,
    latency_ms,
)
from hpsearch.training.layers import layer_table, totals
from hpsearch.training.model import StagedModel, parameter_counts
from hpsearch.training.objectives import OBJECTIVES

SHAPE = ImageShape(12, 9, 3)
CPU = torch.device("cpu")
each_cost = pytest.mark.parametrize("cost", COSTS, ids=lambda row: row.name)


class Noisy(nn.Module):
    """A layer of a user's own that draws random numbers, even in evaluation."""

    def forward(self, images: Tensor) -> Tensor:
        return images + torch.rand_like(images)


class LooksAtValues(nn.Module):
    """A layer of a user's own that cannot be run on meta, and attention, whose fast way is not
    counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, images: Tensor) -> Tensor:
        if float(images.sum()) > 1e6:
            return images
        flat = images.flatten(1, 2)
        mixed, _ = self.attention(flat, flat, flat, need_weights=False)
        return mixed.flatten(1)


def staged(*more: nn.Module) -> StagedModel:
    """A model with everything that a forward pass could change, one stage of it frozen."""
    model = StagedModel(
        {
            "first": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
            "second": nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), *more),
            "head": nn.Sequential(nn.Flatten(), nn.Linear(4 * 8 * 5, 7)),
        }
    )
    model.freeze(1).train()
    model.stages[2][0].eval()  # a mode of its own
    return model


def state_of(model: StagedModel) -> tuple[object, ...]:
    return (
        {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()},
        [module.training for module in model.modules()],
        [parameter.requires_grad for parameter in model.parameters()],
        [parameter.grad for parameter in model.parameters()],
        [len(module._forward_hooks) for module in model.modules()],
        torch.get_rng_state().numpy().tobytes(),
        torch.is_grad_enabled(),
        torch.backends.mha.get_fastpath_enabled(),
    )


def test_the_table_has_what_was_agreed() -> None:
    assert [row.name for row in COSTS] == ["params", "macs", "latency"]
    assert {row.direction for row in COSTS} == {"minimize"}


def test_names_and_labels_are_those_of_no_other_row() -> None:
    rows = (*OBJECTIVES, *COSTS)
    for field in ("name", "label", "short"):
        assert len({getattr(row, field) for row in rows}) == len(rows)
    assert not any("," in row.name or " " in row.name for row in rows)


@each_cost
@pytest.mark.parametrize("more", [(), (Noisy(),)], ids=["plain", "noisy"])
def test_measuring_leaves_all_as_it_is(cost: Cost, more: tuple[nn.Module, ...]) -> None:
    model = staged(*more)
    before = state_of(model)
    value = cost.measure(model, SHAPE, CPU)
    assert isinstance(value, float)
    assert value > 0
    assert state_of(model) == before
    # And it can be trained on.
    model(torch.randn(2, 3, 12, 9)).sum().backward()


@pytest.mark.parametrize("cost", COSTS[:2], ids=lambda row: row.name)
def test_costs_that_are_counted_follow_the_size(cost: Cost) -> None:
    small, large = (StagedModel({"only": nn.Conv2d(3, width, 3)}) for width in (2, 5))
    assert cost.measure(large, SHAPE, CPU) == 2.5 * cost.measure(small, SHAPE, CPU)


def test_parameters_are_all_of_them() -> None:
    model = staged()
    total, trained = parameter_counts(model)
    assert trained < total
    assert COSTS[0].measure(model, SHAPE, CPU) == total


@pytest.mark.parametrize("family", ["cnn", "mlp", "logistic"])
def test_multiplications_are_those_of_the_table_of_layers(family: str) -> None:
    model = build_model(TrainConfig(family=family), SHAPE, 5)
    assert count_macs(model, SHAPE, CPU) == totals(layer_table(model, SHAPE)).macs > 0


def test_multiplications_of_a_model_that_only_runs_with_values() -> None:
    model = StagedModel({"own": LooksAtValues()}).train()
    before = state_of(model)
    tokens, width = 3 * 12, 8
    expected = 4 * tokens * width * width + 2 * tokens * tokens * width
    assert count_macs(model, ImageShape(12, 8, 3), CPU) == expected
    assert state_of(model) == before


def test_a_model_that_does_not_run_says_why_and_is_left_as_it_is() -> None:
    model = StagedModel({"wrong": nn.Linear(5, 5)}).train()
    for cost in COSTS[1:]:
        before = state_of(model)
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            cost.measure(model, SHAPE, CPU)
        assert state_of(model) == before


class Passes(nn.Module):
    """Notes how it was run; each pass takes its seconds on a clock of the test's own."""

    def __init__(self, seconds: Iterator[float]) -> None:
        super().__init__()
        self.seconds = seconds
        self.now = 0.0
        self.calls: list[tuple[tuple[int, ...], bool, bool]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.calls.append((tuple(images.shape), self.training, torch.is_inference_mode_enabled()))
        self.now += next(self.seconds)
        return images

    def clock(self) -> float:
        return self.now


@given(
    st.lists(st.floats(1e-6, 10.0), min_size=3, max_size=3),
    st.lists(st.floats(1e-6, 10.0), min_size=210, max_size=210),
)
def test_latency_is_the_median_after_the_warm_up(warm_up: list[float], passes: list[float]) -> None:
    module = Passes(iter([*warm_up, *passes]))
    value = latency_ms(StagedModel({"own": module}), SHAPE, CPU, clock=module.clock)
    timed = len(module.calls) - len(warm_up)
    taken = sorted(passes[:timed])
    middle = (taken[(timed - 1) // 2] + taken[timed // 2]) / 2
    assert value == pytest.approx(1000 * middle, rel=1e-6, abs=1e-9)
    assert set(module.calls) == {((1, 3, 12, 9), False, True)}  # one image, in evaluation


@pytest.mark.parametrize(("seconds", "timed"), [(60.0, 5), (0.099, 6), (0.01, 50), (1e-6, 200)])
def test_slow_models_are_timed_less_often(seconds: float, timed: int) -> None:
    module = Passes(iter([seconds] * 300))
    latency_ms(StagedModel({"own": module}), SHAPE, CPU, clock=module.clock)
    assert len(module.calls) - 3 == pytest.approx(timed, abs=1)
