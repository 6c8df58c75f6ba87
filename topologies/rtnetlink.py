"""Just enough rtnetlink to build a fabric: messages as bytes, a whole host's worth of them in one send.

Pyroute2 speaks all of it, but takes 0.5 ms to encode a link and 0.7 s to be imported; here a link is 10 µs, which is
what makes a thousand hosts a matter of seconds. The tests read every message back with pyroute2.

Layouts are those of rtnetlink(7) and linux/if_link.h; integers are in host order, addresses in network order.
"""

from __future__ import annotations

import ctypes
import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800
RTM_NEWLINK, RTM_DELLINK, RTM_SETLINK, RTM_NEWADDR, RTM_NEWROUTE, RTM_NEWNEIGH = 16, 17, 19, 20, 24, 28
RTM_NEWRULE, RTM_DELRULE, RTM_GETSTATS, RTM_NEWNEXTHOP = 32, 33, 94, 104
NETLINK_ROUTE, NETLINK_GENERIC = 0, 16

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_PROTINFO, IFLA_LINKINFO = 1, 3, 4, 10, 12, 18
IFLA_GROUP, IFLA_NET_NS_FD, IFLA_NUM_TX_QUEUES, IFLA_NUM_RX_QUEUES = 27, 28, 31, 32
IFLA_INFO_KIND, IFLA_INFO_DATA, VETH_INFO_PEER = 1, 2, 1
IFLA_BR_MCAST_SNOOPING, IFLA_BRPORT_LEARNING, IFLA_BRPORT_NEIGH_SUPPRESS = 23, 8, 32
IFLA_VXLAN_ID, IFLA_VXLAN_LOCAL, IFLA_VXLAN_LEARNING, IFLA_VXLAN_PORT_RANGE = 1, 4, 7, 10
IFLA_VXLAN_PORT, IFLA_VXLAN_UDP_CSUM = 15, 18
IFLA_STATS_LINK_64 = 1
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS, IFA_F_NOPREFIXROUTE = 1, 2, 4, 8, 0x200
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_METRICS, RTA_NH_ID, RTAX_CC_ALGO = 1, 4, 5, 8, 30, 16
RTNH_F_ONLINK = 4
NHA_ID, NHA_GROUP, NHA_OIF, NHA_GATEWAY = 1, 2, 5, 6
FRA_DST, FRA_SRC, FRA_PRIORITY, FR_ACT_BLACKHOLE = 1, 2, 6, 6
NDA_DST, NDA_LLADDR, NUD_REACHABLE, NUD_NOARP, NUD_PERMANENT = 1, 2, 0x02, 0x40, 0x80
NTF_SELF, NTF_MASTER = 2, 4
RT_TABLE_MAIN, RTPROT_STATIC, RTN_UNICAST = 254, 4, 1
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253
IFF_UP, IFF_PROMISC = 0x1, 0x100
SIOCETHTOOL, ETHTOOL_GLINK, ETHTOOL_STXCSUM = 0x8946, 0x0A, 0x17
GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME = 16, 3, 2

_NESTED = 0x8000  # NLA_F_NESTED, netlink(7): this attribute holds attributes
_HEADER = struct.Struct("=IHHII")
_IFINFO = struct.Struct("=BxHiII")
_IFADDR = struct.Struct("=BBBBI")
_ROUTE = struct.Struct("=8BI")
_NEIGHBOUR = struct.Struct("=B3xiHBB")
_NEXTHOP = struct.Struct("=BBBxI")
_NEXTHOP_MEMBER = struct.Struct("=IBBH")
_RULE = struct.Struct("=BBBBB2xBI")
_IF_STATS = struct.Struct("=B3xII")
_ATTRIBUTE = struct.Struct("=HH")
_STATISTICS = struct.Struct("=8Q")


class NetlinkError(OSError):
    """The kernel's refusal of one message; ``filename`` says which in words."""


class Message(NamedTuple):
    """A request without its header. ``about`` is what an error calls it."""

    kind: int
    flags: int
    payload: bytes
    about: str


class Port(NamedTuple):
    """One end of a veth pair.

    ``number`` is its interface index, 0 for the kernel's choice; ``group`` is for `delete_group`; ``namespace`` is an
    open file of the namespace it is in, None for this one. A ``promiscuous`` one takes what is for others, as a
    switch's has to.
    """

    name: str
    mtu: int
    number: int = 0
    group: int = 0
    mac: str | None = None
    namespace: int | None = None
    promiscuous: bool = False


