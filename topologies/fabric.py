"""A plan alive in the kernel: namespaces, veths, Open vSwitch, with Mininet's face.

    with Fabric(LeafSpine(2, 3, 4)) as net:
        print(net["h1"].cmd("ip a"))

It is built inside a sandbox (`topologies.sandbox`), and the kernel removes it with the sandbox. Hosts are named network
namespaces without a process in them; switches are bridges of the sandbox's own Open vSwitch, and the links between them
veths with both ends in the sandbox's own namespace.
"""

from __future__ import annotations

import asyncio
import os
import re
import resource
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, NoReturn

import msgspec
from mininet.log import output

from topologies import netns, nftables, openvswitch, vtep
from topologies.check import check
from topologies.dataplane import Dataplane, OvsDataplane
from topologies.mininet_topo import plan_of
from topologies.nodes import FabricHost, FabricLink, FabricMember, FabricSwitch, Mininet, Topo
from topologies.openvswitch import OpenVSwitch, OpenVSwitchError
from topologies.plan import End, FabricPlan, Link, PlanError, Switch
from topologies.probe import Prober, readiness_pairs
from topologies.rtnetlink import (
    IFF_UP,
    Netlink,
    NetlinkError,
    Port,
    delete_group,
    interface_has_carrier,
    new_address,
    new_neighbour,
    new_route,
    new_veth,
    set_group,
    set_state,
    write_checksums,
)

#: What TCP does in the hosts, whatever the machine's default is: on their routes, see `rtnetlink.new_route`.
CONGESTION_CONTROL = "cubic"

#: Sysctls of every host, under ``net``, written out so that none is inherited from the machine: the sizes are Linux's
#: own (tcp(7)); metrics of one connection shall not shape the next, which is after a fault; and no IPv6.
HOST_SYSCTLS = {
    "ipv6/conf/all/disable_ipv6": "1",
    "ipv4/tcp_rmem": "4096 131072 6291456",
    "ipv4/tcp_wmem": "4096 16384 4194304",
    "ipv4/tcp_no_metrics_save": "1",
}

# Any number that neither lo nor the tunnel devices some kernels put into a new namespace have.
_HOST_INTERFACE_INDEX = 100

#: How many make namespaces at a time. A third of that work is done under one lock of the kernel's.
_THREADS = 2

#: Which of the sandbox's interfaces are a fabric's.
_INTERFACE_GROUP = 0x5B

# linux/proc_ns.h: the inode of the pid namespace in which the machine booted.
_MACHINES_PID_NAMESPACE = 0xEFFFFFFC


class FabricError(RuntimeError):
    """A fabric that cannot be built here or does not come up; the message says why, and what to do about it."""


class Counters(msgspec.Struct, frozen=True):
    """What crossed one direction of a link since it was built. A segment of 64 KiB that stays whole counts once."""

    packets: int
    bytes: int
    dropped: int


