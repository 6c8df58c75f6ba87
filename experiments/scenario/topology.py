"""``[topology]``: the fabric, as a kind with its sizes, and what its links do to packets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import msgspec

from experiments.scenario.names import directions, links
from experiments.scenario.reading import Table, choice, number, texts, whole
from topologies.graph import SingleSwitch, Wan, from_edges, from_file
from topologies.impairment import Distribution, Impairment, ImpairmentError, from_samples
from topologies.leaf_spine import LeafSpine
from topologies.plan import HOST_MTU, OVERHEAD, FabricPlan, PlanError
from topologies.three_tier import FatTree, ThreeTier
from topologies.units import UnitError, format_duration, parse_duration, parse_rate, parse_share

Dataplane: TypeAlias = Literal["ovs", "routed"]

#: From links' weights to the fabric. Raises `PlanError` when there cannot be such a one, OSError for a file of it.
Make: TypeAlias = Callable[[Mapping[str, int]], FabricPlan]


def read_topology(table: Table, *, tenants: bool = False) -> FabricPlan | None:
    """The plan of ``[topology]``; None where there can be none. What is wrong with it is noted in the table.

    ``tenants``: whether there will be some, for whose tunnels links are wider (`topologies.tenants.with_tenants`).
    """
    before = len(table.problems)
    kind = table.take("kind", choice(*_KINDS), default="leaf-spine")
    make = _KINDS[kind](table)
    dataplane: Dataplane = table.take("dataplane", choice("ovs", "routed"), default="ovs")
    bfd_interval = table.take("bfd", _bfd_interval, default=0)
    if bfd_interval and dataplane == "routed":
        table.wrong("bfd", 'is Open vSwitch\'s, and with dataplane = "routed" there is none; leave one of them out')
    links_table = table.table("link")
    table.finish()
    try:
        plan = make({})
    except (PlanError, ImpairmentError, OSError) as error:
        if len(table.problems) == before:  # it may be but a consequence
            table.problems.append((table.path, str(error)))
        return None
    impairments, weights, mtus = _read_links(links_table, plan, HOST_MTU + OVERHEAD if tenants else HOST_MTU)
    if weights:
        plan = make(weights)
    return msgspec.structs.replace(
        plan,
        links=tuple(msgspec.structs.replace(link, mtu=mtus.get(link.name, 0)) for link in plan.links),
        impairments=plan.impairments | impairments,
        bfd_interval=bfd_interval,
        dataplane=dataplane,
    )


def _read_links(
    table: Table, plan: FabricPlan, largest_mtu: int
) -> tuple[dict[str, Impairment], dict[str, int], dict[str, int]]:
    """``[topology.link.…]``: what directions of the plan do to packets, and links' weights and MTUs."""
    impairments: dict[str, Impairment] = {}
    weights: dict[str, int] = {}
    mtus: dict[str, int] = {}
    for name in list(table.values):
        entry = table.table(name)
        entry.path = f'{table.path}."{name}"'
        weight = entry.take("weight", whole(1, 100), default=1)
        if weight != 1 and ">" in name:
            entry.wrong("weight", "both directions of a link have its weight; name the link, not a direction")
        mtu = entry.take("mtu", _narrower(largest_mtu), default=0)
        impairment = read_impairment(entry)
        entry.finish()
        try:
            if impairment != Impairment():
                impairments |= dict.fromkeys(directions(plan, (name,)), impairment)
            if weight != 1 and ">" not in name:
                weights |= dict.fromkeys(links(plan, (name,)), weight)
            if mtu:
                narrow = links(plan, (name,))
                if any(not (plan.link(link).a.port and plan.link(link).b.port) for link in narrow):
                    entry.wrong("mtu", "links of hosts have the hosts' own; name links between switches")
                mtus |= dict.fromkeys(narrow, mtu)
            directions(plan, (name,))
        except PlanError as error:
            table.problems.append((entry.path, str(error)))
    return impairments, weights, mtus


# ---------------------------------------------------------------------------------------------------------------------
# Kinds


def _leaf_spine(table: Table) -> Make:
    usual: int | list[int] = 4
    hosts = table.take("hosts_per_leaf", _one_or_each, default=usual)
    spines = table.take("spines", whole(1), default=2)
    leaves = table.take("leaves", whole(1), default=3 if isinstance(hosts, int) else len(hosts))
    missing: tuple[str, ...] = table.take("missing", texts, default=())
    host_rate = table.take("host_rate", parse_rate, default=0)
    oversubscription = table.take("oversubscription", number(0.001), default=1.0)
    if oversubscription != 1 and not host_rate:
        table.wrong("oversubscription", 'means nothing without what a host can send: host_rate = "100mbit"')

    def make(weights: Mapping[str, int]) -> FabricPlan:
        return LeafSpine(
            spines,
            leaves,
            hosts,
            weights=weights,
            missing=missing,
            host_rate=host_rate,
            oversubscription=oversubscription,
        )

    return make


def _three_tier(table: Table) -> Make:
    sizes = ("super_spines", "pods", "spines_per_pod", "leaves_per_pod", "hosts_per_leaf")
    given = [table.take(size, whole(1), default=2, required=True) for size in sizes]
    return _weighted(lambda: ThreeTier(*given))


def _fat_tree(table: Table) -> Make:
    k = table.take("k", whole(2), default=4, required=True)
    return _weighted(lambda: FatTree(k))


def _single(table: Table) -> Make:
    hosts = table.take("hosts", whole(1), default=2, required=True)
    return _weighted(lambda: SingleSwitch(hosts))


