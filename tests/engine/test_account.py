"""What a worker may spend beside the training: a share of it, in the long run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpsearch.engine.account import Account


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_it_is_allowed_as_soon_as_the_training_pays_for_it() -> None:
    clock = Clock()
    account = Account(share=0.02, cost=1.0, clock=clock)
    assert not account.allows
    account.trained(49.0)
    assert not account.allows
    account.trained(1.0)
    assert account.allows
    with account.paid(), account.measured():
        clock.now += 0.75
    account.trained(24.0)
    assert not account.allows
    account.trained(1.0)  # of 1.5 s, half is spent
    assert account.allows
    clock.now += 1000.0  # nobody spends anything now
    assert account.allows


def test_what_failed_is_paid_for_and_tells_nothing_of_the_cost() -> None:
    clock = Clock()
    account = Account(share=0.5, cost=1.0, clock=clock)
    account.trained(8.0)

    def fails() -> None:
        with account.paid(), account.measured():
            clock.now += 3.5
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fails()
    assert not account.allows
    account.trained(1.0)
    assert account.allows


@given(
    st.lists(
        st.tuples(st.floats(0.0, 100.0), st.floats(0.0, 2.0), st.floats(0.0, 0.05)), max_size=60
    )
)
def test_no_more_than_the_share_is_spent_but_for_the_last_time(
    trials: list[tuple[float, float, float]],
) -> None:
    """Trials train, cost a little that is always paid, and are drawn where that is allowed."""
    clock = Clock()
    account = Account(share=0.02, cost=1.0, clock=clock)
    trained = drawn = 0.0
    for seconds, cost, always in trials:
        account.trained(seconds)
        trained += seconds
        allowed = account.allows
        with account.paid():
            clock.now += always
            if allowed:
                with account.measured():
                    clock.now += cost
        drawn += cost if allowed else 0.0
        assert drawn <= 0.02 * trained + 2.0 + 1e-6  # the last one cost more than was known
