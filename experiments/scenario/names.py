"""What a scenario may call things: links by patterns, nodes by roles; and where its processes are put."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Protocol

from topologies.plan import FabricPlan, PlanError

#: What a fault may name instead of nodes. Roles are resolved when the fault strikes.
ROLES = ("leader", "followers", "others", "majority", "minority")

#: Those that mean something where nobody leads.
LEADERLESS_ROLES = ("others", "majority", "minority")


class ScenarioError(ValueError):
    """Everything that is wrong with a scenario, one problem a line, each with its place."""


def directions(plan: FabricPlan, names: Iterable[str]) -> list[str]:
    """The directions that names and patterns of links and directions stand for. Raises `PlanError`."""
    found: dict[str, None] = {}
    for name in names:
        if ">" in name:
            matching = [way for link in plan.links for way in link.directions if fnmatchcase(way, name)]
            if not matching:
                plan.ends(name)  # raises, and says what there is
        else:
            matching = [way for link in links(plan, (name,)) for way in plan.link(link).directions]
        found.update(dict.fromkeys(matching))
    return list(found)


def links(plan: FabricPlan, names: Iterable[str]) -> list[str]:
    """The links that names and patterns such as ``leaf1-spine*`` stand for. Raises `PlanError`."""
    found: dict[str, None] = {}
    for name in names:
        matching = [link.name for link in plan.links if fnmatchcase(link.name, name)]
        if not matching:
            plan.link(name)
        found.update(dict.fromkeys(matching))
    return list(found)


def link_of(plan: FabricPlan, direction: str) -> str:
    """The name of the link that ``leaf1>spine1`` is a direction of, which is there."""
    return next(link.name for link in plan.links if direction in link.directions)


def flapping(plan: FabricPlan, names: Iterable[str]) -> list[str]:
    """The links, and the directions where a name is one of a direction, that names and patterns stand for. Raises
    `PlanError`."""
    found = {one: None for name in names for one in (directions if ">" in name else links)(plan, (name,))}
    return list(found)


class Placed(Protocol):
    """Processes that want hosts: a system's nodes, or a workload's clients."""

    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def placement(self) -> tuple[str, ...]: ...


def place(plan: FabricPlan, system: Placed, workload: Placed, tenant: str = "") -> dict[str, str]:
    """The host of every node and client, of those that the ``tenant`` has a member in where there is one.

    Nodes are spread over the leaves, one leaf after another; clients take the hosts that are left in the same way,
    so that they stand beside the nodes and share none of their hosts. Raises `ScenarioError`.
    """
    usable = {member.host for member in plan.tenant(tenant).members} if tenant else {host.name for host in plan.hosts}
    columns = [[host.name for host in plan.hosts_of(leaf.name) if host.name in usable] for leaf in plan.by_role("leaf")]
    spread = [column[row] for row in range(max(map(len, columns))) for column in columns if row < len(column)]
    problems: list[str] = []

    def explicit(what: str, names: tuple[str, ...], placement: tuple[str, ...]) -> list[str]:
        if len(placement) != len(names):
            problems.append(f"{what}.placement: {len(placement)} hosts for {len(names)}; it needs one each")
        for host in placement:
            try:
                plan.host(host)
                if tenant:
                    plan.tenant(tenant).member(host)
            except PlanError as error:
                problems.append(f"{what}.placement: {error}")
        return list(placement)

    wanted, clients_wanted = len(system.names), len(workload.names)
    nodes = explicit("system", system.names, system.placement) if system.placement else spread[:wanted]
    free = [host for host in spread if host not in nodes]
    if workload.placement == ("beside",):
        clients = [nodes[number % len(nodes)] for number in range(clients_wanted)] if nodes else []
    elif workload.placement:
        clients = explicit("workload", workload.names, workload.placement)
    else:
        clients = free[:clients_wanted]
    if len(nodes) < wanted or len(clients) < clients_wanted:
        where = f" in tenant {tenant}" if tenant else ""
        problems.append(
            f"topology: {len(spread)} hosts{where} are too few for {wanted} nodes and {clients_wanted} clients "
            'in hosts of their own; add hosts, or put clients beside nodes: workload.placement = ["beside"]'
        )
    if problems:
        raise ScenarioError("\n".join(problems))
    return dict(zip((*system.names, *workload.names), (*nodes, *clients), strict=True))