def _wan(table: Table) -> Make:
    hosts = table.take("hosts_per_region", whole(1), default=2)
    matrix = table.table("delay")
    delays: dict[tuple[str, str], int] = {}
    for near in list(matrix.values):
        row = matrix.table(near)
        for far in list(row.values):
            delays[near, far] = row.take(far, _delay, default=0)
    if not delays:
        table.wrong("delay", 'the regions and the delays between them are missing: eu = { us = "40ms" }')
    return _weighted(lambda: Wan(delays, hosts))


def _graph(table: Table) -> Make:
    usual: int | dict[str, int] = 1
    hosts = table.take("hosts", _one_or_named, default=usual)
    edges: tuple[tuple[str, str], ...] = table.take("links", _edges, default=())
    file = table.take("file", _file, default="")
    if bool(edges) == bool(file):
        table.wrong("links", 'say either links = [["a", "b"], …] or file = "….graphml" (or ….json)')
    if not file:
        return _weighted(lambda: from_edges(edges, hosts))
    if not isinstance(hosts, int):
        table.wrong("hosts", "a file's nodes have one number of hosts, or what the file says of each")
        return _weighted(lambda: from_file(table.folder / file))
    per_node = hosts
    return _weighted(lambda: from_file(table.folder / file, per_node))


_KINDS: dict[str, Callable[[Table], Make]] = {
    "leaf-spine": _leaf_spine,
    "three-tier": _three_tier,
    "fat-tree": _fat_tree,
    "wan": _wan,
    "single": _single,
    "graph": _graph,
}


def _weighted(make: Callable[[], FabricPlan]) -> Make:
    """The same with weights put on whatever links there are."""

    def weighted(weights: Mapping[str, int]) -> FabricPlan:
        plan = make()
        return msgspec.structs.replace(
            plan,
            links=tuple(
                msgspec.structs.replace(link, weight=weights[link.name]) if link.name in weights else link
                for link in plan.links
            ),
        )

    return weighted


# ---------------------------------------------------------------------------------------------------------------------
# Values


def read_impairment(table: Table) -> Impairment:
    """The keys of an `Impairment`; the table may have others beside them."""
    delay = table.take("delay", parse_duration, default=0)
    jitter = table.take("jitter", parse_duration, default=0)
    if jitter > delay:
        table.wrong(
            "jitter",
            f"larger than the delay ({format_duration(jitter)} > {format_duration(delay)}); "
            "no packet can arrive before it was sent",
        )
    distribution: Distribution = table.take("distribution", choice(*get_args(Distribution)), default="uniform")
    samples: tuple[int, ...] = table.take("samples", lambda value: _samples(value, table.folder), default=())
    fields: dict[str, Any] = {
        "loss": table.take("loss", parse_share, default=0.0),
        "burst": table.take("burst", number(1), default=0.0),
        "duplicate": table.take("duplicate", parse_share, default=0.0),
        "reorder": table.take("reorder", parse_share, default=0.0),
        "corrupt": table.take("corrupt", parse_share, default=0.0),
        "rate": table.take("rate", parse_rate, default=0),
        "queue": table.take("queue", whole(1), default=1000),
    }
    try:
        if samples and not delay and not jitter:
            measured = from_samples(samples)
            delay, jitter = measured.delay, measured.jitter
        return Impairment(delay=delay, jitter=jitter, distribution=distribution, samples=samples, **fields)
    except ImpairmentError as error:
        about = next((name for name in ("samples", "burst", "queue") if name in str(error)), "delay")
        table.wrong(about, str(error))
        return Impairment()


def _samples(value: object, folder: Path) -> tuple[int, ...]:
    """Durations, in a list or one a line in a file."""
    if isinstance(value, str):
        try:
            value = (folder / value).read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise UnitError(f"{value!r} cannot be read: {error}") from None
        value = [line for line in value if line.strip()]
    if not isinstance(value, list):
        raise UnitError(f'{value!r} is neither a list of durations, ["9ms", "12ms"], nor a file of them, one a line')
    return tuple(parse_duration(sample) for sample in value)


def _delay(value: object) -> int:
    span = parse_duration(value)
    try:
        return Impairment(delay=span).delay
    except ImpairmentError as error:
        raise UnitError(str(error)) from None


def _narrower(largest: int) -> Callable[[object], int]:
    def check(value: object) -> int:
        try:
            return whole(576, largest)(value)
        except UnitError as error:
            raise UnitError(f"{error}: a link may be narrower than the fabric's {largest} bytes, not wider") from None

    return check


def _bfd_interval(value: object) -> int:
    span = parse_duration(value)
    if not 1_000_000 <= span <= 10_000_000_000 or span % 1_000_000:
        raise UnitError(f"{value!r} is not between 1 ms and 10 s, in whole milliseconds")
    return span


def _one_or_each(value: object) -> int | list[int]:
    return [whole(1)(count) for count in value] if isinstance(value, list) and value else whole(1)(value)


def _one_or_named(value: object) -> int | dict[str, int]:
    return {name: whole(0)(count) for name, count in value.items()} if isinstance(value, dict) else whole(0)(value)


def _edges(value: object) -> tuple[tuple[str, str], ...]:
    pairs = [texts(pair) for pair in value] if isinstance(value, list) else []
    if not pairs or any(len(pair) != 2 for pair in pairs):
        raise UnitError(f'{value!r} is not a list of pairs of nodes, for example [["a", "b"], ["b", "c"]]')
    return tuple((near, far) for near, far in pairs)


def _file(value: object) -> str:
    if not isinstance(value, str) or not value.endswith((".graphml", ".json")):
        raise UnitError(f"{value!r} is neither a .graphml file nor a .json one")
    return value