class Statistics(NamedTuple):
    """The beginning of ``struct rtnl_link_stats64``."""

    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    rx_errors: int
    tx_errors: int
    rx_dropped: int
    tx_dropped: int


def new_veth(port: Port, peer: Port) -> Message:
    """A pair with both ends in place, named and addressed. One queue an end: a switch port is read by one thread.

    ``port`` comes up; ``peer`` is still to be set so, since the kernel opens no end before there are two.
    """
    veth = attribute(
        IFLA_LINKINFO,
        attribute(IFLA_INFO_KIND, b"veth\0")
        + attribute(IFLA_INFO_DATA, attribute(VETH_INFO_PEER, _port_description(peer, 0))),
    )
    description = _port_description(port, IFF_UP) + veth
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, description, f"link {port.name} to {peer.name}")


def new_bridge(port: Port) -> Message:
    """A bridge, up, that looks into nobody's multicast (bridge(8)); ``port`` describes it."""
    bridge = attribute(
        IFLA_LINKINFO,
        attribute(IFLA_INFO_KIND, b"bridge\0") + attribute(IFLA_INFO_DATA, attribute(IFLA_BR_MCAST_SNOOPING, b"\0")),
    )
    description = _port_description(port, IFF_UP) + bridge
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, description, f"bridge {port.name}")


def new_vxlan(port: Port, *, vni: int, local: str, udp_port: int, source_ports: range) -> Message:
    """One end of tunnels, up, that knows others only from `new_tunnel` (ip-link(8), vxlan, nolearning).

    Every inner flow has its own of ``source_ports``, by its hash, so that those between spread tunnels as they spread
    flows (RFC 7348 §5, UDP source port). The outer checksum is zero, as RFC 7348 has it over IPv4.
    """
    data = attribute(IFLA_VXLAN_ID, struct.pack("=I", vni))
    data += attribute(IFLA_VXLAN_LOCAL, socket.inet_aton(local)) + attribute(IFLA_VXLAN_LEARNING, b"\0")
    data += attribute(IFLA_VXLAN_PORT, struct.pack("!H", udp_port)) + attribute(IFLA_VXLAN_UDP_CSUM, b"\0")
    data += attribute(IFLA_VXLAN_PORT_RANGE, struct.pack("!HH", source_ports.start, source_ports.stop - 1))
    vxlan = attribute(IFLA_LINKINFO, attribute(IFLA_INFO_KIND, b"vxlan\0") + attribute(IFLA_INFO_DATA, data))
    description = _port_description(port, IFF_UP) + vxlan
    return Message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, description, f"VXLAN device {port.name}")


def set_master(index: int, bridge: int) -> Message:
    """Make an interface a bridge's port, and up."""
    payload = _IFINFO.pack(socket.AF_UNSPEC, 0, index, IFF_UP, IFF_UP)
    payload += attribute(IFLA_MASTER, struct.pack("=I", bridge))
    return Message(RTM_NEWLINK, 0, payload, f"putting interface {index} into bridge {bridge}")


def suppress_arp(index: int) -> Message:
    """Have a bridge answer for those behind this port of it instead of asking there, and learn nothing from it.

    It answers by the neighbours that the bridge's own interface has, when they are behind such a port (bridge(8),
    ``neigh_suppress``).
    """
    flags = attribute(IFLA_BRPORT_LEARNING, b"\0") + attribute(IFLA_BRPORT_NEIGH_SUPPRESS, b"\1")
    payload = _IFINFO.pack(socket.AF_BRIDGE, 0, index, 0, 0) + nested(IFLA_PROTINFO, flags)
    return Message(RTM_SETLINK, 0, payload, f"suppressing ARP at interface {index}")


def set_mtu(interface: str, mtu: int) -> Message:
    payload = _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + _name(interface)
    payload += attribute(IFLA_MTU, struct.pack("=I", mtu))
    return Message(RTM_NEWLINK, 0, payload, f"setting the MTU of {interface} to {mtu}")


def set_state(interface: str, *, up: bool) -> Message:
    payload = _IFINFO.pack(socket.AF_UNSPEC, 0, 0, IFF_UP if up else 0, IFF_UP) + _name(interface)
    return Message(RTM_NEWLINK, 0, payload, f"setting {interface} {'up' if up else 'down'}")


