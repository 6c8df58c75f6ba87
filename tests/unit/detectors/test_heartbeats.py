from __future__ import annotations

import statistics
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.detectors import (
    Accrual,
    Beat,
    DetectorConfigError,
    FixedTimeout,
    HeartbeatConfig,
    Heartbeats,
    PhiConfig,
    Standing,
)
from apps.detectors.phi import deviations, phi
from apps.process import Received, SetTimer, Started
from experiments.simulation.group import Conditions, Group
from tests.unit.detectors.groups import MS, SECOND, heartbeats, judged, names, opinions


def test_a_crash_is_noticed_by_all_after_the_timeout_and_a_return_at_once() -> None:
    group = heartbeats(5, HeartbeatConfig(interval=100 * MS, timeout=500 * MS))
    group.run(2 * SECOND)
    crashed = group.now
    group.crash("m1")
    group.run(SECOND)
    result = judged(group, {"m1": crashed})
    assert 400 * MS <= result.first_detection["m1"] <= result.last_detection["m1"] <= 502 * MS
    assert result.mistakes == 0
    group.restart("m1")
    group.run(2 * MS)
    assert opinions(group, "m1") == {Standing.ALIVE}


def test_the_load_of_a_member_grows_with_the_group() -> None:
    for count in (4, 16):
        group = heartbeats(count)
        group.run(10 * SECOND)
        assert judged(group).messages_per_second == pytest.approx((count - 1) * 10, rel=0.12)


def test_one_way_loss_makes_two_members_judge_each_other_differently() -> None:
    group = heartbeats(3)
    group.block(["m0"], ["m1"])
    group.run(2 * SECOND)
    assert group.process("m1").standing("m0") is Standing.FAILED
    assert group.process("m0").standing("m1") is Standing.ALIVE
    assert group.process("m2").standing("m0") is Standing.ALIVE


def test_copies_and_stragglers_are_not_taken_for_news() -> None:
    node = Heartbeats("a", ["a", "b"], 100 * MS, lambda: FixedTimeout(500 * MS))
    node.handle(0, Started())
    assert any(isinstance(effect, SetTimer) for effect in node.handle(1, Received("b", Beat(0, 2))))
    for old in (Beat(0, 2), Beat(0, 1)):
        assert node.handle(2, Received("b", old)) == []
    assert node.handle(3, Received("stranger", Beat(0, 9))) == []


@settings(deadline=None)
@given(st.floats(0.4, 290))
def test_a_threshold_is_reached_as_many_deviations_out_as_it_says(threshold: float) -> None:
    assert phi(deviations(threshold)) == pytest.approx(threshold, rel=2e-3)


def test_phi_8_is_5_61_deviations_and_phi_of_the_mean_one_in_two() -> None:
    assert deviations(8) == pytest.approx(5.61, abs=0.005)
    assert 10 ** -phi(0) == pytest.approx(0.5)


@settings(deadline=None)
@given(st.lists(st.integers(1, 10**10), min_size=2, max_size=60), st.integers(2, 20))
def test_the_window_has_the_mean_and_deviation_of_its_last_intervals(intervals: list[int], window: int) -> None:
    accrual = Accrual(PhiConfig(window=window, least_deviation=1))
    now = 0
    accrual.heard(now, regular=False)
    for interval in intervals:
        now += interval
        accrual.heard(now, regular=True)
    last = intervals[-window:]
    mean, deviation = accrual.fit()
    assert mean == pytest.approx(statistics.fmean(last))
    assert deviation == pytest.approx(max(1, statistics.pstdev(last)), rel=1e-6)
    assert accrual.phi(now + accrual.limit()) >= 8 - 1e-6
    assert accrual.phi(now) < accrual.phi(now + accrual.limit())


def test_accrual_learns_what_a_fixed_timeout_must_be_told() -> None:
    """Where heartbeats come late by up to four intervals, one that expects them on time is wrong again and again."""
    members, interval = names(3), 100 * MS
    conditions = Conditions(delay=(MS, 400 * MS))

    def mistakes(patience: type[FixedTimeout] | type[Accrual]) -> int:
        def make(name: str, random: Random) -> Heartbeats:
            if patience is Accrual:
                return Heartbeats(name, members, interval, lambda: Accrual(PhiConfig(interval=interval)))
            return Heartbeats(name, members, interval, lambda: FixedTimeout(3 * interval))

        group = Group(members, make, seed=1, conditions=conditions)
        group.run(20 * SECOND)
        group.evidence.clear()  # so long it may learn
        group.run(60 * SECOND)
        return judged(group).mistakes

    assert mistakes(FixedTimeout) >= 20
    assert mistakes(Accrual) <= 2


def test_an_outage_does_not_teach_accrual_patience() -> None:
    accrual = Accrual(PhiConfig())
    node = Heartbeats("a", ["a", "b"], 100 * MS, lambda: accrual)
    node.handle(0, Started())
    for number in range(1, 50):
        node.handle(number * 100 * MS, Received("b", Beat(0, number)))
    before = accrual.limit()
    node.handle(5 * SECOND, Received("b", Beat(5 * SECOND, 1)))  # it was restarted
    assert accrual.limit() == before


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: HeartbeatConfig(interval=0), "interval is 0"),
        (lambda: HeartbeatConfig(interval=100, timeout=100), "must be longer than the interval"),
        (lambda: PhiConfig(threshold=0.1), "threshold is 0.1"),
        (lambda: PhiConfig(window=0), "window is 0"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(make: object, words: str) -> None:
    with pytest.raises(DetectorConfigError, match=words):
        make()  # type: ignore[operator]


def test_a_group_must_name_its_members_once() -> None:
    with pytest.raises(ValueError, match="each once"):
        Heartbeats("a", ["a", "b", "b"], 1, lambda: FixedTimeout(2))
