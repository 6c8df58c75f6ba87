"""One seed of a scenario, played and judged in memory; the system's properties are checked as the traces grow."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from apps.process import Nanoseconds
from experiments.checking.availability import service
from experiments.checking.binaries import binary_checks, echo_checks
from experiments.checking.client_checks import client_checks, served, stale_checks
from experiments.checking.detection import detection_checks, measure, silences
from experiments.checking.fault_record import Step, gather
from experiments.checking.history import Event, History, HistoryError, merge, operations
from experiments.checking.node_checks import who_led
from experiments.checking.quorum_properties import QuorumProperties
from experiments.checking.rejections import message_checks, rejected_messages
from experiments.checking.replication import Replication, replication
from experiments.checking.results import Availability, Check, Detection, Leader, Staleness, Valid
from experiments.checking.takeover import Takeover, judge_takeover
from experiments.checking.timing import timed, timing_checks
from experiments.checking.trace import in_order
from experiments.phrases import seconds
from experiments.scenario import Echo, Failover, Heartbeat, Phi, Scenario, Swim, place
from experiments.schedule import LEAD_IN_NS, Schedule
from experiments.simulation.faults import SIMULATED_STRIKES
from experiments.simulation.kernel import Loop
from experiments.simulation.recording import Both, OnlineRecorder, Recorder, TextRecorder
from experiments.simulation.world import SimulatedWorld
from experiments.stage import Death, WorldError

#: How long the search for an order of the operations may take, in seconds.
PATIENCE = 10.0

#: How many contradictions of a seed are kept, with their events.
KEPT_VIOLATIONS = 3


class Outcome(msgspec.Struct, frozen=True):
    """What came of one seed.

    ``valid`` is false when a promise was broken or a process died of itself, unknown when the run shows nothing.
    ``broken``: the promises that were, a sentence each, beginning with the name of the check; ``doubts``: why it may
    show nothing, likewise. ``violations``: events that contradict each other (`raft_properties.Violation`).
    ``elections``: leaders elected after the workload began, None where nobody is; ``election_times``: from each fault
    that took the leader to the next election, in nanoseconds, None where none came. ``recovery_times``: from each heal
    to steady service, likewise. ``events``: how many the kernel handled. ``evidence_sha256``: of all evidence, as a
    replay gives it; of seeds that are not valid.
    """

    seed: int
    valid: Valid
    broken: list[str]
    violations: list[dict[str, Any]]
    availability: Availability | None
    lost_writes: int
    elections: int | None
    election_times: list[int | None]
    recovery_times: list[int | None]
    events: int
    staleness: Staleness | None = None
    detection: Detection | None = None
    takeover: Takeover | None = None
    replication: Replication | None = None
    doubts: list[str] = []
    evidence_sha256: str | None = None


class Played(msgspec.Struct, frozen=True):
    """A seed as it was played: ``steps`` of its faults, ``deaths`` of nodes that ended by themselves, and why it could
    not be played to its end, if so. ``stopped``: when it was stopped before its end; ``nodes``: who was running,
    paused or down then.
    """

    epoch: Nanoseconds
    steps: list[dict[str, Any]]
    deaths: list[Death]
    died: str
    events: int
    placement: Mapping[str, str]
    stopped: Nanoseconds | None
    nodes: dict[str, str]


def play_seed(scenario: Scenario) -> Outcome:
    """Play ``scenario`` with its seed in virtual time, and judge it."""
    # Nearly all that is made is still in use when the seed is over: looking for garbage meanwhile costs a sixth.
    collecting = gc.isenabled()
    gc.disable()
    try:
        recorder = OnlineRecorder(scenario.system)
        return _judge(scenario, recorder, _play(scenario, recorder))
    finally:
        if collecting:
            gc.enable()


def play_traced(scenario: Scenario, until: Nanoseconds | None = None) -> tuple[TextRecorder, Nanoseconds]:
    """Play ``scenario`` and keep every line of evidence, up to ``until`` of the scenario's time; with its epoch."""
    recorder = TextRecorder()
    return recorder, _play(scenario, recorder, until).epoch


class Replay(NamedTuple):
    """A seed with all its evidence: its lines, and what the checkers read of them."""

    text: TextRecorder
    seen: OnlineRecorder
    played: Played
    outcome: Outcome


def replay_seed(scenario: Scenario, until: Nanoseconds | None = None) -> Replay:
    """Play ``scenario``, up to ``until`` of its time, keep every line of evidence and judge it.

    One that was stopped has its promises of every moment judged; those about the whole of a run are in doubt.
    """
    text, seen = TextRecorder(), OnlineRecorder(scenario.system)
    played = _play(scenario, Both(text, seen), until)
    outcome = _judge(scenario, seen, played)
    return Replay(text, seen, played, msgspec.structs.replace(outcome, evidence_sha256=text.digest()))


def _play(scenario: Scenario, recorder: Recorder, until: Nanoseconds | None = None) -> Played:
    steps: list[dict[str, Any]] = []
    stopped = None if until is None or until >= scenario.duration else until

    async def to_its_end() -> Played:
        placement = place(scenario.plan, scenario.system, scenario.workload, scenario.tenant)
        world = SimulatedWorld(scenario, placement, recorder)
        schedule = Schedule(
            scenario, world, steps.append, lambda stage, detail: None, SIMULATED_STRIKES, scenario.duration
        )
        died = ""
        nodes: dict[str, str] = {}
        told = steps
        try:
            async with world:
                await world.settle()
                schedule.epoch = world.clock() + LEAD_IN_NS
                await world.start_workload(schedule.epoch)
                if stopped is None:
                    await schedule.play()
                    await world.stop_workload()
                else:
                    playing = asyncio.create_task(schedule.play())
                    await schedule.until(stopped)
                    world.recorder = _Deaf()
                    told = list(steps)  # without the heals that come of leaving
                    playing.cancel()
                for node in world.nodes:
                    paused = await world.is_paused(node)
                    nodes[node] = "down" if paused is None else "paused" if paused else "running"
        except WorldError as error:
            died = str(error)
        events = world.kernel.events
        return Played(schedule.epoch, told, world.deaths(), died, events, world.placement, stopped, nodes)

    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(to_its_end())


