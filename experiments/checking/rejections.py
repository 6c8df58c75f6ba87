"""What nodes turned away: connections of those whom they do not take for theirs, messages that no correct node sends.

Nodes that do not let each other in are not the cluster that was asked for, whatever it did, so such a run is not to be
believed. A message that makes no sense is a bug of who sent it, and fails the run.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import msgspec

from experiments.checking.history import HistoryError
from experiments.checking.results import Check, Rejection
from experiments.checking.trace import Reject, Witness
from experiments.phrases import count

#: Told of one by one; the others are in ``results.json``.
MOST_TOLD = 3

#: The runtime's reasons (`apps.runtime.framing.FrameError`) in words.
_WHY = {
    "settings": "its process is configured otherwise",
    "version": "it speaks another version of the protocol",
    "cluster": "it is of another cluster",
    "node": "it is not who was expected there",
    "incarnation": "a later incarnation of it had been there",
    "oversized": "a frame too long",
    "empty": "an empty frame",
    "unknown": "a frame of unknown kind",
    "malformed": "a frame that cannot be read",
    "unexpected": "a frame that was not due",
    "late": "it did not say who it is",
    "short": "it ended within a frame",
}

#: With these a node says that another is not of its cluster. The others come about when a peer dies or is cut off, or
#: are a stranger's.
_ESTRANGED = ("settings", "version", "cluster", "node")


class _Figures(msgspec.Struct, frozen=True):
    """Of a line of metrics; runs of earlier versions did not count by peer."""

    incarnation: int = 0
    rejected: dict[str, dict[str, int] | int] = {}


def rejected_connections(run: Path) -> list[Rejection]:
    """From what the nodes counted. Raises `HistoryError` for metrics that cannot be read."""
    decode = msgspec.json.Decoder(_Figures).decode
    counts: dict[tuple[str, str, str], int] = {}
    for path in sorted(run.glob("nodes/*/trace/metrics.ndjson")):
        data = path.read_bytes()
        last: dict[int, _Figures] = {}  # they count from the start of an incarnation
        for number, line in enumerate(data[: data.rfind(b"\n") + 1].splitlines(), 1):
            try:
                figures = decode(line)
            except msgspec.DecodeError as error:
                raise HistoryError(f"{path}:{number}: not a line of a node's metrics: {error}") from None
            last[figures.incarnation] = figures
        node = path.parent.parent.name
        for figures in last.values():
            for code, by_peer in figures.rejected.items():
                for peer, times in (by_peer if isinstance(by_peer, dict) else {"somebody": by_peer}).items():
                    counts[node, peer, code] = counts.get((node, peer, code), 0) + times
    return [
        Rejection(node, peer, "connection", code, _WHY.get(code, code), times)
        for (node, peer, code), times in counts.items()
    ]


def rejected_messages(traced: Iterable[Witness]) -> list[Rejection]:
    """From what the nodes traced."""
    first: dict[tuple[str, str], Reject] = {}
    counts: dict[tuple[str, str], dict[int, int]] = {}
    for witness in traced:
        if isinstance(event := witness.event, Reject):
            pair = witness.node, event.sender
            first.setdefault(pair, event)
            counts.setdefault(pair, {})[witness.incarnation] = event.count
    return [
        Rejection(node, sender, "message", event.message, event.why, sum(counts[node, sender].values()))
        for (node, sender), event in first.items()
    ]


def told(rejection: Rejection) -> str:
    """``n1 rejected 3 connections of n2: its process is configured otherwise``."""
    much = f"{rejection.node} rejected {count(rejection.count, rejection.what)} of {rejection.peer}"
    kind = f"{rejection.code}, " if rejection.what == "message" else ""
    return f"{much}: {kind}{rejection.why}"


def estranged(rejections: Sequence[Rejection], nodes: Collection[str]) -> list[str]:
    """Why this was not the cluster that was asked for, if ``nodes`` turned each other away."""
    found = [one for one in rejections if one.code in _ESTRANGED and one.peer in nodes]
    return [f"nodes that belong together turned each other away: {_told(found)}"] if found else []


def message_checks(rejections: Sequence[Rejection]) -> list[Check]:
    """Nothing to say where every message made sense."""
    found = [one for one in rejections if one.what == "message"]
    return [Check("sound_messages", False, _told(found), {"rejections": msgspec.to_builtins(found)})] if found else []


def _told(rejections: Sequence[Rejection]) -> str:
    more = f"; and {len(rejections) - MOST_TOLD:,} more like that" if len(rejections) > MOST_TOLD else ""
    return "; ".join(told(one) for one in rejections[:MOST_TOLD]) + more
