"""Intervals hold what they promise: in repeated trials the truth is inside them as often as they say."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from topologies.intervals import deviation_interval, mean_interval, share_interval, student_quantile


@given(st.integers(1, 2000), st.data())
def test_a_share_lies_in_its_interval_which_is_within_0_and_1(trials: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, trials))
    low, high = share_interval(trials, count)
    assert 0 <= low <= count / trials <= high <= 1


@pytest.mark.parametrize(
    ("trials", "count", "expected"),
    # Clopper and Pearson's exact limits: for none of n, and all of n, they have a closed form.
    [
        (50, 0, (0.0, 1 - 0.025 ** (1 / 50))),
        (50, 50, (0.025 ** (1 / 50), 1.0)),
        (10, 3, (0.06674, 0.65245)),
        (100, 10, (0.04900, 0.17622)),
    ],
)
def test_a_shares_interval_is_the_exact_one(trials: int, count: int, expected: tuple[float, float]) -> None:
    assert share_interval(trials, count) == pytest.approx(expected, abs=2e-5)


def test_losses_in_bursts_are_known_less_surely() -> None:
    alone, bursts = share_interval(1000, 100, burst=1.1), share_interval(1000, 100, burst=8)
    assert alone == share_interval(1000, 100)
    assert bursts[1] - bursts[0] > 2 * (alone[1] - alone[0])


@pytest.mark.parametrize(("freedom", "expected"), [(5, 2.5706), (9, 2.2622), (19, 2.0930)])
def test_students_quantile_is_that_of_the_tables(freedom: int, expected: float) -> None:
    assert student_quantile(freedom) == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("memory", [0.0, 0.6])
def test_the_truth_is_in_19_of_20_intervals_of_a_mean_even_where_neighbours_are_alike(memory: float) -> None:
    """An autoregressive sequence: each value keeps a part of the last one."""
    random, held = Random(7), 0
    for _ in range(300):
        value, values = 0.0, []
        for _ in range(400):
            value = memory * value + random.gauss(0, 1)
            values.append(10 + value)
        found = mean_interval(values)
        assert found is not None
        held += found[0] <= 10 <= found[1]
    assert 0.90 <= held / 300 <= 0.99


def test_the_truth_is_in_most_intervals_of_a_deviation() -> None:
    random, held = Random(3), 0
    for _ in range(300):
        found = deviation_interval([random.uniform(-1, 1) for _ in range(400)])
        assert found is not None
        held += found[0] <= 1 / math.sqrt(3) <= found[1]
    assert held / 300 >= 0.90


def test_too_few_values_have_no_interval() -> None:
    assert mean_interval([1.0] * 5) is None
    assert deviation_interval([]) is None
    assert mean_interval([1.0] * 6) == (1.0, 1.0)