class Fabric(Mininet):
    """The network of ``plan``, or of one of Mininet's own topologies (`mininet_topo.plan_of`).

    Constructing it touches nothing; `start`, or ``with``, builds it; `stop` takes it away.

    ``datapath`` is Open vSwitch's: in the kernel (``system``), in user space (``netdev``), or ``auto``: the former
    where the kernel can. ``controller`` is where the switches look for theirs, ``tcp:ADDRESS:PORT`` in the sandbox's
    own namespace, or None for no one. ``log_directory`` gets Open vSwitch's logs. A plan that cannot be
    (`check`) raises `PlanError`, and whatever fails `FabricError`.

    Of Mininet's interface there are ``net["h1"].cmd(...)``, ``hosts``, ``switches``, ``links``, ``pingAll()``,
    ``configLinkStatus``, ``CLI(net)`` and so on; nodes and links cannot be added or deleted.
    """

    hosts: list[FabricHost]
    switches: list[FabricSwitch]
    links: list[FabricLink]
    nameToNode: dict[str, FabricHost | FabricMember | FabricSwitch]  # noqa: N815 - Mininet's name

    def __init__(
        self,
        plan: FabricPlan | Topo,
        *,
        datapath: Literal["auto", "system", "netdev"] = "auto",
        controller: str | None = "tcp:127.0.0.1:6653",
        log_directory: Path | None = None,
    ) -> None:
        # Mininet's first construction sets sysctls of the whole machine (fixLimits), unless it thinks it did.
        inited, Mininet.inited = Mininet.inited, True
        try:
            super().__init__(build=False, controller=None)
        finally:
            Mininet.inited = inited
        self.plan = plan = plan if isinstance(plan, FabricPlan) else plan_of(plan)
        check(plan)
        self.host_names = frozenset(host.name for host in plan.hosts)
        self._controller = controller
        self._controller_port = _port_of(controller)
        self._wanted_datapath = datapath
        self._log_directory = log_directory
        self.ovs: OpenVSwitch | None = None
        self._begun = False

    # -- life

    def start(self) -> None:
        """Build what there is not yet, and start the switches; return when Open vSwitch has every port."""
        self._begin()
        if self.ovs is None:
            self.start_open_vswitch()
        with _typed_errors():
            assert self.ovs is not None
            missing = not self.built
            switches = self.plan.switches
            # Open vSwitch has something to do while links are made. Before its first bridge ovs-vswitchd takes 100 ms
            # to measure the processor's clock. It gets its ports in two portions, no more: whenever a link changes, it
            # looks again at all it has.
            self.ovs.submit(openvswitch.bridges(switches, self.ovs.datapath))
            if missing:
                self._build_switch_links()
                self._build_namespaces()
            self.ovs.submit(openvswitch.ports(self.plan, switches, self._switch_links))
            if missing:
                self._build_host_links()
            submitted = self.ovs.submit(
                openvswitch.ports(self.plan, switches, [link for link, _, _ in self._host_links])
                + openvswitch.controllers(switches, self._controller)
            )
            if missing:
                self._configure_hosts()
            self.ovs.await_configuration(submitted)
            self._check_ports(self.ovs)

    def start_open_vswitch(self) -> None:
        """Start its daemons, without a switch; `start` does, too."""
        self._begin()
        with _typed_errors():
            self.ovs = OpenVSwitch(
                openvswitch.choose_datapath(self._wanted_datapath),
                segmentation_offload=self.plan.is_uniform,
                log_directory=self._log_directory,
            )
            self.ovs.start()

    def build(self) -> None:
        """Make the namespaces and links; `start` does, too."""
        self._begin()
        with _typed_errors():
            self._build_switch_links()
            self._build_namespaces()
            self._build_host_links()
            self._configure_hosts()

    def stop(self) -> None:
        """Take everything away again. Where the sandbox goes too there is no need to: the kernel does it."""
        if not self._begun:
            return
        if "prober" in self.__dict__:
            self.prober.close()
        for known in ("prober", "dataplane", "_routing", "_counted"):
            self.__dict__.pop(known, None)
        for node in self.nameToNode.values():
            node.terminate()
        if self.ovs is not None:
            self.ovs.stop()
            self.ovs = None
        # The user space datapath makes a TAP for every bridge, and one more, that stay when it has gone.
        taps = {switch.name for switch in self.plan.switches} | {"ovs-netdev"}
        present = {name for _, name in socket.if_nameindex()}
        with _typed_errors(), Netlink() as ours:
            ours.request([set_group(name, _INTERFACE_GROUP) for name in taps & present])
            if present - {"lo"}:
                ours.request([delete_group(_INTERFACE_GROUP)])
        for endpoint in self.plan.endpoints:
            netns.remove(endpoint.name)
        self.hosts, self.switches, self.links, self.nameToNode = [], [], [], {}
        self.built = self._begun = False

    def __enter__(self) -> Fabric:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def wait_ready(self, timeout: float = 10.0) -> None:
        """Return once every switch is connected to its controller and the fabric forwards.

        Forwarding is seen, not assumed: marked probes from and to every host, and from every leaf to every other
        (`probe.readiness_pairs`). Raises `FabricError` after ``timeout`` seconds, saying what is missing.
        """
        deadline = time.monotonic() + timeout
        await self._wait_connected(deadline)
        missing = readiness_pairs(self.plan)
        patience = 0.1
        while missing:
            left = deadline - time.monotonic()
            if left <= 0:
                sender, receiver = missing[0]
                raise FabricError(
                    f"the fabric does not forward after {timeout:g} s: {len(missing)} of "
                    f"{len(readiness_pairs(self.plan))} probes are missing, the first from {sender} to {receiver}"
                )
            cells = await self.prober.measure(missing, probes=1, timeout=min(patience, left))
            missing = [pair for pair in missing if not cells[pair].arrived]
            # A large fabric may only be slow to find its first paths: more probes would make it slower.
            patience *= 2

    # -- what runs in it, and what is seen of it

    def inside(self, host: str) -> AbstractContextManager[None]:
        """Be in a host's or a tenant's member's network namespace for the block: sockets opened there stay there.

        It moves this thread: do not await in the block. Raises `PlanError` for a host the plan does not have.
        """
        return netns.inside(self.plan.endpoint(host).name)

    def spawn(
        self,
        host: str,
        argv: Sequence[str | os.PathLike[str]],
        *,
        env: Mapping[str, str] | None = None,
        stdin: int | IO[Any] | None = None,
        stdout: int | IO[Any] | None = None,
        stderr: int | IO[Any] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program in a host or a tenant's member, with no shell in between; the rest is `subprocess.Popen`'s.

        Raises `PlanError` for a host the plan does not have, OSError when the program cannot be started.
        """
        with self.inside(host):
            return subprocess.Popen(argv, env=env, stdin=stdin, stdout=stdout, stderr=stderr, cwd=cwd)

    def link_counters(self) -> dict[str, Counters]:
        """The counters of both directions of every link, from one dump."""
        with _typed_errors(), Netlink() as ours:
            statistics = ours.statistics()
        counters = {}
        for direction, (index, sends) in self._counted.items():
            seen = statistics[index]
            # A veth's two ends count the same packets; the one that is here stands for both.
            packets, octets = (seen.tx_packets, seen.tx_bytes) if sends else (seen.rx_packets, seen.rx_bytes)
            counters[direction] = Counters(packets, octets, seen.tx_dropped if sends else seen.rx_dropped)
        return counters

    def has_carrier(self, link: str) -> bool:
        """Whether a link has carrier at its switch's end. Raises `PlanError` for a link the plan does not have."""
        return interface_has_carrier(self.plan.link(link).b.interface)

    def connected(self) -> dict[str, bool]:
        """Whether each switch is connected to its controller."""
        return self._running().connected()

    @cached_property
    def prober(self) -> Prober:
        """Who measures what reaches whom."""
        return Prober(self.plan)

    @cached_property
    def dataplane(self) -> Dataplane:
        """Who cuts and drops."""
        return self._with_tenants(OvsDataplane(self.plan))

    # -- Mininet's

    def configLinkStatus(self, src: str, dst: str, status: str) -> None:  # noqa: N802
        """Take the link between two nodes ``down``, by carrier loss at both ends, or ``up``."""
        if status not in ("up", "down"):
            raise FabricError(f"{status!r} is not a link's status: it is 'up' or 'down'")
        both = {src, dst}
        link = next((link for link in self.plan.links_of(src) if {link.a.node, link.b.node} == both), None)
        if link is None:
            raise PlanError(f"no link between {src!r} and {dst!r}")
        if status == "down":
            self.dataplane.cut(link.name)
        else:
            self.dataplane.restore(link.name)

    def iperf(
        self,
        hosts: Sequence[FabricHost] | None = None,
        l4Type: str = "TCP",  # noqa: N803
        udpBw: str = "10M",  # noqa: N803
        fmt: str | None = None,
        seconds: int = 5,
        port: int = 5001,
    ) -> list[str]:
        """What the server and the client say of the rate between two hosts, the first and the last unless named.

        For UDP, ``udpBw`` comes before them. Mininet's own waits for ever with iperf 2.1, which does not report the
        empty connection that Mininet begins with any more.
        """
        if l4Type not in ("TCP", "UDP"):
            raise FabricError(f"{l4Type!r} is not what iperf sends: it is 'TCP' or 'UDP'")
        client, server = hosts or (self.hosts[0], self.hosts[-1])
        output("*** Iperf: testing", l4Type, "bandwidth between", client, "and", server, "\n")
        words = ["iperf", "-p", str(port), *(["-u"] if l4Type == "UDP" else []), *(["-f", fmt] if fmt else [])]
        said = subprocess.PIPE
        with self.spawn(server.name, [*words, "-s", "-P", "1"], stdout=said, stderr=subprocess.STDOUT) as listener:
            try:
                self._await_listener(server.name, l4Type.lower(), port)
                rate = ["-b", udpBw] if l4Type == "UDP" else []
                argv = [*words, "-t", str(seconds), "-c", server.IP(), *rate]
                with self.spawn(client.name, argv, stdout=said, stderr=subprocess.STDOUT) as sender:
                    sent = sender.communicate(timeout=seconds + 20)[0].decode()
                heard = listener.communicate(timeout=5)[0].decode()
            except subprocess.TimeoutExpired as error:
                raise FabricError(
                    f"iperf from {client} to {server} did not come to an end: do they reach each other?"
                ) from error
            finally:
                listener.kill()
        rates = [self._parseIperf(printed) for printed in (heard, sent)]
        result = [udpBw, *rates] if l4Type == "UDP" else rates
        output(f"*** Results: {result}\n")
        return result

    def _await_listener(self, host: str, protocol: str, port: int) -> None:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            with self.inside(host):
                if _sockets(protocol, port).listening:
                    return
            time.sleep(0.01)
        raise FabricError(f"iperf in {host} does not listen at port {port}: is another program there?")

    def _refuse_change(self, *_: Any, **__: Any) -> NoReturn:
        """A plan is whole before it is built: nobody else would know of what came later."""
        raise FabricError(
            "a fabric has the nodes and links of its plan, for good: describe another plan, or take a link down by "
            "configLinkStatus and a switch by its stop()"
        )

    addHost = addSwitch = addController = addLink = addNAT = _refuse_change  # noqa: N815
    delNode = delHost = delSwitch = delController = delLink = delLinkBetween = _refuse_change  # noqa: N815

    def stop_switch(self, name: str) -> None:
        """Take a switch out; `start_switch` brings it back."""
        with _typed_errors():
            self._running().remove(self.plan.switch(name).name)

    def start_switch(self, name: str) -> None:
        """Bring back a switch that `stop_switch` took out, with empty tables."""
        switches = [self.plan.switch(name)]
        with _typed_errors():
            ovs = self._running()
            links = self.plan.links_of(name)
            ovs.configure(openvswitch.bridges(switches, ovs.datapath) + openvswitch.ports(self.plan, switches, links))
            ovs.configure(openvswitch.controllers(switches, self._controller))

    # -- how it is built

    def _begin(self) -> None:
        """From here on there may be something that is ours to take away."""
        if not self._begun:
            _require_sandbox()
            plan = self.plan
            _allow_open_files(4 * (len(plan.switches) + len(plan.hosts) + len(plan.links)) + 256)
            self._begun = True

    def _build_switch_links(self) -> None:
        """Make every link between switches, up."""
        self._write_sysctls({"ipv6/conf/default/disable_ipv6": "1"})
        with Netlink() as ours:
            ours.request(
                [
                    new_veth(*(self._switch_port(end, self.plan.mtu_of(link)) for end in (link.a, link.b)))
                    for link in self._switch_links
                ]
            )
            ours.request([set_state(link.b.interface, up=True) for link in self._switch_links])

    def _build_namespaces(self) -> None:
        """Make every host's."""
        netns.DIRECTORY.mkdir(exist_ok=True)
        names = [host.name for host in self.plan.hosts]
        with ThreadPoolExecutor(_THREADS) as threads:
            list(threads.map(self._make_namespaces, [names[i::_THREADS] for i in range(_THREADS)]))

    def _make_namespaces(self, names: Sequence[str]) -> None:
        for name in names:
            with netns.created(name):
                self._write_sysctls(HOST_SYSCTLS)

    def _build_host_links(self) -> None:
        """Make every host's link, up."""
        with ExitStack() as files, Netlink() as ours:
            ours.request(
                [
                    new_veth(
                        Port(
                            end.interface,
                            self.plan.host_mtu,
                            number=_HOST_INTERFACE_INDEX,
                            mac=self.plan.host(end.node).mac,
                            namespace=files.enter_context(netns.opened(end.node)),
                        ),
                        self._leaf_port(leaf_end),
                    )
                    for _, end, leaf_end in self._host_links
                ]
            )
        self._raise_leaf_ports([leaf_end for _, _, leaf_end in self._host_links])

    def _raise_leaf_ports(self, ends: Sequence[End]) -> None:
        with Netlink() as ours:
            ours.request([set_state(end.interface, up=True) for end in ends])

    def _configure_hosts(self) -> None:
        """Give the hosts their addresses and routes, and Mininet its nodes.

        A host sends everything to its leaf's router, as in fabrics that route to the host (RFC 7938 §5.2), and knows
        the router's MAC: all namespaces share one ARP table, which would overflow with a thousand hosts in it.
        """
        index = _HOST_INTERFACE_INDEX
        write = self._hosts_write_checksums
        for _, end, _ in self._host_links:
            host = self.plan.host(end.node)
            messages = [
                set_state("lo", up=True),
                new_address(index, host.address),
                new_neighbour(index, host.gateway, self.plan.router_mac),
                new_route("0.0.0.0/0", index=index, gateway=host.gateway, congestion_control=CONGESTION_CONTROL),
            ]
            with netns.inside(host.name), Netlink() as theirs:
                theirs.request(messages)
                if write:
                    write_checksums(end.interface)
                # When many links come up together the kernel lets a hundred ends a second send, or one that is asked
                # about now (from Linux 6.8 on).
                interface_has_carrier(end.interface)
        self._build_tenants()
        self._add_nodes()
        self.built = True

    def _build_tenants(self) -> None:
        """Make every tenant's members, and the tunnel ends of their hosts."""
        for tenant in self.plan.tenants:
            for member in tenant.members:
                with netns.opened(member.host) as there, netns.created(member.name), Netlink() as theirs:
                    self._write_sysctls(HOST_SYSCTLS)
                    theirs.request(vtep.member_side(self.plan, tenant, member, there, CONGESTION_CONTROL))
                with netns.inside(member.host), Netlink() as theirs:
                    theirs.request(vtep.host_side(self.plan, tenant, member))
                    if tenant.mss:
                        nftables.commit(vtep.clamping(self.plan, tenant))

    def _with_tenants(self, underlay: Dataplane) -> Dataplane:
        return vtep.VtepDataplane(self.plan, underlay) if self.plan.tenants else underlay

    @property
    def _hosts_write_checksums(self) -> bool:
        """Whether packets must leave hosts whole: where Open vSwitch is in user space and has no offloads."""
        return not self.plan.is_uniform and openvswitch.choose_datapath(self._wanted_datapath) == "netdev"

    def _leaf_port(self, end: End) -> Port:
        """A leaf's end of a host's link."""
        return self._switch_port(end, self.plan.host_mtu)

    @staticmethod
    def _switch_port(end: End, mtu: int) -> Port:
        # Open vSwitch would make it promiscuous itself, and then look at it, and at all others, again.
        return Port(end.interface, mtu, group=_INTERFACE_GROUP, promiscuous=True)

    @cached_property
    def _host_links(self) -> list[tuple[Link, End, End]]:
        """Every host's link, the host's end of it, and the leaf's."""
        return [
            (link, *((link.a, link.b) if link.a.node in self.host_names else (link.b, link.a)))
            for link in self.plan.links
            if {link.a.node, link.b.node} & self.host_names
        ]

    @property
    def _switch_links(self) -> list[Link]:
        return [link for link in self.plan.links if not {link.a.node, link.b.node} & self.host_names]

    @staticmethod
    def _write_sysctls(values: Mapping[str, str]) -> None:
        """Of the namespace this thread is in, which is the one /proc/sys/net shows it."""
        for name, value in values.items():
            fd = os.open(f"/proc/sys/net/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(fd, value.encode())
            finally:
                os.close(fd)

    def _add_nodes(self) -> None:
        self.hosts = [FabricHost(host) for host in self.plan.hosts]
        self.switches = [self._switch_node(switch) for switch in self.plan.switches]
        members = [FabricMember(member) for tenant in self.plan.tenants for member in tenant.members]
        self.nameToNode = {node.name: node for node in (*self.hosts, *self.switches, *members)}
        self.links = [FabricLink(link, self) for link in self.plan.links]

    def _switch_node(self, switch: Switch) -> FabricSwitch:
        return FabricSwitch(switch, self)

    def _check_ports(self, ovs: OpenVSwitch) -> None:
        ports = {port.name: port for port in ovs.ports()}
        for link in self.plan.links:
            for end in (link.a, link.b):
                if end.node in self.host_names:
                    continue
                port = ports[end.interface]
                if port.number != end.port:
                    why = port.error or f"it has port number {port.number} instead of {end.port}"
                    raise FabricError(f"Open vSwitch could not take {end.interface} into {end.node}: {why}")

    @cached_property
    def _counted(self) -> dict[str, tuple[int, bool]]:
        """Whose counters stand for a direction: the interface's index, and whether it sends or receives."""
        index = {name: number for number, name in socket.if_nameindex()}
        counted = {}
        for link in self.plan.links:
            for direction in link.directions:
                sender, receiver = self.plan.ends(direction)
                sends = sender.node not in self.host_names
                counted[direction] = (index[(sender if sends else receiver).interface], sends)
        return counted

    async def _wait_connected(self, deadline: float) -> None:
        if self._controller is None:
            return
        reconnected = False
        while (connections := _sockets("tcp", self._controller_port)).established < len(self.plan.switches):
            if time.monotonic() > deadline:
                missing = [name for name, connected in self.connected().items() if not connected]
                raise FabricError(
                    f"{', '.join(missing)} did not connect to a controller at {self._controller} in time: "
                    "is it running, in this sandbox?"
                )
            if connections.listening and not reconnected:
                # The switches may be sitting out the seconds after an attempt that came too early. Naming the same
                # controller again would leave them there; a new one is dialled at once.
                with _typed_errors():
                    self._running().configure(openvswitch.controllers(self.plan.switches, None))
                    self._running().configure(openvswitch.controllers(self.plan.switches, self._controller))
                reconnected = True
            await asyncio.sleep(0.01)

    def _running(self) -> OpenVSwitch:
        if self.ovs is None:
            raise FabricError("the fabric is not running: `start` it, or use it by `with`")
        return self.ovs


def in_a_sandbox() -> bool:
    """Whether this process is not in the machine's own pid namespace, so that what it makes can go with its own."""
    return os.stat("/proc/self/ns/pid").st_ino != _MACHINES_PID_NAMESPACE


def _require_sandbox() -> None:
    """Refuse to build in the machine's own namespaces, or in any that has a way out."""
    remedy = "build it inside a sandbox (topologies.sandbox.Sandbox)"
    if not in_a_sandbox():
        raise FabricError(f"a fabric is never built in the machine's own namespaces, where it would stay: {remedy}")
    for _, name in socket.if_nameindex():
        if name == "lo":
            continue
        flags = int(Path(f"/sys/class/net/{name}/flags").read_text(), 16)
        if flags & IFF_UP:
            raise FabricError(f"this network namespace is in use, it has {name}: {remedy}")


def _allow_open_files(count: int) -> None:
    """Raise the soft limit for this process and those it starts; Open vSwitch has several files open for a port."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and count > hard:
        raise FabricError(f"this fabric needs {count} open files, the limit is {hard}: raise it with `ulimit -Hn`")
    if soft != resource.RLIM_INFINITY and count > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def _port_of(controller: str | None) -> int:
    """The TCP port of ``tcp:ADDRESS:PORT``; 0 for no controller."""
    if controller is None:
        return 0
    match = re.fullmatch(r"tcp:[^:]+:(\d+)", controller)
    if match is None:
        raise FabricError(f"{controller!r} is not a controller: write tcp:ADDRESS:PORT, such as tcp:127.0.0.1:6653")
    return int(match[1])


class _Sockets(NamedTuple):
    listening: bool
    established: int


def _sockets(protocol: str, port: int) -> _Sockets:
    """Who listens on a port here, ``tcp`` or ``udp``, and how many are connected to it (proc(5), /proc/net/tcp).

    Open vSwitch's database would say the latter too, but is brought up to date every five seconds only.
    """
    with open(f"/proc/thread-self/net/{protocol}") as table:
        rows = [line.split()[1:4] for line in table][1:]
    ends = [
        (int(local.rpartition(":")[2], 16), int(remote.rpartition(":")[2], 16), state) for local, remote, state in rows
    ]
    return _Sockets(
        any(local == port and state in ("0A", "07") for local, _, state in ends),
        sum(remote == port and state == "01" for _, remote, state in ends),
    )


@contextmanager
def _typed_errors() -> Iterator[None]:
    try:
        yield
    except OpenVSwitchError as error:
        raise FabricError(str(error)) from error
    except NetlinkError as error:
        raise FabricError(f"the kernel refused {error.filename}: {error.strerror}") from error
    except OSError as error:
        raise FabricError(f"the fabric could not be built: {error}") from error
