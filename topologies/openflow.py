"""Just enough OpenFlow 1.4 to put drop rules into a switch and take them out again, a bundle at a time.

Open vSwitch listens for this on a Unix socket for every bridge, whether or not the bridge has a controller. ovs-ofctl
would say the same, a process for every switch, 50 times slower: a fault should begin when it is asked for.

Layouts are those of the OpenFlow Switch Specification 1.4.0 (§7.2.2, §7.3.4.1, §7.3.9); all is in network order.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

VERSION = 0x05
HELLO, ERROR, FLOW_MOD, BUNDLE_CONTROL, BUNDLE_ADD_MESSAGE = 0, 1, 14, 33, 34
BUNDLE_OPEN, BUNDLE_COMMIT, BUNDLE_COMMITTED = 0, 4, 5
BUNDLE_ATOMIC = 1
ADD, DELETE = 0, 3
ANY_PORT = ANY_GROUP = NO_BUFFER = 0xFFFFFFFF

_HEADER = struct.Struct("!BBHI")
_FLOW_MOD = struct.Struct("!QQBBHHHIIIHH")
_MATCH = struct.Struct("!HH")
_BUNDLE = struct.Struct("!IHH")
_OXM = struct.Struct("!HBB")
_BASIC_CLASS, _ETHERNET_TYPE, _IPV4_SOURCE, _IPV4_DESTINATION = 0x8000, 5, 11, 12
_OXM_MATCH = 1

_ANSWER_WITHIN = 5.0


class OpenFlowError(RuntimeError):
    """A switch that did not answer or refused; none of its changes were made."""


def drop_rule(table: int, priority: int, cookie: int, source: str, destination: str) -> bytes:
    """The message that adds a rule: IPv4 packets from ``source`` to ``destination`` have no actions."""
    match = _oxm(_ETHERNET_TYPE, b"\x08\x00")
    match += _oxm(_IPV4_SOURCE, socket.inet_aton(source)) + _oxm(_IPV4_DESTINATION, socket.inet_aton(destination))
    return _flow_mod(ADD, table, priority, cookie, 0, match)


def removal(table: int, cookie: int) -> bytes:
    """The message that deletes every rule under ``cookie`` from a table."""
    return _flow_mod(DELETE, table, 0, cookie, 0xFFFFFFFF_FFFFFFFF, b"")


def change(switches: Mapping[Path, Sequence[bytes]]) -> None:
    """Have each switch, named by its socket, carry out its messages in one bundle: all of them, at one moment, or none.

    Every switch is told before the first one's answer is waited for. Raises `OpenFlowError` naming those that refused.
    """
    connections: dict[Path, socket.socket] = {}
    failed = []
    try:
        for path, messages in switches.items():
            connection = connections[path] = socket.socket(socket.AF_UNIX)
            connection.settimeout(_ANSWER_WITHIN)
            try:
                connection.connect(str(path))
                connection.sendall(_bundle(messages))
            except OSError as error:
                failed.append(f"{path.stem} ({error})")
                del connections[path]
                connection.close()
        for path, connection in connections.items():
            try:
                _await_commit(connection)
            except (OSError, OpenFlowError) as error:
                failed.append(f"{path.stem} ({error})")
    finally:
        for connection in connections.values():
            connection.close()
    if failed:
        raise OpenFlowError(f"rules could not be changed on {', '.join(failed)}")


def _bundle(messages: Sequence[bytes]) -> bytes:
    number = 1  # a bundle's number belongs to its connection
    parts = [_message(HELLO, b""), _message(BUNDLE_CONTROL, _BUNDLE.pack(number, BUNDLE_OPEN, BUNDLE_ATOMIC))]
    parts += [_message(BUNDLE_ADD_MESSAGE, _BUNDLE.pack(number, 0, BUNDLE_ATOMIC) + message) for message in messages]
    parts.append(_message(BUNDLE_CONTROL, _BUNDLE.pack(number, BUNDLE_COMMIT, BUNDLE_ATOMIC)))
    return b"".join(parts)


def _await_commit(connection: socket.socket) -> None:
    while True:
        _, kind, length, _ = _HEADER.unpack(_exactly(connection, _HEADER.size))
        body = _exactly(connection, length - _HEADER.size)
        if kind == ERROR:
            category, code = struct.unpack_from("!HH", body)
            raise OpenFlowError(f"OpenFlow error {category}, code {code}")
        if kind == BUNDLE_CONTROL and _BUNDLE.unpack_from(body)[1] == BUNDLE_COMMITTED:
            return


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise ConnectionError("it closed the connection")
        data += more
    return data


def _flow_mod(command: int, table: int, priority: int, cookie: int, cookie_mask: int, fields: bytes) -> bytes:
    length = _MATCH.size + len(fields)
    match = _MATCH.pack(_OXM_MATCH, length) + fields + b"\0" * (-length % 8)
    body = _FLOW_MOD.pack(cookie, cookie_mask, table, command, 0, 0, priority, NO_BUFFER, ANY_PORT, ANY_GROUP, 0, 0)
    return _message(FLOW_MOD, body + match)


def _oxm(field: int, value: bytes) -> bytes:
    return _OXM.pack(_BASIC_CLASS, field << 1, len(value)) + value


def _message(kind: int, body: bytes) -> bytes:
    # A bundle's messages must have the transaction number of what carries them; one number for all does.
    return _HEADER.pack(VERSION, kind, _HEADER.size + len(body), 1) + body
