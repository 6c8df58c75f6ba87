"""Faults that strike: each is applied, proved while it lasts, healed, and proved healed.

A strike only asks; what happens in the kernel is the world's matter (`World`), and who is meant is `nemesis`'s. Every
method returns what belongs into ``faults.jsonl`` (docs/run-folder.md).
"""

from __future__ import annotations

import abc
import asyncio
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any, ClassVar, Protocol

import msgspec

from apps.raft.quorum import Configuration
from experiments.effects import LOOK_S, MOST_LOOKS, REPAIR_NS, Effects, Network
from experiments.nemesis import Grudge, complete_grudge, flaps, resolve
from experiments.scenario import (
    Fault,
    Flap,
    Impair,
    Kill,
    LinkDown,
    Mute,
    Partition,
    Pause,
    Reconfigure,
    Transfer,
    directions,
    flapping,
    link_of,
    links,
)
from topologies.impairment import Impairment

Record = dict[str, Any]

#: How long a link is measured to see that it is itself again.
HEALED_NS = 300_000_000

#: What a direction does while it is down.
SILENCE = Impairment(loss=1.0)


class World(Network, Protocol):
    """What a strike needs of the place where the scenario plays."""

    nodes: tuple[str, ...]

    def leader(self) -> str | None: ...
    async def drop(self, grudge: Grudge) -> int: ...
    async def lift(self, handle: int) -> None: ...
    async def cut(self, link: str) -> int: ...
    async def carrier(self, names: list[str]) -> dict[str, bool]: ...
    async def passing(self, names: list[str]) -> dict[str, bool]: ...
    async def impair(self, direction: str, impairment: Impairment) -> int: ...
    async def observe(self, direction: str, budget_ns: int) -> Record: ...
    async def kill(self, node: str) -> int: ...
    async def restart(self, node: str) -> Record: ...
    async def ask_for_members(self, voters: Sequence[str], learners: Sequence[str]) -> int: ...
    async def ask_to_lead(self, node: str) -> int: ...
    def members(self) -> Configuration | None: ...
    async def pause(self, node: str) -> None: ...
    async def resume(self, node: str) -> None: ...
    async def is_paused(self, node: str) -> bool | None: ...


class Strike(abc.ABC):
    """One fault of a run, numbered ``index``. ``disturbs``: it changes what becomes of packets."""

    disturbs: ClassVar[bool] = False

    def __init__(self, index: int, fault: Fault, world: World, effects: Effects, random: Random) -> None:
        self.index = index
        self.fault = fault
        self.world = world
        self.effects = effects
        self.random = random
        self.handles: list[int] = []

    def asked(self) -> Record:
        asked: Record = msgspec.to_builtins(self.fault)
        del asked["kind"]
        asked["for"] = asked.pop("lasts") or None  # None: until it is healed
        return asked

    @abc.abstractmethod
    async def apply(self) -> Record: ...

    @abc.abstractmethod
    async def prove(self, budget_ns: int) -> Record: ...

    async def heal(self) -> None:
        await asyncio.gather(*(self.world.lift(handle) for handle in self.handles))
        self.effects.forget(self.index)

    @abc.abstractmethod
    async def prove_healed(self) -> Record: ...

    def unproved(self) -> Record:
        """What belongs on record if the fault ended before it was proved."""
        return {"effective": False, "mismatches": ["the fault ended before it was measured"]}

    def targets(self, groups: Iterable[Iterable[str]]) -> list[list[str]]:
        return resolve([list(group) for group in groups], self.world.nodes, self.world.leader(), self.random)


