from __future__ import annotations

import math
import statistics
from hashlib import blake2b

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.clocks import HybridTime
from apps.quorum import QuorumConfig, QuorumConfigError, Ring, Version, merkle
from apps.quorum.versions import context_of, covers, merge

versions = st.builds(
    lambda actor, counter, context: Version(actor, counter, context, HybridTime(counter, 0), f"{actor}{counter}"),
    st.sampled_from("abc"),
    st.integers(1, 4),
    st.dictionaries(st.sampled_from("abc"), st.integers(1, 4)),
)
#: Dots determine versions, as they do in a store.
sets = st.lists(versions, max_size=8, unique_by=lambda version: (version.actor, version.counter))


# ---- the ring


@given(st.text(max_size=8), st.integers(1, 8), st.integers(1, 20))
def test_a_walk_names_every_node_once(key: str, nodes: int, virtual_nodes: int) -> None:
    names = [f"n{number}" for number in range(nodes)]
    assert sorted(Ring(names, virtual_nodes).walk(key)) == sorted(names)


def test_a_node_that_joins_takes_its_share_and_moves_nothing_else() -> None:
    names, keys = [f"n{number}" for number in range(10)], [f"k{number}" for number in range(4000)]
    before, after = Ring(names, 100), Ring([*names, "new"], 100)
    moved = [key for key in keys if before.walk(key)[0] != after.walk(key)[0]]
    assert {after.walk(key)[0] for key in moved} == {"new"}
    assert len(moved) / len(keys) == pytest.approx(1 / 11, rel=0.35)


@pytest.mark.parametrize("virtual_nodes", [10, 100])
def test_shares_vary_as_the_formula_says(virtual_nodes: int) -> None:
    names, variations = [f"n{number}" for number in range(10)], []
    for trial in range(12):
        ring = Ring([f"{trial}{name}" for name in names], virtual_nodes)
        ends = [place for place, _ in ring._places]
        shares: dict[str, float] = {}
        for number, (place, node) in enumerate(ring._places):
            shares[node] = shares.get(node, 0) + (place - ends[number - 1]) % (1 << 64)
        variations.append(statistics.pstdev(shares.values()) / statistics.fmean(shares.values()))
    assert statistics.fmean(variations) == pytest.approx(math.sqrt(9 / (10 * virtual_nodes + 1)), rel=0.25)


# ---- versions


@settings(deadline=None)
@given(sets, st.booleans(), st.data())
def test_merging_in_any_order_and_again_ends_alike(found: list[Version], lww: bool, data: st.DataObject) -> None:
    whole = merge(found, lww)
    assert merge(data.draw(st.permutations(found)), lww) == whole
    assert merge([*whole, *whole], lww) == whole
    if lww:
        cut = data.draw(st.integers(0, len(found)))
        assert merge([*merge(found[:cut], lww), *merge(found[cut:], lww)], lww) == whole
        assert len(whole) == min(1, len(found))


@given(sets)
def test_whoever_has_seen_all_siblings_replaces_all(found: list[Version]) -> None:
    replacing = Version("z", 1, context_of(found), HybridTime(9, 0), "new")
    assert merge([*found, replacing], False) == (replacing,)


def test_two_writes_through_one_coordinator_that_saw_nothing_are_siblings() -> None:
    first = Version("a", 1, {}, HybridTime(1, 0), "first")
    second = Version("a", 2, {}, HybridTime(2, 0), "second")
    assert merge([second, first], False) == (first, second)
    assert not covers(second, first)
    assert merge([second, first], True) == (second,)


# ---- Merkle trees


entries = st.dictionaries(st.text(max_size=4), st.integers(0, 3), max_size=30)


def tree_of(entries: dict[str, int]) -> merkle.Tree:
    return merkle.tree(
        (key, blake2b(f"{key}={value}".encode(), digest_size=16).digest()) for key, value in entries.items()
    )


@settings(deadline=None)
@given(entries, entries)
def test_descending_where_digests_differ_ends_at_the_leaves_that_differ(
    one: dict[str, int], other: dict[str, int]
) -> None:
    mine, theirs = tree_of(one), tree_of(other)
    positions = merkle.differing(mine, 0, {0: theirs[0][0]})
    for level in range(merkle.DEPTH):
        positions = merkle.differing(mine, level + 1, merkle.children(theirs, level, positions))
    expected = {merkle.leaf(key) for key in {*one, *other} if one.get(key) != other.get(key)}
    assert set(positions) == expected


# ---- configurations


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"r": 1, "w": 2}, r"r \+ w is 1 \+ 2, not more than n = 3: the 1 replicas a read asks may all be others"),
        ({"r": 3, "w": 1}, "w is 1, not more than half of n = 3: two writes may both succeed.*Raise w to 2"),
        ({"r": 4}, "both must be from 1 to n"),
        ({"linearizable": True, "quorum": "sloppy"}, "linearizable needs quorum 'strict'"),
        ({"linearizable": True, "versions": "siblings"}, "must agree which write is the later"),
        ({"patience": 10**9}, "patience is 1000000000 ns; it must be shorter than the timeout"),
        ({"quorum": "sloppy", "hinted_handoff": False}, "needs hinted_handoff"),
        ({"virtual_nodes": 0}, "virtual_nodes is 0"),
    ],
)
def test_a_promise_that_cannot_be_kept_is_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(QuorumConfigError, match=words):
        QuorumConfig(**settings)  # type: ignore[arg-type]


@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 7))
def test_a_strict_quorum_is_one_in_which_reads_and_writes_meet_writes(n: int, r: int, w: int) -> None:
    promised = r <= n and w <= n and r + w > n and 2 * w > n
    try:
        QuorumConfig(n=n, r=r, w=w)
    except QuorumConfigError:
        assert not promised
    else:
        assert promised
