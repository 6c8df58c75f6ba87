"""Leaf-spine: every leaf has one link to every spine, hosts hang off the leaves."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from topologies.check import WEIGHTS
from topologies.draft import Draft, at_least, at_most, leaf_networks, shown
from topologies.impairment import Impairment
from topologies.plan import FabricPlan, PlanError


def LeafSpine(  # noqa: N802 - it reads as a noun in scenarios
    spines: int,
    leaves: int,
    hosts_per_leaf: int | Sequence[int],
    *,
    weights: Mapping[str, int] | None = None,
    missing: Collection[str] = (),
    host_rate: int = 0,
    oversubscription: float = 1.0,
) -> FabricPlan:
    """The plan of a two-tier Clos fabric: ``spines`` × ``leaves`` links, and ``hosts_per_leaf`` on each leaf.

    Host numbers run through the leaves: with four hosts a leaf, h1-h4 are in leaf1 and h5-h8 in leaf2. Leaf *i* has
    the *i*-th /24 (or larger, when it has more than 253 hosts) of 10.0.0.0/8, its router address the last usable one.

    Uneven fabrics: ``hosts_per_leaf`` may be a number for each leaf, ``[2, 4, 4]``, ``weights`` gives links other
    weights than 1, ``{"leaf1-spine1": 3}``, and ``missing`` links are not there. With a ``host_rate`` in bits a second,
    uplinks carry so much that the hosts of a leaf together could send ``oversubscription`` times what its uplinks take,
    each link its part by weight. Raises `PlanError` for a fabric that cannot be.
    """
    each = [hosts_per_leaf] if isinstance(hosts_per_leaf, int) else list(hosts_per_leaf)
    at_least(1, spines=spines, leaves=leaves, hosts_per_leaf=min(each, default=1))
    hosts = hosts_per_leaf * leaves if isinstance(hosts_per_leaf, int) else sum(each)
    at_most(leaves=leaves, spines=spines, hosts=hosts, links=hosts + leaves * spines - len(missing))
    counts = each * leaves if isinstance(hosts_per_leaf, int) else each
    if len(counts) != leaves:
        raise PlanError(
            f"hosts_per_leaf has {len(counts)} numbers for {leaves} leaves; it is one number, or one for each"
        )
    if host_rate < 0 or oversubscription <= 0:
        raise PlanError(f"host_rate is {host_rate} and oversubscription {oversubscription:g}; neither can be negative")
    weights = weights or {}
    if wrong := [f"the weight of {name} is {shown(given)}" for name, given in weights.items() if given not in WEIGHTS]:
        raise PlanError(f"{', '.join(wrong)}: it is between {WEIGHTS.start} and {WEIGHTS.stop - 1}")
    draft = Draft()
    leaf_names = draft.switches("leaf", (f"leaf{number}" for number in range(1, leaves + 1)))
    spine_names = draft.switches("spine", (f"spine{number}" for number in range(1, spines + 1)))
    known = {f"{leaf}-{spine}" for leaf in leaf_names for spine in spine_names}
    if unknown := sorted((set(weights) | set(missing)) - known):
        raise PlanError(f"no link {', '.join(unknown)} between a leaf and a spine; they are called leaf1-spine1")
    for leaf, count, network in zip(leaf_names, counts, leaf_networks(leaves, max(counts)), strict=True):
        draft.hosts(leaf, count, network)
        uplinks = {
            spine: weights.get(f"{leaf}-{spine}", 1) for spine in spine_names if f"{leaf}-{spine}" not in missing
        }
        for spine, weight in uplinks.items():
            limit = None
            if host_rate:
                share = weight / sum(uplinks.values())
                limit = Impairment(rate=round(count * host_rate * share / oversubscription))
            draft.link(leaf, spine, weight=weight, forth=limit, back=limit)
    return draft.plan("leaf-spine")


def _topo(*sizes: Any, **named: Any) -> Any:
    from topologies.mininet_topo import topo_of  # takes half a second

    if len(sizes) != 3 or named or not all(isinstance(size, int) for size in sizes):
        given = ",".join(["leafspine", *map(str, sizes), *(f"{name}={size}" for name, size in named.items())])
        raise PlanError(
            f"--topo {given} is no leaf-spine: write leafspine,SPINES,LEAVES,HOSTS_PER_LEAF, such as leafspine,2,4,2"
        )
    return topo_of(LeafSpine(*sizes))


def Mininet(topo: Any, **options: Any) -> Any:  # noqa: N802 - what mn calls what it builds
    from topologies.mininet_topo import net

    return net(topo, **options)


#: What ``mn --custom topologies/leaf_spine.py --topo leafspine,2,4,2`` looks for, beside `Mininet`.
topos = {"leafspine": _topo}
