"""What is broken at the moment, over all strikes, and looks at who reaches whom that tell one strike from another.

Faults overlap: while the probes of a look are under way, others come and go. So a look keeps what had to be at each
moment of it, and each pair is judged by itself: not at all if what had to be changed meanwhile. What arrives where
nothing may is a mismatch at any time. Silence where something must be heard is one only if nothing else explains it:
no link that has just changed, no impairment that loses packets.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from experiments.nemesis import Grudge, Reach, expected_reach, merge, mismatches
from topologies.impairment import Impairment
from topologies.plan import FabricPlan

#: Long enough for the controller to have routed around a dead link, whatever it measures at its best.
REPAIR_NS = 150_000_000

#: How often it is looked whether something has come about, in seconds.
LOOK_S = 0.02

#: So that a fault shorter than two looks is looked at while it lasts, even if it began during another's.
LOOKS_AT_ONCE = 3

#: How often something is looked at anew because other strikes came or went meanwhile.
MOST_LOOKS = 5

#: A receiver and a sender.
Pair = tuple[str, str]


class Network(Protocol):
    """What looks need of the place where the scenario plays."""

    plan: FabricPlan

    @property
    def placement(self) -> Mapping[str, str]: ...
    async def matrix(self, budget_ns: int) -> dict[str, dict[str, list[int]]]: ...


class Look(NamedTuple):
    """Who was heard, ``{receiver: {sender: [sent, arrived]}}``. ``moments``: who had to be, at its beginning and after
    each change until its end; ``calm``: nothing that is known of lost packets meanwhile.
    """

    moments: Sequence[Reach]
    calm: bool
    measured: Mapping[str, Mapping[str, Sequence[int]]]

    def tells(self, receiver: str, sender: str) -> bool:
        """Whether it says anything of a pair."""
        wanted = {reach[receiver][sender] for reach in self.moments}
        silent = self.measured[receiver][sender][1] == 0
        return len(wanted) == 1 and (self.calm or not (silent and True in wanted))


class Effects:
    """The sum of all strikes' effects, each under its strike's number: overlapping faults are proved against it."""

    def __init__(self, network: Network) -> None:
        self.grudges: dict[int, Grudge] = {}
        self.dead: dict[int, list[str]] = {}
        self.paused: dict[int, list[str]] = {}
        #: By direction of a link; the plan's own are those of no strike.
        self.impaired: dict[int, dict[str, Impairment]] = {-1: dict(network.plan.impairments)}
        #: How often each link was taken down or came back, and each direction's impairment changed.
        self.changes: Counter[str] = Counter()
        self._network = network
        self._changing = 0
        self._watches: list[list[Reach]] = []
        self._calm_from = 0.0
        self._turns = asyncio.Semaphore(LOOKS_AT_ONCE)
        self._next: asyncio.Future[Look] | None = None

    # -- what is broken

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """While the block lasts, something begins to be in force, or ceases to be."""
        dead, impaired, losing = self.dead_links, self._impaired(), self._is_losing
        self._changing += 1
        try:
            yield
        finally:
            self._changing -= 1
            self.changes.update(dead ^ self.dead_links)
            self.changes.update(direction for _, direction in impaired ^ self._impaired())
            if dead != self.dead_links:
                self._calm_from = _now() + REPAIR_NS / 1e9
            if losing:
                self._calm_from = max(self._calm_from, _now())
            if self._watches:
                expected = self.expected()
                for moments in self._watches:
                    moments.append(expected)

    def forget(self, index: int) -> None:
        """A strike has no effect any more."""
        for effects in (self.grudges, self.dead, self.paused, self.impaired):
            effects.pop(index, None)

    async def rest(self) -> None:
        """Wait until nothing is `changing`."""
        while self._changing:
            await asyncio.sleep(LOOK_S)

    @property
    def dead_links(self) -> set[str]:
        return {name for names in self.dead.values() for name in names}

    @property
    def still_nodes(self) -> set[str]:
        """Those that have to stand still."""
        return {node for nodes in self.paused.values() for node in nodes}

    def _impaired(self) -> set[tuple[int, str]]:
        return {(index, direction) for index, directions in self.impaired.items() for direction in directions}

    @property
    def _is_losing(self) -> bool:
        """Whether any impairment in force may keep a packet from arriving."""
        return any(
            impairment.loss or impairment.corrupt or impairment.rate
            for directions in self.impaired.values()
            for impairment in directions.values()
        )

    # -- who reaches whom

    def expected(self) -> Reach:
        """Who must hear whom."""
        network = self._network
        return expected_reach(network.plan, network.placement, merge(self.grudges.values()), self.dead_links)

    def severed_by(self, index: int) -> set[Pair]:
        """Whom a strike, were it the only one, keeps from hearing whom."""
        network = self._network
        alone = expected_reach(network.plan, network.placement, self.grudges.get(index, {}), self.dead.get(index, ()))
        return {(receiver, sender) for receiver, row in alone.items() for sender in row if not row[sender]}

    async def prove(self, budget_ns: int, wanted: Collection[Pair], patience_ns: int | None = None) -> dict[str, Any]:
        """Look until all pairs are judged, at most `MOST_LOOKS` times, and while another look fits into the patience;
        what belongs on record. ``wanted``: the pairs without which nothing is proved.
        """
        deadline = float("inf") if patience_ns is None else _now() + patience_ns / 1e9
        left = {(receiver, sender) for receiver, row in self.expected().items() for sender in row}
        wrong: list[Any] = []
        for _ in range(MOST_LOOKS):
            began = _now()
            look = await self.look(budget_ns)
            told = {
                receiver: {
                    sender: reachable
                    for sender, reachable in row.items()
                    if (receiver, sender) in left and look.tells(receiver, sender)
                }
                for receiver, row in look.moments[-1].items()
            }
            wrong += mismatches(told, look.measured)
            left -= {(receiver, sender) for receiver, row in told.items() for sender in row}
            if not left or 2 * _now() - began > deadline:
                break
        wrong += [f"other faults hid whether {pair[0]} hears {pair[1]}" for pair in sorted(left.intersection(wanted))]
        facts = {"expected": look.moments[-1], "measured": look.measured, "mismatches": wrong}
        return {"effective": not wrong, **facts, **({"unjudged": sorted(left)} if left else {})}

    async def look(self, budget_ns: int) -> Look:
        """One that begins after this call. Whoever asks while `LOOKS_AT_ONCE` are under way shares the next."""
        if self._next is None:
            self._next = asyncio.ensure_future(self._look(budget_ns))
            # The faults of all who asked may end before it does, and then nobody is left to hear of an error.
            self._next.add_done_callback(lambda look: look.cancelled() or look.exception())
        return await asyncio.shield(self._next)

    async def _look(self, budget_ns: int) -> Look:
        async with self._turns:
            self._next = None
            await self.rest()
            began, losing = _now(), self._is_losing
            moments = [self.expected()]
            self._watches.append(moments)
            try:
                measured = await self._network.matrix(budget_ns)
                await self.rest()
            finally:
                # By identity: two looks' moments may be equal.
                self._watches = [watch for watch in self._watches if watch is not moments]
            return Look(moments, not losing and not self._is_losing and self._calm_from <= began, measured)


def _now() -> float:
    return asyncio.get_running_loop().time()
