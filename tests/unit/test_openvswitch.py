"""Two transactions make a fabric's bridges and their ports as the plan has them."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from topologies.leaf_spine import LeafSpine
from topologies.openvswitch import bridges, controllers, ports
from topologies.plan import FabricPlan

PLANS = st.builds(LeafSpine, st.integers(1, 4), st.integers(1, 6), st.integers(1, 6))


def inserted(operations: list[dict[str, Any]], table: str) -> dict[str, dict[str, Any]]:
    """The rows that go into a table by the name other rows call them."""
    return {
        operation["uuid-name"]: operation["row"]
        for operation in operations
        if operation["op"] == "insert" and operation["table"] == table
    }


def named(value: list[Any]) -> list[str]:
    """The rows a column refers to."""
    references = value[1] if value[0] == "set" else [value]
    assert all(kind == "named-uuid" for kind, _ in references)
    return [name for _, name in references]


def members_of(
    names: list[str], made: dict[str, dict[str, Any]], interfaces: dict[str, dict[str, Any]]
) -> dict[str, int | None]:
    """The interfaces of these ports, and the OpenFlow port number each asks for."""
    members = [interfaces[name] for port in names for name in named(made[port]["interfaces"])]
    return {member["name"]: member.get("ofport_request") for member in members}


@settings(deadline=None)
@given(PLANS)
def test_every_switch_is_a_bridge_with_the_plans_ports_under_their_numbers(plan: FabricPlan) -> None:
    operations = bridges(plan.switches, "netdev") + ports(plan, plan.switches, plan.links)
    made, interfaces = inserted(operations, "Port"), inserted(operations, "Interface")
    found: dict[str, dict[str, int | None]] = {}
    for row in inserted(operations, "Bridge").values():
        found[row["name"]] = members_of(named(row["ports"]), made, interfaces)
    for operation in operations:
        if operation["op"] == "mutate" and operation["table"] == "Bridge":
            ((_, _, switch),) = operation["where"]
            ((column, mutator, references),) = operation["mutations"]
            assert (column, mutator) == ("ports", "insert")
            found[switch] |= members_of(named(references), made, interfaces)
    assert found == {
        switch.name: {switch.name: None}
        | {end.interface: end.port for link in plan.links for end in (link.a, link.b) if end.node == switch.name}
        for switch in plan.switches
    }


@settings(deadline=None)
@given(PLANS)
def test_every_bridge_is_secure_has_its_datapath_id_and_is_one_the_database_keeps(plan: FabricPlan) -> None:
    operations = bridges(plan.switches, "system")
    rows = inserted(operations, "Bridge")
    for row in rows.values():
        config = dict(row["other_config"][1])
        assert int(config["datapath-id"], 16) == plan.switch(row["name"]).datapath_id
        assert config["disable-in-band"] == "true"
        assert (row["fail_mode"], row["datapath_type"]) == ("secure", "system")
    # What the root table does not refer to is garbage to the database.
    (mutation,) = [operation for operation in operations if operation["op"] == "mutate"]
    assert mutation["table"] == "Open_vSwitch"
    ((column, mutator, value),) = mutation["mutations"]
    assert (column, mutator, set(named(value))) == ("bridges", "insert", set(rows))


def test_each_switch_gets_a_controller_of_its_own_to_connect_to() -> None:
    plan = LeafSpine(1, 2, 1)
    operations = controllers(plan.switches, "tcp:127.0.0.1:6653")
    rows = inserted(operations, "Controller")
    assert {row["target"] for row in rows.values()} == {"tcp:127.0.0.1:6653"}
    pointed = {
        operation["where"][0][2]: named(operation["row"]["controller"])
        for operation in operations
        if operation["op"] == "update"
    }
    assert sorted(pointed) == ["leaf1", "leaf2", "spine1"]
    assert sorted(name for names in pointed.values() for name in names) == sorted(rows)


def test_a_switch_without_a_controller_has_none() -> None:
    plan = LeafSpine(1, 1, 1)
    (update, _) = controllers(plan.switches, None)
    assert update["row"] == {"controller": ["set", []]}
