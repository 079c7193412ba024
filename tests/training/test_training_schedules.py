from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler

from hpsearch.config import ScheduleConfig
from hpsearch.errors import ConfigError
from hpsearch.training.schedules import (
    SCHEDULES,
    EpochScores,
    Schedule,
    check_schedule,
    lr_factor,
)

LADDER = (5e-4, 1e-5, 5e-6, 1e-7)
LOSSES = st.lists(st.floats(1e-3, 10), max_size=30)


def config(name: str, warmup: float = 0.0, **options: Any) -> ScheduleConfig:
    if name == "ladder":
        options = {"rates": LADDER, **options}
    return ScheduleConfig(name=name, warmup=warmup, options=options)


def losses(values: Sequence[float]) -> list[EpochScores]:
    return [SimpleNamespace(train_accuracy=0.5, val_accuracy=0.5, val_loss=v) for v in values]


@pytest.mark.parametrize("row", SCHEDULES, ids=lambda row: row.name)
class TestEverySchedule:
    @given(
        epochs=st.integers(1, 200),
        time=st.floats(0, 1, exclude_max=True),
        warmup=st.floats(0, 0.9),
        history=LOSSES,
    )
    def test_the_factor_is_a_share(
        self, row: Schedule, epochs: int, time: float, warmup: float, history: list[float]
    ) -> None:
        factor = lr_factor(config(row.name, warmup), time * epochs, epochs, losses(history))
        assert 0.0 <= factor <= 1.0

    def test_it_reaches_1_after_the_warm_up(self, row: Schedule) -> None:
        times = [n / 100 for n in range(1000)]
        for warmup in (0.0, 0.25):
            assert max(lr_factor(config(row.name, warmup), t, 10) for t in times) == pytest.approx(
                1, abs=1e-4
            )
        if row.name != "onecycle":  # which starts low
            assert lr_factor(config(row.name), 0.0, 10) == 1.0
            assert lr_factor(config(row.name, 0.25), 2.5, 10) == 1.0

    def test_the_warm_up_rises_linearly_from_0_to_where_it_starts(self, row: Schedule) -> None:
        start = lr_factor(config(row.name), 0.0, 10)
        rise = [lr_factor(config(row.name, 0.4), epoch, 10) for epoch in (0.0, 0.5, 1.0, 2.0, 3.0)]
        assert rise == pytest.approx([start * n for n in (0.0, 0.125, 0.25, 0.5, 0.75)])

    def test_after_the_warm_up_it_is_the_schedule_of_the_other_epochs(self, row: Schedule) -> None:
        for epoch in (0.0, 1.0, 2.9, 3.1, 5.9):
            plain = lr_factor(config(row.name), epoch, 6)
            assert lr_factor(config(row.name, 0.4), epoch + 4.0, 10) == pytest.approx(plain)


