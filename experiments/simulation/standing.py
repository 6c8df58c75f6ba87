"""Where every node stood at a moment, told from its evidence, in the terms of its protocol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from apps.process import Nanoseconds, NodeId
from experiments.checking import trace
from experiments.checking.trace import Witness

#: What those who tell only of changes have at first.
_BEGINNING: dict[str, dict[str, Any]] = {
    **{protocol: {"suspect": [], "failed": []} for protocol in ("swim", "heartbeat", "phi")},
    "failover": {"shards": []},
}


def standing(events: Iterable[Witness], nodes: Mapping[NodeId, str], now: Nanoseconds) -> dict[NodeId, dict[str, Any]]:
    """``events``: all until ``now``, by the traces' clock; ``nodes``: whether each is running, paused or down.

    Of a node of Raft: its role, term, vote and last, committed and applied index, and of members the configuration; of
    a quorum store: for how many keys it has versions, and hints for whom; of a detector: whom it suspects and takes for
    failed; of a worker: the shards it serves. What a node has not told is not there.
    """
    stood: dict[NodeId, dict[str, Any]] = {node: {"state": state} for node, state in nodes.items()}
    for witness in events:
        _take(stood.setdefault(witness.node, {}), witness.event)
    for one in stood.values():
        if (until := one.pop("_lease", None)) is not None and until <= now:
            one["shards"] = []
        for name in ("_keys", "_hints"):
            if name in one:
                held = one.pop(name)
                one[name[1:]] = len(held) if name == "_keys" else sorted({owner for owner, _ in held})
    return stood


def _take(one: dict[str, Any], event: trace.TraceEvent) -> None:
    match event:
        case trace.Header(incarnation=incarnation, protocol=protocol):
            state = one.get("state")
            one.clear()
            one |= {"state": state, "incarnation": incarnation, **_BEGINNING.get(protocol, {})}
        case trace.Started(term=term, vote=vote, last=last):
            one |= {"role": "follower", "term": term, "vote": vote, "last": last, "committed": 0, "applied": 0}
        case trace.Role(role=role, term=term):
            if term != one.get("term"):
                one["vote"] = None
            one |= {"role": role, "term": term}
        case trace.Vote(term=term, candidate=candidate):
            one |= {"term": term, "vote": candidate}
        case trace.Append(first=first, terms=terms):
            one["last"] = first + len(terms) - 1
        case trace.Truncate(first=first):
            one["last"] = first - 1
        case trace.Commit(index=index):
            one["committed"] = index
        case trace.Install(index=index):
            one |= {"last": max(one.get("last", 0), index), "committed": max(one.get("committed", 0), index)}
            one["applied"] = index
        case trace.Apply(first=first, terms=terms):
            one["applied"] = first + len(terms) - 1
        case trace.Configure(voters=voters, learners=learners, outgoing=outgoing):
            one |= {"voters": list(voters), "learners": list(learners), "outgoing": list(outgoing)}
        case trace.Boot(kept=kept, hints=hints):
            one |= {"_keys": set(kept), "_hints": {(owner, key) for owner, shelf in hints.items() for key in shelf}}
        case trace.Keep(key=key, owner=None):
            one.setdefault("_keys", set()).add(key)
        case trace.Keep(key=key, owner=owner):
            one.setdefault("_hints", set()).add((owner, key))
        case trace.Handoff(key=key, owner=owner):
            one.setdefault("_hints", set()).discard((owner, key))
        case trace.Believe(member=member, standing=belief):
            for name in ("suspect", "failed"):
                others = [other for other in one.get(name, []) if other != member]
                one[name] = sorted([*others, member] if belief == name else others)
        case trace.Lease(shards=shards, lasts=lasts):
            one |= {"shards": list(shards), "_lease": event.t + lasts}
