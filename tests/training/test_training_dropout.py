from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hpsearch.config import DropoutConfig
from hpsearch.errors import ConfigError
from hpsearch.training.dropout import (
    DEPTHS,
    DROPOUT_SCHEDULES,
    Depth,
    ScheduledDropout,
    check_dropout,
    dropout_rate,
    set_dropout,
)
from hpsearch.training.schedules import EpochScores, Schedule

SHARES = st.floats(0, 1)


def config(schedule: str, rate: float, **options: Any) -> DropoutConfig:
    if schedule == "steps":
        options = {"rates": (rate / 2, rate), **options}
    return DropoutConfig(schedule=schedule, rate=rate, options=options)


def scores(*pairs: tuple[float, float]) -> list[EpochScores]:
    """Epochs of these training and validation accuracies."""
    return [SimpleNamespace(train_accuracy=t, val_accuracy=v, val_loss=1.0) for t, v in pairs]


def rates(
    config: DropoutConfig, epochs: int, history: Sequence[EpochScores] | None = None
) -> list[float]:
    past = scores(*[(1.0, 0.0)] * epochs) if history is None else history
    return [dropout_rate(config, epoch, epochs, past[:epoch]) for epoch in range(epochs)]


@pytest.mark.parametrize("row", DROPOUT_SCHEDULES, ids=lambda row: row.name)
class TestEveryDropoutSchedule:
    @given(epochs=st.integers(3, 100), rate=st.floats(1e-3, 0.95))
    def test_the_rate_is_its_highest(self, row: Schedule, epochs: int, rate: float) -> None:
        found = rates(config(row.name, rate), epochs)
        assert min(found) >= 0.0
        assert max(found) == rate

    def test_a_single_epoch_has_a_rate(self, row: Schedule) -> None:
        assert dropout_rate(config(row.name, 0.5), 0, 1) in (0.0, 0.5)

    def test_no_dropout_stays_none(self, row: Schedule) -> None:
        if row.name != "steps":  # whose rates say what it is
            assert rates(config(row.name, 0.0), 5) == [0.0] * 5


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("constant", [0.4, 0.4, 0.4, 0.4, 0.4]),
        ("linear", [0.0, 0.1, 0.2, 0.3, 0.4]),
        ("late", [0.0, 0.0, 0.4, 0.4, 0.4]),
    ],
)
def test_known_rates(name: str, expected: list[float]) -> None:
    assert rates(config(name, 0.4), 5) == pytest.approx(expected)


class TestSteps:
    def test_rates_begin_with_their_epochs(self) -> None:
        # The reference report's: 0 until epoch 100, then 0.5, then 0.6 from epoch 200 on.
        ours = config("steps", 0.6, rates=(0.5, 0.6), epochs=(100, 200))
        found = rates(ours, 300)
        assert found == pytest.approx([0.0] * 100 + [0.5] * 100 + [0.6] * 100)

    def test_one_rate_at_one_epoch(self) -> None:
        ours = config("steps", 0.1, rates=(0.1,), epochs=(100,))
        assert rates(ours, 102)[98:] == [0.0, 0.0, 0.1, 0.1]

    def test_epochs_beyond_the_last_are_never_reached(self) -> None:
        ours = config("steps", 0.6, rates=(0.5, 0.6), epochs=(2, 50))
        assert rates(ours, 4) == pytest.approx([0.0, 0.0, 0.5, 0.5])

    def test_rates_may_fall_and_begin_at_once(self) -> None:
        ours = config("steps", 0.6, rates=(0.6, 0.0, 0.3), epochs=(0, 1, 3))
        assert rates(ours, 4) == pytest.approx([0.6, 0.0, 0.0, 0.3])

    @pytest.mark.parametrize("each", [1, 2, 7])
    def test_without_epochs_0_and_the_rates_have_equal_shares(self, each: int) -> None:
        ours = config("steps", 0.6, rates=(0.2, 0.6))
        assert rates(ours, 3 * each) == pytest.approx([0.0] * each + [0.2] * each + [0.6] * each)

    def test_as_many_epochs_as_rates(self) -> None:
        with pytest.raises(ConfigError, match=r"epochs must be as many as rates.*\(1, 2, 3\)"):
            check_dropout(config("steps", 0.6, rates=(0.5, 0.6), epochs=(1, 2, 3)))

    @pytest.mark.parametrize("rate", [0.0, 0.5, 0.61])
    def test_a_rate_other_than_the_greatest_is_refused(self, rate: float) -> None:
        with pytest.raises(ConfigError, match=r"dropout must be the greatest .* 0\.6"):
            check_dropout(config("steps", rate, rates=(0.5, 0.6)))

    def test_rates_of_0_alone_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="one above 0"):
            check_dropout(config("steps", 0.0, rates=(0.0, 0.0)))


