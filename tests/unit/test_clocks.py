from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from apps.backoff import full_jitter
from apps.clocks import HybridClock, HybridTime, Lamport, Order, compare, join

vectors = st.dictionaries(st.sampled_from("abc"), st.integers(0, 3))
#: Who does something, and whose last message it has received just before, if anybody's.
schedules = st.lists(st.tuples(st.integers(0, 2), st.none() | st.integers(0, 2)), max_size=30)


@settings(deadline=None)
@given(vectors, vectors, vectors)
def test_join_is_the_least_vector_that_has_seen_both(
    one: dict[str, int], other: dict[str, int], third: dict[str, int]
) -> None:
    joined = join(one, other)
    assert joined == join(other, one)
    assert join(joined, third) == join(one, join(other, third))
    assert compare(one, joined) in (Order.BEFORE, Order.EQUAL)
    if compare(one, third) in (Order.BEFORE, Order.EQUAL) and compare(other, third) in (Order.BEFORE, Order.EQUAL):
        assert compare(joined, third) in (Order.BEFORE, Order.EQUAL)


@settings(deadline=None)
@given(vectors, vectors)
def test_comparing_the_other_way_round_gives_the_opposite(one: dict[str, int], other: dict[str, int]) -> None:
    opposite = {Order.BEFORE: Order.AFTER, Order.AFTER: Order.BEFORE}
    order = compare(one, other)
    assert compare(other, one) is opposite.get(order, order)
    assert (order is Order.EQUAL) is (all(one.get(node, 0) == other.get(node, 0) for node in "abc"))


@settings(deadline=None)
@given(schedules, st.lists(st.integers(0, 20), min_size=30, max_size=30))
def test_vectors_are_causality_and_the_other_clocks_agree_with_it(
    schedule: list[tuple[int, int | None]], readings: list[int]
) -> None:
    vectors: list[dict[str, int]] = [{}, {}, {}]
    lamports, hybrids = [Lamport(), Lamport(), Lamport()], [HybridClock(), HybridClock(), HybridClock()]
    last: dict[int, tuple[dict[str, int], int, HybridTime]] = {}
    history: list[tuple[dict[str, int], int, HybridTime]] = []
    physical = 0
    for (who, heard), reading in zip(schedule, readings, strict=False):
        if heard is not None and heard in last and heard != who:
            vector, lamport, hybrid = last[heard]
            vectors[who] = join(vectors[who], vector)
            lamports[who].receive(lamport)
            hybrids[who].observe(reading, hybrid)
        vectors[who] = {**vectors[who], "abc"[who]: vectors[who].get("abc"[who], 0) + 1}
        physical = max(physical, reading)
        last[who] = vectors[who], lamports[who].tick(), hybrids[who].tick(reading)
        history.append(last[who])
        assert reading <= last[who][2].physical <= physical
    for number, (vector, lamport, hybrid) in enumerate(history):
        for later_vector, later_lamport, later_hybrid in history[number + 1 :]:
            assert compare(vector, later_vector) in (Order.BEFORE, Order.CONCURRENT)
            if compare(vector, later_vector) is Order.BEFORE:
                assert lamport < later_lamport
                assert hybrid < later_hybrid


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 100), st.none() | st.integers(0, 200)), max_size=30))
def test_a_bounded_clock_is_never_further_ahead_than_its_bound_and_rises_whatever_it_hears_and_shows(
    steps: list[tuple[int, int | None]],
) -> None:
    clock, latest, refused = HybridClock(10), 0, 0
    for reading, heard in steps:
        before, latest = clock.time, max(latest, reading)
        if heard is None:
            assert clock.tick(reading) > before
        else:
            taken = clock.observe(reading, HybridTime(heard, 0))
            assert taken is (heard <= reading + 10)
            assert clock.time > max(before, HybridTime(heard, 0)) if taken else clock.time == before
            refused += not taken
        assert clock.time.physical <= latest + 10
    assert clock.refused == refused


def test_a_clock_that_is_restored_goes_on_from_where_it_was_though_its_physical_clock_was_set_back() -> None:
    clock = HybridClock(10)
    clock.restore(HybridTime(1000, 3))
    assert clock.tick(5) == HybridTime(1000, 4)
    assert clock.is_ahead(5, clock.time)


def test_where_the_physical_clock_stands_still_a_hybrid_one_counts_as_lamports_does() -> None:
    hybrid, lamport = HybridClock(), Lamport()
    for heard in (None, 7, None, 3, None):
        if heard is not None:
            hybrid.observe(0, HybridTime(0, heard))
            lamport.receive(heard)
        assert hybrid.tick(0) == HybridTime(0, lamport.tick())


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(1, 1000), st.integers(1, 10**12), st.integers(0, 5))
def test_full_jitter_stays_below_the_doubled_base_and_the_cap(attempt: int, base: int, cap: int, seed: int) -> None:
    assert 0 <= full_jitter(attempt, base, cap, Random(seed)) < min(cap, base * 2**attempt) or cap == 1


def test_full_jitter_uses_the_whole_span() -> None:
    random = Random(1)
    waits = sorted(full_jitter(3, 1000, 10**9, random) for _ in range(2000))
    assert waits[0] < 200
    assert waits[-1] > 7800
    assert 3700 < sum(waits) / len(waits) < 4300
