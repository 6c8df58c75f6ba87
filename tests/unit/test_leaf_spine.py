"""A leaf-spine plan is a Clos fabric in which nothing is named or addressed twice."""

from __future__ import annotations

import ipaddress
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topologies.draft import HOST_BLOCK
from topologies.leaf_spine import LeafSpine
from topologies.plan import LONGEST_INTERFACE_NAME, FabricPlan, PlanError

PLANS = st.builds(LeafSpine, st.integers(1, 6), st.integers(1, 12), st.integers(1, 20))


@settings(deadline=None)
@given(PLANS)
def test_every_leaf_has_one_link_to_every_spine_and_none_to_a_leaf(plan: FabricPlan) -> None:
    hosts = {host.name for host in plan.hosts}
    between = Counter((link.a.node, link.b.node) for link in plan.links if link.a.node not in hosts)
    assert between == Counter(
        (leaf.name, spine.name) for leaf in plan.by_role("leaf") for spine in plan.by_role("spine")
    )


@settings(deadline=None)
@given(PLANS)
def test_every_host_has_one_link_to_its_own_leaf(plan: FabricPlan) -> None:
    for host in plan.hosts:
        (link,) = plan.links_of(host.name)
        assert {link.a.node, link.b.node} == {host.name, host.leaf}


@settings(deadline=None)
@given(PLANS)
def test_no_name_address_or_port_is_given_twice(plan: FabricPlan) -> None:
    ends = [end for link in plan.links for end in (link.a, link.b)]
    switches = {switch.name for switch in plan.switches}
    for given_out in (
        [switch.name for switch in plan.switches] + [host.name for host in plan.hosts],
        [link.name for link in plan.links],
        [end.interface for end in ends],
        [(end.node, end.port) for end in ends],
        [switch.datapath_id for switch in plan.switches],
        [host.ip for host in plan.hosts] + [plan.hosts_of(leaf.name)[0].gateway for leaf in plan.by_role("leaf")],
        [host.mac for host in plan.hosts] + [plan.router_mac],
    ):
        assert len(given_out) == len(set(given_out))
    assert all(end.port > 0 for end in ends if end.node in switches)
    assert all(len(end.interface) <= LONGEST_INTERFACE_NAME for end in ends)


@settings(deadline=None)
@given(PLANS)
def test_leaves_have_networks_apart_each_with_its_hosts_and_their_gateway(plan: FabricPlan) -> None:
    networks = []
    for leaf in plan.by_role("leaf"):
        interfaces = [ipaddress.IPv4Interface(host.address) for host in plan.hosts_of(leaf.name)]
        (network,) = {interface.network for interface in interfaces}
        (gateway,) = {ipaddress.IPv4Address(host.gateway) for host in plan.hosts_of(leaf.name)}
        usable = set(network.hosts())
        assert gateway in usable
        assert {interface.ip for interface in interfaces} <= usable - {gateway}
        assert network.subnet_of(HOST_BLOCK)
        networks.append(network)
    assert all(not a.overlaps(b) for i, a in enumerate(networks) for b in networks[:i])


def test_names_and_addresses_are_those_a_person_expects() -> None:
    plan = LeafSpine(2, 3, 4)
    assert [host.name for host in plan.hosts_of("leaf2")] == ["h5", "h6", "h7", "h8"]
    assert plan.host("h5").address == "10.0.2.1/24"
    assert plan.host("h5").gateway == "10.0.2.254"
    assert plan.ends("leaf1>spine2")[0].interface == "leaf1-eth6"


def test_a_leaf_of_more_hosts_than_a_slash_24_holds_gets_a_larger_network() -> None:
    plan = LeafSpine(1, 2, 254)
    assert plan.host("h1").address.endswith("/23")
    assert LeafSpine(1, 2, 253).host("h1").address.endswith("/24")


@pytest.mark.parametrize(
    ("size", "says"),
    [((0, 3, 4), "spines is 0"), ((2, 0, 4), "leaves is 0"), ((2, 3, -1), "hosts_per_leaf is -1")],
)
def test_a_fabric_without_a_tier_is_refused_by_the_name_of_its_argument(size: tuple[int, int, int], says: str) -> None:
    with pytest.raises(PlanError, match=says):
        LeafSpine(*size)


def test_more_leaves_than_addresses_are_refused() -> None:
    with pytest.raises(PlanError, match=r"do not fit into 10\.0\.0\.0/8"):
        LeafSpine(1, 300, [60_000] + [1] * 299)


def test_an_interface_name_that_linux_cannot_hold_is_refused() -> None:
    with pytest.raises(PlanError, match=r"leaf100-eth10000 would be longer"):
        LeafSpine(1, 100, [1] * 99 + [10_000])
