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
NFTA_TABLE_NAME = 1
NFTA_CHAIN_TABLE, NFTA_CHAIN_NAME, NFTA_CHAIN_HOOK, NFTA_CHAIN_TYPE = 1, 3, 4, 7
NFTA_HOOK_HOOKNUM, NFTA_HOOK_PRIORITY = 1, 2
NFTA_RULE_TABLE, NFTA_RULE_CHAIN, NFTA_RULE_EXPRESSIONS = 1, 2, 4
NFTA_LIST_ELEM, NFTA_EXPR_NAME, NFTA_EXPR_DATA = 1, 1, 2
NFTA_DATA_VALUE, NFTA_DATA_VERDICT, NFTA_VERDICT_CODE, NF_DROP = 1, 2, 1, 0
NFTA_META_DREG, NFTA_META_KEY = 1, 2
NFTA_CMP_SREG, NFTA_CMP_OP, NFTA_CMP_DATA = 1, 2, 3
NFTA_PAYLOAD_DREG, NFTA_PAYLOAD_BASE, NFTA_PAYLOAD_OFFSET, NFTA_PAYLOAD_LEN = 1, 2, 3, 4
NFTA_BITWISE_SREG, NFTA_BITWISE_DREG, NFTA_BITWISE_LEN, NFTA_BITWISE_MASK, NFTA_BITWISE_XOR = 1, 2, 3, 4, 5
NFTA_IMMEDIATE_DREG, NFTA_IMMEDIATE_DATA = 1, 2
NFTA_EXTHDR_TYPE, NFTA_EXTHDR_OFFSET, NFTA_EXTHDR_LEN, NFTA_EXTHDR_OP, NFTA_EXTHDR_SREG = 2, 3, 4, 6, 7

_NFGENMSG = struct.Struct("!BBH")
_CHAIN = b"forward\0"
_REGISTER, _VERDICT_REGISTER = 1, 0
_META_PROTOCOL, _META_OIF, _META_L4PROTO = 1, 5, 16
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_EQUAL, _NOT_EQUAL = 0, 1
_ETH_P_IP, _SOURCE_ADDRESS, _TCP_FLAGS, _SYN = 0x0800, 12, 13, 0x02
_EXTHDR_TCPOPT, _TCPOPT_MSS = 1, 2


def new_table(name: str) -> list[Message]:
    """A table whose rules see what the namespace's bridges forward."""
    hook = _number(NFTA_HOOK_HOOKNUM, _NF_BR_FORWARD) + _number(NFTA_HOOK_PRIORITY, 0)
    chain = attribute(NFTA_CHAIN_TABLE, _text(name)) + attribute(NFTA_CHAIN_NAME, _CHAIN)
    chain += nested(NFTA_CHAIN_HOOK, hook) + attribute(NFTA_CHAIN_TYPE, b"filter\0")
    return [
        _message(_NEWTABLE, NLM_F_CREATE | NLM_F_EXCL, attribute(NFTA_TABLE_NAME, _text(name)), f"table {name}"),
        _message(_NEWCHAIN, NLM_F_CREATE | NLM_F_EXCL, chain, f"chain of table {name}"),
    ]


def delete_table(name: str) -> Message:
    return _message(_DELTABLE, 0, attribute(NFTA_TABLE_NAME, _text(name)), f"removing table {name}")


def drop_rule(table: str, out: int, source: str) -> Message:
    """Drop IPv4 from an address that is about to leave by the bridge's port with interface index ``out``."""
    return _rule(table, f"rule against {source}", [*_leaves_by(out), *_is_ipv4(), *_source(source), _drop()])


