"""Which way a packet takes through a plan's switches, as links die and come back.

The ways are those that the real data planes are programmed with: the controller's (`controllers.pipeline`) or the
kernel's (`topologies.routed`), their weights included. Which of several a flow takes is drawn by a seeded hash at each
switch, the highest random weight (Thaler & Ravishankar 1998), so that a link's death moves the flows that used it, and
no others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from topologies.plan import FabricPlan


class Hop(NamedTuple):
    """A way from a switch to its neighbour, and its share of the flows."""

    link: str
    neighbour: str
    weight: int


#: For every switch, its ways to every leaf but itself.
Ways = Mapping[str, Mapping[str, tuple[Hop, ...]]]


def ways(plan: FabricPlan, dead: frozenset[str]) -> Ways:
    """What the plan's data plane is programmed with when it knows that the links named in ``dead`` are."""
    if plan.dataplane == "routed":
        from topologies.routed import ways as routed

        ports = {
            (near.node, near.port): (link.name, far.node)
            for link in plan.links
            for near, far in ((link.a, link.b), (link.b, link.a))
        }
        return {
            switch: {
                leaf: tuple(Hop(*ports[switch, way.port], way.weight) for way in some) for leaf, some in to.items()
            }
            for switch, to in routed(plan, dead).items()
        }
    from controllers.pipeline import routes

    return {
        switch: {leaf: tuple(Hop(hop.link, hop.neighbour, hop.weight) for hop in hops) for leaf, hops in to.items()}
        for switch, to in routes(plan, dead).items()
    }


class Forwarding:
    """Two kinds of knowledge: a switch's own of its links, ``dead``, and what the ways were computed with (`learn`)."""

    def __init__(self, plan: FabricPlan, seed: int) -> None:
        self.dead: frozenset[str] = frozenset()
        self._plan, self._seed = plan, seed
        self._ways = ways(plan, frozenset())

    def learn(self, dead: frozenset[str]) -> None:
        """Every switch is programmed anew, without the links named in ``dead``."""
        self._ways = ways(self._plan, dead)

    def directions(self, sender: str, receiver: str, flow: str) -> list[str] | None:
        """What a packet of ``flow`` crosses from one host to another, or None if a switch has no way for it."""
        if sender == receiver:
            return []
        at, goal = self._plan.host(sender).leaf, self._plan.host(receiver).leaf
        crossed = [f"{sender}>{at}"]
        while at != goal:
            live = [hop for hop in self._ways[at].get(goal, ()) if hop.link not in self.dead]
            if not live:
                return None
            hop = live[0] if len(live) == 1 else max(live, key=lambda hop: self._rank(flow, at, hop))
            crossed.append(f"{at}>{hop.neighbour}")
            at = hop.neighbour
        return [*crossed, f"{at}>{receiver}"]

    def _rank(self, flow: str, at: str, hop: Hop) -> bytes:
        """The highest of as many draws as the way weighs."""
        return max(_draw(f"{self._seed} {flow} {at} {hop.link} {number}") for number in range(hop.weight))


def _draw(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()
