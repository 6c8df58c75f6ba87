"""A scenario: what is built, what runs in it, what breaks and what is expected, as plain frozen data.

Everything is in base units: nanoseconds, shares from 0 to 1. `experiments.scenario_file` reads one from TOML; the same
classes make one in Python, where durations may be given as text: ``Raft(nodes=5, election_timeout=("1s", "2s"))``.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Literal, TypeAlias

import msgspec

from topologies.impairment import Impairment
from topologies.leaf_spine import LeafSpine
from topologies.plan import FabricPlan, PlanError
from topologies.units import parse_duration

#: What a run can be told not to do without.
Requirement: TypeAlias = Literal["kernel"]
Dataplane: TypeAlias = Literal["ovs", "routed"]

#: What a fault may name instead of nodes. Roles are resolved when the fault strikes.
ROLES = ("leader", "followers", "others", "majority", "minority")


class ScenarioError(ValueError):
    """Everything that is wrong with a scenario, one problem a line, each with its place."""


class Raft(msgspec.Struct, frozen=True, tag="raft", tag_field="kind"):
    """A Raft cluster. ``placement`` names one host a node, in order; empty means spread over the leaves.

    ``heartbeat_interval`` 0 means a fifth of the shortest election timeout. ``implementation`` runs another Raft than
    ours in the nodes: ``module:function`` as in `apps.runtime.kinds`.
    """

    nodes: int = 5
    placement: tuple[str, ...] = ()
    election_timeout: tuple[int, int] = (150_000_000, 300_000_000)
    heartbeat_interval: int = 0
    pre_vote: bool = True
    check_quorum: bool = True
    implementation: str = ""

    def __post_init__(self) -> None:
        low, high = self.election_timeout
        _coerce(self, election_timeout=(_duration(low), _duration(high)))
        _coerce(self, heartbeat_interval=_duration(self.heartbeat_interval) or self.election_timeout[0] // 5)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"n{number}" for number in range(1, self.nodes + 1))


class Register(msgspec.Struct, frozen=True, tag="register", tag_field="kind"):
    """Reads, writes and compare-and-sets on ``keys`` registers, ``rate`` operations a second over all clients.

    ``placement`` names one host a client, in order; empty gives each a host of its own, away from the nodes;
    ``("beside",)`` puts the i-th client into the i-th node's host.
    """

    clients: int = 5
    rate: float = 200.0
    keys: int = 5
    mix: dict[str, float] = msgspec.field(default_factory=lambda: {"read": 0.5, "write": 0.4, "cas": 0.1})
    timeout: int = 1_000_000_000
    placement: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _coerce(self, timeout=_duration(self.timeout))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"c{number}" for number in range(1, self.clients + 1))


class Partition(msgspec.Struct, frozen=True, tag="partition", tag_field="kind"):
    """Nodes of different groups do not hear each other; nodes and clients in no group reach everyone."""

    groups: tuple[tuple[str, ...], ...]
    at: int
    lasts: int


class LinkDown(msgspec.Struct, frozen=True, tag="link-down", tag_field="kind"):
    """Carrier is lost at both ends of every link whose name matches one of ``links`` (``leaf1-spine*``)."""

    links: tuple[str, ...]
    at: int
    lasts: int


class Impair(msgspec.Struct, frozen=True, tag="impair", tag_field="kind"):
    """Every named direction (``leaf1>spine1``; a link's name means both) does ``impairment`` to its packets."""

    links: tuple[str, ...]
    impairment: Impairment
    at: int
    lasts: int


class Kill(msgspec.Struct, frozen=True, tag="kill", tag_field="kind"):
    """Nodes get SIGKILL; they are started again from their logs when the fault ends."""

    nodes: tuple[str, ...]
    at: int
    lasts: int


Fault: TypeAlias = Partition | LinkDown | Impair | Kill


class Expect(msgspec.Struct, frozen=True):
    """What the run must show, beside safety. Times in nanoseconds, ``None`` where nothing is expected.

    ``recovery``: after the last heal, operations succeed again within this time. ``election``: after a fault that
    hit the leader, the rest have a new one within this time. ``availability``: the least share of operations that
    succeed. ``leader_changes``: the most changes of leader from start to end.
    """

    linearizable: bool = True
    recovery: int | None = None
    election: int | None = None
    availability: float | None = None
    leader_changes: int | None = None


class Topology(msgspec.Struct, frozen=True):
    """A named kind of fabric and its sizes; `plan` makes it whole."""

    kind: str = "leaf-spine"
    spines: int = 2
    leaves: int = 3
    hosts_per_leaf: int = 4
    impairments: dict[str, Impairment] = {}
    bfd_interval: int = 0
    weights: dict[str, int] = {}
    dataplane: Dataplane = "ovs"

    def plan(self) -> FabricPlan:
        """Raises `PlanError` when there cannot be such a fabric."""
        plan = LeafSpine(self.spines, self.leaves, self.hosts_per_leaf)
        by_direction: dict[str, Impairment] = {}
        for name, impairment in self.impairments.items():
            for direction in directions(plan, (name,)):
                by_direction[direction] = impairment
        weights = {link: weight for name, weight in self.weights.items() for link in links(plan, (name,))}
        return msgspec.structs.replace(
            plan,
            impairments=by_direction,
            bfd_interval=self.bfd_interval,
            dataplane=self.dataplane,
            links=tuple(
                msgspec.structs.replace(link, weight=weights[link.name]) if link.name in weights else link
                for link in plan.links
            ),
        )


class Scenario(msgspec.Struct, frozen=True):
    """``requires``: what a run must not do without; ``kernel`` is the kernel's datapath and netem, no stand-ins.

    ``captures`` are the directions whose packets are written into ``pcap/``; only in the emulated world are there any.
    """

    name: str
    description: str
    seed: int
    duration: int
    plan: FabricPlan
    system: Raft
    workload: Register
    faults: tuple[Fault, ...] = ()
    expect: Expect = Expect()
    time_scale: float = 1.0
    toml: str = ""
    requires: tuple[Requirement, ...] = ()
    captures: tuple[str, ...] = ()

    def with_seed(self, seed: int) -> Scenario:
        return msgspec.structs.replace(self, seed=seed)


# ---------------------------------------------------------------------------------------------------------------------
# Names and places


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


def place(plan: FabricPlan, system: Raft, workload: Register) -> dict[str, str]:
    """The host of every node and client.

    Nodes are spread over the leaves, one leaf after another; clients take the hosts that are left in the same way,
    so that they stand beside the nodes and share none of their hosts. Raises `ScenarioError`.
    """
    columns = [[host.name for host in plan.hosts_of(leaf.name)] for leaf in plan.by_role("leaf")]
    spread = [column[row] for row in range(max(map(len, columns))) for column in columns if row < len(column)]
    problems: list[str] = []

    def explicit(what: str, names: tuple[str, ...], placement: tuple[str, ...]) -> list[str]:
        if len(placement) != len(names):
            problems.append(f"{what}.placement: {len(placement)} hosts for {len(names)}; it needs one each")
        for host in placement:
            try:
                plan.host(host)
            except PlanError as error:
                problems.append(f"{what}.placement: {error}")
        return list(placement)

    nodes = explicit("system", system.names, system.placement) if system.placement else spread[: system.nodes]
    free = [host for host in spread if host not in nodes]
    if workload.placement == ("beside",):
        clients = [nodes[number % len(nodes)] for number in range(workload.clients)] if nodes else []
    elif workload.placement:
        clients = explicit("workload", workload.names, workload.placement)
    else:
        clients = free[: workload.clients]
    if len(nodes) < system.nodes or len(clients) < workload.clients:
        problems.append(
            f"topology: {len(spread)} hosts are too few for {system.nodes} nodes and {workload.clients} clients "
            'in hosts of their own; add hosts, or put clients beside nodes: workload.placement = ["beside"]'
        )
    if problems:
        raise ScenarioError("\n".join(problems))
    return dict(zip((*system.names, *workload.names), (*nodes, *clients), strict=True))


def scale(scenario: Scenario) -> Scenario:
    """The scenario with every duration and timeout multiplied by its ``time_scale``, and rates divided by it."""
    factor = scenario.time_scale
    if factor == 1.0:
        return scenario

    def longer(span: int) -> int:
        return round(span * factor)

    low, high = scenario.system.election_timeout
    replace = msgspec.structs.replace
    return replace(
        scenario,
        duration=longer(scenario.duration),
        system=replace(
            scenario.system,
            election_timeout=(longer(low), longer(high)),
            heartbeat_interval=longer(scenario.system.heartbeat_interval),
        ),
        workload=replace(
            scenario.workload, timeout=longer(scenario.workload.timeout), rate=scenario.workload.rate / factor
        ),
        faults=tuple(replace(fault, at=longer(fault.at), lasts=longer(fault.lasts)) for fault in scenario.faults),
        expect=replace(
            scenario.expect,
            recovery=None if scenario.expect.recovery is None else longer(scenario.expect.recovery),
            election=None if scenario.expect.election is None else longer(scenario.expect.election),
        ),
    )


def _coerce(struct: msgspec.Struct, **fields: object) -> None:
    for name, value in fields.items():
        msgspec.structs.force_setattr(struct, name, value)


def _duration(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else parse_duration(value)
