"""Our flows and groups as OpenFlow 1.5 messages of the framework, and back.

OpenFlow 1.5 because a SELECT group's hash can be chosen there, by a Netronome property (ovs-ofctl(8),
"selection_method"). Without it Open vSwitch leaves UDP ports out, and all UDP between two hosts, VXLAN too, takes one
link. ``SPLITBRAIN_HASH`` says which of two that take the whole 5-tuple: ``datapath``, or ``fields``; see `METHODS`.
"""

from __future__ import annotations

import ipaddress
import os
import struct
from collections.abc import Iterable
from typing import Any, assert_never

from controllers.framework import ofproto, parser
from controllers.pipeline import (
    COOKIE_MASK,
    FABRIC_COOKIE,
    Action,
    Bucket,
    Change,
    CopyField,
    DecrementTtl,
    Flow,
    Foreign,
    Group,
    Output,
    SetField,
    ToGroup,
)

NETRONOME = 0x154D  # the experimenter of NTR_SELECTION_METHOD (Open vSwitch, netronome-ext.h)
SELECTION_METHOD = 1
#: What is hashed, by OXM field number and length in bytes (OpenFlow 1.5, §7.2.3.8): protocol, addresses, ports of TCP
#: and of UDP; and the types of frame and ICMP, which tell no two packets of a flow apart and fill the last 32-bit word.
_HASHED = ((10, 1), (11, 4), (12, 4), (13, 2), (14, 2), (15, 2), (16, 2), (5, 2), (19, 1))


def _method(name: bytes, fields: bytes = b"") -> list[int]:
    """A method's name in 16 bytes, a 64-bit parameter and what it hashes, as the 32-bit words the framework wants."""
    packed = struct.pack("!4x16sQ", name, 0) + fields
    return list(struct.unpack(f"!{len(packed) // 4}I", packed))


#: ``datapath``: the datapath's own hash, faster in user space. The kernel's is the one that a TCP socket on the same
#: machine gave the packet, drawn anew for every connection and some retransmissions; ``fields`` hashes the packet.
METHODS = {
    "datapath": _method(b"dp_hash"),
    "fields": _method(
        b"hash", b"".join(struct.pack("!HBB", 0x8000, field << 1, size) + b"\xff" * size for field, size in _HASHED)
    ),
}
HASH = "SPLITBRAIN_HASH"
_CHOSEN = METHODS[os.environ.get(HASH, "datapath")]


def change_message(datapath: Any, change: Change) -> Any:
    """The message that makes ``change`` on the switch behind ``datapath``."""
    if isinstance(change.item, Group):
        return _group_mod(datapath, change.operation, change.item)
    return _flow_mod(datapath, change.operation, change.item)


def _flow_mod(datapath: Any, operation: str, flow: Flow) -> Any:
    command = {
        "add": ofproto.OFPFC_ADD,
        "modify": ofproto.OFPFC_MODIFY_STRICT,
        "remove": ofproto.OFPFC_DELETE_STRICT,
    }[operation]
    instructions = []
    if flow.actions and operation != "remove":
        actions = [_action(action) for action in flow.actions]
        instructions.append(parser.OFPInstructionActions(ofproto.OFPIT_APPLY_ACTIONS, actions))
    if flow.goto is not None:
        instructions.append(parser.OFPInstructionGotoTable(flow.goto))
    return parser.OFPFlowMod(
        datapath,
        cookie=flow.cookie,
        # An add ignores the mask. Changes are kept to flows with our cookie, whatever else matches the same packets.
        cookie_mask=0 if operation == "add" else COOKIE_MASK,
        table_id=flow.table,
        command=command,
        priority=flow.priority,
        match=parser.OFPMatch(**{field: _masked(value) for field, value in flow.match}),
        instructions=instructions,
    )


def _group_mod(datapath: Any, operation: str, group: Group) -> Any:
    command = {"add": ofproto.OFPGC_ADD, "modify": ofproto.OFPGC_MODIFY, "remove": ofproto.OFPGC_DELETE}[operation]
    if operation == "remove":
        return parser.OFPGroupMod(datapath, command, ofproto.OFPGT_SELECT, group.id, ofproto.OFPG_BUCKET_ALL)
    return parser.OFPGroupMod(
        datapath,
        command,
        ofproto.OFPGT_SELECT,
        group.id,
        ofproto.OFPG_BUCKET_ALL,
        [_bucket(bucket) for bucket in group.buckets],
        [parser.OFPGroupPropExperimenter(ofproto.OFPGPT_EXPERIMENTER, None, NETRONOME, SELECTION_METHOD, _CHOSEN)],
    )


