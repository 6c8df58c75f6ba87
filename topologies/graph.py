"""Fabrics of any shape: one switch, regions of a WAN, or whatever a graph of `networkx` says."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import count
from numbers import Integral
from pathlib import Path
from typing import Any, Protocol

import msgspec

from topologies.check import NAME
from topologies.draft import Draft, at_least, at_most, leaf_networks
from topologies.impairment import Impairment, ImpairmentError
from topologies.plan import LONGEST_INTERFACE_NAME, FabricPlan, PlanError
from topologies.units import UnitError, parse_duration, parse_rate, parse_share

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
    at_most(hosts=hosts)
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
            try:
                links[near, far] = (Impairment(delay=there), Impairment(delay=delays.get((far, near), there)))
            except ImpairmentError as error:
                raise PlanError(f"between {near} and {far}: {error}") from None
    return _of_routers("wan", dict.fromkeys(regions, hosts_per_region), links)


def from_graph(graph: Graph, hosts_per_node: int = 1) -> FabricPlan:
    """The fabric of an undirected ``networkx.Graph``: a router for each node, a link for each edge.

    A node has ``hosts_per_node`` hosts, or as many as its attribute ``hosts`` says, behind a leaf called after it,
    ``NODE-lf``. An edge may have the attribute ``impairment``, an `Impairment` of both its directions.

    Routers are called as the nodes are, with ``n`` before a number: node 3 is ``n3``. A node that cannot be the name of
    an interface is called by its letters and digits with ``_`` between them, as much of them as Linux allows, and the
    second of the same name, in the graph's order, has ``_2`` at its end: ``(0, 1)`` of a grid is ``n0_1``,
    ``"New York"`` is ``New_Yor``. Raises `PlanError`.
    """
    if graph.is_directed() or graph.is_multigraph():
        raise PlanError("a fabric's links go both ways, one between two nodes: give an undirected graph, no multigraph")
    counts = {}
    for node, attributes in graph.nodes(data=True):
        counts[node] = attributes.get("hosts", hosts_per_node)
        if not isinstance(counts[node], int) or counts[node] < 0:
            raise PlanError(f"node {node!r} has hosts={counts[node]!r}; that is a whole number, 0 or more")
    at_most(spines=len(counts), hosts=sum(counts.values()), links=len(graph.edges))
    names = _names(graph, counts)
    links = {}
    for near, far, attributes in graph.edges(data=True):
        impairment = attributes.get("impairment")
        if not isinstance(impairment, Impairment | None):
            raise PlanError(f"edge {near!r}-{far!r} has impairment={impairment!r}; that is an Impairment")
        links[names[near], names[far]] = (impairment, impairment)
    return _of_routers("graph", {names[node]: hosts for node, hosts in counts.items()}, links)


def _names(graph: Graph, hosts: Mapping[Any, int]) -> dict[Any, str]:
    """What the routers of a graph's nodes are called, each of which has so many hosts."""
    degrees = Counter(node for edge in graph.edges for node in edge)
    meant = {node: f"n{node}" if isinstance(node, Integral) else str(node) for node in hosts}
    longest = {
        node: LONGEST_INTERFACE_NAME
        - max(len(f"-eth{degrees[node] + 1}"), len(f"{LEAF_SUFFIX}-eth{hosts[node] + 1}") if hosts[node] else 0)
        for node in hosts
    }
    hosts_names = {f"h{number}" for number in range(1, sum(hosts.values()) + 1)}
    names = {
        node: name
        for node, name in meant.items()
        if isinstance(node, str | Integral)
        and NAME.fullmatch(name)
        and len(name) <= longest[node]
        and name not in hosts_names
    }
    if same := [name for name, times in Counter(names.values()).items() if times > 1]:
        raise PlanError(f"two nodes would have the same name: {', '.join(same)}")
    taken = hosts_names | set(names.values()) | {f"{name}{LEAF_SUFFIX}" for name in names.values()}
    for node in hosts:
        if node in names:
            continue
        words = "_".join(re.findall("[A-Za-z0-9]+", _text(node)))
        words = words if words and isinstance(node, str) else f"n{words}"
        for number in count(1):
            end = f"_{number}" if number > 1 else ""
            name = words[: max(1, longest[node] - len(end))] + end
            if not {name, f"{name}{LEAF_SUFFIX}"} & taken:
                break
        names[node] = name
        taken |= {name, f"{name}{LEAF_SUFFIX}"}
    return names


