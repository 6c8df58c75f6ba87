"""What is said to a switch is OpenFlow 1.4 to somebody else's parser, Ryu's; only a committed bundle is a success."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ryu.ofproto import ofproto_v1_4, ofproto_v1_4_parser
from ryu.ofproto.ofproto_protocol import ProtocolDesc

from topologies import openflow
from topologies.openflow import OpenFlowError

ADDRESSES = st.integers(0, 2**32 - 1).map(lambda number: socket.inet_ntoa(number.to_bytes(4, "big")))


def parsed(message: bytes) -> Any:
    assert struct.unpack_from("!BBH", message) == (ofproto_v1_4.OFP_VERSION, ofproto_v1_4.OFPT_FLOW_MOD, len(message))
    fields = struct.unpack_from(ofproto_v1_4.OFP_FLOW_MOD_PACK_STR0, message, ofproto_v1_4.OFP_HEADER_SIZE)
    offset = ofproto_v1_4.OFP_FLOW_MOD_SIZE - ofproto_v1_4.OFP_MATCH_SIZE
    match = ofproto_v1_4_parser.OFPMatch.parser(message, offset)
    # Nothing follows the match: no instructions.
    assert offset + match.length + -match.length % 8 == len(message)
    # The constructor takes a message's fields in their order.
    return ofproto_v1_4_parser.OFPFlowMod(ProtocolDesc(ofproto_v1_4.OFP_VERSION), *fields, match=match)


@settings(deadline=None)
@given(st.integers(0, 254), st.integers(0, 0xFFFF), st.integers(0, 2**64 - 2), ADDRESSES, ADDRESSES)
def test_a_drop_rule_matches_ipv4_between_two_addresses_and_does_nothing(
    table: int, priority: int, cookie: int, source: str, destination: str
) -> None:
    rule = parsed(openflow.drop_rule(table, priority, cookie, source, destination))
    assert (rule.command, rule.table_id, rule.priority, rule.cookie) == (openflow.ADD, table, priority, cookie)
    assert (rule.idle_timeout, rule.hard_timeout) == (0, 0)
    assert dict(rule.match.items()) == {"eth_type": 0x0800, "ipv4_src": source, "ipv4_dst": destination}


@settings(deadline=None)
@given(st.integers(0, 254), st.integers(0, 2**64 - 1))
def test_a_removal_matches_everything_under_its_cookie_and_nothing_else(table: int, cookie: int) -> None:
    rule = parsed(openflow.removal(table, cookie))
    assert (rule.command, rule.table_id) == (openflow.DELETE, table)
    assert (rule.cookie, rule.cookie_mask) == (cookie, 2**64 - 1)
    assert (rule.out_port, rule.out_group) == (openflow.ANY_PORT, openflow.ANY_GROUP)
    assert not list(rule.match.items())


Switch = Callable[[str, bytes], Path]


@pytest.fixture
def switch(tmp_path: Path) -> Switch:
    """``switch(name, answer)`` is the socket of a switch that reads one request, answers and hangs up."""

    def listen(name: str, answer: bytes) -> Path:
        path = tmp_path / f"{name}.mgmt"
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            with server, server.accept()[0] as connection:
                connection.recv(1 << 16)
                connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        return path

    return listen


HELLO = struct.pack("!BBHI", 5, 0, 8, 1)
COMMITTED = struct.pack("!BBHIIHH", 5, 33, 16, 1, 1, 5, 1)
REFUSED = struct.pack("!BBHIHH", 5, 1, 12, 1, 17, 3)


def test_a_switch_that_commits_has_changed(switch: Switch) -> None:
    openflow.change({switch("leaf1", HELLO + COMMITTED): [openflow.removal(0, 1)]})


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (HELLO + REFUSED, r"leaf2 \(OpenFlow error 17, code 3\)"),
        (HELLO, r"leaf2 \(it closed the connection\)"),
        (COMMITTED[:5], r"leaf2 \(it closed the connection\)"),
    ],
)
def test_switches_that_did_not_change_are_named(switch: Switch, answer: bytes, says: str) -> None:
    paths = [switch("leaf1", HELLO + COMMITTED), switch("leaf2", answer)]
    with pytest.raises(OpenFlowError, match=says) as raised:
        openflow.change({path: [openflow.removal(0, 1)] for path in paths})
    assert "leaf1" not in str(raised.value)


def test_a_switch_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OpenFlowError, match=r"leaf3 \(.*No such file"):
        openflow.change({tmp_path / "leaf3.mgmt": [openflow.removal(0, 1)]})