def _bucket(bucket: Bucket) -> Any:
    # The port is the bucket's number too: unique in its group, and the same after others came and went.
    return parser.OFPBucket(
        bucket.watch_port,
        [_action(action) for action in bucket.actions],
        [
            parser.OFPGroupBucketPropWeight(ofproto.OFPGBPT_WEIGHT, weight=bucket.weight),
            parser.OFPGroupBucketPropWatch(ofproto.OFPGBPT_WATCH_PORT, watch=bucket.watch_port),
        ],
    )


def _action(action: Action) -> Any:
    match action:
        case Output(port):
            return parser.OFPActionOutput(port, 0)
        case SetField(field, value):
            return parser.OFPActionSetField(**{field: value})
        case CopyField(source, target, bits):
            return parser.OFPActionCopyField(bits, 0, 0, [parser.OFPOxmId(source), parser.OFPOxmId(target)])
        case DecrementTtl():
            return parser.OFPActionDecNwTtl()
        case ToGroup(group):
            return parser.OFPActionGroup(group)
        case Foreign(text):
            raise ValueError(f"an action of another controller cannot be sent: {text}")
        case _:
            assert_never(action)


def _masked(value: int | str) -> Any:
    if isinstance(value, str) and "/" in value:
        network = ipaddress.ip_network(value)
        return str(network.network_address), str(network.netmask)
    return value


def flows_request(datapath: Any, cookie: int = FABRIC_COOKIE) -> Any:
    """Ask for the flows whose cookie has the upper 16 bits of ``cookie``: ours, if no other is given."""
    return parser.OFPFlowDescStatsRequest(datapath, cookie=cookie, cookie_mask=COOKIE_MASK)


def groups_request(datapath: Any) -> Any:
    return parser.OFPGroupDescStatsRequest(datapath)


def read_flows(body: Iterable[Any]) -> list[Flow]:
    """The flows in a reply to `flows_request`, as we would have written them.

    Those that match by masks we never use are left out, and so left where they are.
    """
    return [flow for description in body if (flow := _read_flow(description))]


def _read_flow(description: Any) -> Flow | None:
    try:
        match = tuple(sorted((field, _prefix(value)) for field, value in description.match.items()))
    except ValueError:
        return None
    actions: tuple[Action, ...] = ()
    goto = None
    for instruction in description.instructions:
        if isinstance(instruction, parser.OFPInstructionActions):
            actions = tuple(_read_action(action) for action in instruction.actions)
        elif isinstance(instruction, parser.OFPInstructionGotoTable):
            goto = instruction.table_id
    return Flow(description.table_id, description.priority, match, actions, goto, description.cookie)


def _prefix(value: Any) -> int | str:
    """An address and its mask as a prefix; ValueError for a masked anything else."""
    if isinstance(value, tuple):
        return str(ipaddress.IPv4Network("/".join(map(str, value))))
    return value


def read_groups(body: Iterable[Any]) -> list[Group]:
    """The groups in a reply to `groups_request`, as we would have written them.

    A group of another type or hash comes out without buckets: like none that is wanted, so that it is replaced.
    """
    return [
        Group(group.group_id, tuple(_read_bucket(bucket) for bucket in group.buckets) if _hashes_fully(group) else ())
        for group in body
    ]


def _hashes_fully(group: Any) -> bool:
    return group.type == ofproto.OFPGT_SELECT and any(
        getattr(each, "experimenter", None) == NETRONOME and each.data == _CHOSEN for each in group.properties
    )


def _read_bucket(bucket: Any) -> Bucket:
    weight = next((p.weight for p in bucket.properties if isinstance(p, parser.OFPGroupBucketPropWeight)), 1)
    watch = next((p.watch for p in bucket.properties if isinstance(p, parser.OFPGroupBucketPropWatch)), -1)
    return Bucket(watch, tuple(_read_action(action) for action in bucket.actions), weight)


def _read_action(action: Any) -> Action:
    if isinstance(action, parser.OFPActionOutput):
        return Output(action.port)
    if isinstance(action, parser.OFPActionSetField):
        return SetField(action.key, action.value)
    if isinstance(action, parser.OFPActionCopyField):
        source, target = (oxm.type for oxm in action.oxm_ids)
        return CopyField(source, target, action.n_bits)
    if isinstance(action, parser.OFPActionDecNwTtl):
        return DecrementTtl()
    if isinstance(action, parser.OFPActionGroup):
        return ToGroup(action.group_id)
    return Foreign(str(action))
