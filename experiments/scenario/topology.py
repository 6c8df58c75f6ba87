"""``[topology]``: the fabric, as a kind with its sizes, and what its links do to packets."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from experiments.scenario.names import directions, links
from experiments.scenario.reading import Table, choice, whole
from topologies.impairment import Impairment
from topologies.leaf_spine import LeafSpine
from topologies.plan import FabricPlan, PlanError
from topologies.units import UnitError, format_duration, parse_duration, parse_rate, parse_share

Dataplane: TypeAlias = Literal["ovs", "routed"]


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


def read_topology(table: Table) -> Topology:
    """``[topology]``. What is wrong with it is noted in the table."""
    kind = table.take("kind", choice("leaf-spine"), default="leaf-spine")
    spines = table.take("spines", whole(1), default=2)
    leaves = table.take("leaves", whole(1), default=3)
    hosts_per_leaf = table.take("hosts_per_leaf", whole(1), default=4)
    dataplane: Dataplane = table.take("dataplane", choice("ovs", "routed"), default="ovs")
    bfd_interval = table.take("bfd", _bfd_interval, default=0)
    impairments: dict[str, Impairment] = {}
    weights: dict[str, int] = {}
    links_table = table.table("link")
    for name in list(links_table.values):
        entry = links_table.table(name)
        entry.path = f'{links_table.path}."{name}"'
        if (weight := entry.take("weight", whole(1, 100), default=1)) != 1:
            weights[name] = weight
            if ">" in name:
                entry.wrong("weight", "both directions of a link have its weight; name the link, not a direction")
        impairments[name] = read_impairment(entry)
        if impairments[name] == Impairment():
            del impairments[name]
        entry.finish()
        if not table.problems:
            try:
                directions(Topology(kind, spines, leaves, hosts_per_leaf).plan(), (name,))
            except PlanError as error:
                table.problems.append((entry.path, str(error)))
                impairments.pop(name, None)
                weights.pop(name, None)
    table.finish()
    return Topology(kind, spines, leaves, hosts_per_leaf, impairments, bfd_interval, weights, dataplane)


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
    return Impairment(
        delay=delay,
        jitter=jitter,
        distribution=table.take("distribution", choice("uniform", "normal", "pareto"), default="uniform"),
        loss=table.take("loss", parse_share, default=0.0),
        rate=table.take("rate", parse_rate, default=0),
        queue=table.take("queue", whole(1), default=1000),
    )


def _bfd_interval(value: object) -> int:
    span = parse_duration(value)
    if not 1_000_000 <= span <= 10_000_000_000 or span % 1_000_000:
        raise UnitError(f"{value!r} is not between 1 ms and 10 s, in whole milliseconds")
    return span
