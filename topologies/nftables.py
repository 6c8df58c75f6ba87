"""Just enough nftables for a tunnel end: tables of a bridge's traffic, made and removed whole by one netlink batch.

A table is one thing that somebody asked for, so that what two of them do is independent, and removing one is one
message. The layouts are those of linux/netfilter/nf_tables.h, integers in network order; nft(8) shows what there is.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence

from topologies.rtnetlink import (
    NLM_F_ACK,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    NLMSG_ERROR,
    Message,
    Netlink,
    NetlinkError,
    attribute,
    nested,
    packed,
)

_NETLINK_NETFILTER, _NFPROTO_BRIDGE, _NF_BR_FORWARD = 12, 7, 2
_SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE = _SUBSYSTEM, _SUBSYSTEM | 2, _SUBSYSTEM | 3, _SUBSYSTEM | 6
_NFGENMSG = struct.Struct("!BBH")
_CHAIN = b"forward\0"
_REGISTER, _VERDICT_REGISTER = 1, 0
_META_PROTOCOL, _META_OIF, _META_L4PROTO = 1, 5, 16
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_EQUAL, _NOT_EQUAL = 0, 1
_TCP_FLAGS, _SYN = 13, 0x02
_EXTHDR_TCPOPT, _TCPOPT_MSS = 1, 2


def new_table(name: str) -> list[Message]:
    """A table whose rules see what the namespace's bridges forward."""
    hook = _number(1, _NF_BR_FORWARD) + _number(2, 0)
    chain = attribute(1, _text(name)) + attribute(3, _CHAIN) + nested(4, hook) + attribute(7, b"filter\0")
    return [
        _message(_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, attribute(1, _text(name)), f"table {name}"),
        _message(_NEWCHAIN, NLM_F_CREATE | NLM_F_EXCL, chain, f"chain of table {name}"),
    ]


def delete_table(name: str) -> Message:
    return _message(_DELTABLE, 0, attribute(1, _text(name)), f"removing table {name}")


def drop_rule(table: str, out: int, source: str) -> Message:
    """Drop IPv4 from an address that is about to leave by the bridge's port with interface index ``out``."""
    return _rule(table, f"rule against {source}", [*_leaves_by(out), *_is_ipv4(), *_source(source), _drop()])


def clamp_rule(table: str, out: int, mss: int) -> Message:
    """Lower the largest segment that TCP's SYNs offer, on their way out of the bridge's port ``out``, to ``mss`` bytes.

    One that is lower stays (nft(8), ``tcp option maxseg size set``).
    """
    is_syn = [
        _expression("meta", _number(2, _META_L4PROTO) + _number(1, _REGISTER)),
        _compare(bytes([socket.IPPROTO_TCP])),
        _load(_TRANSPORT_HEADER, _TCP_FLAGS, 1),
        _mask(bytes([_SYN])),
        _compare(b"\0", _NOT_EQUAL),
    ]
    # The option's kind and length are its first two bytes (RFC 9293 §3.2), the size the next two.
    option = attribute(2, bytes([_TCPOPT_MSS])) + _number(3, 2) + _number(4, 2) + _number(6, _EXTHDR_TCPOPT)
    lower = [
        _expression("immediate", _number(1, _REGISTER) + _value(2, struct.pack("!H", mss))),
        _expression("exthdr", _number(7, _REGISTER) + option),
    ]
    return _rule(table, f"clamping to {mss}", [*_leaves_by(out), *_is_ipv4(), *is_syn, *lower])


def commit(messages: Sequence[Message]) -> None:
    """Have all of them carried out in the namespace this thread is in, or none. Raises `NetlinkError`."""
    frame = _NFGENMSG.pack(socket.AF_UNSPEC, 0, _SUBSYSTEM >> 8)
    batch = [
        Message(_BATCH_BEGIN, 0, frame, "a batch for nftables"),
        *messages,
        Message(_BATCH_END, 0, frame, "a batch for nftables"),
    ]
    last = len(messages)
    with Netlink(_NETLINK_NETFILTER) as netlink:
        netlink.send(
            b"".join(
                packed(message, NLM_F_REQUEST | (NLM_F_ACK if number == last else 0), number)
                for number, message in enumerate(batch)
            )
        )
        for kind, sequence, payload in netlink.answers():
            code = -struct.unpack_from("=i", payload)[0] if kind == NLMSG_ERROR else 0
            if code:
                raise NetlinkError(code, os.strerror(code), batch[sequence].about)
            if sequence == last:
                return


def _leaves_by(out: int) -> list[bytes]:
    return [
        _expression("meta", _number(2, _META_OIF) + _number(1, _REGISTER)),
        _compare(struct.pack("=I", out)),
    ]


def _is_ipv4() -> list[bytes]:
    return [
        _expression("meta", _number(2, _META_PROTOCOL) + _number(1, _REGISTER)),
        _compare(struct.pack("!H", 0x0800)),
    ]


def _source(address: str) -> list[bytes]:
    return [_load(_NETWORK_HEADER, 12, 4), _compare(socket.inet_aton(address))]


def _drop() -> bytes:
    verdict = nested(2, _number(1, 0))  # NF_DROP
    return _expression("immediate", _number(1, _VERDICT_REGISTER) + nested(2, verdict))


def _load(header: int, offset: int, length: int) -> bytes:
    where = _number(2, header) + _number(3, offset) + _number(4, length)
    return _expression("payload", _number(1, _REGISTER) + where)


def _mask(bits: bytes) -> bytes:
    registers = _number(1, _REGISTER) + _number(2, _REGISTER) + _number(3, len(bits))
    return _expression("bitwise", registers + _value(4, bits) + _value(5, bytes(len(bits))))


def _compare(value: bytes, how: int = _EQUAL) -> bytes:
    return _expression("cmp", _number(1, _REGISTER) + _number(2, how) + _value(3, value))


def _expression(name: str, data: bytes) -> bytes:
    return nested(1, attribute(1, _text(name)) + nested(2, data))


def _rule(table: str, about: str, expressions: Sequence[bytes]) -> Message:
    payload = attribute(1, _text(table)) + attribute(2, _CHAIN) + nested(4, b"".join(expressions))
    return _message(_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, payload, f"{about} in table {table}")


def _message(kind: int, flags: int, attributes: bytes, about: str) -> Message:
    return Message(kind, flags, _NFGENMSG.pack(_NFPROTO_BRIDGE, 0, 0) + attributes, about)


def _value(kind: int, value: bytes) -> bytes:
    return nested(kind, attribute(1, value))


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!I", value))


def _text(value: str) -> bytes:
    return value.encode() + b"\0"
