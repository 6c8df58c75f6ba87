"""Which pairs are probed to see that a fabric forwards."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from topologies.leaf_spine import LeafSpine
from topologies.plan import FabricPlan
from topologies.probe import readiness_pairs

PLANS = st.builds(LeafSpine, st.integers(1, 3), st.integers(1, 6), st.integers(1, 6))


@settings(deadline=None)
@given(PLANS)
def test_readiness_sees_every_host_both_ways_and_every_leaf_from_every_other(plan: FabricPlan) -> None:
    pairs = readiness_pairs(plan)
    everybody = {host.name for host in plan.hosts} if len(plan.hosts) > 1 else set()
    assert {sender for sender, _ in pairs} == everybody
    assert {receiver for _, receiver in pairs} == everybody
    leaves = [leaf.name for leaf in plan.by_role("leaf")]
    seen = {(plan.host(sender).leaf, plan.host(receiver).leaf) for sender, receiver in pairs}
    assert {(near, far) for near in leaves for far in leaves if near != far} <= seen


@settings(deadline=None)
@given(PLANS)
def test_readiness_costs_no_more_than_hosts_and_pairs_of_leaves(plan: FabricPlan) -> None:
    pairs = readiness_pairs(plan)
    assert len(pairs) == len(set(pairs)) <= 2 * len(plan.hosts) + len(plan.by_role("leaf")) ** 2
    assert all(sender != receiver for sender, receiver in pairs)