def clamp_rule(table: str, out: int, mss: int) -> Message:
    """Lower the largest segment that TCP's SYNs offer, on their way out of the bridge's port ``out``, to ``mss`` bytes.

    One that is lower stays (nft(8), ``tcp option maxseg size set``).
    """
    is_syn = [
        _meta(_META_L4PROTO),
        _compare(bytes([socket.IPPROTO_TCP])),
        _load(_TRANSPORT_HEADER, _TCP_FLAGS, 1),
        _mask(bytes([_SYN])),
        _compare(b"\0", _NOT_EQUAL),
    ]
    # The option's kind and length are its first two bytes (RFC 9293 §3.2), the size the next two.
    option = attribute(NFTA_EXTHDR_TYPE, bytes([_TCPOPT_MSS])) + _number(NFTA_EXTHDR_OP, _EXTHDR_TCPOPT)
    size = _number(NFTA_EXTHDR_OFFSET, 2) + _number(NFTA_EXTHDR_LEN, 2)
    lower = [
        _expression(
            "immediate",
            _number(NFTA_IMMEDIATE_DREG, _REGISTER) + _value(NFTA_IMMEDIATE_DATA, struct.pack("!H", mss)),
        ),
        _expression("exthdr", option + size + _number(NFTA_EXTHDR_SREG, _REGISTER)),
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
    return [_meta(_META_OIF), _compare(struct.pack("=I", out))]


def _is_ipv4() -> list[bytes]:
    return [_meta(_META_PROTOCOL), _compare(struct.pack("!H", _ETH_P_IP))]


def _source(address: str) -> list[bytes]:
    return [_load(_NETWORK_HEADER, _SOURCE_ADDRESS, 4), _compare(socket.inet_aton(address))]


def _drop() -> bytes:
    verdict = nested(NFTA_DATA_VERDICT, _number(NFTA_VERDICT_CODE, NF_DROP))
    return _expression(
        "immediate", _number(NFTA_IMMEDIATE_DREG, _VERDICT_REGISTER) + nested(NFTA_IMMEDIATE_DATA, verdict)
    )


def _meta(key: int) -> bytes:
    return _expression("meta", _number(NFTA_META_KEY, key) + _number(NFTA_META_DREG, _REGISTER))


def _load(header: int, offset: int, length: int) -> bytes:
    where = _number(NFTA_PAYLOAD_BASE, header) + _number(NFTA_PAYLOAD_OFFSET, offset)
    where += _number(NFTA_PAYLOAD_LEN, length)
    return _expression("payload", _number(NFTA_PAYLOAD_DREG, _REGISTER) + where)


def _mask(bits: bytes) -> bytes:
    registers = _number(NFTA_BITWISE_SREG, _REGISTER) + _number(NFTA_BITWISE_DREG, _REGISTER)
    masked = _value(NFTA_BITWISE_MASK, bits) + _value(NFTA_BITWISE_XOR, bytes(len(bits)))
    return _expression("bitwise", registers + _number(NFTA_BITWISE_LEN, len(bits)) + masked)


def _compare(value: bytes, how: int = _EQUAL) -> bytes:
    operation = _number(NFTA_CMP_SREG, _REGISTER) + _number(NFTA_CMP_OP, how)
    return _expression("cmp", operation + _value(NFTA_CMP_DATA, value))


def _expression(name: str, data: bytes) -> bytes:
    return nested(NFTA_LIST_ELEM, attribute(NFTA_EXPR_NAME, _text(name)) + nested(NFTA_EXPR_DATA, data))


def _rule(table: str, about: str, expressions: Sequence[bytes]) -> Message:
    payload = attribute(NFTA_RULE_TABLE, _text(table)) + attribute(NFTA_RULE_CHAIN, _CHAIN)
    payload += nested(NFTA_RULE_EXPRESSIONS, b"".join(expressions))
    return _message(_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, payload, f"{about} in table {table}")


def _message(kind: int, flags: int, attributes: bytes, about: str) -> Message:
    return Message(kind, flags, _NFGENMSG.pack(_NFPROTO_BRIDGE, 0, 0) + attributes, about)


def _value(kind: int, value: bytes) -> bytes:
    return nested(kind, attribute(NFTA_DATA_VALUE, value))


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!I", value))


def _text(value: str) -> bytes:
    return value.encode() + b"\0"
