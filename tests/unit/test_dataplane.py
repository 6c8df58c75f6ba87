"""Where a grudge is enforced, worked out from the plan."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topologies.dataplane import grudge_rules
from topologies.leaf_spine import LeafSpine
from topologies.plan import PlanError

PLAN = LeafSpine(2, 3, 4)
NAMES = [host.name for host in PLAN.hosts]
GRUDGES = st.dictionaries(st.sampled_from(NAMES), st.sets(st.sampled_from(NAMES))).map(
    lambda grudge: {receiver: senders - {receiver} for receiver, senders in grudge.items()}
)


@settings(deadline=None)
@given(GRUDGES)
def test_each_pair_is_dropped_once_in_its_direction_at_the_receivers_leaf(grudge: dict[str, set[str]]) -> None:
    rules = grudge_rules(PLAN, grudge)
    asked = [(receiver, sender) for receiver, senders in grudge.items() for sender in senders]
    assert sorted(rules) == sorted(
        (PLAN.host(receiver).leaf, PLAN.host(sender).ip, PLAN.host(receiver).ip) for receiver, sender in asked
    )


@pytest.mark.parametrize("grudge", [{"h99": {"h1"}}, {"h1": {"h99"}}])
def test_a_host_the_plan_does_not_have_is_refused(grudge: dict[str, set[str]]) -> None:
    with pytest.raises(PlanError, match="no host 'h99'"):
        grudge_rules(PLAN, grudge)


def test_a_host_cannot_be_cut_off_from_itself() -> None:
    with pytest.raises(PlanError, match="h1 cannot be cut off from itself"):
        grudge_rules(PLAN, {"h1": {"h1", "h2"}})
