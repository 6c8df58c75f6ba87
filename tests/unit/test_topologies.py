"""Every topology is a plan that can be built: nothing named or addressed twice, and every host reaches every other."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import msgspec
import networkx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.pipeline import routes
from topologies import cidr
from topologies.draft import check, leaves_reached
from topologies.graph import SingleSwitch, Wan, from_graph
from topologies.impair import direction_of
from topologies.impairment import Impairment
from topologies.leaf_spine import LeafSpine
from topologies.plan import FabricPlan, PlanError
from topologies.three_tier import FatTree, ThreeTier

SMALL = st.integers(1, 3)
THREE_TIERS = st.builds(
    lambda plane, pods, spines, leaves, hosts: ThreeTier(plane * spines, pods, spines, leaves, hosts),
    SMALL,
    SMALL,
    SMALL,
    SMALL,
    SMALL,
)
REGIONS = ["eu", "us", "ap", "sa"]
WANS = st.lists(st.integers(0, 300_000_000), min_size=6, max_size=6).map(
    lambda delays: Wan(dict(zip(itertools.combinations(REGIONS, 2), delays, strict=True)))
)
PLANS = st.one_of(
    st.builds(LeafSpine, SMALL, SMALL, SMALL),
    THREE_TIERS,
    st.sampled_from([2, 4]).map(FatTree),
    WANS,
    st.builds(SingleSwitch, SMALL),
)


@settings(deadline=None, max_examples=60)
@given(PLANS)
def test_every_topology_can_be_built_and_routed_by_the_controller(plan: FabricPlan) -> None:
    check(plan)
    leaves = {leaf.name for leaf in plan.by_role("leaf")}
    ways = routes(plan)
    for near, far in itertools.permutations(leaves, 2):
        assert ways[near][far]
        assert far in leaves_reached(plan, near)


def test_a_fat_tree_has_the_sizes_of_its_paper() -> None:
    for k in (2, 4, 6):
        plan = FatTree(k)
        assert len(plan.hosts) == k**3 // 4
        assert len(plan.switches) == 5 * k * k // 4
        ports = {switch.name: len(plan.links_of(switch.name)) for switch in plan.switches}
        assert set(ports.values()) == {k}


def test_pods_meet_in_every_super_spine_of_a_plane() -> None:
    plan = ThreeTier(4, 3, 2, 2, 1)
    for number in range(1, 5):
        below = {link.a.node for link in plan.links_of(f"super{number}")}
        first = 1 + (number - 1) // 2
        assert below == {f"spine{first + 2 * pod}" for pod in range(3)}


def test_a_wans_links_have_the_delays_of_its_matrix_in_each_direction() -> None:
    plan = Wan({("eu", "us"): 40_000_000, ("us", "eu"): 45_000_000, ("us", "ap"): 70_000_000}, hosts_per_region=1)
    assert {way: impairment.delay for way, impairment in plan.impairments.items()} == {
        "eu>us": 40_000_000,
        "us>eu": 45_000_000,
        "us>ap": 70_000_000,
        "ap>us": 70_000_000,
    }


def test_uplinks_of_an_oversubscribed_leaf_carry_their_part_of_what_its_hosts_could_send() -> None:
    plan = LeafSpine(2, 2, 6, weights={"leaf1-spine1": 3}, host_rate=100_000_000, oversubscription=3)
    rates = {way: impairment.rate for way, impairment in plan.impairments.items()}
    assert rates["leaf1>spine1"] == 150_000_000
    assert rates["leaf1>spine2"] == 50_000_000
    assert rates["leaf2>spine1"] == rates["spine1>leaf2"] == 100_000_000
    assert plan.link("leaf1-spine1").weight == 3


def test_a_link_that_is_missing_is_not_there_and_hosts_reach_each_other_without_it() -> None:
    plan = LeafSpine(2, 2, 1, missing=["leaf1-spine2"])
    assert [link.name for link in plan.links_of("spine2")] == ["leaf2-spine2"]


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 6), st.integers(0, 10_000), st.integers(1, 2))
def test_any_connected_graph_is_a_fabric_with_a_router_for_each_node(nodes: int, seed: int, hosts: int) -> None:
    graph = networkx.connected_watts_strogatz_graph(nodes, 2, 0.3, seed=seed)
    plan = from_graph(graph, hosts)
    assert len(plan.hosts) == nodes * hosts
    routers = {router.name for router in plan.by_role("spine")}
    between = {frozenset((k.a.node, k.b.node)) for k in plan.links if {k.a.node, k.b.node} <= routers}
    assert between == {frozenset((f"n{a}", f"n{b}")) for a, b in graph.edges}


def test_a_graph_says_how_many_hosts_a_node_has_and_what_an_edge_does_to_packets() -> None:
    graph = networkx.Graph()
    graph.add_node("core", hosts=0)
    graph.add_edge("core", "east", impairment=Impairment(loss=0.1))
    graph.add_edge("core", "west")
    plan = from_graph(graph)
    assert [leaf.name for leaf in plan.by_role("leaf")] == ["east-lf", "west-lf"]
    assert plan.impairments == {"core>east": Impairment(loss=0.1), "east>core": Impairment(loss=0.1)}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: LeafSpine(2, 2, 1, missing=["leaf1-spine1", "leaf1-spine2"]), "cannot reach"),
        (lambda: LeafSpine(2, 2, 1, missing=["leaf3-spine1"]), "no link leaf3-spine1"),
        (lambda: LeafSpine(2, 2, 1, weights={"leaf1-spine1": 0}), "weight of leaf1-spine1 is 0"),
        (lambda: ThreeTier(3, 2, 2, 2, 1), "multiple of spines_per_pod"),
        (lambda: ThreeTier(2, 2, 0, 2, 1), "spines_per_pod is 0"),
        (lambda: FatTree(3), "k is 3"),
        (lambda: SingleSwitch(0), "hosts is 0"),
        (lambda: Wan({("eu", "us"): 1, ("ap", "sa"): 1}), "cannot reach"),
        (lambda: Wan({("eu", "eu"): 1}), "eu to eu"),
        (lambda: from_graph(networkx.DiGraph([(1, 2)])), "undirected"),
        (lambda: from_graph(networkx.Graph([(1, 1), (1, 2)])), "n1-n1 leads from a switch to itself"),
        (lambda: from_graph(networkx.Graph([(1, 2), (3, 4)])), "hosts of n3-lf, n4-lf cannot reach those of n1-lf"),
        (lambda: from_graph(networkx.Graph([(1, "n1")])), "same name"),
        (lambda: from_graph(networkx.Graph()), "there are no hosts"),
        (lambda: Wan({("northern-europe", "us"): 1}), "northern-europe.* would be longer"),
    ],
)
def test_a_topology_that_cannot_be_is_refused_by_what_was_asked_for(make: Callable[[], FabricPlan], says: str) -> None:
    with pytest.raises(PlanError, match=says):
        make()


def test_a_direction_of_a_routed_fabric_is_in_the_namespaces_of_its_switches() -> None:
    routed = msgspec.structs.replace(LeafSpine(1, 2, 1), dataplane="routed")
    direction = direction_of(routed, "leaf1>spine1")
    assert (direction.sender.netns, direction.receiver.netns) == ("leaf1", "spine1")
    direction = direction_of(LeafSpine(1, 2, 1), "h1>leaf1")
    assert (direction.sender.netns, direction.receiver.netns) == ("h1", None)


def altered(**columns: Any) -> FabricPlan:
    return msgspec.structs.replace(LeafSpine(2, 2, 2), **columns)


def test_all_problems_of_a_plan_are_said_at_once() -> None:
    plan = LeafSpine(2, 2, 2)
    hosts = (msgspec.structs.replace(plan.hosts[0], address="10.0.2.1/16", gateway="10.0.2.254"), *plan.hosts[1:])
    with pytest.raises(PlanError) as refused:
        check(altered(hosts=hosts, links=(*plan.links, plan.links[0]), mtu=100))
    for said in ("address 10.0.2.1", "link h1-leaf1", "MTU is 100", "overlap", "leaf2 10.0.2.0/24"):
        assert said in str(refused.value)


# -- addresses


@given(st.integers(1, 40), st.integers(1, 60))
def test_parts_of_a_block_lie_in_it_apart_and_have_room(networks: int, hosts: int) -> None:
    parts = cidr.split("10.0.0.0/16", networks, hosts=hosts)
    assert len(parts) == networks
    cidr.check_apart({str(number): part for number, part in enumerate(parts)})
    assert all(part.subnet_of(cidr.block("10.0.0.0/16")) and part.num_addresses >= hosts + 3 for part in parts)


def test_links_get_pairs_of_a_slash_31_until_the_block_is_used_up() -> None:
    pairs = cidr.link_pairs("172.16.0.0/30")
    assert [tuple(map(str, next(pairs))) for _ in range(2)] == [
        ("172.16.0.0/31", "172.16.0.1/31"),
        ("172.16.0.2/31", "172.16.0.3/31"),
    ]
    with pytest.raises(PlanError, match="no more than 2 links"):
        next(pairs)


BLOCKS = st.builds(
    lambda number, length: cidr.block(f"10.0.{number}.0/24") if length == 24 else cidr.block("10.0.0.0/16"),
    st.integers(0, 3),
    st.sampled_from([16, 24, 24, 24]),
)


@given(st.lists(BLOCKS, max_size=6))
def test_networks_are_apart_exactly_if_no_two_overlap(blocks: list[Any]) -> None:
    named = {f"net{number}": network for number, network in enumerate(blocks)}
    together = [(a, b) for a, b in itertools.combinations(named, 2) if named[a].overlaps(named[b])]
    if not together:
        cidr.check_apart(named)
        return
    with pytest.raises(PlanError) as refused:
        cidr.check_apart(named)
    assert all(a in str(refused.value) and b in str(refused.value) for a, b in together)
    assert str(refused.value).count(" and ") == len(together)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: cidr.block("10.0.0.1/8"), "did you mean 10.0.0.0/8"),
        (lambda: cidr.block("ten"), "such as 10.0.0.0/8"),
        (lambda: cidr.split("10.0.0.0/24", 3, hosts=100), "3 networks of 100 hosts do not fit into 10.0.0.0/24"),
        (lambda: cidr.split("10.0.0.0/24", 1, hosts=1000), "needs a /22, and there is room for 0"),
        (lambda: cidr.check_apart({"a": "10.0.0.0/8", "b": "10.1.0.0/16"}), "a 10.0.0.0/8 and b 10.1.0.0/16"),
    ],
)
def test_a_block_that_cannot_be_used_is_refused(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(PlanError, match=says):
        make()
