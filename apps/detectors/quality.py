"""How good a failure detector was: how fast, how often wrong, at what load, told by the evidence its members left.

The measures are those of Chen, Toueg & Aguilera, On the Quality of Service of Failure Detectors (2002).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from apps.detectors.trace import Believed, Load, Standing
from apps.process import Nanoseconds, NodeId


class Quality(msgspec.Struct, frozen=True):
    """``first_detection``, ``last_detection``: for each crashed member that anyone noticed, from its crash until the
    first, and until every one of the others took it for failed (absent when some never did), in nanoseconds.

    ``mistakes``: how often a living member was taken for failed by another living one; ``mistaken_for``: for how long,
    of those that were put right, each in nanoseconds. ``messages_per_second``: sent by a member, on average.
    """

    first_detection: dict[NodeId, Nanoseconds]
    last_detection: dict[NodeId, Nanoseconds]
    mistakes: int
    mistaken_for: tuple[Nanoseconds, ...]
    messages_per_second: float


def quality(
    evidence: Iterable[tuple[Nanoseconds, NodeId, object]],
    members: Sequence[NodeId],
    crashes: Mapping[NodeId, Nanoseconds],
    *,
    standing: Standing = Standing.FAILED,
) -> Quality:
    """Judge ``evidence``, triples of (when, whose, what) in the order of time, of members that start at about 0.

    ``crashes``: when who crashed, for good. ``standing``: from which standing on a member counts as detected.
    """
    doubtful = {level.name.lower() for level in Standing if level >= standing}
    survivors = [member for member in members if member not in crashes]
    noticed: dict[NodeId, dict[NodeId, Nanoseconds]] = {}
    mistaken: dict[tuple[NodeId, NodeId], Nanoseconds] = {}
    mistakes, durations = 0, list[Nanoseconds]()
    loads: dict[NodeId, tuple[Nanoseconds, int]] = {}
    for t, node, event in evidence:
        match event:
            case Load(sent=sent):
                loads[node] = t, sent
            case Believed(member=member, standing=named):
                doubts = named in doubtful
                if member in crashes and t >= crashes[member]:
                    if not doubts:
                        noticed.get(member, {}).pop(node, None)
                    elif node not in crashes:
                        noticed.setdefault(member, {}).setdefault(node, t - crashes[member])
                elif doubts and (node, member) not in mistaken:
                    mistaken[node, member] = t
                    mistakes += 1
                elif not doubts and (node, member) in mistaken:
                    durations.append(t - mistaken.pop((node, member)))
    # Whom a member gave up before it crashed, and still had given up then, was detected when it crashed.
    for node, member in mistaken:
        if member in crashes and node not in crashes:
            noticed.setdefault(member, {}).setdefault(node, 0)
    rates = [sent * 1e9 / t for t, sent in loads.values() if t > 0]
    return Quality(
        first_detection={member: min(by.values()) for member, by in noticed.items() if by},
        last_detection={member: max(by.values()) for member, by in noticed.items() if len(by) == len(survivors)},
        mistakes=mistakes,
        mistaken_for=tuple(durations),
        messages_per_second=sum(rates) / len(rates) if rates else 0.0,
    )
