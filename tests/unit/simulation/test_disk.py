"""What is durable, and when."""

from __future__ import annotations

import re
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.journal import JournalCorrupt
from experiments.simulation.disk import SYNC, Disk
from experiments.simulation.kernel import Kernel


class Owner:
    """Who writes to a disk."""

    def __init__(self, seed: int = 1) -> None:
        self.kernel = Kernel()
        self.disk = Disk(self.kernel, Random(seed))
        self.confirmed: list[tuple[int, int]] = []
        self.failed = 0
        self.open()

    def open(self) -> list[str]:
        return self.disk.open(lambda token: self.confirmed.append((self.kernel.now, token)), self.fail)

    def fail(self) -> None:
        self.failed += 1


def test_what_comes_while_a_sync_is_under_way_shares_the_next_one() -> None:
    owner = Owner()
    for token in range(1, 6):
        owner.disk.persist(token, [f"record {token}"])
    owner.kernel.run(1_000_000_000)
    assert [token for _, token in owner.confirmed] == [1, 5]
    assert owner.disk.records == [f"record {token}" for token in range(1, 6)]


def test_a_sync_takes_its_time_and_a_slow_disk_longer() -> None:
    owner = Owner()
    owner.disk.persist(1, ["a"])
    owner.kernel.run(SYNC[0] - 1)
    assert owner.confirmed == []
    owner.kernel.run(SYNC[-1])
    ((first, _),) = owner.confirmed
    owner.disk.slowness = 1000.0
    owner.disk.persist(2, ["b"])
    owner.kernel.run(first + 1000 * SYNC[0] - 1)
    assert [token for _, token in owner.confirmed] == [1]


@given(st.integers(), st.lists(st.integers(1, 4), min_size=1, max_size=8), st.integers(0, 4_000_000))
def test_a_crash_keeps_what_was_confirmed_and_some_beginning_of_the_rest(
    seed: int, sizes: list[int], moment: int
) -> None:
    owner = Owner(seed)
    asked: list[str] = []
    upto: dict[int, int] = {}
    for token, size in enumerate(sizes):
        records = [f"{token}.{number}" for number in range(size)]
        asked += records
        upto[token] = len(asked)
        owner.disk.persist(token, records)
    owner.kernel.run(moment)
    certain = upto[owner.confirmed[-1][1]] if owner.confirmed else 0
    owner.disk.crash()
    kept = owner.open()
    assert kept == asked[: len(kept)]
    assert len(kept) >= certain
    owner.kernel.run(moment + 1_000_000_000)
    assert owner.disk.records == kept


def test_over_many_crashes_records_are_both_lost_and_kept() -> None:
    kept = set()
    for seed in range(30):
        owner = Owner(seed)
        owner.disk.persist(1, ["a", "b"])
        owner.disk.crash()
        kept.add(len(owner.open()))
    assert kept == {0, 1, 2}


def test_a_snapshot_takes_the_place_of_what_was_before_it_and_a_crash_leaves_it_whole_or_not_at_all() -> None:
    left = set()
    for seed in range(30):
        owner = Owner(seed)
        owner.disk.persist(1, ["a", "b"])
        owner.kernel.run(1_000_000_000)
        owner.disk.persist(2, ["snapshot", "of both"], anew=True)
        owner.disk.crash()
        left.add(tuple(owner.open()))
    assert left == {("a", "b"), ("snapshot", "of both")}


@settings(max_examples=60, deadline=None)
@given(st.integers(), st.integers(1, 6), st.integers(1, 3000))
def test_a_flipped_bit_is_found_and_refused_or_takes_nothing_with_it_that_is_not_cut_off_the_end(
    seed: int, batches: int, size: int
) -> None:
    owner = Owner(seed)
    asked = [f"{number}" * size for number in range(batches)]
    for number, record in enumerate(asked):
        owner.disk.persist(number, [record])
        owner.kernel.run(owner.kernel.now + 1_000_000_000)
    owner.disk.crash()
    found = owner.disk.flip()
    if found.endswith("nothing depends on it"):
        assert owner.open() == asked
    else:
        with pytest.raises(JournalCorrupt, match=re.escape(found.partition(": ")[2])):
            owner.open()


def test_a_write_that_a_crash_tears_is_there_whole_or_cut_off_and_always_recovered_from() -> None:
    left: set[int] = set()
    for seed in range(200):
        owner = Owner(seed)
        owner.disk.persist(1, ["durable"])
        owner.kernel.run(1_000_000_000)
        owner.disk.persist(2, ["a" * 2000, "b" * 2000, "c" * 2000])
        owner.disk.crash()
        kept = owner.open()
        assert kept[0] == "durable"
        left.add(len(kept))
    assert left == {1, 2, 3, 4}


def test_a_full_disk_fails_the_write_and_keeps_what_it_has() -> None:
    owner = Owner()
    owner.disk.persist(1, ["a"])
    owner.kernel.run(1_000_000_000)
    owner.disk.full = True
    owner.disk.persist(2, ["b"])
    assert owner.failed == 1
    assert owner.disk.records == ["a"]
