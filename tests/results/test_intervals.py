"""Intervals: as wide as they must be, and the same each time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap, norm

from hpsearch.results.intervals import accuracy_interval, difference_interval


def truths(right: int, wrong: int) -> np.ndarray:
    return np.array([True] * right + [False] * wrong)


@given(st.integers(0, 50), st.integers(0, 50))
def test_without_groups_it_is_wilsons(right: int, wrong: int) -> None:
    if right + wrong == 0:
        return
    found, how = accuracy_interval(truths(right, wrong), None)
    expected = binomtest(right, right + wrong).proportion_ci(method="wilson")
    assert found == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert how == "Wilson"


def test_it_is_the_bootstrap_of_scipy_with_many_groups() -> None:
    """Of 400 groups of 1 to 30 images; with so many, the expansion is small."""
    random = np.random.default_rng(1)
    sizes = random.integers(1, 30, 400)
    rates = random.beta(4, 1, 400)
    numbers = np.repeat(np.arange(400), sizes)
    right = random.random(len(numbers)) < rates[numbers]
    (low, high), how = accuracy_interval(right, [f"g{number}" for number in numbers])
    assert how == "bootstrap over 400 groups"
    sums = np.bincount(numbers, weights=right)

    def share(sums: np.ndarray, sizes: np.ndarray, axis: int) -> np.ndarray:
        return sums.sum(axis=axis) / sizes.sum(axis=axis)

    expected = bootstrap(
        (sums, sizes), share, paired=True, vectorized=True, method="percentile", rng=0
    ).confidence_interval
    width = expected.high - expected.low
    assert low == pytest.approx(expected.low, abs=0.05 * width)
    assert high == pytest.approx(expected.high, abs=0.05 * width)


def test_groups_of_one_image_are_no_groups() -> None:
    right = truths(450, 50)
    alone, _ = accuracy_interval(right, None)
    grouped, _ = accuracy_interval(right, [str(number) for number in range(500)])
    assert grouped == pytest.approx(alone, abs=0.005)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 30)), min_size=1, max_size=12),
    st.randoms(use_true_random=False),
)
def test_it_holds_the_share_whatever_the_groups_are(
    sizes: list[tuple[int, int]], random: object
) -> None:
    """Some of one image, some of many, some always right; in any order of the images."""
    pairs = [
        (number < right % (size + 1), f"g{group}")
        for group, (right, size) in enumerate(sizes)
        for number in range(size)
    ]
    right = np.array([first for first, _ in pairs])
    groups = [second for _, second in pairs]
    (low, high), _ = accuracy_interval(right, groups)
    assert 0 <= low <= right.mean() + 1e-12
    assert right.mean() - 1e-12 <= high <= 1
    assert low < high
    order = list(range(len(pairs)))
    random.shuffle(order)  # type: ignore[attr-defined]
    shuffled = accuracy_interval(right[order], [groups[place] for place in order])[0]
    assert shuffled == (low, high)


@pytest.mark.parametrize(("groups", "low"), [(1, 0.20), (5, 0.56), (100, 0.96)])
def test_no_error_at_all_is_as_sure_as_there_are_groups(groups: int, low: float) -> None:
    names = [f"g{number % groups}" for number in range(1000)]
    found, how = accuracy_interval(truths(1000, 0), names)
    assert found == (pytest.approx(low, abs=0.01), 1.0)
    assert f"{groups} group" in how
    assert "Wilson" in how


def test_two_groups_are_known_to_say_little() -> None:
    """Percentiles alone would claim far too much."""
    (low, high), _ = accuracy_interval(truths(90, 10), ["a"] * 50 + ["b"] * 50)
    assert (low, high) == pytest.approx((0.8, 1.0))


def test_a_difference_is_about_that_of_the_normal_approximation() -> None:
    """60 images only the second has right, 30 only the first, of 1000."""
    first = truths(730, 270)
    second = first.copy()
    second[:30] = False
    second[730:790] = True
    found = difference_interval(first, second, None)
    deviation = np.sqrt((90 - 30**2 / 1000) / 1000**2)
    half = norm.ppf(0.975) * deviation
    assert found == pytest.approx((0.03 - half, 0.03 + half), abs=0.0015)
    back = difference_interval(second, first, None)
    assert back == pytest.approx((-0.03 - half, -0.03 + half), abs=0.0015)


def test_a_difference_over_groups_is_wider() -> None:
    """All that the second model gains is in two of twenty groups."""
    groups = [f"g{number // 50}" for number in range(1000)]
    first, second = truths(900, 100), truths(1000, 0)
    alone, grouped = (difference_interval(first, second, g) for g in (None, groups))
    assert alone is not None
    assert grouped is not None
    assert grouped[0] < 0.01 < alone[0] < alone[1] < grouped[1]


def test_without_a_difference_between_units_there_is_no_interval() -> None:
    right = truths(5, 5)
    assert difference_interval(right, right, None) is None
    assert difference_interval(right, ~right | right, ["one"] * 10) is None