class _SeveringStrike(Strike):
    """One after which some do not hear others."""

    disturbs = True

    async def prove(self, budget_ns: int) -> Record:
        severed = self.effects.severed_by(self.index)
        return await self.effects.prove(budget_ns, severed, patience_ns=budget_ns * 9 // 10)

    async def heal(self) -> None:
        self._severed = self.effects.severed_by(self.index)
        await super().heal()

    async def prove_healed(self) -> Record:
        return await self.effects.prove(REPAIR_NS, self._severed)


class _GrudgeStrike(_SeveringStrike):
    """One by which switches drop what some send to others."""

    @abc.abstractmethod
    def decide(self) -> tuple[Grudge, Record]:
        """Who does not hear whom, and what else belongs on record."""

    async def apply(self) -> Record:
        leader = self.world.leader()
        grudge, more = self.decide()
        self.handles = [await self.world.drop(grudge)]
        self.effects.grudges[self.index] = grudge
        return {**more, "grudge": grudge, "leader": leader}


class PartitionStrike(_GrudgeStrike):
    fault: Partition

    def decide(self) -> tuple[Grudge, Record]:
        groups = self.targets(self.fault.groups)
        return complete_grudge(groups), {"groups": groups}


class MuteStrike(_GrudgeStrike):
    fault: Mute

    def decide(self) -> tuple[Grudge, Record]:
        nodes = self.targets([self.fault.nodes])[0]
        return {other: [node for node in nodes if node != other] for other in self.world.placement}, {"nodes": nodes}


class LinkDownStrike(_SeveringStrike):
    fault: LinkDown

    async def apply(self) -> Record:
        self._links = links(self.world.plan, self.fault.links)
        leader = self.world.leader()
        self.handles = await asyncio.gather(*(self.world.cut(name) for name in self._links))
        self.effects.dead[self.index] = self._links
        return {"links": self._links, "leader": leader}

    async def prove(self, budget_ns: int) -> Record:
        return self._merged(await self._carrier(), await super().prove(budget_ns))

    async def prove_healed(self) -> Record:
        return self._merged(await self._carrier(), await super().prove_healed())

    async def _carrier(self) -> Record:
        """Whether each link has carrier, and what is wrong with that: other strikes may hold a healed one down."""
        for _ in range(MOST_LOOKS):
            await self.effects.rest()
            dead = self.effects.dead_links
            carrier = await self.world.carrier(self._links)
            await self.effects.rest()
            if dead == self.effects.dead_links:
                break
        wrong = [name for name, up in carrier.items() if up == (name in dead)]
        mismatches = [f"{name} has {'' if carrier[name] else 'no '}carrier" for name in wrong]
        return {"carrier": carrier, "mismatches": mismatches}

    @staticmethod
    def _merged(carrier: Record, reach: Record) -> Record:
        wrong = [*carrier["mismatches"], *reach["mismatches"]]
        return {**reach, **carrier, "effective": not wrong, "mismatches": wrong}


class FlapStrike(Strike):
    """Every link or direction by a task of its own; ``self._seen`` is how often each was seen down, and up again."""

    fault: Flap
    disturbs = True

    async def apply(self) -> Record:
        self._names = flapping(self.world.plan, self.fault.links)
        self._seen = {name: [0, 0] for name in self._names}
        self._wrong: list[str] = []
        self._held: set[str] = set()  # by other strikes, at one time or another: those need not come back
        self._over = asyncio.Event()
        self.effects.dead[self.index] = []
        self.effects.impaired[self.index] = {name: SILENCE for name in self._names if ">" in name}
        leader = self.world.leader()
        self._tasks = [
            asyncio.create_task(self._flap(name, Random(f"{self.random.random()} {name}"))) for name in self._names
        ]
        return {"links": self._names, "leader": leader}

    async def prove(self, budget_ns: int) -> Record:
        clock = asyncio.get_running_loop().time
        deadline = clock() + 0.9 * budget_ns / 1e9
        while not self._wrong and self._unseen() and clock() < deadline:
            await asyncio.sleep(LOOK_S)
        return self._record()

    async def heal(self) -> None:
        self._over.set()
        await asyncio.gather(*self._tasks)
        await super().heal()

    async def prove_healed(self) -> Record:
        await asyncio.sleep(REPAIR_NS / 1e9)
        up = {name: await self._is_up(name) for name in self._names}
        self._wrong += [f"{name} is down" for name, is_up in up.items() if is_up is self._held_by_others(name)]
        return {**self._record(), "carrier": {name: is_up for name, is_up in up.items() if ">" not in name}}

    def _record(self) -> Record:
        wrong = [*self._wrong, *(f"{name} was not seen to go down and come back" for name in self._unseen())]
        flapped = {name: {"down": down, "up": up} for name, (down, up) in self._seen.items()}
        return {"effective": not wrong, "flapped": flapped, "mismatches": wrong}

    def _unseen(self) -> list[str]:
        return [name for name, seen in self._seen.items() if not all(seen) and name not in self._held]

    async def _flap(self, name: str, random: Random) -> None:
        clock = asyncio.get_running_loop().time
        start = clock()
        held: list[int] = []
        for moment, up in flaps(random, self.fault.period, self.fault.duty, self.fault.jitter):
            try:
                await asyncio.wait_for(self._over.wait(), max(0.0, start + moment / 1e9 - clock()))
                break
            except TimeoutError:
                pass
            with self.effects.changing():
                if not up:
                    held.append(await self._take_down(name))
                if ">" not in name:
                    dead = self.effects.dead[self.index]
                    dead.remove(name) if up else dead.append(name)
                if up:
                    await self.world.lift(held.pop())
            is_up = await self._is_up(name)
            if held_by_others := self._held_by_others(name):
                self._held.add(name)
            if is_up == (up and not held_by_others):
                self._seen[name][is_up] += 1
            elif ">" not in name or not held_by_others:
                self._wrong.append(f"{name} is {'up' if is_up else 'down'} after it was {'restored' if up else 'cut'}")
        self.handles += held

    async def _take_down(self, name: str) -> int:
        return await (self.world.impair(name, SILENCE) if ">" in name else self.world.cut(name))

    async def _is_up(self, name: str) -> bool:
        return (await (self.world.passing([name]) if ">" in name else self.world.carrier([name])))[name]

    def _held_by_others(self, name: str) -> bool:
        """Whether another strike keeps a link down, or may keep probes from crossing a direction."""
        link = link_of(self.world.plan, name) if ">" in name else name
        return any(link in dead for index, dead in self.effects.dead.items() if index != self.index) or any(
            name in impaired for index, impaired in self.effects.impaired.items() if index != self.index
        )


class ImpairStrike(Strike):
    """Measured where no other strike interferes: `_hidden` has what is known of directions where one always did."""

    fault: Impair
    disturbs = True

    async def apply(self) -> Record:
        self._directions = directions(self.world.plan, self.fault.links)
        self._hidden: dict[str, str] = {}
        leader = self.world.leader()
        impairment = self.fault.impairment
        self.effects.impaired[self.index] = dict.fromkeys(self._directions, impairment)
        self.handles = await asyncio.gather(*(self.world.impair(name, impairment) for name in self._directions))
        asked = msgspec.to_builtins(self.fault.impairment)
        return {"directions": dict.fromkeys(self._directions, asked), "leader": leader}

    async def prove(self, budget_ns: int) -> Record:
        return await self._observe(budget_ns)

    def unproved(self) -> Record:
        return {"effective": None, "hidden": dict(self._hidden)} if self._hidden else super().unproved()

    async def prove_healed(self) -> Record:
        return await self._observe(HEALED_NS)

    async def _observe(self, budget_ns: int) -> Record:
        found = await asyncio.gather(*(self._undisturbed(name, budget_ns) for name in self._directions))
        seen = {name: one for name, one in zip(self._directions, found, strict=True) if one is not None}
        wrong = [f"{name}: {problem}" for name, one in seen.items() for problem in one["disagreements"]]
        obtained = {name: one["obtained"] for name, one in seen.items()}
        effective = not wrong if obtained else None
        hidden = {"hidden": dict(self._hidden)} if self._hidden else {}
        return {"effective": effective, "obtained": obtained, "mismatches": wrong, **hidden}

    async def _undisturbed(self, direction: str, budget_ns: int) -> Record | None:
        """What was measured of a direction while no other strike changed anything about it; None if one always did."""
        link = link_of(self.world.plan, direction)
        for _ in range(MOST_LOOKS):
            await self.effects.rest()
            while link in self.effects.dead_links:
                self._hidden[direction] = f"another fault held {link} down"
                await asyncio.sleep(LOOK_S)
            changes = self._changes(link, direction)
            failed: OSError | None = None
            try:
                found = await self.world.observe(direction, budget_ns)
            except OSError as error:  # the network is down
                failed = error
            await self.effects.rest()
            if changes == self._changes(link, direction):
                if failed:
                    raise failed
                self._hidden.pop(direction, None)
                return found
            self._hidden[direction] = f"other faults changed {link} while it was measured"
        return None

    def _changes(self, link: str, direction: str) -> tuple[int, int]:
        return self.effects.changes[link], self.effects.changes[direction]


class KillStrike(Strike):
    fault: Kill

    async def apply(self) -> Record:
        leader = self.world.leader()
        self._nodes = self.targets([self.fault.nodes])[0]
        self._exited = dict(
            zip(self._nodes, await asyncio.gather(*(self.world.kill(node) for node in self._nodes)), strict=True)
        )
        return {"nodes": self._nodes, "leader": leader}

    async def prove(self, budget_ns: int) -> Record:
        del budget_ns
        return {"effective": all(status == -9 for status in self._exited.values()), "exited": self._exited}

    async def heal(self) -> None:
        self._restarted = dict(
            zip(self._nodes, await asyncio.gather(*(self.world.restart(node) for node in self._nodes)), strict=True)
        )
        # A pause that goes on is of the node, whichever process that is by now.
        still = self.effects.still_nodes.intersection(self._nodes)
        await asyncio.gather(*(self.world.pause(node) for node in still))

    async def prove_healed(self) -> Record:
        return {"effective": True, "restarted": self._restarted}


async def _comes_about(look: Callable[[], bool], budget_ns: int) -> bool:
    """Whether what ``look`` looks for is so in time for the proof."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + 0.9 * budget_ns / 1e9
    while not look():
        if clock() > deadline:
            return False
        await asyncio.sleep(LOOK_S)
    return True


class ReconfigureStrike(Strike):
    """Proved by what the nodes' traces say: the configuration is in force at the leader, and committed."""

    fault: Reconfigure

    async def apply(self) -> Record:
        leader = self.world.leader()
        self._voters, self._learners = self.targets([self.fault.voters, self.fault.learners])
        self.handles = [await self.world.ask_for_members(self._voters, self._learners)]
        return {"voters": self._voters, "learners": self._learners, "leader": leader}

    async def prove(self, budget_ns: int) -> Record:
        came_about = await _comes_about(lambda: self._is_wanted(self.world.members()), budget_ns)
        found = self.world.members()
        if not (came_about and found):
            return self.unproved()
        return {"effective": True, "members": msgspec.structs.asdict(found)}

    def unproved(self) -> Record:
        found = self.world.members()
        held = f"the voters are still {', '.join(found.voters)}" if found else "no leader has any committed"
        return {"effective": False, "mismatches": [held]}

    def _is_wanted(self, found: Configuration | None) -> bool:
        if found is None or found.outgoing:
            return False
        return set(found.voters) == set(self._voters) and set(found.learners) == set(self._learners)

    async def prove_healed(self) -> Record:
        return {"effective": True}


class TransferStrike(Strike):
    """Proved by what the nodes' traces say: who was to lead does."""

    fault: Transfer

    async def apply(self) -> Record:
        leader = self.world.leader()
        nodes = self.targets([self.fault.nodes])[0]
        self._heir = nodes[int(self.random.random() * len(nodes))]
        self.handles = [await self.world.ask_to_lead(self._heir)]
        return {"nodes": [self._heir], "leader": leader}

    async def prove(self, budget_ns: int) -> Record:
        came_about = await _comes_about(lambda: self.world.leader() == self._heir, budget_ns)
        return {"effective": True} if came_about else self.unproved()

    def unproved(self) -> Record:
        return {"effective": False, "mismatches": [f"{self.world.leader() or 'nobody'} leads, and not {self._heir}"]}

    async def prove_healed(self) -> Record:
        return {"effective": True}


class PauseStrike(Strike):
    fault: Pause

    async def apply(self) -> Record:
        leader = self.world.leader()
        self._nodes = self.targets([self.fault.nodes])[0]
        self.effects.paused[self.index] = self._nodes
        await asyncio.gather(*(self.world.pause(node) for node in self._nodes))
        return {"nodes": self._nodes, "leader": leader}

    async def prove(self, budget_ns: int) -> Record:
        return await self._look(True, self._nodes)

    async def heal(self) -> None:
        self.effects.forget(self.index)
        self._resumed = [node for node in self._nodes if node not in self.effects.still_nodes]
        await asyncio.gather(*(self.world.resume(node) for node in self._resumed))

    async def prove_healed(self) -> Record:
        return await self._look(False, self._resumed)

    async def _look(self, wanted: bool, nodes: Sequence[str]) -> Record:
        """Whether the nodes stand still, or none of them does; one that another strike has killed does neither."""
        paused = {node: await self.world.is_paused(node) for node in nodes}
        wrong = [node for node, is_so in paused.items() if is_so is not wanted and is_so is not None]
        what = "runs on" if wanted else "stands still"
        return {"effective": not wrong, "paused": paused, "mismatches": [f"{node} {what}" for node in wrong]}


STRIKES: dict[type[Fault], type[Strike]] = {
    Partition: PartitionStrike,
    LinkDown: LinkDownStrike,
    Flap: FlapStrike,
    Impair: ImpairStrike,
    Kill: KillStrike,
    Reconfigure: ReconfigureStrike,
    Transfer: TransferStrike,
    Mute: MuteStrike,
    Pause: PauseStrike,
}
