"""Faults that only a simulated world has: of disks, clocks and the transport (`experiments.scenario.process_faults`),
and leadership that is asked to go to another node.

They strike as all others do, and need no proof by measurement: what is asked for here is what happens.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from typing import Any

from experiments.scenario import BitFlip, CrashPoint, Disorder, Drift, FullDisk, Skew, SlowDisk
from experiments.simulation.network import Unruly
from experiments.simulation.world import SimulatedWorld, Trap
from experiments.strikes import STRIKES, KillStrike, Record, Strike


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


class _SlowDiskStrike(_NodesStrike):
    def strike(self, node: str) -> int:
        return self.world.slow_disk(node, self.fault.factor)


class _FullDiskStrike(_NodesStrike):
    def strike(self, node: str) -> int:
        return self.world.fill_disk(node)


class _DriftStrike(_NodesStrike):
    def strike(self, node: str) -> int:
        return self.world.set_clock(node, self.fault.rate)


class _SkewStrike(_NodesStrike):
    def strike(self, node: str) -> int:
        return self.world.skew_clock(node, self.fault.offset, self.fault.period)


class _BitFlipStrike(KillStrike):
    """What recovery will find, and whether a node then refuses to start, is put on record: both are as they should."""

    fault: Any
    world: SimulatedWorld

    async def apply(self) -> Record:
        struck = await super().apply()
        return {**struck, "flipped": {node: self.world.flip_bit(node) for node in self._nodes}}


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
        fault: Disorder = self.fault
        return self.world.network.misbehave(Unruly(fault.loss, fault.repeat, fault.stray, fault.late))


class _CrashPointStrike(_EverywhereStrike):
    def strike(self) -> int:
        fault: CrashPoint = self.fault
        return self.world.set_trap(Trap(fault.event, fault.share, fault.down))


#: What a schedule in a simulated world can strike with.
SIMULATED_STRIKES: Mapping[type[Any], type[Strike]] = {
    **STRIKES,
    SlowDisk: _SlowDiskStrike,
    FullDisk: _FullDiskStrike,
    BitFlip: _BitFlipStrike,
    Drift: _DriftStrike,
    Skew: _SkewStrike,
    Disorder: _DisorderStrike,
    CrashPoint: _CrashPointStrike,
}
