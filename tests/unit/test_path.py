"""Ways through a fabric: computed where there is one, followed by counters where there are several."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controllers.fake_switch import FakeFabric, udp
from controllers.pipeline import programs
from experiments.path import PACKETS, PathError, computed, follow
from topologies.leaf_spine import LeafSpine
from topologies.plan import PlanError

PLAN = LeafSpine(3, 3, 2)


@given(st.integers(1, 4), st.integers(2, 4), st.data())
def test_a_computed_way_is_the_one_packets_take_whatever_their_ports(
    spines: int, leaves: int, data: st.DataObject
) -> None:
    plan = LeafSpine(spines, leaves, 2)
    fabric = FakeFabric(plan)
    fabric.load(programs(plan))
    sender, receiver = data.draw(st.lists(st.sampled_from(plan.hosts), min_size=2, max_size=2, unique=True))
    way = computed(plan, sender.name, receiver.name)
    assert (way is None) == (spines > 1 and sender.leaf != receiver.leaf)
    if way:
        packet = udp(sender, receiver, plan.router_mac, data.draw(st.integers(1, 65535)))
        assert way.nodes == (sender.name, *fabric.send(sender, packet)[1], receiver.name)
        assert [plan.ends(direction)[0].node for direction in way.directions] == list(way.nodes[:-1])


@pytest.mark.parametrize(("sender", "receiver", "says"), [("h1", "h99", "no host 'h99'"), ("h1", "h1", "never leaves")])
def test_hosts_that_are_not_there_or_the_same_are_named(sender: str, receiver: str, says: str) -> None:
    with pytest.raises(PlanError, match=says):
        computed(PLAN, sender, receiver)


def carried(*directions: str) -> dict[str, int]:
    every = {direction: 0 for link in PLAN.links for direction in link.directions}
    return every | dict.fromkeys(directions, PACKETS)


def test_counters_are_followed_onward_only_since_answers_come_back_by_another_way() -> None:
    there, back = ("h1>leaf1", "leaf1>spine2", "spine2>leaf3", "leaf3>h6"), ("leaf3>spine1", "spine1>leaf1")
    assert follow(PLAN, carried(*there, *back), "h1", "h6") == ("h1", "leaf1", "spine2", "leaf3", "h6")


@pytest.mark.parametrize(
    ("seen", "says"),
    [
        (("h1>leaf1",), "not carried any further"),
        (("h1>leaf1", "leaf1>spine1", "leaf1>spine2"), "something else"),
    ],
)
def test_counters_that_tell_no_way_are_shown(seen: tuple[str, ...], says: str) -> None:
    with pytest.raises(PathError, match=says) as raised:
        follow(PLAN, carried(*seen), "h1", "h6")
    assert "leaf1 sent on {'spine1'" in str(raised.value)
