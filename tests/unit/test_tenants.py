"""A plan's tenants have addresses of their own, and those that could not work are refused with every reason."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topologies import vtep
from topologies.leaf_spine import LeafSpine
from topologies.plan import OVERHEAD, FabricPlan, PlanError, Tenant
from topologies.tenants import tenant, with_tenants

PLAN = LeafSpine(2, 3, 4)
HOSTS = [host.name for host in PLAN.hosts]
PREFIXES = ["192.168.0.0/24", "10.0.0.0/16", "172.16.1.0/28"]


def tenants_of(draw: Any) -> list[Tenant]:
    count = draw(st.integers(1, 4))
    vnis = draw(st.lists(st.integers(1, (1 << 24) - 1), min_size=count, max_size=count, unique=True))
    return [
        tenant(
            f"t{number}",
            vni,
            draw(st.sampled_from(PREFIXES)),
            draw(st.lists(st.sampled_from(HOSTS), min_size=1, unique=True)),
        )
        for number, vni in enumerate(vnis)
    ]


PLANS = st.composite(lambda draw: with_tenants(PLAN, tenants_of(draw)))()


@settings(deadline=None)
@given(PLANS)
def test_members_of_one_tenant_differ_in_address_and_all_members_in_name_and_mac(plan: FabricPlan) -> None:
    for one in plan.tenants:
        addresses = [ipaddress.IPv4Interface(member.address) for member in one.members]
        assert len(set(addresses)) == len(addresses)
        assert {str(address.network) for address in addresses} == {one.prefix}
        reserved = {(address.network.network_address, address.network.broadcast_address) for address in addresses}
        assert not {address.ip for address in addresses} & set(*reserved)
    members = [member for one in plan.tenants for member in one.members]
    taken = [host.mac for host in plan.hosts] + [member.mac for member in members]
    assert len(set(taken)) == len(taken)
    assert len({endpoint.name for endpoint in plan.endpoints}) == len(plan.hosts) + len(members)


@settings(deadline=None)
@given(PLANS)
def test_a_plan_with_tenants_survives_its_file_and_knows_where_members_live(plan: FabricPlan) -> None:
    again = FabricPlan.from_json(plan.to_json())
    assert again == plan
    for one in again.tenants:
        for member in one.members:
            assert again.endpoint(member.name) == member
            assert again.tenant(one.name).member(member.host) == member
    assert all(again.endpoint(host.name) == host for host in again.hosts)


@settings(deadline=None)
@given(PLANS)
def test_links_carry_what_members_send_and_the_tunnel_around_it(plan: FabricPlan) -> None:
    assert plan.host_mtu == plan.mtu == 1500 + OVERHEAD
    assert PLAN.host_mtu == PLAN.mtu == 1500


@settings(deadline=None)
@given(PLANS, st.data())
def test_a_grudge_is_split_into_what_is_between_hosts_and_what_is_between_members(
    plan: FabricPlan, data: st.DataObject
) -> None:
    networks = [HOSTS, *([member.name for member in one.members] for one in plan.tenants)]
    pairs = [(one, other) for names in networks for one in names for other in names if one != other]
    chosen = data.draw(st.lists(st.sampled_from(pairs), unique=True))
    grudge: dict[str, set[str]] = {}
    for receiver, sender in chosen:
        grudge.setdefault(receiver, set()).add(sender)
    outer, inner = vtep.split(plan, grudge)
    assert outer | inner == grudge
    assert set(outer) <= set(HOSTS)
    assert not set(inner) & set(HOSTS)


def names_of(plan: FabricPlan) -> list[str]:
    return [endpoint.name for endpoint in plan.endpoints]


@settings(deadline=None)
@given(PLANS)
def test_networks_are_apart_and_everybody_is_in_one(plan: FabricPlan) -> None:
    networks = {plan.network(name) for name in names_of(plan)}
    assert len(networks) == 1 + len(plan.tenants)
    assert sorted(name for names in networks for name in names) == sorted(names_of(plan))
    assert all(name in plan.network(name) for name in names_of(plan))


BLUE = tenant("blue", 100, "192.168.0.0/24", ["h1", "h5"])
RED = tenant("red", 200, "192.168.0.0/24", ["h1", "h9"])


@pytest.mark.parametrize(
    ("grudge", "message"),
    [
        ({"h1_blue": {"h9_red"}}, "h1_blue cannot be made deaf to h9_red: it never hears it"),
        ({"h1": {"h5_blue"}}, "h1 cannot be made deaf to h5_blue"),
        ({"h1_blue": {"h1_blue"}}, "h1_blue cannot be cut off from itself"),
        ({"h1_green": {"h1"}}, "no host 'h1_green'; there is h1"),
    ],
)
def test_a_grudge_that_means_nothing_is_refused(grudge: dict[str, set[str]], message: str) -> None:
    with pytest.raises(PlanError, match=re.escape(message)):
        vtep.split(with_tenants(PLAN, [BLUE, RED]), grudge)


def changed(**fields: Any) -> Tenant:
    return msgspec.structs.replace(BLUE, **fields)


@pytest.mark.parametrize(
    ("tenants", "message"),
    [
        ([BLUE, changed(vni=300)], "tenant blue is there more than once"),
        ([BLUE, changed(name="red")], "VNI 100 is there more than once"),
        ([changed(vni=0)], "tenant blue: VNI 0 is not between 1 and 16777215"),
        ([changed(vni=1 << 24)], "VNI 16777216 is not between 1 and 16777215"),
        ([changed(name="Blue one")], "a tenant's name is a small letter and up to 14 more letters or digits"),
        ([changed(members=())], "tenant blue: it has no members"),
        ([changed(mss=1461)], "mss is 1461; it is between 88 and 1460"),
        ([tenant("blue", 1, "10.1.0.0/24", ["h1", "h99"])], "tenant blue: no host 'h99'; there is h1"),
        ([tenant("blue", 1, "10.1.0.0/24", ["h1", "h1"])], "tenant blue: host h1 is there more than once"),
        (
            [
                changed(
                    members=(BLUE.members[0], msgspec.structs.replace(BLUE.members[1], address=BLUE.members[0].address))
                )
            ],
            "tenant blue: address 192.168.0.1 is there more than once",
        ),
        ([changed(prefix="192.168.1.0/24")], "the address of h1_blue, h5_blue is not in 192.168.1.0/24"),
        (
            [changed(members=(msgspec.structs.replace(BLUE.members[0], name="leaf1"),))],
            "leaf1 is the name of something",
        ),
    ],
)
def test_tenants_that_could_not_work_are_refused(tenants: list[Tenant], message: str) -> None:
    with pytest.raises(PlanError, match=re.escape(message)):
        with_tenants(PLAN, tenants)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(PlanError) as refused:
        with_tenants(PLAN, [changed(vni=0), changed(mss=1)])
    assert [part in str(refused.value) for part in ("VNI 0", "mss is 1", "tenant blue is there")] == [True] * 3


def test_an_mtu_that_no_tunnel_fits_is_refused() -> None:
    narrow = msgspec.structs.replace(PLAN, mtu=1549)
    with pytest.raises(PlanError, match=r"the MTU is 1549, which no tunnel of 1500 bytes fits: .* at least 1550"):
        with_tenants(narrow, [BLUE])
    assert with_tenants(msgspec.structs.replace(PLAN, mtu=9000), [BLUE]).mtu == 9000


@pytest.mark.parametrize(
    ("prefix", "hosts", "message"),
    [
        ("10.1.0.0/30", 3, r"tenant blue: 10.1.0.0/30 has room for 2 members, not for 3; take a /29"),
        ("10.1.0.0/32", 1, r"room for 0 members, not for 1; take a /30"),
        ("10.1.0.1/24", 1, r"did you mean 10.1.0.0/24"),
        ("blue", 1, r"'blue' is no block of addresses"),
        ("224.0.0.0/8", 1, r"224.0.0.0/8 is multicast"),
        ("127.0.0.0/8", 1, r"127.0.0.0/8 is loopback"),
        ("0.0.0.0/0", 1, r"0.0.0.0/0 has 0.0.0.0/8, which is unspecified"),
        ("192.0.0.0/2", 1, r"192.0.0.0/2 has 224.0.0.0/4, which is multicast"),
    ],
)
def test_a_prefix_without_room_is_refused_and_a_better_one_named(prefix: str, hosts: int, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        tenant("blue", 1, prefix, HOSTS[:hosts])
