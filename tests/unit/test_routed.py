"""The routed data plane takes the ways that the controller takes, and tells every switch where they lead."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from controllers import pipeline
from topologies.leaf_spine import LeafSpine
from topologies.plan import FabricPlan
from topologies.routed import link_addresses, program, ways
from topologies.three_tier import FatTree, ThreeTier

PLANS = st.sampled_from([LeafSpine(2, 3, 2), LeafSpine(3, 2, 1), ThreeTier(2, 2, 2, 2, 1), FatTree(4)])


@settings(deadline=None, max_examples=60)
@given(PLANS, st.data())
def test_kernel_and_controller_take_the_same_ways_whatever_links_are_dead(plan: FabricPlan, data: Any) -> None:
    fabric_links = [link.name for link in plan.links if link.a.port and link.b.port]
    dead = data.draw(st.sets(st.sampled_from(fabric_links), max_size=4))
    wanted = pipeline._shortest(plan, dead)
    found = ways(plan, dead)
    assert {
        switch: {leaf: {way.port for way in some} for leaf, some in to.items()} for switch, to in found.items()
    } == {switch: {leaf: {hop.port for hop in some} for leaf, some in to.items()} for switch, to in wanted.items()}


@given(PLANS)
def test_the_ends_of_a_link_share_a_network_that_nobody_else_is_in(plan: FabricPlan) -> None:
    addresses = link_addresses(plan)
    assert len(set(addresses.values())) == len(addresses)
    ends = [((link.a.node, link.a.port), (link.b.node, link.b.port)) for link in plan.links if link.a.port]
    between = [(addresses[near], addresses[far]) for near, far in ends if near in addresses and far in addresses]
    assert all(near.network == far.network and near != far for near, far in between)
    assert len({near.network for near, _ in between}) == len(between)


def test_a_dead_link_is_not_spoken_of() -> None:
    plan = LeafSpine(2, 2, 1)
    address = str(link_addresses(plan)["spine1", 1].ip)
    assert any(address in message.about for message in program(plan)["leaf1"])
    assert not any(address in message.about for message in program(plan, {"leaf1-spine1"})["leaf1"])