def set_group(interface: str, group: int) -> Message:
    payload = _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + _name(interface)
    payload += attribute(IFLA_GROUP, struct.pack("=I", group))
    return Message(RTM_NEWLINK, 0, payload, f"putting {interface} into group {group}")


def delete_group(group: int) -> Message:
    """Delete every interface of a group at once, and their peers; one by one it would take milliseconds for each."""
    payload = _IFINFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + attribute(IFLA_GROUP, struct.pack("=I", group))
    return Message(RTM_DELLINK, 0, payload, f"deleting the interfaces of group {group}")


def new_address(index: int, address: str) -> Message:
    """``address`` is IPv4 with its prefix length, ``10.0.1.1/24``. The route to its network is left to `new_route`."""
    interface = ipaddress.IPv4Interface(address)
    payload = _IFADDR.pack(socket.AF_INET, interface.network.prefixlen, 0, RT_SCOPE_UNIVERSE, index)
    payload += attribute(IFA_LOCAL, interface.packed) + attribute(IFA_ADDRESS, interface.packed)
    if interface.network.prefixlen < 31:  # both addresses of a /31 are a host's (RFC 3021)
        payload += attribute(IFA_BROADCAST, interface.network.broadcast_address.packed)
    payload += attribute(IFA_FLAGS, struct.pack("=I", IFA_F_NOPREFIXROUTE))
    return Message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, payload, f"address {address}")


def new_route(
    destination: str,
    *,
    index: int | None = None,
    gateway: str | None = None,
    nexthop: int | None = None,
    congestion_control: str | None = None,
) -> Message:
    """A route to ``destination``, ``10.0.1.0/24``: by an interface, maybe to a gateway there, or by a `new_nexthop`.

    A gateway need not be in any network of the interface (``onlink``, ip-route(8)). It takes the place of one that is
    there. ``congestion_control`` is what
    TCP connections on the route use (tcp(7)); on the route, since a namespace's own default may only be one that the
    machine's administrator allows to all.
    """
    network = ipaddress.IPv4Network(destination)
    scope = RT_SCOPE_LINK if gateway is None and nexthop is None else RT_SCOPE_UNIVERSE
    flags = 0 if gateway is None else RTNH_F_ONLINK
    payload = _ROUTE.pack(
        socket.AF_INET, network.prefixlen, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, scope, RTN_UNICAST, flags
    )
    payload += attribute(RTA_DST, network.network_address.packed)
    if index is not None:
        payload += attribute(RTA_OIF, struct.pack("=I", index))
    if gateway is not None:
        payload += attribute(RTA_GATEWAY, socket.inet_aton(gateway))
    if nexthop is not None:
        payload += attribute(RTA_NH_ID, struct.pack("=I", nexthop))
    if congestion_control is not None:
        payload += attribute(RTA_METRICS, attribute(RTAX_CC_ALGO, congestion_control.encode() + b"\0"))
    return Message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, payload, f"route to {network}")


def new_neighbour(index: int, address: str, mac: str) -> Message:
    """A permanent neighbour: it is never asked for by ARP, and does not count towards the ARP table's limit.

    All namespaces of a machine share that limit, 1024 entries by default (arp(7), ``gc_thresh3``).
    """
    payload = _NEIGHBOUR.pack(socket.AF_INET, index, NUD_PERMANENT, 0, RTN_UNICAST)
    payload += attribute(NDA_DST, socket.inet_aton(address)) + attribute(NDA_LLADDR, _octets(mac))
    return Message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, payload, f"neighbour {address}")


def new_forwarding(index: int, mac: str) -> Message:
    """Tell the bridge of port ``index`` that ``mac`` is behind it, for ever (bridge(8), ``master static``)."""
    return _forwarding(index, mac, NTF_MASTER, None)


def new_tunnel(index: int, mac: str, destination: str) -> Message:
    """Tell VXLAN device ``index`` and its bridge that ``mac`` is behind the tunnel end ``destination``, for ever."""
    return _forwarding(index, mac, NTF_SELF | NTF_MASTER, destination)


def new_flooding(index: int, destination: str) -> Message:
    """Have VXLAN device ``index`` copy what is for everybody to one more tunnel end (head-end replication)."""
    return _forwarding(index, "00:00:00:00:00:00", NTF_SELF, destination)


