"""Targets and grudges: who is hit, and what the fabric must look like then."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from experiments.nemesis import complete_grudge, expected_reach, merge, mismatches, resolve
from topologies.leaf_spine import LeafSpine

NODES = ["n1", "n2", "n3", "n4", "n5"]
PLACEMENT = {"n1": "h1", "n2": "h3", "n3": "h5", "c1": "h2"}


@given(st.integers(), st.integers(1, 9))
def test_majority_and_minority_part_the_nodes_and_the_same_seed_parts_them_the_same(seed: int, count: int) -> None:
    nodes = [f"n{number}" for number in range(count)]
    minority, majority = resolve([["minority"], ["majority"]], nodes, None, Random(seed))
    assert sorted(minority + majority) == sorted(nodes)
    assert len(majority) > count / 2 >= len(minority)
    assert [minority, majority] == resolve([["minority"], ["majority"]], nodes, None, Random(seed))


def test_others_are_the_nodes_that_no_group_names() -> None:
    assert resolve([["leader", "n2"], ["others"]], NODES, "n4", Random(0)) == [["n4", "n2"], ["n1", "n3", "n5"]]
    assert resolve([["followers"]], NODES, "n4", Random(0)) == [["n1", "n2", "n3", "n5"]]


def test_a_complete_partition_is_symmetric_and_leaves_groups_whole() -> None:
    grudge = complete_grudge([["n1"], ["n2", "n3"]])
    assert grudge == {"n1": ["n2", "n3"], "n2": ["n1"], "n3": ["n1"]}
    assert merge([grudge, {"n2": ["n3", "n1"]}]) == {"n1": ["n2", "n3"], "n2": ["n1", "n3"], "n3": ["n1"]}


def test_hosts_that_no_group_names_reach_everyone() -> None:
    reach = expected_reach(LeafSpine(2, 3, 2), PLACEMENT, complete_grudge([["n1"], ["n2", "n3"]]))
    assert reach["n1"] == {"n2": False, "n3": False, "c1": True}
    assert reach["c1"] == {"n1": True, "n2": True, "n3": True}


def test_one_dead_uplink_is_routed_around_and_two_cut_the_leaf_off_but_not_apart() -> None:
    plan = LeafSpine(2, 3, 2)
    one = expected_reach(plan, PLACEMENT, {}, ["leaf1-spine1"])
    assert all(all(senders.values()) for senders in one.values())
    # leaf1 reaches only spine1 and leaf2 only spine2: there is no path that goes up once and down once
    split = expected_reach(plan, PLACEMENT, {}, ["leaf1-spine2", "leaf2-spine1"])
    assert split["n1"] == {"n2": False, "n3": True, "c1": True}
    both = expected_reach(plan, PLACEMENT, {}, ["leaf1-spine1", "leaf1-spine2"])
    assert both["n1"] == {"n2": False, "n3": False, "c1": True}
    alone = expected_reach(plan, PLACEMENT, {}, ["h1-leaf1"])
    assert not any(alone["n1"].values())
    assert alone["n2"] == {"n1": False, "n3": True, "c1": True}


def test_a_mismatch_names_the_pair_and_what_arrived() -> None:
    expected = {"a": {"b": False}, "b": {"a": True}}
    assert mismatches(expected, {"a": {"b": [3, 0]}, "b": {"a": [3, 1]}}) == []
    assert mismatches(expected, {"a": {"b": [3, 2]}, "b": {"a": [3, 0]}}) == [
        {"receiver": "a", "sender": "b", "expected": False, "sent": 3, "arrived": 2},
        {"receiver": "b", "sender": "a", "expected": True, "sent": 3, "arrived": 0},
    ]