class TestAdaptive:
    def test_it_rises_and_falls_by_what_the_gap_is_beyond_the_allowed(self) -> None:
        ours = config("adaptive", 0.5, gap=0.1, speed=2.0)
        history = scores((0.3, 0.3), (0.5, 0.4), (0.8, 0.6), (0.9, 0.7), (0.7, 0.7), (0.8, 0.8))
        # Excess -0.1, 0, 0.1, 0.1, -0.1, -0.1; twice that is the change of the share.
        shares = [0.0, 0.0, 0.0, 0.2, 0.4, 0.2, 0.0]
        found = [dropout_rate(ours, n, 20, history[:n]) for n in range(7)]
        assert found == pytest.approx([0.5 * share for share in shares], abs=1e-12)

    @given(
        pairs=st.lists(st.tuples(SHARES, SHARES), max_size=30),
        gap=st.floats(0, 0.2),
        speed=st.floats(0.1, 10),
        rate=st.floats(0, 0.95),
    )
    def test_it_stays_between_0_and_the_rate_and_moves_smoothly(
        self, pairs: list[tuple[float, float]], gap: float, speed: float, rate: float
    ) -> None:
        ours = config("adaptive", rate, gap=gap, speed=speed)
        found = rates(ours, len(pairs) + 1, scores(*pairs))
        assert found[0] == 0.0
        for (train, val), before, after in zip(pairs, found, found[1:], strict=False):
            assert 0.0 <= after <= rate
            assert abs(after - before) <= rate * speed * abs(train - val - gap) + 1e-9
            if train - val > gap:
                assert after >= before
            else:
                assert after <= before

    def test_a_steady_gap_holds_the_rate(self) -> None:
        ours = config("adaptive", 0.6, gap=0.05)
        history = scores((0.9, 0.7), (0.9, 0.85), (0.8, 0.75), (0.95, 0.9))
        found = rates(ours, 5, history)
        assert found[1:] == pytest.approx([0.6 * 0.3] * 4)

    def test_a_model_that_does_not_overfit_has_no_dropout(self) -> None:
        found = rates(config("adaptive", 0.6), 10, scores(*[(0.6, 0.65)] * 9))
        assert found == [0.0] * 10


def test_an_unknown_dropout_schedule_is_named_beside_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'early'.*late"):
        dropout_rate(DropoutConfig(schedule="early"), 0, 5)


def three_places() -> nn.Sequential:
    """Three places of dropout, at several depths of nesting, and one that is not ours."""
    inner = nn.Sequential(nn.Linear(2, 2), ScheduledDropout(), nn.Dropout(0.3))
    return nn.Sequential(ScheduledDropout(), inner, nn.Sequential(ScheduledDropout()))


def rates_in(model: nn.Module) -> list[float]:
    return [module.p for module in model.modules() if isinstance(module, nn.Dropout)]


class TestDepth:
    @pytest.mark.parametrize(
        ("depth", "expected"),
        [
            ("flat", [0.9, 0.9, 0.9]),
            ("falling", [0.9, 0.6, 0.3]),
            ("rising", [0.3, 0.6, 0.9]),
        ],
    )
    def test_known_rates_from_input_to_output(self, depth: str, expected: list[float]) -> None:
        model = three_places()
        set_dropout(model, 0.9, depth)
        first, second, other, third = rates_in(model)
        assert [first, second, third] == pytest.approx(expected)
        assert other == 0.3

    @pytest.mark.parametrize("row", DEPTHS, ids=lambda row: row.name)
    def test_every_row_has_the_rate_as_its_highest(self, row: Depth) -> None:
        assert row.help
        for places in (1, 2, 5):
            shares = [row.share(place, places) for place in range(places)]
            assert max(shares) == 1.0
            assert min(shares) > 0.0

    def test_flat_is_the_default(self) -> None:
        model = three_places()
        set_dropout(model, 0.25)
        assert rates_in(model) == [0.25, 0.25, 0.3, 0.25]

    def test_an_unknown_depth_changes_nothing(self) -> None:
        model = three_places()
        with pytest.raises(ConfigError, match=r"'deep'.*falling"):
            set_dropout(model, 0.5, "deep")
        assert rates_in(model) == [0.0, 0.0, 0.3, 0.0]


@pytest.mark.parametrize("tensor", [False, True])
def test_the_rate_is_what_is_dropped(tensor: bool) -> None:
    scheduled = ScheduledDropout()
    if tensor:
        scheduled.use_tensor(torch.device("cpu"))
    ones = torch.ones(10_000)
    assert torch.equal(scheduled(ones), ones)
    set_dropout(scheduled, 0.25)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        dropped = scheduled(ones)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert dropped.max().item() == pytest.approx(1 / 0.75)
    assert torch.equal(scheduled.eval()(ones), ones)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_rate_in_a_tensor_stays_where_it_is(dtype: torch.dtype) -> None:
    scheduled = ScheduledDropout()
    set_dropout(scheduled, 0.5)
    scheduled.use_tensor(torch.device("cpu"))
    (place,) = (v for v in vars(scheduled).values() if isinstance(v, torch.Tensor))
    assert place.item() == 0.5
    set_dropout(scheduled, 0.75)
    assert place.item() == 0.75
    ones = torch.ones(1000, 4, dtype=dtype, requires_grad=True)
    with torch.random.fork_rng(devices=[]):
        dropped = scheduled(ones)
    assert dropped.dtype == dtype
    assert set(dropped.flatten().tolist()) == {0.0, 4.0}
    dropped.sum().backward()
    assert torch.equal(ones.grad, dropped)
    assert scheduled.state_dict() == {}  # checkpoints do not know of it