def _forwarding(index: int, mac: str, flags: int, destination: str | None) -> Message:
    payload = _NEIGHBOUR.pack(socket.AF_BRIDGE, index, NUD_NOARP | NUD_REACHABLE, flags, RTN_UNICAST)
    payload += attribute(NDA_LLADDR, _octets(mac))
    if destination is not None:
        payload += attribute(NDA_DST, socket.inet_aton(destination))
    how = NLM_F_CREATE | (NLM_F_APPEND if flags == NTF_SELF else NLM_F_REPLACE)
    return Message(RTM_NEWNEIGH, how, payload, f"forwarding of {mac} to {destination or f'interface {index}'}")


def new_nexthop(number: int, index: int, gateway: str) -> Message:
    """A way out, under a number: by an interface to a gateway there (ip-nexthop(8)). One of that number is replaced."""
    payload = _NEXTHOP.pack(socket.AF_INET, 0, RTPROT_STATIC, RTNH_F_ONLINK)
    payload += attribute(NHA_ID, struct.pack("=I", number)) + attribute(NHA_OIF, struct.pack("=I", index))
    payload += attribute(NHA_GATEWAY, socket.inet_aton(gateway))
    return Message(RTM_NEWNEXTHOP, NLM_F_CREATE | NLM_F_REPLACE, payload, f"next hop {gateway}")


def new_nexthop_group(number: int, members: Mapping[int, int]) -> Message:
    """Several ways out, ``{number of a next hop: weight}``, between which flows are spread by weight, 1 to 256."""
    # The kernel keeps weights less one.
    inside = b"".join(_NEXTHOP_MEMBER.pack(member, weight - 1, 0, 0) for member, weight in members.items())
    payload = _NEXTHOP.pack(socket.AF_UNSPEC, 0, RTPROT_STATIC, 0)
    payload += attribute(NHA_ID, struct.pack("=I", number)) + attribute(NHA_GROUP, inside)
    return Message(RTM_NEWNEXTHOP, NLM_F_CREATE | NLM_F_REPLACE, payload, f"next hops {list(members)}")


def blackhole_rule(priority: int, source: str, destination: str, *, add: bool) -> Message:
    """The rule that drops what is routed from one address to another (ip-rule(8)), to be added or removed."""
    payload = _RULE.pack(socket.AF_INET, 32, 32, 0, 0, FR_ACT_BLACKHOLE, 0)
    payload += attribute(FRA_PRIORITY, struct.pack("=I", priority))
    payload += attribute(FRA_SRC, socket.inet_aton(source)) + attribute(FRA_DST, socket.inet_aton(destination))
    kind, flags = (RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL) if add else (RTM_DELRULE, 0)
    return Message(kind, flags, payload, f"rule against {source} to {destination}")


def write_checksums(interface: str) -> None:
    """Have an interface of the namespace this thread is in leave nothing to hardware that it has not (ethtool(8),
    ``-K tx off``): checksums are written, and segments cut, before packets are given to it. Raises OSError.
    """
    _ethtool(interface, ETHTOOL_STXCSUM, 0)


def interface_has_carrier(interface: str) -> bool:
    """Whether an interface of the namespace this thread is in is up and has carrier (ethtool's "Link detected")."""
    return _ethtool(interface, ETHTOOL_GLINK, 0) == 1


def _ethtool(interface: str, command: int, data: int) -> int:
    """``struct ethtool_value`` there and back (linux/ethtool.h)."""
    value = (ctypes.c_uint32 * 2)(command, data)
    request = struct.pack("16sP16x", interface.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCETHTOOL, request)
    return value[1]