def _text(node: object) -> str:
    """What a node is, the same in every process: the text of an object may have its place in memory in it."""
    if isinstance(node, frozenset):
        return "_".join(sorted(map(_text, node)))
    if isinstance(node, tuple):
        return "_".join(map(_text, node))
    return str(node) if isinstance(node, str | int | float | Integral) else ""


def from_edges(edges: Iterable[tuple[str, str]], hosts: int | Mapping[str, int] = 1) -> FabricPlan:
    """The fabric of a graph's edges, ``[("a", "b"), ("b", "c")]``, as `from_graph` makes it.

    ``hosts`` is how many each node has, or ``{"a": 2}``, and then none where nothing is said. Raises `PlanError`.
    """
    pairs = list(edges)
    between: dict[frozenset[str], tuple[str, str]] = {}
    for pair in pairs:
        ends = frozenset(pair)
        if ends in between:
            both = f"{'-'.join(between[ends])} and {'-'.join(pair)}"
            raise PlanError(f"{both} are between the same two nodes; two nodes have one link")
        between[ends] = pair
    nodes = list(dict.fromkeys(node for pair in pairs for node in pair))
    counts = dict.fromkeys(nodes, hosts) if isinstance(hosts, int) else {node: hosts.get(node, 0) for node in nodes}
    if not isinstance(hosts, int) and (unknown := sorted(set(hosts) - set(nodes))):
        raise PlanError(f"hosts of {', '.join(unknown)}, which no link names; there is {', '.join(nodes)}")
    return _of_routers("graph", counts, dict.fromkeys(pairs, (None, None)))


#: What a file's edges may say of their links, beside whatever else is in it.
_SAID = {"delay": parse_duration, "jitter": parse_duration, "loss": parse_share, "rate": parse_rate}


def from_file(path: Path, hosts_per_node: int = 1) -> FabricPlan:
    """The fabric of a graph in a file, as `from_graph` makes it: GraphML, as the Internet Topology Zoo's, or JSON.

    The JSON is node-link data, ``{"nodes": [{"id": "a"}], "edges": [{"source": "a", "target": "b"}]}``. Nodes may have
    ``hosts``, edges a ``delay``, ``jitter``, ``loss`` and ``rate`` with their units, ``"40ms"``; a node with a number
    for a name is called as in `from_graph`. Raises `PlanError`, or OSError where there is no such file.
    """
    import networkx

    try:
        graph = networkx.read_graphml(path) if path.suffix == ".graphml" else _node_link(path.read_bytes())
        numbered = {node: int(node) for node in graph.nodes if str(node).isdecimal()}
        graph = networkx.relabel_nodes(graph, numbered)
        for _, _, said in graph.edges(data=True):
            asked: dict[str, Any] = {name: parse(said[name]) for name, parse in _SAID.items() if name in said}
            said["impairment"] = Impairment(**asked) if asked else None
    except (networkx.NetworkXError, msgspec.DecodeError, UnitError, ValueError, TypeError, SyntaxError) as error:
        raise PlanError(f"{path.name} is no graph that can be read: {error}") from None
    return from_graph(graph, hosts_per_node)


def _node_link(data: bytes) -> Any:
    import networkx

    said = msgspec.json.decode(data, type=_NodeLink)
    graph = networkx.DiGraph() if said.directed else networkx.Graph()
    try:
        for node in said.nodes:
            graph.add_node(node.pop("id"), **node)
        for edge in (*said.edges, *said.links):
            graph.add_edge(edge.pop("source"), edge.pop("target"), **edge)
    except KeyError as missing:
        raise ValueError(
            f'every node has an "id", every edge a "source" and a "target"; {missing} is missing'
        ) from None
    return graph


class _NodeLink(msgspec.Struct):
    nodes: list[dict[str, Any]]
    edges: list[dict[str, Any]] = []
    links: list[dict[str, Any]] = []
    directed: bool = False


_Impaired = tuple[Impairment | None, Impairment | None]


def _of_routers(kind: str, hosts: Mapping[str, int], links: Mapping[tuple[str, str], _Impaired]) -> FabricPlan:
    """Routers with so many hosts behind each, and links with what they do to packets there and back."""
    behind = [count for count in hosts.values() if count]
    at_most(spines=len(hosts), leaves=len(behind), hosts=sum(behind), links=sum(behind) + len(behind) + len(links))
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
