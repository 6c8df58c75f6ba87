"""A scenario's tenants are read whole, and its nodes and clients live in one of them where it says so."""

from __future__ import annotations

import re

import msgspec
import pytest

from experiments.plans import SCENARIOS
from experiments.scenario import Scenario, ScenarioError, load, parse, place
from experiments.simulation.seed import play_seed
from experiments.stage import configuration
from topologies.leaf_spine import LeafSpine
from topologies.plan import Member

FILE = """
duration = "5s"
[[tenant]]
name = "blue"
vni = 100
prefix = "192.168.0.0/24"
members = ["h1*", "h5", "h2", "h9"]
mss = 1300
[[tenant]]
name = "red"
vni = 200
prefix = "192.168.0.0/24"
[system]
nodes = 3
tenant = "blue"
[workload]
clients = 3
"""


def test_tenants_are_in_the_plan_with_the_hosts_that_patterns_mean() -> None:
    blue, red = parse(FILE).plan.tenants
    assert [member.host for member in blue.members] == ["h1", "h10", "h11", "h12", "h5", "h2", "h9"]
    assert (blue.vni, blue.prefix, blue.mss) == (100, "192.168.0.0/24", 1300)
    assert len(red.members) == 12
    assert blue.members[0].ip == red.members[0].ip == "192.168.0.1"


def placement_of(scenario: Scenario) -> dict[str, str]:
    return place(scenario.plan, scenario.system, scenario.workload, scenario.tenant)


def test_nodes_and_clients_live_in_members_of_their_tenant_and_speak_by_its_addresses() -> None:
    scenario = parse(FILE)
    placement = placement_of(scenario)
    assert placement == {"n1": "h1", "n2": "h5", "n3": "h9", "c1": "h2", "c2": "h10", "c3": "h11"}
    assert scenario.endpoint("h5") == Member("h5_blue", "h5", "192.168.0.5/24", "0a:00:00:64:00:05")
    told = configuration(scenario, placement, "n2", 0, "test")
    assert told["listen"] == "192.168.0.5:7000"
    assert told["peers"] == {"n1": "192.168.0.1:7000", "n2": "192.168.0.5:7000", "n3": "192.168.0.7:7000"}


def test_without_a_tenant_they_live_in_the_hosts() -> None:
    scenario = parse(FILE.replace('tenant = "blue"\n', ""))
    assert placement_of(scenario)["n3"] == "h9"
    assert scenario.endpoint("h9") == scenario.plan.host("h9")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('tenant = "blue"', 'tenant = "blu"', "system.tenant: there is no [[tenant]] named 'blu'"),
        ("vni = 200", "vni = 100", "tenant: VNI 100 is there more than once"),
        ("vni = 100", "vni = 0", "tenant[0].vni: 0 is not a whole number, 1 or more"),
        ("vni = 100", "vni = 16777216", "tenant blue: VNI 16777216 is not between 1 and 16777215"),
        ("192.168.0.0/24", "192.168.0.1/24", "tenant[0].prefix: '192.168.0.1/24' is no block of addresses"),
        ("192.168.0.0/24", "192.168.0.0/30", "192.168.0.0/30 has room for 2 members, not for 7; take a /28"),
        ('"h9"', '"h99"', "tenant[0]: no host 'h99'; there is h1"),
        ("mss = 1300", "mss = 1500", "tenant blue: mss is 1500"),
        ("192.168.0.0/24", "224.0.0.0/24", "tenant[0].prefix: 224.0.0.0/24 is multicast"),
        ("mss = 1300", "mms = 1300", 'tenant[0].mms: unknown key; did you mean "mss"?'),
        ("nodes = 3", "nodes = 9", "topology: 7 hosts in tenant blue are too few for 9 nodes and 3 clients"),
        (
            "nodes = 3",
            'nodes = 1\nplacement = ["h6"]',
            "system.placement: no member of tenant blue in 'h6'; there is h1",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_place(old: str, new: str, message: str) -> None:
    with pytest.raises(ScenarioError, match=re.escape(message)):
        parse(FILE.replace(old, new, 1))


NARROW = FILE + '[topology.link."leaf1-spine*"]\nmtu = 1450\n'


def test_links_between_switches_can_be_narrow_and_all_others_carry_the_tunnels() -> None:
    plan = parse(NARROW).plan
    assert {plan.mtu_of(link) for link in plan.links if link.name.startswith("leaf1-spine")} == {1450}
    assert {plan.mtu_of(link) for link in plan.links if not link.name.startswith("leaf1-spine")} == {1550}


def test_segments_pass_whole_only_where_every_link_carries_the_same() -> None:
    assert LeafSpine(2, 3, 4).is_uniform
    assert not parse(FILE).plan.is_uniform
    narrow = parse('duration = "1s"\n[topology.link."leaf1-spine*"]\nmtu = 1450').plan
    assert (narrow.mtu, narrow.host_mtu, narrow.is_uniform) == (1500, 1500, False)


@pytest.mark.parametrize(
    ("link", "message"),
    [
        ("leaf1>spine1", "no link 'leaf1>spine1'"),
        ("h1-leaf1", "links of hosts have the hosts' own; name links between switches"),
    ],
)
def test_an_mtu_is_a_link_between_switches_own(link: str, message: str) -> None:
    with pytest.raises(ScenarioError, match=re.escape(message)):
        parse(NARROW.replace("leaf1-spine*", link))


def test_virtual_time_shows_the_illness_and_the_cure() -> None:
    ill, cured = (play_seed(load(SCENARIOS / f"{name}.toml")) for name in ("mtu-black-hole", "mtu-clamped"))
    assert [said.partition(":")[0] for said in ill.broken] == ["leader_changes"]
    assert (cured.valid, cured.broken) == (True, [])
    outages = [outcome.availability.longest_outage or 0 for outcome in (ill, cured) if outcome.availability]
    assert outages[0] > 4_000_000_000 > 1_000_000_000 > outages[1]


def test_the_shipped_cure_differs_from_the_shipped_illness_by_its_clamping_alone() -> None:
    ill, cured = (load(SCENARIOS / f"{name}.toml") for name in ("mtu-black-hole", "mtu-clamped"))
    (tenant,) = ill.plan.tenants
    clamped = msgspec.structs.replace(ill.plan, tenants=(msgspec.structs.replace(tenant, mss=1360),))
    same = {"name": cured.name, "description": cured.description, "toml": cured.toml}
    assert msgspec.structs.replace(ill, plan=clamped, **same) == cured