class Netlink:
    """A netlink socket. It belongs to the namespace in which it was opened, wherever its thread goes afterwards."""

    #: The kernel answers within the send, each answer taking under 1 KiB of the 208 KiB a socket may hold.
    _BATCH = 128

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.bind((0, 0))

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def request(self, messages: Sequence[Message]) -> None:
        """Have all of them carried out in order. Raises `NetlinkError` for the first that is refused, the rest done."""
        for start in range(0, len(messages), self._BATCH):
            batch = messages[start : start + self._BATCH]
            # Only a refusal is answered unasked; the last message asks, so that there is an end to wait for.
            flags = [0] * (len(batch) - 1) + [NLM_F_ACK]
            self.send(
                b"".join(packed(m, NLM_F_REQUEST | f, i) for i, (m, f) in enumerate(zip(batch, flags, strict=True)))
            )
            refused: NetlinkError | None = None
            for kind, sequence, payload in self.answers():
                if kind != NLMSG_ERROR:
                    continue
                code = -struct.unpack_from("=i", payload)[0]
                if code and refused is None:
                    refused = NetlinkError(code, os.strerror(code), batch[sequence].about)
                if sequence == len(batch) - 1:
                    break
            if refused is not None:
                raise refused

    def statistics(self) -> dict[int, Statistics]:
        """The counters of every interface of the namespace by its index, in one dump."""
        ask = _IF_STATS.pack(socket.AF_UNSPEC, 0, 1 << (IFLA_STATS_LINK_64 - 1))
        self.send(packed(Message(RTM_GETSTATS, NLM_F_DUMP, ask, "statistics"), NLM_F_REQUEST, 0))
        found: dict[int, Statistics] = {}
        for kind, _, payload in self.answers():
            if kind == NLMSG_DONE:
                return found
            if kind == NLMSG_ERROR:
                code = -struct.unpack_from("=i", payload)[0]
                raise NetlinkError(code, os.strerror(code), "statistics")
            _, index, _ = _IF_STATS.unpack_from(payload)
            found[index] = Statistics._make(
                _STATISTICS.unpack_from(_find(payload[_IF_STATS.size :], IFLA_STATS_LINK_64))
            )
        raise AssertionError("a dump ends with NLMSG_DONE")

    def has_generic_family(self, name: str) -> bool:
        """Whether the kernel speaks this generic netlink family; asking loads the module that does (genetlink(7))."""
        payload = struct.pack("=BBH", CTRL_CMD_GETFAMILY, 1, 0) + attribute(
            CTRL_ATTR_FAMILY_NAME, name.encode() + b"\0"
        )
        self.send(packed(Message(GENL_ID_CTRL, NLM_F_ACK, payload, name), NLM_F_REQUEST, 0))
        return any(kind != NLMSG_ERROR for kind, _, _ in self.answers(once=True))

    def send(self, data: bytes) -> None:
        self._socket.send(data)

    def answers(self, once: bool = False) -> Iterator[tuple[int, int, bytes]]:
        """The kernel's: type, sequence number and payload of each; without end, unless ``once``: of one read."""
        while True:
            data = self._socket.recv(1 << 18)
            offset = 0
            while offset < len(data):
                length, kind, _, sequence, _ = _HEADER.unpack_from(data, offset)
                yield kind, sequence, data[offset + _HEADER.size : offset + length]
                offset += _aligned(length)
            if once:
                return


def _port_description(port: Port, flags: int) -> bytes:
    attributes = _name(port.name) + attribute(IFLA_MTU, struct.pack("=I", port.mtu))
    attributes += _ONE_QUEUE + attribute(IFLA_GROUP, struct.pack("=I", port.group))
    if port.mac is not None:
        attributes += attribute(IFLA_ADDRESS, _octets(port.mac))
    if port.namespace is not None:
        attributes += attribute(IFLA_NET_NS_FD, struct.pack("=I", port.namespace))
    if port.promiscuous:
        flags |= IFF_PROMISC
    return _IFINFO.pack(socket.AF_UNSPEC, 0, port.number, flags, flags) + attributes


def packed(message: Message, flags: int, sequence: int) -> bytes:
    length = _HEADER.size + len(message.payload)
    return _HEADER.pack(length, message.kind, message.flags | flags, sequence, 0) + message.payload


def _name(interface: str) -> bytes:
    return attribute(IFLA_IFNAME, interface.encode() + b"\0")


def _octets(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def attribute(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + b"\0" * (_aligned(length) - length)


def nested(kind: int, attributes: bytes) -> bytes:
    """An attribute that holds others, and says so."""
    return attribute(kind | _NESTED, attributes)


def _find(attributes: bytes, wanted: int) -> bytes:
    offset = 0
    while offset < len(attributes):
        length, kind = _ATTRIBUTE.unpack_from(attributes, offset)
        if kind == wanted:
            return attributes[offset + _ATTRIBUTE.size : offset + length]
        offset += _aligned(length)
    raise KeyError(wanted)


def _aligned(length: int) -> int:
    return (length + 3) & ~3


_ONE_QUEUE = attribute(IFLA_NUM_TX_QUEUES, struct.pack("=I", 1)) + attribute(IFLA_NUM_RX_QUEUES, struct.pack("=I", 1))
