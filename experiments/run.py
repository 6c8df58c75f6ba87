"""One play of a scenario, on the emulated fabric or in virtual time, from the empty folder to the report."""

from __future__ import annotations

import asyncio
import contextlib
import platform
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from experiments.checking.check import Results, judge
from experiments.checking.history import merge_histories
from experiments.checking.live import LiveCheck, side_by_side
from experiments.checking.raft_properties import Violation
from experiments.folder import SCHEMA, Folder
from experiments.implementation import require_implementation
from experiments.report import write_report
from experiments.scenario import Fault, Requirement, Scenario, ScenarioError, place
from experiments.schedule import LEAD_IN_NS, LOOK_NS, Progress, Schedule, require
from experiments.stage import Stage
from experiments.strikes import STRIKES, Strike
from topologies.check import check
from topologies.plan import PlanError

#: Where a scenario can play.
WorldName: TypeAlias = Literal["emulated", "simulated"]


#: Violations told of while a run plays: the first leads to the others.
MOST_TOLD = 3


class Run:
    """A scenario that is being played. Enter it with ``async with``; leaving it stops the clock and judges.

    ``progress(stage, detail)`` is told of every stage: build, settle, run, fault, heal, violation, check, report. A
    violation of what the system promises is told as soon as the nodes' traces show it.
    """

    results: Results
    report: Path

    def __init__(
        self,
        scenario: Scenario,
        out: Path,
        command: str,
        progress: Progress = lambda stage, detail: None,
        world: WorldName = "emulated",
    ) -> None:
        strikes = strikes_of(world)
        require(scenario.faults, strikes)
        home = require_implementation(scenario)
        machine = _describe_machine(world, scenario.requires)
        self.scenario = scenario
        self.progress = progress
        self.placement = place(scenario.plan, scenario.system, scenario.workload, scenario.tenant)
        self.folder = Folder(out, scenario.name, scenario.seed)
        self._told = 0
        live = LiveCheck(scenario.system, self._tell)
        self.world, self._digest = _make_world(world, scenario, self.placement, self.folder, live)
        look_ns = scenario.duration if world == "simulated" else LOOK_NS
        self.schedule = Schedule(scenario, self.world, self.folder.fault, progress, strikes, look_ns)
        self._manifest: dict[str, Any] = {
            "schema": SCHEMA,
            "command": command,
            "started": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "world": world,
            "seed": scenario.seed,
            "time_scale": scenario.time_scale,
            "scenario": _as_data(scenario),
            "scenario_toml": scenario.toml,
            "plan": msgspec.to_builtins(scenario.plan),
            "placement": self.placement,
            **machine,
        }
        if home is not None:
            self._manifest["implementation_from"] = str(home)

    def _tell(self, violation: Violation) -> None:
        self._told += 1
        if self._told <= MOST_TOLD:
            self.progress("violation", side_by_side(violation, self.schedule.epoch))

    @property
    def path(self) -> Path:
        return self.folder.path

    async def __aenter__(self) -> Run:
        self._stack = contextlib.AsyncExitStack()
        try:
            self.progress(
                "build", f"{len(self.scenario.plan.switches)} switches, {len(self.scenario.plan.hosts)} hosts"
            )
            self._write_manifest()
            self._manifest |= await self._stack.enter_async_context(self.world)
            self._write_manifest()
            self.progress("settle", "waiting for a leader" if self.scenario.system.elects else "connecting all nodes")
            self._manifest["calibration"] = await self.world.settle()
            epoch = self.schedule.epoch = self._manifest["epoch"] = self.world.clock() + LEAD_IN_NS
            self._write_manifest()
            await self.world.start_workload(epoch)
            await self.until(0)
            self.progress("run", "")
        except BaseException:
            await self._stack.aclose()
            self.folder.close()
            self.folder.discard_if_empty()
            raise
        return self

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        ended = self.now()
        try:
            if error is None:
                self.progress("stop", "letting the last operations finish")
                await self.world.stop_workload()
        finally:
            fidelity = self.world.fidelity()
            await self._stack.aclose()
            # What a program plays is as long as it was, and breaks what it broke.
            duration = self.scenario.duration or ended
            played = msgspec.structs.replace(self.scenario, faults=tuple(self.schedule.faults), duration=duration)
            deaths = [{**death, "t": death["t"] - self.schedule.epoch} for death in self.world.deaths()]
            self._manifest |= {"scenario": _as_data(played), "fidelity": fidelity, "deaths": deaths}
            if (digest := self._digest()) is not None:
                self._manifest["evidence_sha256"] = digest
            self._write_manifest()
            self.folder.close()
        if error is None:
            await self._judge()

    def expect(self, **expected: Any) -> None:
        """Expect more of this run than its scenario said."""
        more = msgspec.structs.replace(self.scenario.expect, **expected)
        self.scenario = msgspec.structs.replace(self.scenario, expect=more)

    def now(self) -> int:
        """Nanoseconds since the workload started."""
        return self.schedule.now()

    async def until(self, moment: int) -> None:
        """Sleep until ``moment``, in nanoseconds since the workload started."""
        await self.schedule.until(moment)

    def inject(self, fault: Fault) -> AbstractAsyncContextManager[Mapping[str, Any]]:
        """Strike with ``fault`` while the block lasts; what it resolved to is yielded. It is proved meanwhile."""
        return self.schedule.inject(fault)

    def _write_manifest(self) -> None:
        self.folder.write_json("manifest.json", self._manifest)

    async def _judge(self) -> None:
        self.progress("check", "")
        merge_histories(self.path)
        self.results = judge(self.path)
        self.folder.write_json("results.json", self.results)
        self.progress("report", "")
        self.report = write_report(self.path)


