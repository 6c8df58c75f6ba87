"""Every topology is a plan that can be built: nothing named or addressed twice, and every host reaches every other."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable
from typing import Any

import msgspec
import networkx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from controllers.pipeline import routes
from topologies import cidr
from topologies.check import check
from topologies.draft import leaves_reached
from topologies.fabric import Fabric
from topologies.graph import SingleSwitch, Wan, from_edges, from_graph
from topologies.impair import direction_of
from topologies.impairment import Impairment
from topologies.leaf_spine import LeafSpine
from topologies.plan import End, FabricPlan, Link, PlanError
from topologies.tenants import tenant
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
        (lambda: Wan({("eu", "us"): 61_000_000_000}), "between eu and us: delay is 61000000000 ns"),
        (lambda: from_edges([("a", "b"), ("b", "a")]), "a-b and b-a are between the same two nodes"),
        (lambda: LeafSpine(2, 2, 1, weights={"leaf1-spine1": 70_000}), "weight of leaf1-spine1 is 70,000"),
        (lambda: LeafSpine(1, 4200, 1), r"too large: 4,200 leaves \(at most 4,096\)"),
        (lambda: LeafSpine(10**8, 2, 1), "too large: 100,000,000 spines"),
        (lambda: LeafSpine(2, 10**8, 1), "too large: 100,000,000 leaves"),
        (lambda: LeafSpine(2, 10**5000, 1), "too large: more than 1,000,000,000,000 leaves"),
        (lambda: LeafSpine(2, -(10**5000), 1), "leaves is less than -1,000,000,000,000"),
        (lambda: FatTree(10**8), "too large"),
        (lambda: FatTree(10**5000 + 1), "k is more than 1,000,000,000,000"),
        (lambda: ThreeTier(2, 10**8, 2, 2, 2), "too large"),
        (lambda: SingleSwitch(10**8), "too large: 100,000,000 hosts"),
        (lambda: SingleSwitch(65_500), "leaf1 has 65,500 hosts; a switch has at most 65,279 ports"),
        (lambda: Wan({("eu", "us"): 1}, 10**8), "too large: 200,000,000 hosts"),
        (lambda: from_graph(networkx.path_graph(2), 10**8), "too large"),
    ],
)
def test_a_topology_that_cannot_be_is_refused_by_what_was_asked_for(make: Callable[[], FabricPlan], says: str) -> None:
    begun = time.process_time()
    with pytest.raises(PlanError, match=says):
        make()
    assert time.process_time() - begun < 1, "an absurd size is seen before anything of that size is made"


NODES = st.one_of(
    st.integers(-99, 99),
    st.text(max_size=20),
    st.tuples(st.integers(0, 9), st.integers(0, 9)),
    st.frozensets(st.integers(0, 9), max_size=3),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(NODES, min_size=2, max_size=8, unique_by=lambda node: f"n{node}" if isinstance(node, int) else node))
@example([(0, 0), (0, 1), "a>b", "a*b", "", "..", "h1", "a\nb"])
@example(["northern-europe", "northern-america"])
def test_a_graphs_nodes_may_be_anything_and_its_routers_have_names(nodes: list[Any]) -> None:
    graph = networkx.path_graph(nodes)
    plan = from_graph(graph)
    assert len(plan.by_role("spine")) == len(nodes)
    assert plan == from_graph(graph.copy())
    routers = [router.name for router in plan.by_role("spine")]
    for node, router in zip(nodes, routers, strict=True):
        if isinstance(node, str) and re.fullmatch("[A-Za-gi-z][A-Za-z0-9]{,5}", node):
            assert router == node


def test_nodes_of_a_grid_are_called_by_their_numbers() -> None:
    plan = from_graph(networkx.grid_2d_graph(2, 2))
    assert [router.name for router in plan.by_role("spine")] == ["n0_0", "n0_1", "n1_0", "n1_1"]
    assert plan.link("n0_0-n0_1").directions == ("n0_0>n0_1", "n0_1>n0_0")


def test_a_direction_of_a_routed_fabric_is_in_the_namespaces_of_its_switches() -> None:
    routed = msgspec.structs.replace(LeafSpine(1, 2, 1), dataplane="routed")
    direction = direction_of(routed, "leaf1>spine1")
    assert (direction.sender.netns, direction.receiver.netns) == ("leaf1", "spine1")
    direction = direction_of(LeafSpine(1, 2, 1), "h1>leaf1")
    assert (direction.sender.netns, direction.receiver.netns) == ("h1", None)


def altered(**columns: Any) -> FabricPlan:
    return msgspec.structs.replace(LeafSpine(2, 2, 2), **columns)


def hosts_with(number: int, **columns: Any) -> dict[str, Any]:
    hosts = list(LeafSpine(2, 2, 2).hosts)
    hosts[number] = msgspec.structs.replace(hosts[number], **columns)
    return {"hosts": tuple(hosts)}


def links_with(name: str, **columns: Any) -> dict[str, Any]:
    """That link with other columns; ``a`` and ``b`` are columns of its ends."""
    plan = LeafSpine(2, 2, 2)
    links = {link.name: link for link in plan.links}
    ends = {
        end: msgspec.structs.replace(getattr(links[name], end), **columns.pop(end))
        for end in ("a", "b")
        if end in columns
    }
    links[name] = msgspec.structs.replace(links[name], **columns, **ends)
    return {"links": tuple(links.values())}


def one_more_link(name: str, near: str, far: str) -> dict[str, Any]:
    link = Link(name, End(near, f"{near}-eth9", 9), End(far, f"{far}-eth9", 9))
    return {"links": (*LeafSpine(2, 2, 2).links, link)}


BLUE = tenant("blue", 100, "192.168.0.0/24", ["h1", "h3"])


def member_with(**columns: Any) -> dict[str, Any]:
    members = (msgspec.structs.replace(BLUE.members[0], **columns), BLUE.members[1])
    return {"mtu": 1550, "tenants": (msgspec.structs.replace(BLUE, members=members),)}


NO_PLANS: list[tuple[dict[str, Any], str]] = [
    (hosts_with(1, name="h1"), "name h1 is there more than once"),
    (hosts_with(1, name="../../tmp/h"), "../../tmp/h is no name"),
    (hosts_with(1, name="h" * 64), "is no name: .* at most 63"),
    (hosts_with(1, address="10.0.300.2/24"), "h2: '10.0.300.2/24' is no address with a prefix length"),
    (hosts_with(1, address="10.0.1.2/255.255.255.0"), "h2: .* is no address with a prefix length"),
    (hosts_with(1, address="10.0.1.0/24"), "h2: 10.0.1.0/24 is the address of a whole network"),
    (hosts_with(1, address="10.0.1.1/24"), "address 10.0.1.1 is there more than once"),
    (hosts_with(1, gateway="10.0.9.254"), "h2: its gateway 10.0.9.254 is no address in its network 10.0.1.0/24"),
    (hosts_with(1, gateway="there"), "h2: its gateway there is no address"),
    (hosts_with(1, address="224.0.0.1/24", gateway="224.0.0.254"), "h2: 224.0.0.0/24 is multicast"),
    (hosts_with(1, mac="hello"), "hello of h2"),
    (hosts_with(1, mac="01:00:00:00:00:02"), "01:00:00:00:00:02 of h2"),
    (hosts_with(1, mac="00:00:00:00:00:00"), "00:00:00:00:00:00 of h2"),
    ({"router_mac": "06"}, "06 of the router"),
    ({"router_mac": LeafSpine(1, 1, 1).hosts[0].mac}, "MAC address .* is there more than once"),
    (hosts_with(1, leaf="spine1"), "hosts hang off leaves: h2 of spine1 does not"),
    (links_with("h1-leaf1", a={"node": "zz"}), "links lead to zz, which the plan does not have"),
    (links_with("leaf1-spine1", weight=70_000), "a weight is between 1 and 65535: there is 70000 of leaf1-spine1"),
    (
        links_with("leaf1-spine1", mtu=9000),
        "own MTU is between 576 and the fabric's 1500 bytes: .* 9000 of leaf1-spine1",
    ),
    (links_with("h1-leaf1", mtu=1400), "links of hosts have the hosts' MTU, no own: h1-leaf1 has"),
    (links_with("leaf1-spine1", a={"port": 0}), "a switch's ports have numbers from 1, a host's has 0: .* 0 of leaf1"),
    (links_with("leaf1-spine1", a={"interface": "lo"}), "lo is what the kernel or Open vSwitch has already"),
    (links_with("leaf1-spine1", a={"interface": "leaf2"}), "leaf2 is a switch's name and an interface's"),
    (links_with("leaf1-spine1", a={"interface": "a" * 16}), "would be longer than the 15 bytes"),
    (
        one_more_link("up", "spine1", "leaf1"),
        "leaf1-spine1 and up have the same directions, leaf1>spine1 and spine1>leaf1",
    ),
    ({"impairments": {"leaf1>leaf9": Impairment(loss=0.1)}}, "leaf1>leaf9 is impaired, and no direction of a link"),
    ({"dataplane": "routed", "bfd_interval": 20_000_000}, "BFD is Open vSwitch's"),
    (
        {"dataplane": "routed", **hosts_with(1, address="172.16.9.1/24", gateway="172.16.9.254")},
        "addresses overlap: a routed fabric's own links 172.16.0.0/12 and h2 of leaf1 172.16.9.0/24",
    ),
    ({"bfd_interval": 1}, "BFD's interval is 1 ns; it is 1 ms to 10 s"),
    ({"mtu": 100}, "the MTU is 100"),
    ({"mtu": 1499}, "the hosts' packets of 1500 do not fit"),
    ({"tenants": (BLUE,)}, "the MTU is 1500, which no tunnel of 1500 bytes fits"),
    (member_with(name="../h1"), "../h1 is no name of a member"),
    (member_with(mac="hello"), "hello of h1_blue"),
    (member_with(host="h9"), "tenant blue: no host 'h9'; there is h1"),
    (member_with(address="192.168.0.1"), "'192.168.0.1' is no address with a prefix length"),
]


@pytest.mark.parametrize(("columns", "says"), NO_PLANS, ids=[says for _, says in NO_PLANS])
def test_a_plan_that_was_edited_into_one_that_cannot_be_is_refused_where_it_is_read_and_built(
    columns: dict[str, Any], says: str
) -> None:
    plan = altered(**columns)
    with pytest.raises(PlanError, match=says):
        FabricPlan.from_json(plan.to_json())
    with pytest.raises(PlanError, match=says):
        Fabric(plan)


@given(st.text(max_size=15).filter(lambda name: not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name)))
@example("a b")
@example("a/b")
@example("a\nb")
@example("a%d")
@example("a>b")
@example("a*")
@example("a\n")
@example("..")
@example("")
def test_what_would_mean_something_to_a_shell_a_path_or_a_pattern_is_no_name(name: str) -> None:
    hosts = (msgspec.structs.replace(LeafSpine(2, 2, 2).hosts[0], name=name), *LeafSpine(2, 2, 2).hosts[1:])
    with pytest.raises(PlanError, match="is no name"):
        check(altered(hosts=hosts))


LEAVES = ["leaf1", "leaf2", "leaf3", "leaf4"]


@settings(deadline=None)
@given(st.lists(st.sampled_from([f"{leaf}-spine{n}" for leaf in LEAVES for n in (1, 2, 3)]), unique=True, max_size=9))
def test_a_plan_is_made_exactly_if_every_leaf_reaches_every_other(missing: list[str]) -> None:
    whole = LeafSpine(3, 4, 1)
    reached = all(leaves_reached(whole, leaf, missing) == set(LEAVES) for leaf in LEAVES)
    if reached:
        LeafSpine(3, 4, 1, missing=missing)
        return
    with pytest.raises(PlanError, match="there is no way of spines between them"):
        LeafSpine(3, 4, 1, missing=missing)


def test_all_problems_of_a_plan_are_said_at_once() -> None:
    plan = LeafSpine(2, 2, 2)
    hosts = (msgspec.structs.replace(plan.hosts[0], address="10.0.2.1/16", gateway="10.0.2.254"), *plan.hosts[1:])
    with pytest.raises(PlanError) as refused:
        check(altered(hosts=hosts, links=(*plan.links, plan.links[0]), mtu=100))
    for said in ("address 10.0.2.1", "link h1-leaf1", "MTU is 100", "overlap", "h3 of leaf2 10.0.2.0/24"):
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
        (lambda: cidr.split("10.0.0.0/24", -1, hosts=1), "-1 networks of 1 hosts: neither can be negative"),
        (lambda: cidr.split("10.0.0.0/24", 1, hosts=-5), "1 networks of -5 hosts: neither can be negative"),
        (lambda: cidr.interface("10.0.0.255/24"), "10.0.0.255/24 is the address of a whole network"),
        (lambda: cidr.check_apart({"a": "10.0.0.0/8", "b": "10.1.0.0/16"}), "a 10.0.0.0/8 and b 10.1.0.0/16"),
    ],
)
def test_a_block_that_cannot_be_used_is_refused(make: Callable[[], Any], says: str) -> None:
    with pytest.raises(PlanError, match=says):
        make()
