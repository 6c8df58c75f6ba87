"""Ways through fabrics of every shape."""

from __future__ import annotations

from itertools import pairwise, permutations
from typing import Literal

import msgspec
import networkx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.simulation.forwarding import Forwarding
from topologies.draft import leaves_reached
from topologies.graph import SingleSwitch, Wan, from_graph
from topologies.leaf_spine import LeafSpine
from topologies.plan import FabricPlan
from topologies.three_tier import FatTree, ThreeTier

PLANS = {
    "single switch": SingleSwitch(3),
    "leaf-spine": LeafSpine(3, 4, 1),
    "three tiers": ThreeTier(2, 2, 2, 2, 1),
    "fat tree": FatTree(4),
    "wan": Wan({("eu", "us"): 40_000_000, ("us", "ap"): 70_000_000, ("ap", "eu"): 90_000_000}),
    "ring": from_graph(networkx.cycle_graph(5)),
}
DATAPLANES: tuple[Literal["ovs", "routed"], ...] = ("ovs", "routed")


def forwards(plan: FabricPlan, dataplane: Literal["ovs", "routed"] = "ovs") -> FabricPlan:
    return msgspec.structs.replace(plan, dataplane=dataplane)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(sorted(PLANS)), st.sampled_from(DATAPLANES), st.data())
def test_a_way_leads_over_live_links_and_no_other_leaf_wherever_there_is_one(
    name: str, dataplane: Literal["ovs", "routed"], data: st.DataObject
) -> None:
    plan = forwards(PLANS[name], dataplane)
    between = [link.name for link in plan.links if link.a.port and link.b.port]
    dead = frozenset(data.draw(st.lists(st.sampled_from(between), max_size=4)) if between else [])
    forwarding = Forwarding(plan, data.draw(st.integers(0, 99)))
    forwarding.dead = dead
    forwarding.learn(dead)
    links = {way: link.name for link in plan.links for way in link.directions}
    leaves = {leaf.name for leaf in plan.by_role("leaf")}
    for sender, receiver in permutations(plan.hosts, 2):
        crossed = forwarding.directions(sender.name, receiver.name, "flow")
        if receiver.leaf not in leaves_reached(plan, sender.leaf, dead):
            assert crossed is None
            continue
        assert crossed is not None
        assert not dead & {links[way] for way in crossed}
        nodes = [sender.name, *(way.partition(">")[2] for way in crossed)]
        assert [f"{near}>{far}" for near, far in pairwise(nodes)] == crossed
        assert nodes[-1] == receiver.name
        assert not leaves & set(nodes[2:-2])
        assert len(set(nodes)) == len(nodes)


def test_equal_ways_are_all_used_and_none_that_is_longer() -> None:
    forwarding = Forwarding(FatTree(4), 1)
    taken = {tuple(forwarding.directions("h1", "h16", f"flow {flow}") or ()) for flow in range(200)}
    assert {len(crossed) for crossed in taken} == {6}
    assert len(taken) == 4


@pytest.mark.parametrize("dataplane", DATAPLANES)
def test_flows_are_spread_as_the_weights_of_links_say(dataplane: Literal["ovs", "routed"]) -> None:
    plan = forwards(LeafSpine(2, 2, 1, weights={"leaf1-spine1": 3, "leaf2-spine1": 3}), dataplane)
    forwarding = Forwarding(plan, 1)
    crossed = [forwarding.directions("h1", "h2", f"flow {flow}") or [] for flow in range(2000)]
    assert 0.71 < sum("leaf1>spine1" in way for way in crossed) / len(crossed) < 0.79


def test_a_switch_that_has_seen_a_link_die_moves_its_flows_and_no_others() -> None:
    forwarding = Forwarding(LeafSpine(4, 2, 1), 1)
    before = {flow: forwarding.directions("h1", "h2", f"{flow}") or [] for flow in range(200)}
    forwarding.dead = frozenset({"leaf1-spine2"})
    after = {flow: forwarding.directions("h1", "h2", f"{flow}") or [] for flow in range(200)}
    assert all(after[flow] == way for flow, way in before.items() if "leaf1>spine2" not in way)
    assert not any("leaf1>spine2" in way for way in after.values())