def play(scenario: Scenario, out: Path, command: str, progress: Progress, world: WorldName = "emulated") -> Run:
    """Play ``scenario`` to its end, judge it and write its report."""

    async def to_its_end() -> Run:
        async with Run(scenario, out, command, progress, world) as run:
            await run.schedule.play()
        return run

    with asyncio.Runner(loop_factory=_make_loop(world)) as runner:
        return runner.run(to_its_end())


def recorded(folder: Path) -> tuple[Scenario, WorldName]:
    """The scenario that was played in the run's ``folder``, and where, from its manifest alone.

    Raises `ScenarioError` for a manifest that does not tell, OSError for one that cannot be read.
    """
    path = folder / "manifest.json"
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=_Recorded)
        data = {**manifest.scenario, "plan": manifest.plan, "toml": manifest.scenario_toml}
        scenario = msgspec.convert(data, Scenario)
        check(scenario.plan)
    except (msgspec.DecodeError, PlanError) as error:
        raise ScenarioError(f"{path}: not the manifest of a run that can be played again: {error}") from None
    homes = [Path(manifest.implementation_from)] if manifest.implementation_from else []
    require_implementation(scenario, folders=homes)
    return scenario, manifest.world


class _Recorded(msgspec.Struct, frozen=True):
    """The part of a manifest that says what was played."""

    world: WorldName
    scenario: dict[str, Any]
    plan: dict[str, Any]
    scenario_toml: str = ""
    implementation_from: str = ""


# Each world is imported by whoever plays in it: one brings half a second of libraries, the other needs none of them.


def _make_world(
    world: WorldName, scenario: Scenario, placement: dict[str, str], folder: Folder, live: LiveCheck
) -> tuple[Stage, Callable[[], str | None]]:
    """The world, and what tells the SHA-256 of all its evidence, where that is the same whenever a seed is played."""
    if world == "simulated":
        from experiments.simulation.recording import FolderRecorder
        from experiments.simulation.world import SimulatedWorld

        recorder = FolderRecorder(folder.path, live)
        return SimulatedWorld(scenario, placement, recorder), recorder.digest
    from experiments.emulation.world import EmulatedWorld

    return EmulatedWorld(scenario, placement, folder, live), lambda: None


def strikes_of(world: WorldName) -> Mapping[type[Any], type[Strike]]:
    """What can strike in a world, by the class of the fault."""
    if world == "simulated":
        from experiments.simulation.faults import SIMULATED_STRIKES

        return SIMULATED_STRIKES
    return STRIKES


def _make_loop(world: WorldName) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if world == "simulated":
        from experiments.simulation.kernel import Loop

        return Loop
    return None


def _describe_machine(world: WorldName, requires: Collection[Requirement]) -> dict[str, Any]:
    """For the manifest. Raises `PrivilegeError`, `MissingTool` or `StandInError` where there can be no such world."""
    if world == "simulated":
        if "kernel" in requires:
            raise ScenarioError("a kernel is required, and the simulated world has none: play it in --world emulated")
        return {"versions": {"python": platform.python_version()}}
    from experiments.emulation.world import describe_machine, require_machine

    require_machine()
    if "kernel" in requires:
        from topologies.machine import require_kernel

        require_kernel()
    return describe_machine()


def _as_data(scenario: Scenario) -> dict[str, Any]:
    data: dict[str, Any] = msgspec.to_builtins(scenario)
    del data["plan"], data["toml"]
    return data
