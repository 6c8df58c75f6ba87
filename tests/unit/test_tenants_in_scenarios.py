"""A scenario's tenants are read whole, and its nodes and clients live in one of them where it says so."""

from __future__ import annotations

import re

import pytest

from experiments.scenario import Scenario, ScenarioError, parse, place
from experiments.stage import configuration
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