@pytest.mark.parametrize(
    ("name", "factors"),
    [
        ("constant", [1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [1.0, 0.75, 0.5, 0.25, 0.0]),
        ("cosine", [1.0, 0.5 + math.sqrt(2) / 4, 0.5, 0.5 - math.sqrt(2) / 4, 0.0]),
        ("exponential", [1.0, 10**-0.5, 0.1, 10**-1.5, 0.01]),
        ("step", [1.0, 1.0, 0.1, 0.01, 0.01]),
        ("multistep", [1.0, 1.0, 0.1, 0.01, 0.01]),
        ("plateau", [1.0, 1.0, 1.0, 1.0, 1.0]),
        ("ladder", [1.0, 0.02, 0.01, 0.0002, 0.0002]),
    ],
)
def test_known_values_at_the_quarters(name: str, factors: list[float]) -> None:
    values = [lr_factor(config(name), epoch, 8) for epoch in (0.0, 2.0, 4.0, 6.0, 8.0 - 1e-12)]
    assert values == pytest.approx(factors, abs=1e-9)


def torchs(
    scheduler: Callable[..., Any], epochs: int, history: Sequence[float] = (), **arguments: Any
) -> list[float]:
    """The learning rates of torch's scheduler, stepped once an epoch, from 1."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    stepped = scheduler(optimizer, **arguments)
    rates = []
    for epoch in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        stepped.step(history[epoch]) if history else stepped.step()
    return rates


class TestAgainstTorch:
    @pytest.mark.parametrize("size", [1, 3, 7, 30, 200])
    @pytest.mark.parametrize("gamma", [0.1, 0.5])
    def test_step(self, size: int, gamma: float) -> None:
        expected = torchs(lr_scheduler.StepLR, 100, step_size=size, gamma=gamma)
        ours = config("step", step_size=size, gamma=gamma)
        assert [lr_factor(ours, epoch, 100) for epoch in range(100)] == pytest.approx(expected)

    @pytest.mark.parametrize("milestones", [(30, 60, 80), (1,), (99,), (5, 1000)])
    def test_multistep(self, milestones: tuple[int, ...]) -> None:
        expected = torchs(lr_scheduler.MultiStepLR, 100, milestones=milestones, gamma=0.2)
        ours = config("multistep", milestones=milestones, gamma=0.2)
        assert [lr_factor(ours, epoch, 100) for epoch in range(100)] == pytest.approx(expected)

    def test_cosine(self) -> None:
        expected = torchs(lr_scheduler.CosineAnnealingLR, 50, T_max=50)
        ours = [lr_factor(config("cosine"), epoch, 50) for epoch in range(50)]
        assert ours == pytest.approx(expected)

    def test_exponential(self) -> None:
        expected = torchs(lr_scheduler.ExponentialLR, 50, gamma=0.001 ** (1 / 50))
        ours = [lr_factor(config("exponential", final=0.001), epoch, 50) for epoch in range(50)]
        assert ours == pytest.approx(expected)

    @pytest.mark.parametrize("peak_at", [0.1, 0.3, 0.5])
    def test_onecycle(self, peak_at: float) -> None:
        # torch counts steps from 0 to the last one, and has its peak a step before that share.
        total = 1000
        expected = torchs(
            lr_scheduler.OneCycleLR, total, max_lr=1.0, total_steps=total, pct_start=peak_at
        )
        peak = peak_at * total - 1
        for step, rate in enumerate(expected[:-1]):
            past = (step - peak) / (total - 1 - peak)
            progress = peak_at * step / peak if step < peak else peak_at + (1 - peak_at) * past
            ours = lr_factor(config("onecycle", peak_at=peak_at), progress, 1)
            assert ours == pytest.approx(rate, rel=1e-6)

    @given(history=st.lists(st.floats(0.1, 3), min_size=1, max_size=40), patience=st.integers(0, 4))
    def test_plateau(self, history: list[float], patience: int) -> None:
        expected = torchs(
            lr_scheduler.ReduceLROnPlateau,
            len(history),
            history,
            patience=patience,
            factor=0.5,
            eps=0.0,
        )
        ours = config("plateau", patience=patience, gamma=0.5)
        assert [
            lr_factor(ours, epoch, 100, losses(history[:epoch])) for epoch in range(len(history))
        ] == pytest.approx(expected)


class TestPlateau:
    def test_it_drops_after_more_than_its_patience_without_a_lower_loss(self) -> None:
        ours = config("plateau", patience=2)
        history = [1.0, 0.9, 0.95, 0.9, 0.92, 0.91, 0.93, 0.95, 0.5]
        factors = [lr_factor(ours, n, 20, losses(history[:n])) for n in range(10)]
        # The third epoch in a row without gain is number 4 (from 0), and again number 7.
        assert factors == pytest.approx([1, 1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01])

    def test_a_gain_that_is_hardly_one_is_none(self) -> None:
        for gain, factor in ((1e-3, 1.0), (1e-5, 0.1)):
            history = [1.0 * (1 - gain) ** n for n in range(6)]
            assert lr_factor(config("plateau", patience=4), 6, 20, losses(history)) == factor

    def test_the_time_does_not_matter(self) -> None:
        history = losses([1.0] * 9)
        ours = config("plateau", patience=2)
        factors = {lr_factor(ours, 9 + part, 20, history) for part in (0.0, 0.5, 0.99)}
        assert len(factors) == 1


class TestLadder:
    def test_each_rate_has_an_equal_share_of_the_epochs(self) -> None:
        rates = [5e-4 * lr_factor(config("ladder"), epoch + 0.5, 24) for epoch in range(24)]
        expected = [rate for rate in LADDER for _ in range(6)]
        assert rates == pytest.approx(expected)

    def test_rates_may_rise(self) -> None:
        ours = config("ladder", rates=(0.01, 0.1, 0.001))
        assert [lr_factor(ours, t, 3) for t in (0.5, 1.5, 2.5)] == pytest.approx([0.1, 1.0, 0.01])

    @pytest.mark.parametrize("lr", [5e-4, 5e-4 * (1 + 1e-12)])
    def test_the_learning_rate_is_its_greatest(self, lr: float) -> None:
        check_schedule(config("ladder"), lr)

    @pytest.mark.parametrize("lr", [1e-5, 4.9e-4, 1e-3])
    def test_any_other_learning_rate_is_refused(self, lr: float) -> None:
        with pytest.raises(ConfigError, match=r"'ladder': lr must be the greatest .* 0\.0005"):
            check_schedule(config("ladder"), lr)


class TestEpochsInOptions:
    """They are epochs of the training, whatever the warm-up."""

    @pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5])
    def test_milestones(self, warmup: float) -> None:
        ours = config("multistep", warmup, milestones=(60, 80))
        factors = [lr_factor(ours, epoch, 100) for epoch in (59.9, 60.1, 79.9, 80.1)]
        assert factors == pytest.approx([1.0, 0.1, 0.1, 0.01])

    @pytest.mark.parametrize("warmup", [0.0, 0.1])
    def test_step_size(self, warmup: float) -> None:
        ours = config("step", warmup, step_size=30)
        factors = [lr_factor(ours, epoch, 100) for epoch in (29.9, 30.1, 59.9, 60.1, 90.1)]
        assert factors == pytest.approx([1.0, 0.1, 0.1, 0.01, 0.001])

    def test_a_milestone_within_the_warm_up_counts_at_its_end(self) -> None:
        ours = config("multistep", 0.5, milestones=(2, 80))
        factors = [lr_factor(ours, epoch, 100) for epoch in (25.0, 49.999, 50.0, 79.0, 81.0)]
        assert factors == pytest.approx([0.05, 0.1, 0.1, 0.1, 0.01], rel=1e-4)


def test_many_drops_end_at_0_and_not_in_an_error() -> None:
    assert lr_factor(config("step", step_size=1, gamma=1e-3), 999.0, 1000) == 0.0


def test_drops_by_ten_are_exact() -> None:
    # As written in the configuration: 0.01, not 0.010000000000000002.
    ours = config("step", step_size=1)
    assert [lr_factor(ours, n, 10) for n in range(5)] == [1.0, 0.1, 0.01, 0.001, 0.0001]


def test_an_unknown_schedule_is_named_beside_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'poly'.*cosine"):
        lr_factor(ScheduleConfig(name="poly"), 0.0, 5)
