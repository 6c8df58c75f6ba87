"""Decides what to send to which switch, and when: the controller without its sockets.

`Reconciler` takes what happens (a switch connects, describes what it holds, a port changes) and returns what is to be
done. It keeps, for every switch, what that switch holds, so that only differences are ever sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import msgspec

from controllers import status
from controllers.pipeline import (
    Change,
    Flow,
    Program,
    Routes,
    difference,
    leaf_prefixes,
    local_flows,
    ours,
    routed,
    routes,
    whole,
)
from topologies.plan import End, FabricPlan, Switch


class Read(msgspec.Struct, frozen=True):
    """Ask ``switch`` what it holds, and hand the answer to `Reconciler.described`."""

    switch: str


class Send(msgspec.Struct, frozen=True):
    """Send ``changes`` to ``switch`` in this order, then a barrier; hand its reply to `Reconciler.confirmed`."""

    switch: str
    changes: tuple[Change, ...]
    token: int


class Report(msgspec.Struct, frozen=True):
    event: status.Event


Effect: TypeAlias = Read | Send | Report


class SwitchState(msgspec.Struct, frozen=True):
    """``ready``: it has confirmed all it was sent; ``refused``: it answered something with an error since."""

    name: str
    connected: bool
    ready: bool
    refused: bool


class State(msgspec.Struct, frozen=True):
    """What is known now, and what has happened since the start; ``repair_ns`` is how long the latest repair took."""

    dead: tuple[str, ...]
    switches: tuple[SwitchState, ...]
    repairs: int
    changes: int
    refusals: int
    repair_ns: int | None


#: How long a switch that refused a message is left before it is read and told anew; doubled each time, up to `MOST_NS`.
RETRY_NS, MOST_NS = 1_000_000_000, 32_000_000_000


class _Side:
    """What is known of one switch. The ports outlive its connection: the last word on them is the best there is."""

    def __init__(self, switch: Switch, local: tuple[Flow, ...]) -> None:
        self.switch = switch
        self.local = local
        self.up: frozenset[int] | None = None  # ports that carry; None before it ever connected
        self.connected = False
        self.ready = False
        self.retry_after = RETRY_NS
        self.retry_at = 0
        self.forget()

    def forget(self) -> None:
        self.found: Program | None = None  # what it held when it described itself on this connection
        self.ways: Routes | None = None  # the routes it was last sent, None before it was sent any,
        self.routed = Program()  # and what realises them; the rest it holds never changes
        self.awaiting: int | None = None  # the token of the last barrier sent and not yet confirmed
        self.refused = False
        self.changes = 0


class Reconciler:
    """One fabric's switches, kept at what the plan and the live links call for.

    A controller that starts over a running fabric does not know yet which links are dead. So a switch that already
    holds flows of ours is left as it is until every switch of the plan has reported its ports, or `hurry` is called:
    otherwise the first to connect would be given back routes through links whose failure another has yet to report.
    """

    def __init__(self, plan: FabricPlan) -> None:
        self._plan = plan
        self._prefixes = leaf_prefixes(plan)
        self._sides = {switch.name: _Side(switch, local_flows(plan, switch)) for switch in plan.switches}
        self._dead: frozenset[str] = frozenset()
        self._routes = routes(plan)
        self._hurried = False
        self._token = 0
        self._repairing_since: int | None = None
        self._repair_changes = 0
        self._repairs = self._changes = self._refusals = 0
        self._repair_ns: int | None = None

    def state(self) -> State:
        switches = (SwitchState(name, side.connected, side.ready, side.refused) for name, side in self._sides.items())
        counts = (self._repairs, self._changes, self._refusals)
        return State(tuple(sorted(self._dead)), tuple(switches), *counts, self._repair_ns)

    def connected(self, now: int, name: str, up: Iterable[int]) -> list[Effect]:
        """Switch ``name`` has connected, again maybe, and its ports ``up`` carry."""
        side = self._sides[name]
        side.forget()
        side.connected, side.ready = True, False
        side.up = frozenset(up)
        return [Report(status.Connected(now, name)), Read(name), *self._links_changed(now)]

    def described(self, now: int, name: str, have: Program) -> list[Effect]:
        self._sides[name].found = have
        return self._reconcile(now)

    def port_changed(self, now: int, name: str, port: int, up: bool) -> list[Effect]:
        side = self._sides[name]
        known = side.up or frozenset()
        side.up = known | {port} if up else known - {port}
        return self._links_changed(now)

    def confirmed(self, now: int, name: str, token: int) -> list[Effect]:
        """The barrier of the `Send` with this token was answered. Tokens that later ones overtook are ignored."""
        side = self._sides[name]
        if side.awaiting != token:
            return []
        side.awaiting = None
        return [*self._becomes_ready(now, side), *self._perhaps_repaired(now)]

    def refused(self, now: int, name: str, reason: str) -> list[Effect]:
        """The switch answered something it was sent with an error: what it holds is no longer known to be right.

        It is still sent what changes, but neither it nor a repair is called done until it took what `retry` sends it,
        or has connected anew.
        """
        side = self._sides[name]
        if not side.refused:
            side.retry_at, side.retry_after = now + side.retry_after, min(2 * side.retry_after, MOST_NS)
        side.ready, side.refused = False, True
        self._refusals += 1
        return [Report(status.Refused(now, name, reason))]

    def retry(self, now: int) -> list[Effect]:
        """Read anew the switches that refused a message `RETRY_NS` ago or longer, to be sent what they lack."""
        effects: list[Effect] = []
        for name, side in self._sides.items():
            if side.connected and side.refused and side.found is not None and now >= side.retry_at:
                side.forget()
                effects.append(Read(name))
        return effects

    def disconnected(self, now: int, name: str) -> list[Effect]:
        side = self._sides[name]
        side.forget()
        side.connected = side.ready = False
        return [Report(status.Disconnected(now, name)), *self._perhaps_repaired(now)]

    def hurry(self, now: int) -> list[Effect]:
        """Wait no longer for switches that have not connected."""
        self._hurried = True
        return self._reconcile(now)

    def _links_changed(self, now: int) -> list[Effect]:
        dead = frozenset(link.name for link in self._plan.links if self._is_down(link.a) or self._is_down(link.b))
        if dead == self._dead:
            return self._reconcile(now)
        reports: list[Effect] = [Report(status.LinkDown(now, link)) for link in sorted(dead - self._dead)]
        reports += [Report(status.LinkUp(now, link)) for link in sorted(self._dead - dead)]
        self._dead = dead
        self._routes = routes(self._plan, dead)
        if self._repairing_since is None:
            self._repairing_since, self._repair_changes = now, 0
        return [*reports, *self._reconcile(now)]

    def _is_down(self, end: End) -> bool:
        side = self._sides.get(end.node)
        return side is not None and side.up is not None and end.port not in side.up

    def _reconcile(self, now: int) -> list[Effect]:
        informed = self._hurried or all(side.up is not None for side in self._sides.values())
        effects: list[Effect] = []
        for name, side in self._sides.items():
            ways = self._routes[name]
            if side.found is None or side.ways == ways:
                continue
            if side.ways is None and not informed and any(map(ours, side.found.flows)):
                continue
            want = routed(side.switch, self._prefixes, ways)
            if side.ways is None:
                changes = difference(side.found, whole(side.local, want))
            else:
                changes = difference(side.routed, want)
            side.ways, side.routed = ways, want
            if changes:
                self._token += 1
                side.awaiting = self._token
                side.changes += len(changes)
                self._repair_changes += len(changes)
                self._changes += len(changes)
                effects.append(Send(name, changes, self._token))
            elif side.awaiting is None:
                effects += self._becomes_ready(now, side)
        return effects + self._perhaps_repaired(now)

    def _becomes_ready(self, now: int, side: _Side) -> list[Effect]:
        if side.ready or side.refused:
            return []
        side.ready, side.retry_after = True, RETRY_NS
        ready = tuple(name for name, each in self._sides.items() if each.ready)
        return [Report(status.Ready(now, side.switch.name, side.changes, ready))]

    def _perhaps_repaired(self, now: int) -> list[Effect]:
        since = self._repairing_since
        connected = (side for side in self._sides.values() if side.connected)
        if since is None or any(side.ways is None or side.awaiting is not None or side.refused for side in connected):
            return []
        self._repairing_since = None
        self._repairs, self._repair_ns = self._repairs + 1, now - since
        return [Report(status.Repaired(now, since, tuple(sorted(self._dead)), self._repair_changes))]
