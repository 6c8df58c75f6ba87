"""What a fabric does with packets when its switches hold what `controllers.pipeline` says, links failing or not."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.fake_switch import FakeFabric, Packet, arp_request, cut_off, udp
from controllers.pipeline import (
    ETH_IP,
    FABRIC_COOKIE,
    Flow,
    Group,
    Output,
    Program,
    SetField,
    ToGroup,
    difference,
    programs,
    routes,
)
from topologies.leaf_spine import LeafSpine
from topologies.plan import FAULT_COOKIE, FabricPlan, Host

unhurried = settings(deadline=None)  # a busy machine is no failure
plans = st.builds(LeafSpine, st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))


def dead_links(plan: FabricPlan) -> st.SearchStrategy[frozenset[str]]:
    return st.frozensets(st.sampled_from([link.name for link in plan.links]))


broken_plans = plans.flatmap(lambda plan: st.tuples(st.just(plan), dead_links(plan)))
transitions = plans.flatmap(lambda plan: st.tuples(st.just(plan), dead_links(plan), dead_links(plan)))


def built(plan: FabricPlan, dead: frozenset[str] = frozenset()) -> FakeFabric:
    fabric = FakeFabric(plan)
    fabric.load(programs(plan, dead))
    fabric.dead |= dead
    return fabric


def pairs(plan: FabricPlan) -> list[tuple[Host, Host]]:
    return list(itertools.permutations(plan.hosts, 2))


def reaches(fabric: FakeFabric, sender: Host, receiver: Host, source_port: int = 5000) -> bool:
    arrived, path = fabric.send(sender, udp(sender, receiver, fabric.plan.router_mac, source_port))
    assert len(arrived) <= 1, "a packet was duplicated"
    assert len(set(path)) == len(path), f"it went through a switch twice: {path}"
    return [name for name, _ in arrived] == [receiver.name]


def joined(plan: FabricPlan, sender: Host, receiver: Host, dead: frozenset[str]) -> bool:
    """Whether live links join them: host, leaf, one spine, leaf, host."""

    def spines(host: Host) -> set[str]:
        links = (f"{host.leaf}-{spine.name}" for spine in plan.by_role("spine"))
        return {link.rpartition("-")[2] for link in links if link not in dead}

    if {f"{sender.name}-{sender.leaf}", f"{receiver.name}-{receiver.leaf}"} & dead:
        return False
    return sender.leaf == receiver.leaf or bool(spines(sender) & spines(receiver))


@unhurried
@given(plans)
def test_every_pair_of_hosts_reaches_each_other_and_each_router_on_the_way_takes_one_of_the_ttl(
    plan: FabricPlan,
) -> None:
    fabric = built(plan)
    for sender, receiver in pairs(plan):
        arrived, path = fabric.send(sender, udp(sender, receiver, plan.router_mac))
        [(name, packet)] = arrived
        assert name == receiver.name
        assert packet["eth_dst"] == receiver.mac
        if sender.leaf == receiver.leaf:
            assert (path, packet["ttl"], packet["eth_src"]) == ([sender.leaf], 64, sender.mac)
        else:
            assert [plan.switch(name).role for name in path] == ["leaf", "spine", "leaf"]
            assert (packet["ttl"], packet["eth_src"]) == (64 - 3, plan.router_mac)


@unhurried
@given(broken_plans)
def test_after_the_repair_hosts_reach_each_other_exactly_where_live_links_join_them(
    broken: tuple[FabricPlan, frozenset[str]],
) -> None:
    plan, dead = broken
    fabric = built(plan, dead)
    for sender, receiver in pairs(plan):
        for source_port in (5000, 5001, 5002):
            assert reaches(fabric, sender, receiver, source_port) == joined(plan, sender, receiver, dead)


def test_on_4_by_4_any_single_dead_link_is_repaired_around_for_all_pairs() -> None:
    plan = LeafSpine(4, 4, 4)
    for link in plan.links:
        dead = frozenset({link.name})
        fabric = built(plan, dead)
        for sender, receiver in pairs(plan):
            assert reaches(fabric, sender, receiver) == joined(plan, sender, receiver, dead), link.name


def test_a_leaf_that_loses_a_spine_goes_on_sending_before_any_repair() -> None:
    plan = LeafSpine(4, 4, 2)
    fabric = built(plan)
    for leaf, spine in itertools.product(plan.by_role("leaf"), plan.by_role("spine")):
        fabric.dead = {f"{leaf.name}-{spine.name}"}
        for sender, receiver in itertools.product(plan.hosts_of(leaf.name), plan.hosts):
            if sender != receiver:
                assert all(reaches(fabric, sender, receiver, source_port) for source_port in range(16))


def test_a_leaf_cut_from_every_spine_forwards_the_moment_one_link_is_back() -> None:
    plan = LeafSpine(3, 2, 1)
    cut = frozenset(f"leaf1-spine{number}" for number in (1, 2, 3))
    fabric = built(plan, cut)
    sender, receiver = plan.hosts
    assert not reaches(fabric, sender, receiver)
    fabric.dead.remove("leaf1-spine2")
    assert all(reaches(fabric, sender, receiver, source_port) for source_port in range(16))


def test_flows_spread_evenly_over_the_spines() -> None:
    plan = LeafSpine(4, 2, 1)
    fabric = built(plan)
    sender, receiver = plan.hosts
    taken = Counter(
        fabric.send(sender, udp(sender, receiver, plan.router_mac, source_port))[1][1] for source_port in range(400)
    )
    assert len(taken) == 4
    assert min(taken.values()) >= 60


@unhurried
@given(plans)
def test_arp_is_answered_by_the_leaf_for_its_hosts_and_their_gateway_and_reaches_nobody_else(plan: FabricPlan) -> None:
    fabric = built(plan)
    for sender in plan.hosts:
        macs = {host.ip: host.mac for host in plan.hosts_of(sender.leaf)} | {sender.gateway: plan.router_mac}
        for target, mac in macs.items():
            [(name, reply)], path = fabric.send(sender, arp_request(sender, target))
            assert (name, path) == (sender.name, [sender.leaf])
            expected = {"eth_src": mac, "eth_dst": sender.mac, "arp_op": 2, "arp_sha": mac, "arp_spa": target}
            assert expected.items() <= reply.items()
            assert (reply["arp_tha"], reply["arp_tpa"]) == (sender.mac, sender.ip)
        for stranger in ("10.255.255.1", "192.0.2.1"):
            assert fabric.send(sender, arp_request(sender, stranger))[0] == []


@unhurried
@given(plans)
def test_every_gateway_answers_pings_from_every_host(plan: FabricPlan) -> None:
    fabric = built(plan)
    for sender, receiver in itertools.product(plan.hosts, repeat=2):
        echo: Packet = udp(sender, receiver, plan.router_mac)
        echo |= {"eth_dst": plan.router_mac, "ipv4_dst": receiver.gateway, "ip_proto": 1, "icmpv4_type": 8}
        [(name, reply)], _ = fabric.send(sender, echo)
        assert name == sender.name
        answer = {"ipv4_src": receiver.gateway, "ipv4_dst": sender.ip, "icmpv4_type": 0, "eth_dst": sender.mac}
        assert answer.items() <= reply.items()


def test_what_is_for_nobody_is_dropped() -> None:
    plan = LeafSpine(2, 2, 2)
    fabric = built(plan)
    sender, receiver = plan.hosts[0], plan.hosts[-1]
    datagram = udp(sender, receiver, plan.router_mac)
    for lost in (
        datagram | {"ipv4_dst": "10.0.2.77"},
        datagram | {"ipv4_dst": "192.0.2.1"},
        datagram | {"eth_dst": "ff:ff:ff:ff:ff:ff", "ipv4_dst": "255.255.255.255"},
        datagram | {"eth_dst": "33:33:00:00:00:01", "eth_type": 0x86DD},
        datagram | {"ttl": 3},
    ):
        assert fabric.send(sender, lost)[0] == []


@unhurried
@given(transitions)
def test_differences_lead_from_any_state_to_any_other_and_are_empty_once_there(
    transition: tuple[FabricPlan, frozenset[str], frozenset[str]],
) -> None:
    plan, before, after = transition
    fabric = built(plan, before)
    wanted = programs(plan, after)
    for name, switch in fabric.switches.items():
        fault = Flow(0, 60_000, (("eth_type", ETH_IP), ("in_port", 1)), cookie=FAULT_COOKIE)
        switch.flows[fault.key] = fault
        for change in difference(switch.program, wanted[name]):
            switch.apply(change)
        assert {flow for flow in switch.program.flows if flow != fault} == set(wanted[name].flows)
        assert set(switch.program.groups) == set(wanted[name].groups)
        assert switch.flows[fault.key] == fault
        assert difference(switch.program, wanted[name]) == ()


@unhurried
@given(transitions)
def test_no_message_of_a_repair_loses_a_packet_that_would_have_arrived_without_it(
    transition: tuple[FabricPlan, frozenset[str], frozenset[str]],
) -> None:
    plan, before, after = transition
    fabric = built(plan, before)
    fabric.dead = set(after)
    wanted = programs(plan, after)
    crossing = [(one, other) for one, other in pairs(plan) if one.leaf != other.leaf][:6]
    delivered = {pair for pair in crossing if reaches(fabric, *pair)}
    for name, switch in fabric.switches.items():
        for change in difference(switch.program, wanted[name]):
            switch.apply(change)
            now = {pair for pair in crossing if reaches(fabric, *pair)}
            assert now >= delivered
            delivered = now


def test_a_damaged_flow_or_group_is_put_right_and_a_stale_one_removed() -> None:
    plan = LeafSpine(2, 2, 1)
    want = programs(plan)["leaf1"]
    [group] = want.groups
    [toward] = [flow for flow in want.flows if ToGroup(group.id) in flow.actions]
    damaged = msgspec.structs.replace(toward, actions=(Output(1),))
    short = msgspec.structs.replace(group, buckets=group.buckets[:1])
    stale = Flow(2, 10, (("eth_dst", "02:00:00:00:09:99"),), (Output(9),))
    others = tuple(flow for flow in want.flows if flow != toward)
    have = Program((*others, damaged, stale), (short, Group(77, group.buckets)))
    assert [(change.operation, change.item) for change in difference(have, want)] == [
        ("modify", group),
        ("modify", toward),
        ("remove", stale),
        ("remove", Group(77, group.buckets)),
    ]


@unhurried
@given(plans)
def test_programs_are_the_same_after_a_trip_through_json(plan: FabricPlan) -> None:
    for program in programs(plan).values():
        assert msgspec.json.decode(msgspec.json.encode(program), type=Program) == program


@unhurried
@given(plans)
def test_every_flow_carries_the_fabrics_cookie_and_leaves_the_top_of_table_0_to_faults(plan: FabricPlan) -> None:
    for program in programs(plan).values():
        assert {flow.cookie for flow in program.flows} <= {FABRIC_COOKIE}
        assert all(flow.priority < 1000 for flow in program.flows if flow.table == 0)


def test_on_links_between_switches_a_packet_carries_the_macs_of_its_two_ends() -> None:
    plan = LeafSpine(2, 2, 1)
    sender, receiver = plan.hosts
    leaf = built(plan).switches["leaf1"]
    datagram = udp(sender, receiver, plan.router_mac)
    [(port, packet)] = leaf.forward(datagram, 1, live={1, 2})
    assert (port, packet["eth_src"], packet["eth_dst"]) == (2, "06:00:00:00:10:01", "06:00:00:00:20:01")


def test_a_spine_holds_one_rule_a_leaf_and_no_group() -> None:
    spine = programs(LeafSpine(4, 4, 4))["spine1"]
    assert spine.groups == ()
    assert sum(1 for flow in spine.flows if any(isinstance(action, SetField) for action in flow.actions)) == 4


@pytest.mark.parametrize(("dead", "ways"), [((), 4), (("leaf2-spine1",), 3), (("leaf1-spine1", "leaf2-spine4"), 2)])
def test_a_leaf_leaves_out_spines_that_lost_the_destination(dead: tuple[str, ...], ways: int) -> None:
    assert len(routes(LeafSpine(4, 2, 1), dead)["leaf1"]["leaf2"]) == ways


def weighted(plan: FabricPlan, weights: dict[str, int]) -> FabricPlan:
    links = tuple(msgspec.structs.replace(link, weight=weights.get(link.name, link.weight)) for link in plan.links)
    return msgspec.structs.replace(plan, links=links)


@pytest.mark.parametrize(
    ("weights", "dead", "expected"),
    [
        ({}, (), [1, 1, 1]),
        ({"leaf1-spine1": 3}, (), [1, 1, 1]),  # spine1 cannot pass on more than the others
        ({"leaf1-spine1": 3, "leaf2-spine1": 3}, (), [3, 1, 1]),
        ({"leaf2-spine1": 40, "leaf1-spine1": 40, "leaf1-spine2": 10, "leaf2-spine2": 20}, (), [40, 10, 1]),
        ({f"leaf{leaf}-spine{spine}": 10 for leaf in (1, 2) for spine in (1, 2, 3)}, (), [1, 1, 1]),
        ({"leaf1-spine1": 3, "leaf2-spine1": 3}, ("leaf2-spine2",), [3, 1]),
    ],
)
def test_flows_spread_by_what_the_narrowest_link_of_each_way_carries(
    weights: dict[str, int], dead: tuple[str, ...], expected: list[int]
) -> None:
    plan = weighted(LeafSpine(3, 2, 1), weights)
    assert [hop.weight for hop in routes(plan, dead)["leaf1"]["leaf2"]] == expected
    [group] = programs(plan, dead)["leaf1"].groups
    assert [bucket.weight for bucket in group.buckets] == expected


@unhurried
@given(broken_plans, st.randoms(use_true_random=False))
def test_weights_change_shares_but_never_which_ways_there_are(
    broken: tuple[FabricPlan, frozenset[str]], rng: random.Random
) -> None:
    plan, dead = broken
    uneven = routes(weighted(plan, {link.name: rng.randint(1, 100) for link in plan.links}), dead)
    for name, ways in routes(plan, dead).items():
        for goal, hops in ways.items():
            assert [hop.link for hop in uneven[name][goal]] == [hop.link for hop in hops]
            assert math.gcd(*(hop.weight for hop in uneven[name][goal])) == 1
            assert {hop.weight for hop in hops} == {1}


def test_every_pair_reaches_under_every_single_link_failure_on_four_by_four() -> None:
    assert cut_off(LeafSpine(4, 4, 4)) == []


def test_without_a_controller_that_repairs_a_remote_failure_cuts_pairs_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controllers.fake_switch.programs", lambda plan, dead=(): programs(plan))
    assert {link for link, _, _ in cut_off(LeafSpine(2, 2, 2))} >= {"leaf1-spine1", "leaf2-spine2"}
