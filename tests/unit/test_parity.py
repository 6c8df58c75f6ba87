"""What `tests.parity` takes for the same and what it tells apart: its own judgement, and simulators made to drift."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.run import play
from experiments.scenario import parse
from experiments.schedule import Schedule
from experiments.simulation import network
from tests.parity import CALM, DETECTOR, QUORUM, RAFT, Shown, asked, compared, ratio, share, shown, unshared, vocabulary

TIMES = st.lists(st.integers(1, 10**9), min_size=1, max_size=30)


@given(TIMES, TIMES, st.integers(1, 8))
@settings(max_examples=20, deadline=None)
def test_what_takes_so_many_times_as_long_has_that_ratio_and_so_has_its_interval(
    ours: list[int], theirs: list[int], factor: int
) -> None:
    one = ratio(ours, theirs, median)
    scaled = ratio([factor * time for time in ours], theirs, median)
    assert scaled.estimate == pytest.approx(factor * one.estimate)
    assert (scaled.low, scaled.high) == pytest.approx((factor * one.low, factor * one.high))
    assert one.low <= one.high


def test_many_alike_are_alike_too_few_are_not_and_twice_as_much_never_is() -> None:
    times = [100 + 10 * (number % 11) for number in range(60)]
    assert ratio(times, times[::-1], median).within(1.2)
    assert not ratio([100, 180], times, median).within(1.2)
    assert not ratio([2 * time for time in times], times, median).within(1.5)
    assert not ratio(times, [2 * time for time in times], median).within(1.5)


def test_what_never_came_or_was_never_lost_on_one_side_only_is_a_difference() -> None:
    assert not ratio([float("inf")] * 9, [1.0] * 9, median).within(1.5)
    assert not ratio([(0, 10)] * 9, [(3, 10)] * 9, share).within(1.5)
    assert not ratio([(3, 10)] * 9, [(0, 10)] * 9, share).within(1.5)
    assert ratio([(0, 10)] * 9, [(0, 10)] * 9, share).within(1.5)
    with pytest.raises(ValueError, match="cannot be compared"):
        ratio([], [1.0], median)


def test_those_of_one_pair_are_drawn_together_and_what_pairs_share_is_no_difference() -> None:
    theirs = [(number % 10, 10) for number in range(12)]
    assert ratio(theirs, theirs, share, paired=True).within(1.01)
    assert not ratio(theirs, theirs, share).within(1.3)


def test_a_word_that_one_world_lacks_is_found_whichever_it_is_and_in_whichever_event() -> None:
    full = {"trace vote": {frozenset({"t", "term"})}, "trace install": {frozenset({"t"})}}
    assert unshared(full, full, {}) == []
    without = {"trace vote": full["trace vote"]}
    for one, other in ((full, without), (without, full)):
        assert unshared(one, other, {}) != []
        assert unshared(one, other, {"trace install": "seldom"}) == []
    once = {**full, "trace vote": {frozenset({"t", "term"}), frozenset({"t", "term", "why"})}}
    for one, other in ((full, once), (once, full)):
        assert unshared(one, other, {"trace vote": "seldom"}) == ["trace vote: only one world has t term why"]


# ---------------------------------------------------------------------------------------------------------------------
# Simulators that drifted


def play_all(folder: Path, text: str, seeds: range) -> Iterator[tuple[Path, Shown]]:
    for seed in seeds:
        run = play(parse(f"seed = {seed}\n{text}", "parity"), folder, "test", lambda stage, detail: None, "simulated")
        yield run.path, shown(run.path, run.results)


def show_all(folder: Path, text: str, seeds: range) -> list[Shown]:
    return [found for _, found in play_all(folder, text, seeds)]


def test_other_seeds_are_alike_but_other_election_timeouts_are_not(tmp_path: Path) -> None:
    usual, others = show_all(tmp_path, RAFT, range(1, 5)), show_all(tmp_path, RAFT, range(101, 103))
    slower = show_all(tmp_path, RAFT.replace('"300ms", "600ms"', '"500ms", "1s"'), range(101, 103))
    for what in ("time to a new leader", "upper quartile of times to a new leader", "share of operations lost"):
        assert compared(what, others, usual).is_alike, what
        assert not compared(what, slower, usual).is_alike, what


def test_frames_that_take_longer_and_links_that_are_slower_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm, slow_links = show_all(tmp_path, CALM, range(1, 5)), show_all(tmp_path, QUORUM, range(1, 3))
    assert compared("latency of writes", show_all(tmp_path, CALM, range(101, 103)), calm).is_alike
    twice = show_all(tmp_path, QUORUM.replace('"5ms"', '"10ms"'), range(1, 3))
    assert not compared("latency of reads across slow links", twice, slow_links).is_alike
    assert not compared("latency of writes across slow links", twice, slow_links).is_alike
    monkeypatch.setattr(network, "OVERHEAD", tuple(time + 150_000 for time in network.OVERHEAD))
    late = show_all(tmp_path, CALM, range(101, 103))
    assert not compared("latency of reads", late, calm).is_alike


def test_a_detector_that_waits_longer_is_told_apart(tmp_path: Path) -> None:
    usual = show_all(tmp_path, DETECTOR, range(1, 5))
    assert compared("time to a detection", show_all(tmp_path, DETECTOR, range(101, 103)), usual).is_alike
    longer = show_all(tmp_path, DETECTOR.replace('timeout = "800ms"', 'timeout = "1100ms"'), range(101, 103))
    assert not compared("time to a detection", longer, usual).is_alike


def test_a_world_that_is_late_strikes_out_of_order_but_with_the_same_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_time = [asked(run) for run, _ in play_all(tmp_path, QUORUM, range(1, 2))]
    until = Schedule.until

    async def late(self: Schedule, moment: int) -> None:
        """The first faults' moments all pass unnoticed, and the last of them is seen first."""
        await until(self, 4_000_000_000 - moment // 1000 if 0 < moment < 4_000_000_000 else moment)

    monkeypatch.setattr(Schedule, "until", late)
    ((run, _),) = play_all(tmp_path, QUORUM, range(1, 2))
    assert [asked(run)] == in_time
    assert vocabulary([run])["fault partition asked"]
