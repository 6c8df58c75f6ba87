"""Who is hit, and what it must look like: faults turned from what the user wrote into names of nodes, hosts and links.

Pure functions. What strikes the fabric is in `topologies.dataplane`, and `experiments.run` brings the two together.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from random import Random
from typing import TypeAlias

from topologies.draft import leaves_reached
from topologies.plan import FabricPlan

#: ``{receiver: senders}``: who drops traffic from whom (Jepsen's word and shape).
Grudge: TypeAlias = dict[str, list[str]]

#: ``{receiver: {sender: reachable}}``.
Reach: TypeAlias = dict[str, dict[str, bool]]


def sample(random: Random, population: Sequence[str], count: int) -> list[str]:
    """``count`` different members, in the population's order; draws by ``random.random()`` alone, stable for ever."""
    chosen: list[str] = []
    for index, member in enumerate(population):
        left, wanted = len(population) - index, count - len(chosen)
        if random.random() * left < wanted:
            chosen.append(member)
    return chosen


def resolve(
    targets: Sequence[Sequence[str]], nodes: Sequence[str], leader: str | None, random: Random
) -> list[list[str]]:
    """The nodes that every group of ``targets`` means now, roles replaced by names.

    ``minority`` is the largest minority of ``nodes``, drawn by ``random``, and ``majority`` the rest of them; where no
    leader is known, ``leader`` is drawn too. ``others`` are the nodes that no other target names.
    """
    minority = sample(random, nodes, (len(nodes) - 1) // 2)
    leader = leader or sample(random, nodes, 1)[0]
    meaning: dict[str, list[str]] = {
        "leader": [leader],
        "followers": [node for node in nodes if node != leader],
        "minority": minority,
        "majority": [node for node in nodes if node not in minority],
    }
    named = {node for group in targets for target in group for node in meaning.get(target, [target])}
    meaning["others"] = [node for node in nodes if node not in named]
    return [[node for target in group for node in meaning.get(target, [target])] for group in targets]


def flaps(random: Random, period: int, duty: float, jitter: int) -> Iterator[tuple[int, bool]]:
    """When a link that flaps changes, in nanoseconds from its start, and whether it is up from then on; without end.

    In each period it goes down and, ``duty`` of the period later, up; each change is late by up to ``jitter``, drawn
    evenly, which must be less than both the time down and the time up.
    """
    for start in itertools.count(0, period):
        yield start + int(jitter * random.random()), False
        yield start + round(duty * period) + int(jitter * random.random()), True


def complete_grudge(groups: Sequence[Sequence[str]]) -> Grudge:
    """Everybody holds a grudge against all who are in another group: a complete partition."""
    return {
        receiver: [sender for other in groups if other is not group for sender in other]
        for group in groups
        for receiver in group
    }


def merge(grudges: Iterable[Grudge]) -> Grudge:
    """One grudge that holds all of them."""
    merged: dict[str, dict[str, None]] = {}
    for grudge in grudges:
        for receiver, senders in grudge.items():
            merged.setdefault(receiver, {}).update(dict.fromkeys(senders))
    return {receiver: list(senders) for receiver, senders in merged.items()}


def expected_reach(
    plan: FabricPlan, placement: Mapping[str, str], grudge: Grudge, dead_links: Iterable[str] = ()
) -> Reach:
    """Who must hear whom: ``placement`` gives the host of each name, the grudge and the dead links take away.

    A path never passes through a leaf to another, as the controller routes (`topologies.draft.leaves_reached`).
    """
    dead = set(dead_links)
    reached = {leaf: leaves_reached(plan, leaf, dead) for leaf in {plan.host(host).leaf for host in placement.values()}}
    attached = {host for host in placement.values() if any(link.name not in dead for link in plan.links_of(host))}

    def linked(one: str, other: str) -> bool:
        return one == other or ({one, other} <= attached and plan.host(other).leaf in reached[plan.host(one).leaf])

    hostile = {(placement[receiver], placement[sender]) for receiver, senders in grudge.items() for sender in senders}
    return {
        receiver: {
            sender: linked(here, there) and (here, there) not in hostile
            for sender, there in placement.items()
            if sender != receiver
        }
        for receiver, here in placement.items()
    }


def mismatches(expected: Reach, measured: Mapping[str, Mapping[str, Sequence[int]]]) -> list[dict[str, object]]:
    """Where what was measured (``[sent, arrived]``) is not what must be: a fault did not take, or hit too much."""
    return [
        {"receiver": receiver, "sender": sender, "expected": reachable, "sent": sent, "arrived": arrived}
        for receiver, senders in expected.items()
        for sender, reachable in senders.items()
        for sent, arrived in [measured[receiver][sender]]
        if (arrived > 0) != reachable
    ]
