"""A scenario as a whole, and its file. The file is checked whole: every problem is told at once, with key and line."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from experiments.scenario.expect import Expect, read_expect
from experiments.scenario.faults import Fault, Flap, read_fault
from experiments.scenario.names import ScenarioError, directions, place
from experiments.scenario.process_faults import Skew
from experiments.scenario.reading import (
    Table,
    choice,
    line_of,
    number,
    opening_comment,
    positive_duration,
    texts,
    whole,
)
from experiments.scenario.reading import text as name_text
from experiments.scenario.systems import System, read_system
from experiments.scenario.tenants import read_tenants
from experiments.scenario.topology import read_topology
from experiments.scenario.workloads import Workload, read_workload
from topologies.plan import FabricPlan, Host, Member, PlanError
from topologies.units import UnitError

#: What a run can be told not to do without.
Requirement: TypeAlias = Literal["kernel"]


class Scenario(msgspec.Struct, frozen=True):
    """``requires``: what a run must not do without; ``kernel`` is the kernel's datapath and netem, no stand-ins.

    ``captures`` are the directions whose packets are written into ``pcap/``; only in the emulated world are there any.
    ``tenant`` is that of the plan in which nodes and clients live; without, they are in the hosts themselves.
    """

    name: str
    description: str
    seed: int
    duration: int
    plan: FabricPlan
    system: System
    workload: Workload
    faults: tuple[Fault, ...] = ()
    expect: Expect = Expect()
    time_scale: float = 1.0
    toml: str = ""
    requires: tuple[Requirement, ...] = ()
    captures: tuple[str, ...] = ()
    tenant: str = ""

    def endpoint(self, host: str) -> Host | Member:
        """Where what is placed in ``host`` lives: there, or in the tenant's member there."""
        return self.plan.tenant(self.tenant).member(host) if self.tenant else self.plan.host(host)

    def with_seed(self, seed: int) -> Scenario:
        return msgspec.structs.replace(self, seed=seed)


def load(path: Path) -> Scenario:
    """The scenario in a TOML file. Raises `ScenarioError` with every problem in it, OSError if it can't be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ScenarioError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    return parse(text, str(path))


def parse(text: str, source: str = "scenario") -> Scenario:
    """The scenario that ``text`` describes; ``source`` is what error messages call it. Raises `ScenarioError`."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(f"{source}: not valid TOML: {error}") from None
    except ValueError:  # Python reads no number of more than 4,300 digits
        raise ScenarioError(f"{source}: a number in it has more digits than any that could be meant") from None
    problems: list[tuple[str, str]] = []
    root = Table(document, "", problems, Path(source).parent)

    name = root.take("name", name_text, default=Path(source).stem)
    seed = root.take("seed", whole(0), default=1)
    duration = root.take("duration", positive_duration, default=0, required=True)
    time_scale = root.take("time_scale", number(0.01), default=1.0)
    requires: tuple[Requirement, ...] = root.take("requires", _requirements, default=())
    plan = read_topology(root.table("topology"), tenants=bool(document.get("tenant")))
    system_table = root.table("system")
    tenant = system_table.take("tenant", name_text, default="")
    system = read_system(system_table)
    workload = read_workload(root.table("workload"), system)
    expect = read_expect(root.table("expect"), system)

    plan = read_tenants(root.tables("tenant"), plan)
    if tenant and plan is not None and tenant not in {one.name for one in plan.tenants}:
        problems.append(("system.tenant", f"there is no [[tenant]] named {tenant!r}"))
    read = [read_fault(table, duration, plan, system) for table in root.tables("fault")]
    faults = [fault for fault in read if fault is not None]
    captures: tuple[str, ...] = root.take("captures", lambda value: _captures(value, plan), default=())
    root.finish()
    if plan is not None and not problems:
        try:
            place(plan, system, workload, tenant)
        except ScenarioError as error:
            problems += [(line.partition(":")[0], line.partition(": ")[2]) for line in str(error).splitlines()]
    if problems or plan is None:
        placed = sorted((line_of(text, key) or 0, key, what) for key, what in problems)
        raise ScenarioError("\n".join(f"{source}:{line or 1}: {key}: {what}" for line, key, what in placed))
    scenario = Scenario(
        name=name,
        description=opening_comment(text),
        seed=seed,
        duration=duration,
        plan=plan,
        system=system,
        workload=workload,
        faults=tuple(faults),
        expect=expect,
        toml=text,
        requires=requires,
        captures=captures,
        tenant=tenant,
    )
    return stretched(scenario, time_scale)


def stretched(scenario: Scenario, time_scale: float) -> Scenario:
    """The scenario with every duration and timeout of its file times ``time_scale``, and rates divided by it."""
    factor = time_scale / scenario.time_scale
    if factor == 1.0:
        return scenario
    return msgspec.structs.replace(
        scenario,
        time_scale=time_scale,
        duration=round(scenario.duration * factor),
        system=scenario.system.stretched(factor),
        workload=scenario.workload.stretched(factor),
        faults=tuple(
            msgspec.structs.replace(
                fault.stretched(factor) if isinstance(fault, Flap | Skew) else fault,
                at=round(fault.at * factor),
                lasts=round(fault.lasts * factor),
            )
            for fault in scenario.faults
        ),
        expect=scenario.expect.stretched(factor),
    )


def _captures(value: object, plan: FabricPlan | None) -> tuple[str, ...]:
    names = texts(value)
    try:
        return names if plan is None else tuple(directions(plan, names))
    except PlanError as error:
        raise UnitError(str(error)) from None


def _requirements(value: object) -> tuple[Requirement, ...]:
    check = choice("kernel")
    return tuple(check(name) for name in texts(value))