class _Deaf:
    """Takes down nothing."""

    def begin_node(self, moment: Nanoseconds, node: str, incarnation: int, protocol: str) -> None: ...
    def node(self, moment: Nanoseconds, node: str, incarnation: int, event: Any) -> None: ...
    def client(self, moment: Nanoseconds, client: str, event: Any) -> None: ...


def _judge(scenario: Scenario, recorder: OnlineRecorder, played: Played) -> Outcome:
    whole = not played.died and played.stopped is None
    if whole:
        recorder.finish()
    broken = [f"{found.property}: {found.message}" for found in recorder.violations[:KEPT_VIOLATIONS]]
    doubts: list[str] = []
    if played.died:
        broken.append(f"died: {played.died}")
    for death in played.deaths[:1]:
        when = seconds(death["t"] - played.epoch)
        broken.append(f"nodes_stayed_up: {death['node']} ended by itself at {when}: {death['said']}")
    nonsense = message_checks(rejected_messages(recorder.witnesses))
    broken += (f"{check.name}: {check.summary}" for check in [*binary_checks(recorder.findings), *nonsense])
    if recorder.broken_off:
        doubts.append(f"trace: {recorder.broken_off}")

    if played.stopped is not None:
        doubts.append(f"stopped: at {seconds(played.stopped)} of {seconds(scenario.duration)}")

    faults = gather(msgspec.convert(step, Step) for step in played.steps)
    doubts += (f"fault: {problem}" for fault in faults if whole for problem in fault.problems())
    leaders = who_led(recorder.witnesses, faults, played.epoch)
    availability: Availability | None = None
    lost = 0
    staleness: Staleness | None = None
    detection: Detection | None = None
    takeover: Takeover | None = None
    system, expect = scenario.system, scenario.expect
    checks: list[Check] = []
    if isinstance(system, Swim | Heartbeat | Phi):
        silent = silences(faults, system.names, played.placement, expect.detection or 0)
        detection = measure(in_order([recorder.witnesses]), silent, system.names, played.epoch, system.memory)
        checks += detection_checks(detection, expect, faults)
    if isinstance(system, Failover):
        witnesses = list(in_order([recorder.witnesses]))
        takeover, taken = judge_takeover(witnesses, system.config.shards, played.epoch, expect, faults)
        checks += (check for check in taken if check.name != "OneOwner")  # which was checked as it was told
    try:
        done = operations(_history(recorder, played.epoch))
        if not done:
            doubts += ["history: no client did anything"] if scenario.workload.names else []
        else:
            if isinstance(scenario.workload, Echo):
                seen = echo_checks(done)
            elif expect.linearizable:
                seen = client_checks("history", done, PATIENCE, promised=True)
            else:
                kinds = [fault.kind for fault in faults]
                staleness, seen = stale_checks("history", done, PATIENCE, expect, system, kinds)
            availability = timed(served(service(done)), done, faults, leaders, scenario.system.names)
            lost = _lost(seen)
            checks += [*seen, *timing_checks(scenario.expect, availability, leaders, faults, done)]
    except HistoryError as error:
        doubts.append(f"history: {error}")
    if played.stopped is not None:  # only these hold of every part of a run
        checks = [check for check in checks if check.name in ("linearizable", "stale_reads", "echoes")]
    broken += (f"{check.name}: {check.summary}" for check in checks if check.valid is False)
    doubts += (f"{check.name}: {check.summary}" for check in checks if check.valid == "unknown")
    return Outcome(
        scenario.seed,
        False if broken else "unknown" if doubts else True,
        broken,
        [_relative(found.as_data(), played.epoch) for found in recorder.violations[:KEPT_VIOLATIONS]],
        availability,
        lost,
        _elections(leaders) if system.elects else None,
        list(availability.new_leader.values()) if availability else [],
        list(availability.recovery.values()) if availability else [],
        played.events,
        staleness,
        detection,
        takeover,
        replication(recorder.witnesses, recorder.properties)
        if isinstance(recorder.properties, QuorumProperties) and not recorder.broken_off
        else None,
        doubts,
    )


def _relative(violation: dict[str, Any], epoch: Nanoseconds) -> dict[str, Any]:
    return {**violation, "events": [{**event, "t": event["t"] - epoch} for event in violation["events"]]}


def _history(recorder: OnlineRecorder, epoch: Nanoseconds) -> History:
    def relative(events: list[Event]) -> list[Event]:
        return [msgspec.structs.replace(event, time=event.time - epoch) for event in events]

    events = merge(relative(events) for _, events in sorted(recorder.histories.items()))
    return History("history", events, list(range(1, len(events) + 1)))


def _lost(checks: list[Check]) -> int:
    return sum(check.name == "acknowledged_writes" and check.valid is False for check in checks)


def _elections(leaders: list[Leader]) -> int:
    return sum(leader.start > 0 for leader in leaders)
