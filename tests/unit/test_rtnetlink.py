"""The messages that build a fabric mean what they should to somebody else's netlink, pyroute2's."""

from __future__ import annotations

import ipaddress
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
