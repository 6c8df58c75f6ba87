"""Between our plans and Mininet's own `Topo`: its topologies run on our fabrics, our plans on stock Mininet.

    Fabric(TreeTopo(depth=2, fanout=2))      # Mininet's tree, on our fabric
    Mininet(topo_of(LeafSpine(2, 4, 2)))     # our leaf-spine, on stock Mininet

and ``mn --custom topologies/leaf_spine.py`` does the former in a sandbox and the latter elsewhere, see `net`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from topologies.check import check
from topologies.draft import DATAPATH_IDS, HOST_BLOCK, leaf_networks, mac
from topologies.graph import LEAF_SUFFIX
from topologies.nodes import Mininet, Topo
from topologies.plan import End, FabricPlan, Host, Link, PlanError, Switch

__all__ = ["Mininet", "net", "plan_of", "topo_of"]

#: What a `Topo` may say of its nodes and links, beside their names; anything else would be silently left out.
_OF_NODES, _OF_LINKS = {"isSwitch", "dpid"}, {"node1", "node2", "port1", "port2"}


def topo_of(plan: FabricPlan) -> Any:
    """The `mininet.topo.Topo` of a plan, with its names, addresses, port numbers and datapath ids.

    Nobody routes in stock Mininet: its hosts are neighbours in one network, `draft.HOST_BLOCK`. Its switches learn, so
    where the plan has loops they need a spanning tree (``--switch ovsbr,stp=1``).
    """
    topo = Topo()
    topo.plan = plan
    for switch in plan.switches:
        topo.addSwitch(switch.name, dpid=f"{switch.datapath_id:016x}")
    for host in plan.hosts:
        topo.addHost(host.name, ip=f"{host.ip}/{HOST_BLOCK.prefixlen}", mac=host.mac)
    for link in plan.links:
        topo.addLink(
            link.a.node,
            link.b.node,
            port1=link.a.port,
            port2=link.b.port,
            intfName1=link.a.interface,
            intfName2=link.b.interface,
        )
    return topo


def plan_of(topo: Any) -> FabricPlan:
    """The plan of a `mininet.topo.Topo`, with its names and port numbers; addresses are ours, a network for each leaf.

    Switches with hosts are leaves, through which nothing passes to others. One that has hosts and several neighbours
    (the middle of ``linear``) is therefore two: a spine of its name, and a leaf with its hosts behind it, ``s2-lf``.
    Raises `PlanError` for what is no `Topo`, for options of nodes and links that it would have to leave out, and for
    what cannot be a plan.
    """
    if not isinstance(topo, Topo):
        raise PlanError(f"{topo!r} is neither a plan nor one of Mininet's topologies, such as TreeTopo(2, 2)")
    if isinstance(known := getattr(topo, "plan", None), FabricPlan):
        return known
    switch_names, host_names = topo.switches(), topo.hosts()
    for name in (*switch_names, *host_names):
        _refuse(name, topo.nodeInfo(name), _OF_NODES)
    links = topo.links(withInfo=True)
    hosts_of: dict[str, list[str]] = {name: [] for name in switch_names}
    neighbours: Counter[str] = Counter()
    for a, b, info in links:
        _refuse(f"{a}-{b}", info, _OF_LINKS)
        for near, far in ((a, b), (b, a)):
            if near in hosts_of and far not in hosts_of:
                hosts_of[near].append(far)
            elif near in hosts_of:
                neighbours[near] += 1
    split = {name: f"{name}{LEAF_SUFFIX}" for name in switch_names if hosts_of[name] and neighbours[name] > 1}
    leaves = [split.get(name, name) for name in switch_names if hosts_of[name]]
    spines = [name for name in switch_names if name in split or not hosts_of[name]]
    highest = {name: max(topo.ports.get(name, {0: None})) for name in switch_names}

    hosts: dict[str, Host] = {}
    networks = leaf_networks(len(leaves), max(map(len, hosts_of.values()), default=0))
    for name, network in zip((name for name in switch_names if hosts_of[name]), networks, strict=True):
        for offset, host in enumerate(sorted(hosts_of[name], key=host_names.index), 1):
            address = f"{network.network_address + offset}/{network.prefixlen}"
            number = mac(0x02, host_names.index(host) + 1)
            hosts[host] = Host(host, split.get(name, name), address, str(network.broadcast_address - 1), number)

    def end(node: str, port: int, far: str) -> End:
        if node not in hosts_of:
            return End(node, f"{node}-eth{port}", 0)
        name = node if far in hosts_of else split.get(node, node)
        return End(name, f"{name}-eth{port}", port)

    lines = []
    for a, b, info in links:
        ends = end(a, info["port1"], b), end(b, info["port2"], a)
        # The lower tier comes first, as in all links' names.
        near, far = sorted(ends, key=lambda one: (one.node in hosts_of, one.node not in leaves))
        lines.append(Link(f"{near.node}-{far.node}", near, far))
    for name, leaf in split.items():
        port = highest[name] + 1
        lines.append(Link(f"{leaf}-{name}", End(leaf, f"{leaf}-eth{port}", port), End(name, f"{name}-eth{port}", port)))
    plan = FabricPlan(
        type(topo).__name__,
        (
            *(Switch(name, "leaf", DATAPATH_IDS["leaf"] + number) for number, name in enumerate(leaves, 1)),
            *(Switch(name, "spine", DATAPATH_IDS["spine"] + number) for number, name in enumerate(spines, 1)),
        ),
        tuple(hosts[name] for name in host_names if name in hosts),
        tuple(lines),
        router_mac=mac(0x06, 0xFE),
    )
    check(plan)
    return plan


def _refuse(what: str, options: dict[str, Any], known: set[str]) -> None:
    if unknown := sorted(set(options) - known):
        said = ", ".join(f"{name}={options[name]!r}" for name in unknown)
        raise PlanError(
            f"{what} has {said}, which no plan takes from a Mininet topology: addresses are planned, and what links do "
            "to packets is an impairment (topologies.impair); leave it out"
        )


def net(topo: Any, **options: Any) -> Any:
    """What ``mn`` builds with our custom file.

    In a sandbox it is a `RoutedFabric`, which needs neither a controller nor a spanning tree. Of mn's ``options`` it
    takes those that ask for what a plan gives anyway, known MACs (``--mac``, ``--arp``), and raises `PlanError` for
    those that it would have to leave out. Elsewhere, where no fabric of ours is built, it is stock Mininet.
    """
    from topologies.fabric import in_a_sandbox

    if not in_a_sandbox():
        return Mininet(topo=topo, **options)
    from topologies.routed_fabric import RoutedFabric

    _refuse_options(options)
    return RoutedFabric(plan_of(topo))


def _refuse_options(options: dict[str, Any]) -> None:
    from mininet.link import Intf, Link
    from mininet.node import Controller, Host, NullController, OVSBridge, OVSController, OVSSwitch

    # What mn hands over where nobody asks for anything: a bridge where it finds no controller on the machine.
    usual: dict[str, tuple[Any, ...]] = {
        "switch": (OVSSwitch, OVSBridge),
        "host": (Host,),
        "link": (Link,),
        "intf": (Intf,),
        "controller": (NullController, Controller, OVSController),
    }
    unusual = [
        f"{option} {getattr(given, '__name__', given)}"
        for option, known in usual.items()
        for given in _each(options.get(option))
        if given not in known
    ]
    unusual += [option for option in ("inNamespace", "autoPinCpus", "xterms") if options.get(option)]
    if options.get("ipBase", str(HOST_BLOCK)) != str(HOST_BLOCK):
        unusual.append(f"ipBase {options['ipBase']}")
    if unusual:
        raise PlanError(
            f"mn asks for {', '.join(unusual)}, which a routed fabric would leave out: it has neither bridges nor a "
            "controller, addresses are planned, and what links do to packets is an impairment (topologies.impair); "
            "leave the option out"
        )


def _each(given: Any) -> list[Any]:
    return [] if given is None else given if isinstance(given, list) else [given]
