"""Fabrics of any shape: one switch, regions of a WAN, or whatever a graph of `networkx` says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from topologies.draft import Draft, at_least, leaf_networks
from topologies.impairment import Impairment
from topologies.plan import FabricPlan, PlanError

#: What a region's or a node's leaf is called after it.
LEAF_SUFFIX = "-lf"


class Graph(Protocol):
    """What is used of a ``networkx.Graph``."""

    def is_directed(self) -> bool: ...

    def is_multigraph(self) -> bool: ...

    @property
    def nodes(self) -> Any: ...

    @property
    def edges(self) -> Any: ...


def SingleSwitch(hosts: int) -> FabricPlan:  # noqa: N802 - it reads as a noun in scenarios
    """One leaf, ``leaf1``, with hosts. Raises `PlanError`."""
    at_least(1, hosts=hosts)
    draft = Draft()
    (leaf,) = draft.switches("leaf", ["leaf1"])
    draft.hosts(leaf, hosts, leaf_networks(1, hosts)[0])
    return draft.plan("single")


def Wan(delays: Mapping[tuple[str, str], int], hosts_per_region: int = 2) -> FabricPlan:  # noqa: N802
    """Regions, each two of which have a link of their own with its delay.

    ``delays`` is the matrix of one-way delays in nanoseconds, ``{("eu", "us"): 40_000_000}``. A pair that is there in
    one order only is as slow in the other; one that is not there at all has no link, and its traffic takes the way of
    the fewest links. A region is its router, under its name, and a leaf behind it, ``eu-lf``, with the hosts. Raises
    `PlanError` for regions that do not reach one another, and names that cannot be.
    """
    at_least(1, hosts_per_region=hosts_per_region)
    regions = list(dict.fromkeys(region for pair in delays for region in pair))
    if strange := [f"{near} to {far}" for (near, far), delay in delays.items() if near == far or delay < 0]:
        raise PlanError(f"delays of {', '.join(strange)}: a region has none to itself, and none is negative")
    links = {}
    for near, far in delays:
        if (far, near) not in links:
            there = delays[near, far]
            links[near, far] = (Impairment(delay=there), Impairment(delay=delays.get((far, near), there)))
    return _of_routers("wan", dict.fromkeys(regions, hosts_per_region), links)


def from_graph(graph: Graph, hosts_per_node: int = 1) -> FabricPlan:
    """The fabric of an undirected ``networkx.Graph``: a router for each node, a link for each edge.

    A node has ``hosts_per_node`` hosts, or as many as its attribute ``hosts`` says, behind a leaf called after it,
    ``NODE-lf``. An edge may have the attribute ``impairment``, an `Impairment` of both its directions. Routers are
    called as the nodes are, with ``n`` before a number: node 3 is ``n3``. Raises `PlanError`.
    """
    if graph.is_directed() or graph.is_multigraph():
        raise PlanError("a fabric's links go both ways, one between two nodes: give an undirected graph, no multigraph")
    names = {node: f"n{node}" if isinstance(node, int) else str(node) for node in graph.nodes}
    hosts = {}
    for node, attributes in graph.nodes(data=True):
        count = attributes.get("hosts", hosts_per_node)
        if not isinstance(count, int) or count < 0:
            raise PlanError(f"node {node!r} has hosts={count!r}; that is a whole number, 0 or more")
        hosts[names[node]] = count
    links = {}
    for near, far, attributes in graph.edges(data=True):
        impairment = attributes.get("impairment")
        if not isinstance(impairment, Impairment | None):
            raise PlanError(f"edge {near!r}-{far!r} has impairment={impairment!r}; that is an Impairment")
        links[names[near], names[far]] = (impairment, impairment)
    if len(set(names.values())) < len(names):
        raise PlanError(f"two nodes would have the same name: {', '.join(sorted(names.values()))}")
    return _of_routers("graph", hosts, links)


_Impaired = tuple[Impairment | None, Impairment | None]


def _of_routers(kind: str, hosts: Mapping[str, int], links: Mapping[tuple[str, str], _Impaired]) -> FabricPlan:
    """Routers with so many hosts behind each, and links with what they do to packets there and back."""
    draft = Draft()
    draft.switches("spine", hosts)
    with_hosts: Iterable[str] = [router for router, count in hosts.items() if count]
    leaves = draft.switches("leaf", (f"{router}{LEAF_SUFFIX}" for router in with_hosts))
    networks = leaf_networks(len(leaves), max(hosts.values(), default=0))
    for router, leaf, network in zip(with_hosts, leaves, networks, strict=True):
        draft.hosts(leaf, hosts[router], network)
        draft.link(leaf, router)
    for (near, far), (forth, back) in links.items():
        draft.link(near, far, forth=forth, back=back)
    return draft.plan(kind)
