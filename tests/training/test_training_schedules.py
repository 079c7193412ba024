from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hpsearch.config import DropoutConfig, ScheduleConfig
from hpsearch.errors import ConfigError
from hpsearch.training.dropout import (
    DROPOUT_SCHEDULES,
    DropoutSchedule,
    ScheduledDropout,
    dropout_rate,
    set_dropout,
)
from hpsearch.training.schedules import SCHEDULES, Schedule, lr_factor


@pytest.mark.parametrize("row", SCHEDULES, ids=lambda row: row.name)
class TestEverySchedule:
    def test_has_help(self, row: Schedule) -> None:
        assert row.help

    @given(
        epochs=st.integers(1, 200), time=st.floats(0, 1, exclude_max=True), warmup=st.floats(0, 0.9)
    )
    def test_the_factor_is_a_share(
        self, row: Schedule, epochs: int, time: float, warmup: float
    ) -> None:
        config = ScheduleConfig(name=row.name, warmup=warmup)
        assert 0.0 <= lr_factor(config, time * epochs, epochs) <= 1.0

    def test_it_starts_at_1_after_the_warm_up(self, row: Schedule) -> None:
        assert lr_factor(ScheduleConfig(name=row.name), 0.0, 10) == 1.0
        assert lr_factor(ScheduleConfig(name=row.name, warmup=0.25), 2.5, 10) == 1.0

    def test_the_warm_up_rises_linearly_from_0(self, row: Schedule) -> None:
        config = ScheduleConfig(name=row.name, warmup=0.4)
        rise = [lr_factor(config, epoch, 10) for epoch in (0.0, 0.5, 1.0, 2.0, 3.0)]
        assert rise == pytest.approx([0.0, 0.125, 0.25, 0.5, 0.75])

    def test_after_the_warm_up_it_is_the_schedule_of_the_other_epochs(self, row: Schedule) -> None:
        late = ScheduleConfig(name=row.name, warmup=0.4)
        for epoch in (0.0, 1.0, 2.9, 3.1, 5.9):
            plain = lr_factor(ScheduleConfig(name=row.name), epoch, 6)
            assert lr_factor(late, epoch + 4.0, 10) == pytest.approx(plain)


@pytest.mark.parametrize(
    ("name", "factors"),
    [
        ("constant", [1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [1.0, 0.75, 0.5, 0.25, 0.0]),
        ("cosine", [1.0, 0.5 + math.sqrt(2) / 4, 0.5, 0.5 - math.sqrt(2) / 4, 0.0]),
        ("step", [1.0, 1.0, 0.1, 0.01, 0.01]),
    ],
)
def test_known_values_at_the_quarters(name: str, factors: list[float]) -> None:
    config = ScheduleConfig(name=name)
    values = [lr_factor(config, epoch, 8) for epoch in (0.0, 2.0, 4.0, 6.0, 8.0 - 1e-12)]
    assert values == pytest.approx(factors, abs=1e-9)


def test_an_unknown_schedule_is_named_beside_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'poly'.*cosine"):
        lr_factor(ScheduleConfig(name="poly"), 0.0, 5)


@pytest.mark.parametrize("row", DROPOUT_SCHEDULES, ids=lambda row: row.name)
class TestEveryDropoutSchedule:
    def test_has_help(self, row: DropoutSchedule) -> None:
        assert row.help

    @given(epochs=st.integers(2, 100), rate=st.floats(0, 0.95))
    def test_the_rate_is_its_highest(self, row: DropoutSchedule, epochs: int, rate: float) -> None:
        config = DropoutConfig(schedule=row.name, rate=rate)
        rates = [dropout_rate(config, epoch, epochs) for epoch in range(epochs)]
        assert min(rates) >= 0.0
        assert max(rates) == rate

    def test_a_single_epoch_has_a_rate(self, row: DropoutSchedule) -> None:
        config = DropoutConfig(schedule=row.name, rate=0.5)
        assert dropout_rate(config, 0, 1) in (0.0, 0.5)


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("constant", [0.4, 0.4, 0.4, 0.4, 0.4]),
        ("linear", [0.0, 0.1, 0.2, 0.3, 0.4]),
        ("late", [0.0, 0.0, 0.4, 0.4, 0.4]),
    ],
)
def test_known_rates(name: str, rates: list[float]) -> None:
    config = DropoutConfig(schedule=name, rate=0.4)
    assert [dropout_rate(config, epoch, 5) for epoch in range(5)] == pytest.approx(rates)


def test_an_unknown_dropout_schedule_is_named_beside_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'early'.*late"):
        dropout_rate(DropoutConfig(schedule="early"), 0, 5)


def test_the_rate_reaches_scheduled_dropout_at_any_depth_and_no_other() -> None:
    scheduled, other = ScheduledDropout(), nn.Dropout(0.3)
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2), scheduled), other, ScheduledDropout())
    ones = torch.ones(10_000)
    assert torch.equal(scheduled(ones), ones)
    set_dropout(model, 0.25)
    assert [module.p for module in model.modules() if isinstance(module, nn.Dropout)] == [
        0.25,
        0.3,
        0.25,
    ]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dropped = scheduled(ones)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert dropped.max().item() == pytest.approx(1 / 0.75)
    assert torch.equal(scheduled.eval()(ones), ones)
