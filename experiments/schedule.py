"""Faults at their time, in whatever world: each strikes, is proved while it lasts, and is healed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from random import Random
from typing import Any

from experiments.effects import Effects
from experiments.phrases import seconds
from experiments.scenario import Fault, Scenario, ScenarioError
from experiments.stage import Stage
from experiments.strikes import STRIKES, Strike

#: How long the workload may run up before anything is counted as time of the scenario.
LEAD_IN_NS = 100_000_000

#: How long measuring may take during a fault of which nobody said how long it lasts.
OPEN_END_NS = 500_000_000

#: How often the world is asked whether it is well, while there is nothing else to do.
LOOK_NS = 100_000_000

#: ``progress(stage, detail)``: what is going on, for whoever watches. Of faults and heals the detail begins with the
#: scenario's time and two spaces.
Progress = Callable[[str, str], None]


def require(faults: Sequence[Fault], strikes: Mapping[type[Any], type[Strike]]) -> None:
    """Raise `ScenarioError` if a fault is none of those that can strike."""
    wrong = [
        f"fault[{number}]: {fault.__struct_config__.tag!r} is a fault of the simulator's alone"
        for number, fault in enumerate(faults)
        if type(fault) not in strikes
    ]
    if wrong:
        raise ScenarioError("\n".join([*wrong, "play it there, with --world simulated, or take the fault out"]))


class Schedule:
    """The faults of one play of ``scenario``. ``epoch`` is the start of its time, on the world's clock.

    ``tell`` gets every step of a fault, a line of ``faults.jsonl`` (docs/run-folder.md); ``strikes`` says what can
    strike in this world; every ``look_ns`` the world is asked whether it is well.
    """

    def __init__(
        self,
        scenario: Scenario,
        world: Stage,
        tell: Callable[[dict[str, Any]], None],
        progress: Progress,
        strikes: Mapping[type[Any], type[Strike]] = STRIKES,
        look_ns: int = LOOK_NS,
    ) -> None:
        self.scenario = scenario
        self.epoch = 0
        self.faults: list[Fault] = []
        self._world, self._tell, self._progress, self._strikes = world, tell, progress, strikes
        self._effects = Effects(world)
        self._look_ns = look_ns

    def now(self) -> int:
        """Nanoseconds since the workload started."""
        return self._world.clock() - self.epoch

    async def until(self, moment: int) -> None:
        """Sleep until ``moment``, in nanoseconds since the workload started."""
        while (left := moment - self.now()) > 0:
            self._world.check()
            await asyncio.sleep(min(left, self._look_ns) / 1e9)

    @contextlib.asynccontextmanager
    async def inject(self, fault: Fault) -> AsyncIterator[Mapping[str, Any]]:
        """Strike with ``fault`` while the block lasts; what it resolved to is yielded. It is proved meanwhile."""
        require([fault], self._strikes)
        self.faults.append(fault)
        async with self._strike(len(self.faults) - 1, fault) as resolved:
            yield resolved

    @contextlib.asynccontextmanager
    async def _strike(self, index: int, fault: Fault) -> AsyncIterator[Mapping[str, Any]]:
        strike = self._strikes[type(fault)](index, fault, self._world, self._effects, self._random(f"fault {index}"))
        kind = str(strike.fault.__struct_config__.tag)
        self._record(strike, "asked", {"asked": strike.asked()})
        with self._effects.changing() if strike.disturbs else contextlib.nullcontext():
            resolved = await strike.apply()
        self._record(strike, "applied", {"resolved": resolved})
        self._progress("fault", f"{seconds(self.now())}  {_said(kind, resolved)}")
        proof = asyncio.create_task(self._prove(strike))
        await asyncio.sleep(0)  # what takes no time to prove is proved of the shortest fault
        try:
            yield resolved
        finally:
            # What could not be measured while the fault lasted was not proved: no measuring past its end.
            # One that nobody said the length of lasts until it is.
            if fault.lasts:
                proof.cancel()
            outcome = (await asyncio.gather(proof, return_exceptions=True))[0]
            with self._effects.changing() if strike.disturbs else contextlib.nullcontext():
                await strike.heal()
            lifted = self.now()
            self._progress("heal", f"{seconds(lifted)}  {kind}")
            if isinstance(outcome, asyncio.CancelledError):
                self._record(strike, "proved", strike.unproved())
            elif isinstance(outcome, BaseException):
                self._record(strike, "proved", {"effective": False, "mismatches": [str(outcome)]})
            self._record(strike, "healed", {"lifted": lifted, **await strike.prove_healed()})

    async def _prove(self, strike: Strike) -> None:
        self._record(strike, "proved", await strike.prove(strike.fault.lasts or OPEN_END_NS))

    async def play(self) -> None:
        """The scenario's own schedule: its faults at their times, then the rest of its duration."""
        # A machine that is late may strike with two at once, in any order: what the seed draws for which of them, and
        # what it is called, is settled before.
        first = len(self.faults)
        planned = sorted(self.scenario.faults, key=lambda fault: fault.at)
        require(planned, self._strikes)
        self.faults += planned

        async def strike(index: int, fault: Fault) -> None:
            await self.until(fault.at)
            async with self._strike(index, fault):
                await self.until(fault.at + fault.lasts)

        try:
            async with asyncio.TaskGroup() as faults:
                for index, fault in enumerate(planned, first):
                    faults.create_task(strike(index, fault))
        except ExceptionGroup as group:
            # Whatever has died, every fault that waits is told of it; one of them is enough.
            raise group.exceptions[0] from None
        await self.until(self.scenario.duration)

    def _random(self, purpose: str) -> Random:
        return Random(f"{self.scenario.seed} {purpose}")

    def _record(self, strike: Strike, step: str, facts: Mapping[str, Any]) -> None:
        kind = str(strike.fault.__struct_config__.tag)
        self._tell({"fault": strike.index, "kind": kind, "step": step, "t": self.now(), **facts})


def _said(kind: str, resolved: Mapping[str, Any]) -> str:
    """A fault in a few words, for whoever watches."""
    if "groups" in resolved:
        return f"{kind} " + " | ".join(" ".join(group) for group in resolved["groups"])
    hit = ("links", "directions", "nodes", "voters")
    return f"{kind} " + " ".join(next((resolved[what] for what in hit if resolved.get(what)), ()))
