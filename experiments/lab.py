"""A scenario in Python, for what a file cannot say.

async with lab(LeafSpine(2, 3, 4), Raft(nodes=5), Register(clients=5, rate=200), seed=7) as run:
    await run.steady("6s")
    async with run.partition(["leader"], ["others"]):
        await run.steady("6s")
    await run.converge("2s")
assert run.verdict.linearizable
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import msgspec

from experiments.checking.check import Results
from experiments.run import Run
from experiments.scenario import (
    Expect,
    Flap,
    Impair,
    Kill,
    LinkDown,
    Partition,
    Scenario,
    ScenarioError,
    System,
    Workload,
    directions,
    flapping,
    links,
)
from experiments.scenario.faults import flap_problems
from topologies.check import check
from topologies.impairment import Impairment
from topologies.plan import FabricPlan
from topologies.units import parse_duration

#: What injecting a fault gives: entered, it strikes and says what it resolved to; left, it is healed.
Struck = AbstractAsyncContextManager[Mapping[str, Any]]


class Verdict(msgspec.Struct, frozen=True):
    """The results of a run, by the checks' names: ``verdict.linearizable`` is true, false or ``"unknown"``."""

    results: Results

    @property
    def valid(self) -> bool | str:
        return self.results.valid

    def __getattr__(self, check: str) -> bool | str:
        for found in self.results.checks:
            if found.name == check:
                return found.valid
        names = ", ".join(found.name for found in self.results.checks)
        raise AttributeError(f"no check is called {check!r} in this run; there is {names}")


class Lab(Run):
    """A run whose faults come from a program. Durations are text with a unit."""

    async def steady(self, duration: str) -> None:
        """Let the workload go on for ``duration``."""
        await self.until(self.now() + parse_duration(duration))

    async def converge(self, within: str) -> None:
        """Let the system recover for ``within``, and expect that operations succeed again by then."""
        self.expect(recovery=parse_duration(within))
        await self.steady(within)

    def partition(self, *groups: Sequence[str]) -> Struck:
        """Nodes of different groups do not hear each other while the block lasts; names or roles."""
        return self.inject(Partition(tuple(tuple(group) for group in groups), self.now(), 0))

    def link_down(self, *names: str) -> Struck:
        """These links, or all that match a pattern (``leaf1-spine*``), have no carrier while the block lasts."""
        links(self.scenario.plan, names)
        return self.inject(LinkDown(names, self.now(), 0))

    def flap(self, *names: str, period: str, duty: float = 0.5, jitter: str = "0ms") -> Struck:
        """These links or directions are down for a share, ``duty``, of every ``period`` while it lasts; see `Flap`."""
        flapping(self.scenario.plan, names)
        numbers = parse_duration(period), duty, parse_duration(jitter)
        if problems := flap_problems(names, *numbers):
            raise ScenarioError("\n".join(f"{key}: {what}" for key, what in problems))
        return self.inject(Flap(names, *numbers, self.now(), 0))

    def impair(self, *names: str, impairment: Impairment) -> Struck:
        """These links or directions do ``impairment`` to their packets while the block lasts."""
        directions(self.scenario.plan, names)
        return self.inject(Impair(names, impairment, self.now(), 0))

    def kill(self, *nodes: str) -> Struck:
        """These nodes, names or roles, are dead while the block lasts, and start again from their logs after it."""
        return self.inject(Kill(nodes, self.now(), 0))

    @property
    def verdict(self) -> Verdict:
        """What was found, once the ``async with`` has been left."""
        return Verdict(self.results)


def lab(
    plan: FabricPlan,
    system: System,
    workload: Workload,
    *,
    seed: int = 1,
    name: str = "lab",
    expect: Expect | None = None,
    tenant: str = "",
    out: Path = Path("runs"),
) -> Lab:
    """A run to enter with ``async with``, whose faults are set off by hand.

    With ``tenant``, one of the plan's (`topologies.tenants`), nodes and clients live in that. Raises `PlanError` for a
    plan that cannot be.
    """
    check(plan)
    expected = expect or Expect(linearizable=system.linearizable)
    scenario = Scenario(name, "", seed, 0, plan, system, workload, (), expected, tenant=tenant)
    return Lab(scenario, out, f"lab(seed={seed})")
