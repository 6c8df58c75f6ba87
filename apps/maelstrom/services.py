"""What Maelstrom's network offers to nodes beside each other: three key-value stores and a clock, as they promise.

- ``lin-kv`` is linearizable: one map, one request after another.
- ``seq-kv`` is sequentially consistent: every node sees its own order of changes go forward only, and may see an older
  state than others do, drawn at each read; who changes something has seen everything before it.
- ``lww-kv`` is last-writer-wins: it has copies, each request is served by one of them, drawn, and they learn of each
  other's writes now and then. So reads may go back, and a compare-and-set may compare with what is long gone.
- ``lin-tso`` gives out numbers that only rise.

Weak stores are as weak as they may be, since what a node does with them is the point of using them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

from apps.maelstrom.protocol import Code, Message, error_body
from apps.process import NodeId

SERVICES = ("lin-kv", "seq-kv", "lww-kv", "lin-tso")

#: How many states a reader of seq-kv may be behind, and how many copies lww-kv has.
BEHIND, COPIES = 64, 3

_ABSENT = object()

_key = msgspec.json.Encoder(order="deterministic").encode


class _Refusal(Exception):  # noqa: N818
    """What is answered instead."""

    def __init__(self, code: Code, text: str) -> None:
        self.body = error_body(code, text)


class Services:
    """All four. ``random``: of which only ``random()`` is used."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._lin: dict[bytes, Any] = {}
        self._seq: deque[dict[bytes, Any]] = deque([{}], maxlen=BEHIND)
        self._seq_version = 0
        self._seen: dict[NodeId, int] = {}
        self._lww: list[dict[bytes, tuple[int, Any]]] = [{} for _ in range(COPIES)]
        self._stamp = 0
        self._time = 0
        self._serve: dict[str, Callable[[NodeId, dict[str, Any]], dict[str, Any]]] = {
            "lin-kv": lambda client, body: _carry_out(self._lin, body),
            "seq-kv": self._sequential,
            "lww-kv": self._last_writer_wins,
            "lin-tso": self._timestamp,
        }

    def answer(self, message: Message) -> dict[str, Any]:
        """The body of the answer to a request, but for ``in_reply_to``."""
        try:
            return self._serve[message.dest](message.src, message.body)
        except _Refusal as refusal:
            return refusal.body

    def _sequential(self, client: NodeId, body: dict[str, Any]) -> dict[str, Any]:
        oldest = self._seq_version - len(self._seq) + 1
        if body["type"] == "read":
            seen = max(self._seen.get(client, 0), oldest)
            at = seen + int(self._random.random() * (self._seq_version - seen + 1))
            self._seen[client] = at
            return _carry_out(self._seq[at - oldest], body)
        state = dict(self._seq[-1])
        answer = _carry_out(state, body)
        self._seq.append(state)
        self._seq_version += 1
        self._seen[client] = self._seq_version
        return answer

    def _last_writer_wins(self, client: NodeId, body: dict[str, Any]) -> dict[str, Any]:
        copy = self._lww[int(self._random.random() * COPIES)]
        other = self._lww[int(self._random.random() * COPIES)]
        for key, stamped in other.items():
            if key not in copy or copy[key][0] < stamped[0]:
                copy[key] = stamped
        state = {key: value for key, (_, value) in copy.items()}
        answer = _carry_out(state, body)
        if body["type"] != "read":
            self._stamp += 1
            key = _key(body["key"])
            copy[key] = (self._stamp, state[key])
        return answer

    def _timestamp(self, client: NodeId, body: dict[str, Any]) -> dict[str, Any]:
        if body["type"] != "ts":
            raise _Refusal(Code.NOT_SUPPORTED, f"lin-tso has no {body['type']!r}; it has ts")
        self._time += 1
        return {"type": "ts_ok", "ts": self._time}


def _carry_out(state: dict[bytes, Any], body: dict[str, Any]) -> dict[str, Any]:
    """A request to a key-value store: changes ``state``, returns the answer. Raises `_Refusal`."""
    kind = body["type"]
    wanted = {"read": ("key",), "write": ("key", "value"), "cas": ("key", "from", "to")}
    if kind not in wanted:
        raise _Refusal(Code.NOT_SUPPORTED, f"no {kind!r} here; there are {', '.join(wanted)}")
    missing = [name for name in wanted[kind] if name not in body]
    if missing:
        raise _Refusal(Code.MALFORMED_REQUEST, f"{kind} without {', '.join(missing)}")
    key = _key(body["key"])
    found = state.get(key, _ABSENT)
    if kind == "write":
        state[key] = body["value"]
        return {"type": "write_ok"}
    if found is _ABSENT and not (kind == "cas" and body.get("create_if_not_exists")):
        raise _Refusal(Code.KEY_DOES_NOT_EXIST, "the key does not exist")
    if kind == "read":
        return {"type": "read_ok", "value": found}
    if found is not _ABSENT and _key(found) != _key(body["from"]):
        raise _Refusal(Code.PRECONDITION_FAILED, "the key has another value")
    state[key] = body["to"]
    return {"type": "cas_ok"}
