"""The messages that build a fabric mean what they should to somebody else's netlink, pyroute2's."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from topologies import rtnetlink
from topologies.rtnetlink import Message, Port

NAMES = st.from_regex(r"[a-z][a-z0-9-]{0,14}", fullmatch=True)
MACS = st.binary(min_size=6, max_size=6).map(lambda octets: octets.hex(":"))
PORTS = st.builds(
    Port,
    NAMES,
    st.integers(68, 65_535),
    number=st.integers(0, 2**31 - 1),
    group=st.integers(0, 2**32 - 1),
    mac=st.none() | MACS,
    namespace=st.none() | st.integers(0, 1000),
    promiscuous=st.booleans(),
)
ADDRESSES = st.builds(
    lambda number, length: f"{ipaddress.IPv4Address(number)}/{length}", st.integers(1, 2**32 - 1), st.integers(1, 32)
)


def decoded(as_: type, message: Message) -> Any:
    read = as_(rtnetlink.packed(message, rtnetlink.NLM_F_REQUEST, 7))
    read.decode()
    assert read["header"]["type"] == message.kind
    assert read["header"]["sequence_number"] == 7
    return read


def check_port(read: Any, port: Port, *, up: bool) -> None:
    assert read.get_attr("IFLA_IFNAME") == port.name
    assert read.get_attr("IFLA_MTU") == port.mtu
    assert read.get_attr("IFLA_GROUP") == port.group
    assert read.get_attr("IFLA_ADDRESS") == port.mac
    assert read.get_attr("IFLA_NET_NS_FD") == port.namespace
    assert (read.get_attr("IFLA_NUM_TX_QUEUES"), read.get_attr("IFLA_NUM_RX_QUEUES")) == (1, 1)
    assert read["index"] == port.number
    assert (read["flags"] & rtnetlink.IFF_UP != 0) == up
    assert (read["flags"] & rtnetlink.IFF_PROMISC != 0) == port.promiscuous


@settings(deadline=None)
@given(PORTS, PORTS)
def test_a_veth_has_both_its_ends(port: Port, peer: Port) -> None:
    read = decoded(ifinfmsg, rtnetlink.new_veth(port, peer))
    check_port(read, port, up=True)
    info = read.get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_KIND") == "veth"
    check_port(info.get_attr("IFLA_INFO_DATA").get_attr("VETH_INFO_PEER"), peer, up=False)


@settings(deadline=None)
@given(NAMES, st.booleans())
def test_setting_an_interface_changes_its_state_alone(name: str, up: bool) -> None:
    read = decoded(ifinfmsg, rtnetlink.set_state(name, up=up))
    assert read.get_attr("IFLA_IFNAME") == name
    assert (read["flags"], read["change"]) == (rtnetlink.IFF_UP if up else 0, rtnetlink.IFF_UP)


@settings(deadline=None)
@given(st.integers(1, 2**31 - 1), ADDRESSES)
def test_an_address_keeps_its_prefix_length_and_brings_no_route(index: int, address: str) -> None:
    read = decoded(ifaddrmsg, rtnetlink.new_address(index, address))
    assert f"{read.get_attr('IFA_LOCAL')}/{read['prefixlen']}" == address
    assert read["index"] == index
    assert read.get_attr("IFA_FLAGS") == rtnetlink.IFA_F_NOPREFIXROUTE


@settings(deadline=None)
@given(st.integers(1, 2**31 - 1), ADDRESSES, st.none() | st.just("10.0.1.254"))
def test_a_route_has_its_destination_gateway_and_congestion_control(
    index: int, address: str, gateway: str | None
) -> None:
    network = ipaddress.IPv4Interface(address).network
    route = rtnetlink.new_route(str(network), index=index, gateway=gateway, congestion_control="cubic")
    read = decoded(rtmsg, route)
    assert f"{read.get_attr('RTA_DST')}/{read['dst_len']}" == str(network)
    assert read.get_attr("RTA_OIF") == index
    assert read.get_attr("RTA_GATEWAY") == gateway
    assert (read["flags"] & rtnetlink.RTNH_F_ONLINK != 0) == (gateway is not None)
    assert read.get_attr("RTA_METRICS").get_attr("RTAX_CC_ALGO") == "cubic"


@settings(deadline=None)
@given(st.integers(1, 2**31 - 1), ADDRESSES, MACS)
def test_a_neighbour_is_permanent(index: int, address: str, mac: str) -> None:
    read = decoded(ndmsg, rtnetlink.new_neighbour(index, address.partition("/")[0], mac))
    assert (read["ifindex"], read["state"]) == (index, rtnetlink.NUD_PERMANENT)
    assert (read.get_attr("NDA_DST"), read.get_attr("NDA_LLADDR")) == (address.partition("/")[0], mac)


@given(st.integers(1, 2**31 - 1), st.booleans())
def test_a_rule_drops_one_pair_and_is_removed_by_the_same_words(priority: int, add: bool) -> None:
    read = decoded(fibmsg, rtnetlink.blackhole_rule(priority, "10.0.1.1", "10.0.2.1", add=add))
    assert (read["src_len"], read["dst_len"], read["action"]) == (32, 32, rtnetlink.FR_ACT_BLACKHOLE)
    assert (read.get_attr("FRA_SRC"), read.get_attr("FRA_DST")) == ("10.0.1.1", "10.0.2.1")
    assert read.get_attr("FRA_PRIORITY") == priority


def test_an_address_with_bits_that_are_no_octets_never_reaches_the_kernel() -> None:
    with pytest.raises(ValueError, match="300"):
        rtnetlink.new_address(2, "10.0.0.300/24")


@settings(deadline=None)
@given(PORTS)
def test_a_bridge_is_up_and_looks_into_no_multicast(port: Port) -> None:
    read = decoded(ifinfmsg, rtnetlink.new_bridge(port))
    check_port(read, port, up=True)
    info = read.get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_KIND") == "bridge"
    assert info.get_attr("IFLA_INFO_DATA").get_attr("IFLA_BR_MCAST_SNOOPING") == 0


@settings(deadline=None)
@given(PORTS, st.integers(1, 2**24 - 1), ADDRESSES, st.integers(1, 65_535))
def test_a_vxlan_device_learns_nothing_and_has_its_ports_and_no_checksum(
    port: Port, vni: int, address: str, udp_port: int
) -> None:
    local = address.partition("/")[0]
    sources = range(49_152, 65_536)
    made = rtnetlink.new_vxlan(port, vni=vni, local=local, udp_port=udp_port, source_ports=sources)
    read = decoded(ifinfmsg, made)
    check_port(read, port, up=True)
    info = read.get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_KIND") == "vxlan"
    data = info.get_attr("IFLA_INFO_DATA")
    assert data.get_attr("IFLA_VXLAN_ID") == vni
    assert data.get_attr("IFLA_VXLAN_LOCAL") == local
    assert data.get_attr("IFLA_VXLAN_PORT") == udp_port
    assert data.get_attr("IFLA_VXLAN_PORT_RANGE") == {"low": sources[0], "high": sources[-1]}
    assert (data.get_attr("IFLA_VXLAN_LEARNING"), data.get_attr("IFLA_VXLAN_UDP_CSUM")) == (0, 0)


@settings(deadline=None)
@given(st.integers(1, 2**31 - 1), MACS, ADDRESSES)
def test_a_tunnel_is_told_to_the_device_and_its_bridge_and_flooding_to_the_device_alone(
    index: int, mac: str, address: str
) -> None:
    end = address.partition("/")[0]
    tunnel = decoded(ndmsg, rtnetlink.new_tunnel(index, mac, end))
    flooding = decoded(ndmsg, rtnetlink.new_flooding(index, end))
    local = decoded(ndmsg, rtnetlink.new_forwarding(index, mac))
    assert [read["family"] for read in (tunnel, flooding, local)] == [socket.AF_BRIDGE] * 3
    assert [read["flags"] for read in (tunnel, flooding, local)] == [2 | 4, 2, 4]  # NTF_SELF, NTF_MASTER
    # None of them ages: NUD_NOARP.
    assert all(read["ifindex"] == index and read["state"] & 0x40 for read in (tunnel, flooding, local))
    macs = [read.get_attr("NDA_LLADDR") for read in (tunnel, flooding, local)]
    assert macs == [mac, "00:00:00:00:00:00", mac]
    assert [read.get_attr("NDA_DST") for read in (tunnel, flooding)] == [end, end]
    assert flooding["header"]["flags"] & rtnetlink.NLM_F_APPEND


@settings(deadline=None)
@given(st.integers(1, 2**31 - 1), st.integers(1, 2**31 - 1))
def test_a_port_joins_its_bridge_and_suppresses_arp(index: int, bridge: int) -> None:
    joined = decoded(ifinfmsg, rtnetlink.set_master(index, bridge))
    assert (joined["index"], joined.get_attr("IFLA_MASTER")) == (index, bridge)
    told = decoded(ifinfmsg, rtnetlink.suppress_arp(index))
    assert (told["index"], told["family"]) == (index, socket.AF_BRIDGE)
    flags = told.get_attr("IFLA_PROTINFO")
    assert (flags.get_attr("IFLA_BRPORT_LEARNING"), flags.get_attr("IFLA_BRPORT_NEIGH_SUPPRESS")) == (0, 1)


@settings(deadline=None)
@given(NAMES, st.integers(68, 65_535))
def test_an_mtu_is_set_by_name(name: str, mtu: int) -> None:
    read = decoded(ifinfmsg, rtnetlink.set_mtu(name, mtu))
    assert (read.get_attr("IFLA_IFNAME"), read.get_attr("IFLA_MTU")) == (name, mtu)
