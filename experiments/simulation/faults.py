"""Faults that only a simulated world has so far: of processes, disks and clocks, and one-way silence.

They strike as all others do, and need no proof by measurement: what is asked for here is what happens.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any

import msgspec

from experiments.simulation.network import Unruly
from experiments.simulation.world import SimulatedWorld, Trap
from experiments.strikes import REPAIR_NS, STRIKES, Record, Strike


class Mute(msgspec.Struct, frozen=True, tag="mute", tag_field="kind"):
    """Nobody hears these nodes, while they hear everybody: a one-way partition."""

    nodes: tuple[str, ...]
    at: int
    lasts: int


class Pause(msgspec.Struct, frozen=True, tag="pause", tag_field="kind"):
    """These nodes take no step, as between SIGSTOP and SIGCONT; their hosts go on acknowledging what comes in."""

    nodes: tuple[str, ...]
    at: int
    lasts: int


class SlowDisk(msgspec.Struct, frozen=True, tag="slow-disk", tag_field="kind"):
    """Every sync of these nodes takes ``factor`` times as long."""

    nodes: tuple[str, ...]
    factor: float
    at: int
    lasts: int


class FullDisk(msgspec.Struct, frozen=True, tag="full-disk", tag_field="kind"):
    """The next write of these nodes fails, and ends them; when there is room again they are started from their logs."""

    nodes: tuple[str, ...]
    at: int
    lasts: int


class Drift(msgspec.Struct, frozen=True, tag="drift", tag_field="kind"):
    """The clocks of these nodes run ``rate`` times as fast as time."""

    nodes: tuple[str, ...]
    rate: float
    at: int
    lasts: int


class Disorder(msgspec.Struct, frozen=True, tag="disorder", tag_field="kind"):
    """Messages are lost, repeated and disordered one by one, as if there were no connections between processes."""

    unruly: Unruly
    at: int
    lasts: int


class CrashPoint(msgspec.Struct, frozen=True, tag="crash-point", tag_field="kind"):
    """Nodes die at the worst moment: just when they have voted, say, while it is written, sent, or neither yet."""

    trap: Trap
    at: int
    lasts: int


class _NodesStrike(Strike):
    """One that does something to some nodes, each by itself."""

    fault: Any
    world: SimulatedWorld

    @abc.abstractmethod
    def strike(self, node: str) -> int: ...

    async def apply(self) -> Record:
        leader = self.world.leader()
        nodes = self.targets([self.fault.nodes])[0]
        self.handles = [self.strike(node) for node in nodes]
        return {"nodes": nodes, "leader": leader}

    async def prove(self, budget_ns: int) -> Record:
        return {"effective": True}

    async def prove_healed(self) -> Record:
        return {"effective": True}


class _MuteStrike(Strike):
    fault: Any

    async def apply(self) -> Record:
        leader = self.world.leader()
        nodes = self.targets([self.fault.nodes])[0]
        grudge = {other: [node for node in nodes if node != other] for other in self.world.placement}
        self.handles = [await self.world.drop(grudge)]
        self.effects.grudges[self.index] = grudge
        return {"nodes": nodes, "grudge": grudge, "leader": leader}

    async def prove(self, budget_ns: int) -> Record:
        return await self._matrix(budget_ns)

    async def heal(self) -> None:
        await super().heal()
        del self.effects.grudges[self.index]

    async def prove_healed(self) -> Record:
        return await self._matrix(REPAIR_NS)


class _PauseStrike(_NodesStrike):
    def strike(self, node: str) -> int:
        return self.world.pause(node)


class _SlowDiskStrike(_NodesStrike):
    def strike(self, node: str) -> int:
        return self.world.slow_disk(node, self.fault.factor)


class _FullDiskStrike(_NodesStrike):
    def strike(self, node: str) -> int:
        return self.world.fill_disk(node)


class _DriftStrike(_NodesStrike):
    def strike(self, node: str) -> int:
        return self.world.set_clock(node, self.fault.rate)


class _EverywhereStrike(Strike):
    """One that aims at nobody."""

    fault: Any
    world: SimulatedWorld

    @abc.abstractmethod
    def strike(self) -> int: ...

    async def apply(self) -> Record:
        leader = self.world.leader()
        self.handles = [self.strike()]
        return {"leader": leader}

    async def prove(self, budget_ns: int) -> Record:
        return {"effective": True}

    async def prove_healed(self) -> Record:
        return {"effective": True}


class _DisorderStrike(_EverywhereStrike):
    def strike(self) -> int:
        return self.world.network.misbehave(self.fault.unruly)


class _CrashPointStrike(_EverywhereStrike):
    def strike(self) -> int:
        return self.world.set_trap(self.fault.trap)


#: What a schedule in a simulated world can strike with.
SIMULATED_STRIKES: Mapping[type[Any], type[Strike]] = {
    **STRIKES,
    Mute: _MuteStrike,
    Pause: _PauseStrike,
    SlowDisk: _SlowDiskStrike,
    FullDisk: _FullDiskStrike,
    Drift: _DriftStrike,
    Disorder: _DisorderStrike,
    CrashPoint: _CrashPointStrike,
}
