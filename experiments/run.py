"""One play of a scenario on the emulated fabric, from the empty folder to the report."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from experiments.check import Results, judge
from experiments.emulated import EmulatedWorld, describe_machine, require_machine
from experiments.folder import SCHEMA, Folder
from experiments.history import merge_histories
from experiments.report import write_report
from experiments.scenario import Fault, Scenario, place
from experiments.strikes import STRIKES, Effects, Strike

#: How long the workload may run up before anything is counted as time of the scenario.
LEAD_IN_NS = 100_000_000

#: How long measuring may take during a fault of which nobody said how long it lasts.
OPEN_END_NS = 2_000_000_000

Progress = Callable[[str, str], None]


class Run:
    """A scenario that is being played. Enter it with ``async with``; leaving it stops the clock and judges.

    ``progress(stage, detail)`` is told of every stage: build, settle, run, fault, heal, check, report.
    """

    results: Results
    report: Path

    def __init__(self, scenario: Scenario, out: Path, command: str, progress: Progress = lambda stage, detail: None):
        require_machine()
        self.scenario = scenario
        self.progress = progress
        self.placement = place(scenario.plan, scenario.system, scenario.workload)
        self.folder = Folder(out, scenario.name, scenario.seed)
        self.effects = Effects()
        self.faults: list[Fault] = []
        self._manifest: dict[str, Any] = {
            "schema": SCHEMA,
            "command": command,
            "started": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "world": "emulated",
            "seed": scenario.seed,
            "time_scale": scenario.time_scale,
            "scenario": _as_data(scenario),
            "scenario_toml": scenario.toml,
            "plan": msgspec.to_builtins(scenario.plan),
            "placement": self.placement,
            **describe_machine(),
        }
        self.epoch = 0

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
            self.world = EmulatedWorld(self.scenario, self.placement, self.folder)
            self._manifest |= await self._stack.enter_async_context(self.world)
            self._write_manifest()
            self.progress("settle", "waiting for a leader")
            self._manifest["calibration"] = await self.world.settle()
            self.epoch = time.monotonic_ns() + LEAD_IN_NS
            self._manifest["epoch"] = self.epoch
            self._write_manifest()
            await self.world.start_workload(self.epoch)
            self.progress("run", "")
        except BaseException:
            await self._stack.aclose()
            self.folder.close()
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
            played = msgspec.structs.replace(self.scenario, faults=tuple(self.faults), duration=ended)
            self._manifest |= {"scenario": _as_data(played), "fidelity": fidelity}
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
        return time.monotonic_ns() - self.epoch

    async def until(self, moment: int) -> None:
        """Sleep until ``moment``, in nanoseconds since the workload started."""
        while (left := moment - self.now()) > 0:
            self.world.check()
            await asyncio.sleep(min(left, 100_000_000) / 1e9)

    @contextlib.asynccontextmanager
    async def inject(self, fault: Fault) -> AsyncIterator[Mapping[str, Any]]:
        """Strike with ``fault`` while the block lasts; what it resolved to is yielded. It is proved meanwhile."""
        index = len(self.faults)
        self.faults.append(fault)
        strike = STRIKES[type(fault)](index, fault, self.world, self.effects, self._random(f"fault {index}"))
        kind = str(strike.fault.__struct_config__.tag)
        self._record(strike, "asked", {"asked": strike.asked()})
        resolved = await strike.apply()
        self._record(strike, "applied", {"resolved": resolved})
        self.progress("fault", _said(kind, resolved))
        proof = asyncio.create_task(self._prove(strike))
        try:
            yield resolved
        finally:
            # What could not be measured while the fault lasted was not proved: no measuring past its end.
            if not proof.done():
                proof.cancel()
            outcome = (await asyncio.gather(proof, return_exceptions=True))[0]
            await strike.heal()
            self.progress("heal", kind)
            if isinstance(outcome, BaseException):
                why = (
                    "the fault ended before it was measured"
                    if isinstance(outcome, asyncio.CancelledError)
                    else str(outcome)
                )
                self._record(strike, "proved", {"effective": False, "mismatches": [why]})
            self._record(strike, "healed", await strike.prove_healed())

    async def _prove(self, strike: Strike) -> None:
        self._record(strike, "proved", await strike.prove(strike.fault.lasts or OPEN_END_NS))

    async def play(self) -> None:
        """The scenario's own schedule: its faults at their times, then the rest of its duration."""

        async def strike(fault: Fault) -> None:
            await self.until(fault.at)
            async with self.inject(fault):
                await self.until(fault.at + fault.lasts)

        async with asyncio.TaskGroup() as faults:
            for fault in self.scenario.faults:
                faults.create_task(strike(fault))
        await self.until(self.scenario.duration)

    def _random(self, purpose: str) -> Random:
        return Random(f"{self.scenario.seed} {purpose}")

    def _record(self, strike: Strike, step: str, facts: Mapping[str, Any]) -> None:
        kind = str(strike.fault.__struct_config__.tag)
        self.folder.fault({"fault": strike.index, "kind": kind, "step": step, "t": self.now(), **facts})

    def _write_manifest(self) -> None:
        self.folder.write_json("manifest.json", self._manifest)

    async def _judge(self) -> None:
        self.progress("check", "")
        merge_histories(self.path)
        self.results = judge(self.path)
        self.folder.write_json("results.json", self.results)
        self.progress("report", "")
        self.report = write_report(self.path)


async def play(scenario: Scenario, out: Path, command: str, progress: Progress) -> Run:
    """Play ``scenario`` to its end, judge it and write its report."""
    async with Run(scenario, out, command, progress) as run:
        await run.play()
    return run


def _as_data(scenario: Scenario) -> dict[str, Any]:
    data: dict[str, Any] = msgspec.to_builtins(scenario)
    del data["plan"], data["toml"]
    return data


def _said(kind: str, resolved: Mapping[str, Any]) -> str:
    """A fault in a few words, for whoever watches."""
    if "groups" in resolved:
        return f"{kind} " + " | ".join(" ".join(group) for group in resolved["groups"])
    return f"{kind} " + " ".join(resolved.get("links") or resolved.get("directions") or resolved.get("nodes") or ())
